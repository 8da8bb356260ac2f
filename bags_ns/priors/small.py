"""The prior that ships with the package: the network of `view_unet`, loaded and ready to judge novel views.

Cameras are in the frame of `base`: only azimuths relative to the first reference matter to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.priors.base import NoisePredictor, PriorCamera
from bags_ns.priors.diffusion import cosine_alpha_bars, guide, noise_from_v
from bags_ns.priors.placement import choose_device, has_bfloat16
from bags_ns.priors.rays import view_rays
from bags_ns.priors.small_weights import load_network
from bags_ns.priors.view_unet import ReferenceCache, ViewUNet

WEIGHTS = "weights/small.safetensors"


@dataclass(frozen=True)
class SmallConditioning:
    """What the prior knows of a frame: its references, seen by the network, and where the first one was taken from."""

    references: ReferenceCache
    first_camera: Float[Tensor, "1 4 4"]


class SmallPrior:
    """Judges novel views of an animal from one to three pictures of it, on a device of its own.

    Args:
        weights: a file that `bags train-prior` made; the bundled one unless told.
        device: where the network sits; CUDA if there is one.
        dtype: its precision; bfloat16 where the hardware computes in it.
        guidance: strength of classifier-free guidance, unless a call gives its own; one-step guesses are nearest to the truth
            with 1, views that are sampled in many steps with 2.
    """

    num_views = 4
    """Views that it judges at once; any number from 1 to 4 works."""
    camera = PriorCamera(fov_deg=40.0, radius_range=(1.6, 2.7), elevation_range_deg=(-10.0, 40.0))
    limit = 1.0

    def __init__(
        self,
        weights: Path | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        guidance: float = 1.0,
    ) -> None:
        self.device = choose_device(device)
        self.guidance = guidance
        self.dtype = dtype or (torch.bfloat16 if has_bfloat16(self.device) else torch.float32)
        network = _load_bundled(self.device) if weights is None else load_network(weights, self.device)[0]
        self.network = network.to(self.dtype).requires_grad_(False)
        self.image_size = network.config.image_size
        self.alphas_cumprod = cosine_alpha_bars(self.device)

    @torch.no_grad()
    def condition(
        self, images: Float[Tensor, "R H W 3"], camera_to_worlds: Float[Tensor, "R 4 4"], fovs_deg: Float[Tensor, " R"]
    ) -> SmallConditioning:
        """Conditioning on pictures from any cameras; references after the first may show other times."""
        pictures = F.interpolate(images.to(self.device).permute(0, 3, 1, 2), [self.image_size] * 2, mode="area")
        cameras = camera_to_worlds.to(self.device)
        rays = view_rays(cameras[None], fovs_deg.to(self.device)[None], self.network.config.grid)
        return SmallConditioning(self.network.encode_references(2 * pictures[None] - 1, rays), cameras[:1])

    def encode(self, renders: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V 3 size size"]:
        """Pixels in [-1, 1]."""
        pictures = F.interpolate(renders.permute(0, 3, 1, 2), [self.image_size] * 2, mode="area")
        return (2 * pictures - 1).to(self.device)

    def decode(self, x: Float[Tensor, "V 3 size size"]) -> Float[Tensor, "V size size 3"]:
        """Pixels in [0, 1]."""
        return (0.5 * x.detach() + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    def noise_predictor(
        self, camera_to_worlds: Float[Tensor, "V 4 4"], conditioning: SmallConditioning
    ) -> NoisePredictor:
        """The guided network for V views with the prior's own field of view, `num_views` of them together."""

        def predict(x_t: Tensor, t: int) -> Tensor:
            groups = zip(x_t.split(self.num_views), camera_to_worlds.split(self.num_views), strict=True)
            return torch.cat([self.predict_noise(noisy, t, cameras, conditioning) for noisy, cameras in groups])

        return predict

    def rays_of(
        self, camera_to_worlds: Float[Tensor, "V 4 4"], conditioning: SmallConditioning
    ) -> Float[Tensor, "1 V patches 6"]:
        """Rays of views with the prior's own field of view."""
        cameras = camera_to_worlds.to(self.device)[None]
        fovs = torch.full(cameras.shape[:2], self.camera.fov_deg, device=self.device)
        return view_rays(cameras, fovs, self.network.config.grid, conditioning.first_camera)

    @torch.no_grad()
    def predict_v(
        self,
        x_t: Float[Tensor, "V 3 size size"],
        timestep: Int[Tensor, ""] | int,
        camera_to_worlds: Float[Tensor, "V 4 4"],
        conditioning: SmallConditioning,
        guidance: float | None = None,
    ) -> Float[Tensor, "V 3 size size"]:
        """v of noisy views of one timestep, judged jointly; with and without references in one batch."""
        guidance = self.guidance if guidance is None else guidance
        rays = self.rays_of(camera_to_worlds, conditioning)
        batch = 1 if guidance == 1 else 2
        timesteps = torch.as_tensor(timestep, device=self.device).expand(batch)
        noisy = x_t.to(self.device)[None].expand(batch, -1, -1, -1, -1)
        v = self.network(noisy, timesteps, rays.expand(batch, -1, -1, -1), conditioning.references)
        return v[0] if guidance == 1 else guide(v[0], v[1], guidance)

    def predict_noise(
        self,
        x_t: Float[Tensor, "V 3 size size"],
        timestep: Int[Tensor, ""] | int,
        camera_to_worlds: Float[Tensor, "V 4 4"],
        conditioning: SmallConditioning,
        guidance: float | None = None,
    ) -> Float[Tensor, "V 3 size size"]:
        """The noise in noisy views of one timestep."""
        v = self.predict_v(x_t, timestep, camera_to_worlds, conditioning, guidance)
        alpha_bar = self.alphas_cumprod[torch.as_tensor(timestep, device=self.device).expand(len(v))]
        return noise_from_v(x_t.to(v), v, alpha_bar)


def _load_bundled(device: torch.device) -> ViewUNet:
    """The network with the weights inside the package."""
    resource = files("bags_ns.priors").joinpath(WEIGHTS)
    if not resource.is_file():
        raise FileNotFoundError(f"{resource} is missing: make it with `bags train-prior`, or reinstall the package")
    with as_file(resource) as path:
        return load_network(path, device)[0]
