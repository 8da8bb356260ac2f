"""ImageDream (arXiv 2312.02201) as a prior: the noise in four views at once, given an image and a text prompt.

Our own `MultiViewUNet` with plain diffusers and transformers encoders, read from the published folder. Score distillation
is not done here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from bags_ns.cameras import orbit_camera, orbit_coordinates
from bags_ns.priors.base import NoisePredictor, PriorCamera
from bags_ns.priors.diffusion import guide
from bags_ns.priors.latent_diffusion import LatentDiffusion, OpenPipeline, resized
from bags_ns.priors.loading import (
    DIFFUSERS_MODEL,
    FEATURE_EXTRACTOR,
    SCHEDULER,
    TOKENIZER,
    TRANSFORMERS_MODEL,
    PipelineLayout,
    frozen,
    load_strictly,
    read_config,
    read_weights,
)
from bags_ns.priors.multiview_unet import MultiViewUNet
from bags_ns.priors.reference import taken_by

LAYOUT = PipelineLayout(
    name="ImageDream",
    example="ashawkey/imagedream-ipmv-diffusers",
    parts={
        "unet": DIFFUSERS_MODEL,
        "vae": DIFFUSERS_MODEL,
        "text_encoder": TRANSFORMERS_MODEL,
        "tokenizer": TOKENIZER,
        "image_encoder": TRANSFORMERS_MODEL,
        "feature_extractor": FEATURE_EXTRACTOR,
        "scheduler": SCHEDULER,
    },
)


def imagedream_cameras(
    azimuth: Float[Tensor, "*batch"], elevation: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world matrices as ImageDream was trained on: OpenGL axes, z up, on the unit sphere, looking at its centre.

    Args:
        azimuth: Radians from the object's front (the reference image's azimuth), counter-clockwise from above. Zero looks
            from -y, where `cameras.orbit_camera` looks from +x.
        elevation: Radians above the horizon.
    """
    return orbit_camera(azimuth - 0.5 * math.pi, elevation, torch.ones_like(azimuth))


@dataclass(frozen=True)
class ImageDreamConditioning:
    """What the networks keep of reference image and prompt (B is 1, or the number of samples)."""

    text: Float[Tensor, "B L D"]
    """Tokens of the prompt."""
    negative_text: Float[Tensor, "B L D"]
    """Tokens of the unconditional half's prompt."""
    image_tokens: Float[Tensor, "B T I"]
    """Second-last hidden state of the CLIP image encoder."""
    image_latents: Float[Tensor, "B 4 h w"]
    """Scaled latents of the image."""

    def expand(self, samples: int) -> ImageDreamConditioning:
        """The same for `samples` samples."""
        tensors = (self.text, self.negative_text, self.image_tokens, self.image_latents)
        return ImageDreamConditioning(*(tensor.expand(samples, *tensor.shape[1:]) for tensor in tensors))


@dataclass(frozen=True)
class ImageDreamReference:
    """A reference image with its prompt, and the side from which it was taken."""

    conditioning: ImageDreamConditioning
    azimuth: Float[Tensor, ""]
    """In radians; it is the front of ImageDream's own world."""


