"""Files of the small prior's weights: half-precision safetensors that say how they were made, written in one move."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bags_ns.files import whole_file
from bags_ns.priors.loading import load_strictly
from bags_ns.priors.small_config import ViewUNetConfig
from bags_ns.priors.view_unet import ViewUNet


def save_network(path: Path, network: ViewUNet, facts: Mapping[str, str | int | float]) -> None:
    """Writes the weights in half precision with the network's size and `facts`; a reader never sees half a file."""
    weights = {
        name: value.detach().to("cpu", torch.float16).contiguous() for name, value in network.state_dict().items()
    }
    metadata = {"network": json.dumps(asdict(network.config)), "facts": json.dumps(dict(facts))}
    with whole_file(path) as unfinished:
        save_file(weights, unfinished, metadata=metadata)


def load_network(path: Path, device: torch.device | None = None) -> tuple[ViewUNet, dict[str, str | int | float]]:
    """The network (float32, evaluation mode, on `device`) and the facts in its file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give weights that `bags train-prior` made")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights: dict[str, Tensor] = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file; make one with `bags train-prior`") from error
    if "network" not in metadata:
        raise ValueError(f"{path} holds no weights of the small prior; make some with `bags train-prior`")
    settings = json.loads(metadata["network"])
    if settings.keys() != {item.name for item in fields(ViewUNetConfig)}:
        raise ValueError(f"{path} was made by another version, for another network; make one with `bags train-prior`")
    network = ViewUNet(ViewUNetConfig(**settings | {"widths": tuple(settings["widths"])}))
    load_strictly(network, weights, str(path))
    return network.to(device).eval(), json.loads(metadata.get("facts", "{}"))
