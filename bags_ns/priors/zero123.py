"""The networks of Zero123-XL (arXiv 2303.11328): the noise in a novel view, given one image and the camera's change.

Plain diffusers and transformers classes and one linear layer, read from the published folder. Score distillation is not
done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from bags_ns.priors.latent_diffusion import ClipPixels, LatentDiffusion, classifier_free_guidance, load_alphas_cumprod
from bags_ns.priors.loading import (
    DIFFUSERS_MODEL,
    DIFFUSERS_WEIGHTS,
    FEATURE_EXTRACTOR,
    SCHEDULER,
    TRANSFORMERS_MODEL,
    PipelineLayout,
    find_pipeline,
    frozen,
    import_package,
    load_strictly,
    read_weights,
)

LAYOUT = PipelineLayout(
    name="Zero123",
    example="ashawkey/zero123-xl-diffusers",
    parts={
        "unet": DIFFUSERS_MODEL,
        "vae": DIFFUSERS_MODEL,
        "image_encoder": TRANSFORMERS_MODEL,
        "clip_camera_projection": (DIFFUSERS_WEIGHTS,),
        "feature_extractor": FEATURE_EXTRACTOR,
        "scheduler": SCHEDULER,
    },
)

CAMERA_DIM = 4
"""Numbers that describe the change of camera, see `camera_change`."""


def camera_change(
    d_polar: Float[Tensor, "*batch"], d_azimuth: Float[Tensor, "*batch"], d_radius: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 4"]:
    """What Zero123 is told of the camera: (d_polar, sin d_azimuth, cos d_azimuth, d_radius), target minus reference.

    Args:
        d_polar: Change of the angle from the vertical axis in radians; *minus* the change of elevation.
        d_azimuth: Change of azimuth in radians, counter-clockwise seen from above.
        d_radius: Change of the distance to the object, in units in which the reference is about 1.5 to 2.2 away.
    """
    return torch.stack([d_polar, d_azimuth.sin(), d_azimuth.cos(), d_radius], dim=-1)


@dataclass(frozen=True)
class Zero123Conditioning:
    """What the networks keep of the reference image (B is 1, or the number of views)."""

    embedding: Float[Tensor, "B D"]
    """CLIP image embedding, not normalized."""
    latents: Float[Tensor, "B 4 h w"]
    """Unscaled latents of the image."""


class Zero123Networks(LatentDiffusion):
    """Zero123's UNet with all that feeds it.

    Args:
        unet: diffusers `UNet2DConditionModel` with 8 input channels.
        vae: diffusers `AutoencoderKL`.
        image_encoder: transformers `CLIPVisionModelWithProjection`.
        camera_projection: Linear from (image embedding, camera change) to the token that the UNet attends to.
        clip_pixels: Preprocessing of the image encoder.
        alphas_cumprod: The noise schedule.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        image_encoder: Any,
        camera_projection: nn.Module,
        clip_pixels: ClipPixels,
        alphas_cumprod: Float[Tensor, " steps"],
    ) -> None:
        super().__init__(vae, alphas_cumprod)
        self.unet = unet
        self.image_encoder = image_encoder
        self.camera_projection = camera_projection
        self.clip_pixels = clip_pixels

    @classmethod
    def from_pretrained(
        cls, source: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Zero123Networks:
        """Reads a folder, or a hub id (from the cache if it is there), in the layout of ashawkey/zero123-xl-diffusers."""
        diffusers = import_package("diffusers", LAYOUT.name)
        transformers = import_package("transformers", LAYOUT.name)
        folder = find_pipeline(source, LAYOUT)
        options = {"torch_dtype": dtype, "local_files_only": True}
        vision_class = transformers.CLIPVisionModelWithProjection
        networks = {
            "unet": diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", **options),
            "vae": diffusers.AutoencoderKL.from_pretrained(folder / "vae", **options),
            "image_encoder": vision_class.from_pretrained(folder / "image_encoder", **options),
        }
        token_dim = networks["unet"].config.cross_attention_dim
        embedding_dim = networks["image_encoder"].config.projection_dim
        projection = _load_camera_projection(folder, embedding_dim + CAMERA_DIM, token_dim)
        networks["camera_projection"] = projection.to(dtype)
        return cls(
            **{name: frozen(network, device) for name, network in networks.items()},
            clip_pixels=ClipPixels.load(folder),
            alphas_cumprod=load_alphas_cumprod(folder, LAYOUT.name).to(device),
        )

    @torch.no_grad()
    def encode_image(self, image: Float[Tensor, "B 3 H W"]) -> Zero123Conditioning:
        """Conditioning of reference images in [0, 1]: square, 256 px, the object centred on white."""
        image = image.to(self.device)
        embedding = self.image_encoder(self.clip_pixels(image).to(self.dtype)).image_embeds
        return Zero123Conditioning(embedding, self._latent_mode(image))

    @torch.no_grad()
    def predict_noise(
        self,
        latents: Float[Tensor, "B 4 h w"],
        timesteps: Num[Tensor, " B"],
        cameras: Float[Tensor, "B 4"],
        conditioning: Zero123Conditioning,
        guidance: float,
    ) -> Float[Tensor, "B 4 h w"]:
        """The guided noise in views of the reference object, on the device and in the type of `latents`; one UNet call does both halves.

        Args:
            latents: Scaled noisy latents of the views.
            timesteps: Noise level of each view.
            cameras: Each view's `camera_change` from the reference image.
            conditioning: Of one reference for all views, or of one each.
            guidance: Weight of the condition; 1 is no guidance, 0 ignores the image.
        """
        views = len(latents)
        embedding = conditioning.embedding.expand(views, -1)
        tokens = self.camera_projection(torch.cat([embedding, cameras.to(embedding)], dim=-1))[:, None]
        reference = conditioning.latents.expand(views, -1, -1, -1)
        pairs = torch.cat([latents.to(reference), reference], dim=1)
        unconditional_pairs = torch.cat([latents.to(reference), torch.zeros_like(reference)], dim=1)
        noise = self.unet(
            torch.cat([unconditional_pairs, pairs]),
            timesteps.to(self.device).repeat(2),
            encoder_hidden_states=torch.cat([torch.zeros_like(tokens), tokens]),
        ).sample
        unconditional, conditional = noise.to(latents).chunk(2)
        return classifier_free_guidance(unconditional, conditional, guidance)


def _load_camera_projection(folder: Path, in_features: int, out_features: int) -> nn.Linear:
    """The linear layer of `clip_camera_projection/`, whatever its tensors are called."""
    tensors = read_weights(folder / "clip_camera_projection")
    layer = nn.Linear(in_features, out_features)
    named = {name.rsplit(".")[-1]: tensor for name, tensor in tensors.items()}  # "proj.weight" in the published file
    load_strictly(layer, named, f"{folder}/clip_camera_projection")
    return layer
