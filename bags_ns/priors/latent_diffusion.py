"""What the pretrained latent-diffusion priors share: reading their folders, pixels to latents and back, CLIP inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.priors.loading import PipelineLayout, find_pipeline, frozen, import_package, read_config
from bags_ns.priors.placement import choose_device, has_bfloat16
from bags_ns.progress import say


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


@dataclass(frozen=True)
class OpenPipeline:
    """A published folder whose parts are being read, each frozen, onto one device in one type."""

    layout: PipelineLayout
    folder: Path
    device: torch.device
    dtype: torch.dtype
    diffusers: ModuleType
    transformers: ModuleType

    @staticmethod
    def find(
        source: str, layout: PipelineLayout, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> OpenPipeline:
        """A folder, or a hub id (from the cache if it is there). Half precision on CUDA, float32 on the CPU unless told."""
        diffusers = import_package("diffusers", layout.name)
        transformers = import_package("transformers", layout.name)
        device = choose_device(device)
        if dtype is None:
            # float16 would need its gradients scaled: those of a latent are below its smallest numbers.
            dtype = torch.bfloat16 if device.type == "cuda" and has_bfloat16(device) else torch.float32
        folder = find_pipeline(source, layout)
        say(f"Loading {layout.name} from {folder} onto {device}.")
        return OpenPipeline(layout, folder, device, dtype, diffusers, transformers)

    def read(self, model_class: Any, part: str) -> Any:
        """The network of `part`, a model class of diffusers or transformers."""
        network = model_class.from_pretrained(self.folder / part, torch_dtype=self.dtype, local_files_only=True)
        return frozen(network, self.device)

    def shared_parts(self, latent_size: int) -> dict[str, Any]:
        """Autoencoder, noise schedule, CLIP preprocessing and size of the pictures: what every such prior is made with."""
        vae = self.read(self.diffusers.AutoencoderKL, "vae")
        return {
            "vae": vae,
            "clip_pixels": ClipPixels.load(self.folder),
            "alphas_cumprod": load_alphas_cumprod(self.folder, self.layout.name).to(self.device),
            "image_size": latent_size * 2 ** (len(vae.config.block_out_channels) - 1),
        }


def resized(pictures: Float[Tensor, "*views H W 3"], size: int) -> Float[Tensor, "B 3 size size"]:
    """Square pictures as networks take them, antialiased."""
    channels_first = pictures.reshape(-1, *pictures.shape[-3:]).permute(0, 3, 1, 2)
    if channels_first.shape[-1] == size:
        return channels_first
    return torch.nn.functional.interpolate(channels_first, [size] * 2, mode="bilinear", antialias=True)


class LatentDiffusion:
    """A prior that works on an autoencoder's latents; a plain object, so that no checkpoint contains it.

    Args:
        vae: diffusers `AutoencoderKL`.
        clip_pixels: preprocessing of the image encoder.
        alphas_cumprod: the noise schedule.
        image_size: side of its pictures, in pixels.
        guidance: strength of classifier-free guidance in `noise_predictor`.
    """

    limit = math.inf

    def __init__(
        self,
        vae: Any,
        clip_pixels: ClipPixels,
        alphas_cumprod: Float[Tensor, " steps"],
        image_size: int = 256,
        guidance: float = 5.0,
    ) -> None:
        self.vae = vae
        self.clip_pixels = clip_pixels
        self.alphas_cumprod = alphas_cumprod
        self.image_size = image_size
        self.guidance = guidance

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.vae.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in."""
        return next(self.vae.parameters()).dtype

    def encode(self, renders: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V 4 h w"]:
        """Scaled latents of renders, on the prior's device."""
        return self.encode_latents(resized(renders.to(self.device), self.image_size))

    def decode(self, x: Float[Tensor, "V 4 h w"]) -> Float[Tensor, "V S S 3"]:
        """Pictures in [0, 1] of scaled latents."""
        return self.decode_latents(x).permute(0, 2, 3, 1)

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
