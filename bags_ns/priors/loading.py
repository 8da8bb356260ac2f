"""Finds and reads the published folders of pretrained networks: local ones, cached ones, the Hugging Face hub, in that order.

Nothing here runs code from a download. What a user can cause - a package that is not installed, a folder that lacks a
part, no network - is one line that names the remedy.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Part = tuple[tuple[str, ...], ...]
"""The files that a part of a pipeline needs; of each inner tuple any one will do, the first is preferred."""

DIFFUSERS_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
DIFFUSERS_MODEL: Part = (("config.json",), DIFFUSERS_WEIGHTS)
TRANSFORMERS_MODEL: Part = (("config.json",), ("model.safetensors", "pytorch_model.bin"))
FEATURE_EXTRACTOR: Part = (("preprocessor_config.json",),)
SCHEDULER: Part = (("scheduler_config.json",),)
TOKENIZER: Part = (("vocab.json",), ("merges.txt",), ("tokenizer_config.json",))


@dataclass(frozen=True)
class PipelineLayout:
    """Which files make up a published pipeline."""

    name: str
    """What users call it."""
    example: str
    """A hub id that has this layout."""
    parts: Mapping[str, Part]
    """Folder -> the files in it."""

    def missing_files(self, folder: Path) -> list[str]:
        """The files (the preferred of each choice) that `folder` lacks."""
        return [
            f"{part}/{choice[0]}"
            for part, choices in self.parts.items()
            for choice in choices
            if not any((folder / part / name).is_file() for name in choice)
        ]

    def file_patterns(self, preferred_only: bool) -> list[str]:
        """What to download: configs, and the preferred file of each choice or all of them."""
        last = 1 if preferred_only else None
        return [f"{part}/*.json" for part in self.parts] + [
            f"{part}/{name}" for part, choices in self.parts.items() for choice in choices for name in choice[:last]
        ]


def import_package(name: str, prior: str) -> ModuleType:
    """Imports a package that only some priors need; its absence is an ImportError that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"the {prior} prior needs the package {name}: pip install 'bags-ns[priors]'") from error


def find_pipeline(source: str, layout: PipelineLayout) -> Path:
    """The local folder with a complete pipeline, downloaded only if `source` is a hub id that is not cached.

    Args:
        source: A folder, or a Hugging Face id "owner/name".
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if missing := layout.missing_files(folder):
            raise FileNotFoundError(
                f"{folder} is not a complete {layout.name} pipeline, it lacks {', '.join(missing)}; "
                f"expected the layout of {layout.example}"
            )
        return folder
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise FileNotFoundError(f"no folder {source}: give an existing folder or a hub id such as {layout.example}")
    return _cached_pipeline(source, layout) or _downloaded_pipeline(source, layout)


def _cached_pipeline(hub_id: str, layout: PipelineLayout) -> Path | None:
    hub = import_package("huggingface_hub", layout.name)
    try:
        folder = Path(hub.snapshot_download(hub_id, local_files_only=True))
    except hub.errors.LocalEntryNotFoundError:
        return None
    return None if layout.missing_files(folder) else folder


def _downloaded_pipeline(hub_id: str, layout: PipelineLayout) -> Path:
    """Downloads the files of the layout; those in older formats only if the preferred ones are not all there."""
    hub = import_package("huggingface_hub", layout.name)
    missing: list[str] = []
    for preferred_only in (True, False):
        try:
            folder = Path(hub.snapshot_download(hub_id, allow_patterns=layout.file_patterns(preferred_only)))
        except hub.errors.RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"{hub_id} is neither a folder nor on the Hugging Face hub; {layout.example} would be"
            ) from error
        except Exception as error:  # the hub's HTTP library has changed before, and so have its errors
            raise ConnectionError(
                f"cannot download {hub_id} ({type(error).__name__}): connect to the network once, "
                f"or give a local folder with the {layout.name} pipeline"
            ) from error
        missing = layout.missing_files(folder)
        if not missing:
            return folder
    raise FileNotFoundError(
        f"{hub_id} is not a complete {layout.name} pipeline or its download was cut short, it lacks "
        f"{', '.join(missing)}; connect to the network, or use {layout.example}"
    )


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a JSON config, without those (`_class_name`, ...) in which diffusers keeps its own records."""
    return {key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("_")}


def read_weights(folder: Path, names: tuple[str, ...] = DIFFUSERS_WEIGHTS) -> dict[str, Tensor]:
    """The tensors of the first of `names` that is in `folder`, on the CPU; pickles are read without running code."""
    path = next(folder / name for name in names if (folder / name).is_file())
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(str(path))
    return torch.load(path, map_location="cpu", weights_only=True)


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Gives `module` (which may be on the meta device) exactly these tensors; any mismatch is a one-line ValueError."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    wrong = sorted(
        name
        for name in expected.keys() | weights.keys()
        if name not in weights or expected.get(name) != weights[name].shape
    )
    if wrong:
        raise ValueError(
            f"{what} does not fit its config: {len(wrong)} tensors are missing, unknown or of another shape, first {wrong[0]}"
        )
    module.load_state_dict(weights, strict=True, assign=True)


def frozen(module: nn.Module, device: torch.device | str) -> Any:
    """`module` in evaluation mode and without gradients of its own, moved to `device`."""
    return module.requires_grad_(False).eval().to(device)
