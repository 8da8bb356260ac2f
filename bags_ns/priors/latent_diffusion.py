"""What the pretrained latent-diffusion priors share: pixels to latents and CLIP inputs, the noise schedule, guidance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.priors.loading import import_package, read_config


def classifier_free_guidance(
    unconditional: Float[Tensor, "*shape"], conditional: Float[Tensor, "*shape"], guidance: float
) -> Float[Tensor, "*shape"]:
    """unconditional + guidance * (conditional - unconditional), arXiv 2207.12598 with guidance = 1 + w."""
    return unconditional + guidance * (conditional - unconditional)


def load_alphas_cumprod(folder: Path, prior: str) -> Float[Tensor, " steps"]:
    """Share of signal variance left at each step, by `scheduler/` of a pipeline that predicts noise."""
    config = read_config(folder / "scheduler" / "scheduler_config.json")
    if (prediction := config.get("prediction_type", "epsilon")) != "epsilon":
        raise ValueError(
            f"{folder}/scheduler predicts {prediction!r}; the {prior} prior needs a model that predicts epsilon"
        )
    diffusers = import_package("diffusers", prior)
    return diffusers.DDIMScheduler.from_config(config).alphas_cumprod


@dataclass(frozen=True)
class ClipPixels:
    """Resizing and normalization that a CLIP image encoder was trained with, as a differentiable function of tensors."""

    size: int
    """Height and width of the encoder's input."""
    mean: tuple[float, float, float]
    """Mean of its RGB input."""
    std: tuple[float, float, float]
    """Standard deviation of its RGB input."""

    @staticmethod
    def load(folder: Path) -> ClipPixels:
        """Reads `feature_extractor/` of a pipeline; sizes are written as a number or, since 2022, as a dict."""
        config = read_config(folder / "feature_extractor" / "preprocessor_config.json")
        size = config.get("crop_size", 224)
        return ClipPixels(
            size["height"] if isinstance(size, dict) else size, tuple(config["image_mean"]), tuple(config["image_std"])
        )

    def __call__(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 size size"]:
        """Encoder input of square images in [0, 1]."""
        if image.shape[2] != image.shape[3]:
            raise ValueError(f"CLIP needs square images, got height {image.shape[2]} and width {image.shape[3]}")
        # Antialiased bicubic is what Pillow does in the published preprocessing; it overshoots, and 8 bits clip that.
        resized = torch.nn.functional.interpolate(image, (self.size, self.size), mode="bicubic", antialias=True).clamp(
            0, 1
        )
        return (resized - image.new_tensor(self.mean)[:, None, None]) / image.new_tensor(self.std)[:, None, None]


class LatentDiffusion:
    """The image autoencoder and the noise schedule of a prior; a plain object, so that no checkpoint contains it.

    Attributes:
        vae: A diffusers `AutoencoderKL`.
        alphas_cumprod: [steps] share of signal variance left at each timestep.
    """

    def __init__(self, vae: Any, alphas_cumprod: Float[Tensor, " steps"]) -> None:
        self.vae = vae
        self.alphas_cumprod = alphas_cumprod

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.vae.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in."""
        return next(self.vae.parameters()).dtype

    def encode_latents(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 4 h w"]:
        """Scaled latents (the mode) of images in [0, 1], differentiable; on the device and in the type of `image`."""
        return (self._latent_mode(image) * self.vae.config.scaling_factor).to(image)

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images in [0, 1] of scaled latents."""
        image = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.device, self.dtype)).sample
        return (0.5 * image + 0.5).clamp(0, 1).to(latents)

    def _latent_mode(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 4 h w"]:
        """Unscaled latents: the most likely ones, so that the same image always has the same."""
        return self.vae.encode((2.0 * image - 1.0).to(self.device, self.dtype)).latent_dist.mode()