class ImageDreamPrior(LatentDiffusion):
    """ImageDream's multi-view UNet with all that feeds it.

    Args:
        unet: The network, called as `MultiViewUNet`.
        text_encoder: transformers `CLIPTextModel`.
        image_encoder: transformers `CLIPVisionModel`.
        tokenizer: transformers `CLIPTokenizer`.
        prompt: What the animal is, for `condition`.
        negative_prompt: What pictures of it should not be.
        shared: What `LatentDiffusion` takes.
    """

    num_views = 4
    # Its published score distillation: a field of view of 45 to 50 degrees, from 0.6 to 0.75 / tan(fov / 2) away, level with
    # the object; its authors widen that to elevations of 0 to 30 degrees.
    camera = PriorCamera(
        fov_deg=47.5, radius_range=(1.36, 1.70), elevation_range_deg=(0.0, 30.0), views_per_ring=num_views
    )

    def __init__(
        self,
        unet: nn.Module,
        text_encoder: Any,
        image_encoder: Any,
        tokenizer: Any,
        prompt: str = "",
        negative_prompt: str = "",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.unet = unet
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.negative_prompt = negative_prompt

    @classmethod
    def from_pretrained(
        cls,
        source: str = LAYOUT.example,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        guidance: float = 5.0,
        prompt: str = "",
        negative_prompt: str = "",
    ) -> ImageDreamPrior:
        """Reads a folder, or a hub id (from the cache if it is there), in the layout of ashawkey/imagedream-ipmv-diffusers.

        Raises:
            ImportError, FileNotFoundError, ConnectionError, ValueError: a package, a file, the network or a fitting shape
                is missing.
        """
        pipeline = OpenPipeline.find(source, LAYOUT, device, dtype)
        folder, transformers = pipeline.folder, pipeline.transformers
        unet = _load_unet(folder / "unet")
        return cls(
            frozen(unet.to(pipeline.dtype), pipeline.device),
            pipeline.read(transformers.CLIPTextModel, "text_encoder"),
            pipeline.read(transformers.CLIPVisionModel, "image_encoder"),
            transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            prompt,
            negative_prompt,
            guidance=guidance,
            **pipeline.shared_parts(latent_size=unet.config.image_size),
        )

    @torch.no_grad()
    def condition(
        self, images: Float[Tensor, "R H W 3"], camera_to_worlds: Float[Tensor, "R 4 4"], fovs_deg: Float[Tensor, " R"]
    ) -> ImageDreamReference:
        """Conditioning on the first picture, as its own camera would have taken it, and on the prompts."""
        azimuth, _, distance = orbit_coordinates(camera_to_worlds[0])
        picture, _ = taken_by(images[0], float(fovs_deg[0]), float(distance), self.camera)
        conditioning = self.encode_image(resized(picture, self.image_size), self.prompt, self.negative_prompt)
        return ImageDreamReference(conditioning, azimuth.to(self.device))

    def noise_predictor(
        self, camera_to_worlds: Float[Tensor, "V 4 4"], conditioning: ImageDreamReference
    ) -> NoisePredictor:
        """The guided network for V views, four of a ring after four of another."""
        azimuth, elevation, _ = orbit_coordinates(camera_to_worlds.to(self.device))
        cameras = imagedream_cameras(azimuth - conditioning.azimuth, elevation).unflatten(0, (-1, self.num_views))

        def predict(x_t: Tensor, t: int) -> Tensor:
            latents = x_t.unflatten(0, (-1, self.num_views))
            timesteps = torch.full((len(latents),), t, device=self.device)
            noise = self.predict_noise(latents, timesteps, cameras, conditioning.conditioning, self.guidance)
            return noise.flatten(0, 1)

        return predict

    @torch.no_grad()
    def encode_text(self, prompt: str) -> Float[Tensor, "1 L D"]:
        """Last hidden state of the text encoder, padded to its full length."""
        length = self.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer([prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state

    @torch.no_grad()
    def encode_image(
        self, image: Float[Tensor, "B 3 H W"], prompt: str = "", negative_prompt: str = ""
    ) -> ImageDreamConditioning:
        """Conditioning of reference images in [0, 1] (square, 256 px, the object centred) and a prompt for all of them."""
        image = image.to(self.device)
        pixels = self.clip_pixels(image).to(self.dtype)
        hidden_states = self.image_encoder(pixels, output_hidden_states=True).hidden_states
        return ImageDreamConditioning(
            text=self.encode_text(prompt).expand(len(image), -1, -1),
            negative_text=self.encode_text(negative_prompt).expand(len(image), -1, -1),
            image_tokens=hidden_states[-2],
            image_latents=self.encode_latents(image).to(self.dtype),
        )

    @torch.no_grad()
    def predict_noise(
        self,
        latents: Float[Tensor, "B F 4 h w"],
        timesteps: Num[Tensor, " B"],
        cameras: Float[Tensor, "B F 4 4"],
        conditioning: ImageDreamConditioning,
        guidance: float,
    ) -> Float[Tensor, "B F 4 h w"]:
        """The guided noise in F views of each object, on the device and in the type of `latents`; one UNet call does both halves.

        Args:
            latents: Scaled noisy latents of the views (F = 4 in training; the image's own frame is added here).
            timesteps: Noise level of each sample, the same for its views.
            cameras: Camera-to-world matrices as `imagedream_cameras` makes them.
            conditioning: Of one reference for all samples, or of one each.
            guidance: Weight of the condition; 1 is no guidance, 0 ignores image and prompt.
        """
        samples, num_frames = len(latents), latents.shape[1] + 1
        cond = conditioning.expand(samples)
        frame_latents = _with_image_frame(latents.to(self.device, self.dtype))
        frame_cameras = _with_image_frame(cameras.to(self.device, self.dtype).flatten(2))
        noise = self.unet(
            frame_latents.repeat(2, 1, 1, 1, 1).flatten(0, 1),
            timesteps.to(self.device).repeat(2).repeat_interleave(num_frames),
            torch.cat([cond.negative_text, cond.text]).repeat_interleave(num_frames, dim=0),
            frame_cameras.repeat(2, 1, 1).flatten(0, 1),
            num_frames,
            ip=_zeros_first(cond.image_tokens).repeat_interleave(num_frames, dim=0),
            ip_img=_zeros_first(cond.image_latents),
        )
        views = noise.unflatten(0, (2, samples, num_frames))[:, :, :-1].to(latents)
        return guide(views[1], views[0], guidance)


def _with_image_frame(frames: Float[Tensor, "B F ..."]) -> Float[Tensor, "B F_plus_1 ..."]:
    """Adds a last frame of zeros: the image's camera, and latents that the image will replace."""
    return torch.cat([frames, torch.zeros_like(frames[:, :1])], dim=1)


def _zeros_first(condition: Float[Tensor, "B ..."]) -> Float[Tensor, "two_B ..."]:
    """The unconditional half, zeros, before the conditional one."""
    return torch.cat([torch.zeros_like(condition), condition])


def _load_unet(folder: Path) -> MultiViewUNet:
    """The network of `unet/`; made without weights first, for the published one has almost a billion."""
    with torch.device("meta"):
        unet = MultiViewUNet(**read_config(folder / "config.json"))
    if not unet.config.takes_image:
        raise ValueError(f"{folder} is not conditioned on an image (ip_dim = 0); use the layout of {LAYOUT.example}")
    load_strictly(unet, read_weights(folder), str(folder))
    return unet
