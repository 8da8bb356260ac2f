"""Measures that a trained network makes: LPIPS, CLIP similarity and KID. Each only where its weights lie on this machine.

Nothing is downloaded and nothing stands in for a network that is not there: such a measure is absent.
CLIP and KID are taken as BAGS reports them (arXiv 2403.11427): cosine of ViT-B/32 embeddings of render and frame, and
torchmetrics' KID over subsets of 20.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

CLIP_NAME = "openai/clip-vit-base-patch32"
KID_SUBSET, KID_SUBSETS = 20, 100
"""Pictures of a subset, and how many subsets are drawn."""

LpipsNet = Literal["alex", "vgg", "squeeze"]


def cached_weights(url: str) -> Path:
    """Where torch keeps the file of a URL that it has downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


@dataclass(eq=False)
class Perceptual:
    """The networks that are there. A picture is a pair of colours in [0, 1] on white, [H W 3]: render and frame."""

    lpips: Any = None
    clip: Any = None
    inception: Any = None
    missing: list[str] = field(default_factory=list)
    """One line for each measure that is absent, with what it lacks."""

    @torch.no_grad()
    def of_picture(self, rgb: Float[Tensor, "H W 3"], wanted: Float[Tensor, "H W 3"]) -> dict[str, float]:
        """lpips and clip of one picture, as far as they can be had."""
        pair = torch.stack([rgb, wanted]).permute(0, 3, 1, 2).clamp(0, 1)
        values = {}
        if self.lpips is not None:
            values["lpips"] = float(self.lpips.to(pair.device)(pair[:1], pair[1:]))
        if self.clip is not None:
            embedded = torch.nn.functional.normalize(self.clip(pair), dim=-1)
            values["clip"] = float((embedded[0] * embedded[1]).sum())
        return values

    @torch.no_grad()
    def features(self, rgb: Float[Tensor, "H W 3"], wanted: Float[Tensor, "H W 3"]) -> Float[Tensor, "2 F"] | None:
        """Inception features of render and frame, for `kid`; None where the network is not there."""
        if self.inception is None:
            return None
        pair = (torch.stack([rgb, wanted]).permute(0, 3, 1, 2).clamp(0, 1) * 255).byte()
        return self.inception.to(pair.device)(pair).reshape(2, -1).double().cpu()


def kid(features: list[Float[Tensor, "2 F"]]) -> dict[str, float]:
    """Kernel inception distance of renders to frames, as a mean over random subsets; absent for too few pictures."""
    from torchmetrics.image.kid import poly_mmd

    if len(features) < KID_SUBSET:
        return {}
    renders, frames = torch.stack(features).unbind(dim=1)
    generator = torch.Generator().manual_seed(0)

    def subset(of: Tensor) -> Tensor:
        return of[torch.randperm(len(of), generator=generator)[:KID_SUBSET]]

    distances = [poly_mmd(subset(frames), subset(renders)) for _ in range(KID_SUBSETS)]
    return {"kid": float(torch.stack(distances).mean())}


def load_perceptual(clip_name: str = CLIP_NAME, lpips_net: LpipsNet = "alex") -> Perceptual:
    """Loads every network whose weights are in the caches of torch and Hugging Face."""
    found, missing = {}, []
    for name, load in (
        ("lpips", lambda: _load_lpips(lpips_net)),
        ("clip", lambda: _load_clip(clip_name)),
        ("inception", _load_inception),
    ):
        try:
            found[name] = load()
        except (OSError, ImportError) as error:
            reason = str(error).split("\n")[0]
            missing.append(f"{'kid' if name == 'inception' else name} is left out: {reason}")
    return Perceptual(**found, missing=missing)


def _require(path: Path, url: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (from {url})")


def _load_lpips(net: LpipsNet) -> Any:
    """torchmetrics brings LPIPS' own weights; the network below them is torchvision's."""
    import torchvision.models as models
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    weights = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    url = weights[net].IMAGENET1K_V1.url
    _require(cached_weights(url), url)
    return LearnedPerceptualImagePatchSimilarity(net_type=net, normalize=True)


def _load_clip(name: str) -> Any:
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    try:
        model: Any = CLIPVisionModelWithProjection.from_pretrained(name, local_files_only=True)
        processor: Any = CLIPImageProcessor.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{name} is neither a folder nor in Hugging Face's cache") from error
    model.eval()

    def embed(pictures: Float[Tensor, "P 3 H W"]) -> Float[Tensor, "P E"]:
        pixels = processor(images=list(pictures.cpu()), do_rescale=False, return_tensors="pt")["pixel_values"]
        return model.to(pictures.device)(pixels.to(pictures.device)).image_embeds

    return embed


def _load_inception() -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torchmetrics.image.fid import NoTrainInceptionV3

    _require(cached_weights(URL_INCEPTION_V3), URL_INCEPTION_V3)
    return NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
