"""Zero123-XL (arXiv 2303.11328) as a prior: the noise in a novel view, given one image and the camera's change.

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

from bags_ns.cameras import orbit_coordinates
from bags_ns.priors.base import NoisePredictor, PriorCamera
from bags_ns.priors.diffusion import guide
from bags_ns.priors.latent_diffusion import LatentDiffusion, OpenPipeline, resized
from bags_ns.priors.loading import (
    DIFFUSERS_MODEL,
    DIFFUSERS_WEIGHTS,
    FEATURE_EXTRACTOR,
    SCHEDULER,
    TRANSFORMERS_MODEL,
    PipelineLayout,
    frozen,
    load_strictly,
    read_weights,
)
from bags_ns.priors.reference import taken_by

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


@dataclass(frozen=True)
class Zero123Reference:
    """A reference image and where it was taken from."""

    conditioning: Zero123Conditioning
    orbit: Float[Tensor, " 3"]
    """Azimuth, elevation (radians) and radius."""


class Zero123Prior(LatentDiffusion):
    """Zero123's UNet with all that feeds it; each view is judged on its own.

    Args:
        unet: diffusers `UNet2DConditionModel` with 8 input channels.
        image_encoder: transformers `CLIPVisionModelWithProjection`.
        camera_projection: Linear from (image embedding, camera change) to the token that the UNet attends to.
        shared: what `LatentDiffusion` takes.
    """

    # Its training pictures (the published Objaverse renders): 35 mm lens on a 32 mm sensor, objects of longest side 1, any
    # elevation. An animal on its ground is seldom seen from below.
    camera = PriorCamera(fov_deg=49.13, radius_range=(1.5, 2.2), elevation_range_deg=(-20.0, 45.0))

    def __init__(self, unet: Any, image_encoder: Any, camera_projection: nn.Module, **shared: Any) -> None:
        super().__init__(**shared)
        self.unet = unet
        self.image_encoder = image_encoder
        self.camera_projection = camera_projection

    @classmethod
    def from_pretrained(
        cls,
        source: str = LAYOUT.example,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        guidance: float = 5.0,
    ) -> Zero123Prior:
        """Reads a folder, or a hub id (from the cache if it is there), in the layout of ashawkey/zero123-xl-diffusers.

        Raises:
            ImportError, FileNotFoundError, ConnectionError, ValueError: a package, a file, the network or a fitting shape
                is missing.
        """
        pipeline = OpenPipeline.find(source, LAYOUT, device, dtype)
        unet = pipeline.read(pipeline.diffusers.UNet2DConditionModel, "unet")
        image_encoder = pipeline.read(pipeline.transformers.CLIPVisionModelWithProjection, "image_encoder")
        projection = _load_camera_projection(
            pipeline.folder, image_encoder.config.projection_dim + CAMERA_DIM, unet.config.cross_attention_dim
        )
        return cls(
            unet,
            image_encoder,
            frozen(projection.to(pipeline.dtype), pipeline.device),
            guidance=guidance,
            **pipeline.shared_parts(latent_size=unet.config.sample_size),
        )

    @torch.no_grad()
    def condition(
        self, images: Float[Tensor, "R H W 3"], camera_to_worlds: Float[Tensor, "R 4 4"], fovs_deg: Float[Tensor, " R"]
    ) -> Zero123Reference:
        """Conditioning on the first picture, as its own camera would have taken it."""
        azimuth, elevation, distance = orbit_coordinates(camera_to_worlds[0])
        picture, radius = taken_by(images[0], float(fovs_deg[0]), float(distance), self.camera)
        orbit = torch.stack([azimuth, elevation, torch.full_like(azimuth, radius)]).to(self.device)
        return Zero123Reference(self.encode_image(resized(picture, self.image_size)), orbit)

    def noise_predictor(
        self, camera_to_worlds: Float[Tensor, "V 4 4"], conditioning: Zero123Reference
    ) -> NoisePredictor:
        """The guided network for V views."""
        azimuth, elevation, radius = orbit_coordinates(camera_to_worlds.to(self.device))
        first_azimuth, first_elevation, first_radius = conditioning.orbit
        change = camera_change(first_elevation - elevation, azimuth - first_azimuth, radius - first_radius)

        def predict(x_t: Tensor, t: int) -> Tensor:
            timesteps = torch.full((len(x_t),), t, device=self.device)
            return self.predict_noise(x_t, timesteps, change, conditioning.conditioning, self.guidance)

        return predict

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
        return guide(conditional, unconditional, guidance)


def _load_camera_projection(folder: Path, in_features: int, out_features: int) -> nn.Linear:
    """The linear layer of `clip_camera_projection/`, whatever its tensors are called."""
    tensors = read_weights(folder / "clip_camera_projection")
    layer = nn.Linear(in_features, out_features)
    named = {name.rsplit(".")[-1]: tensor for name, tensor in tensors.items()}  # "proj.weight" in the published file
    load_strictly(layer, named, f"{folder}/clip_camera_projection")
    return layer
