"""The prior that ships with the package: the network of `view_transformer`, loaded and ready to judge novel views.

Pictures are in [-1, 1] on white here, of `image_size` pixels a side. Views and references are described about the posed
animal's centroid, in any one frame whose z is up: only azimuths relative to the first reference matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.cameras import orbit_camera
from bags_ns.priors.base import PriorCamera, RelativeViews
from bags_ns.priors.diffusion import cosine_alpha_bars, guide, noise_from_v
from bags_ns.priors.rays import view_rays
from bags_ns.priors.small_weights import load_network
from bags_ns.priors.view_transformer import ReferenceCache, ViewTransformer

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
    """

    num_views = 4
    """Views that it judges at once; any number from 1 to 4 works."""
    camera = PriorCamera(fov_deg=40.0, radius_range=(1.6, 2.7), elevation_range_deg=(-10.0, 40.0))

    def __init__(
        self, weights: Path | None = None, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or _fast_dtype(self.device)
        network = _load_bundled(self.device) if weights is None else load_network(weights, self.device)[0]
        self.network = network.to(self.dtype).requires_grad_(False)
        self.image_size = network.config.image_size

    @cached_property
    def alpha_bars(self) -> Float[Tensor, " timesteps"]:
        """Share of signal variance at each timestep (float64)."""
        return cosine_alpha_bars(self.device)

    @torch.inference_mode()
    def condition(self, image: Float[Tensor, "H W 3"], camera: RelativeViews) -> SmallConditioning:
        """Conditioning on one picture in [0, 1] on white; `camera`: its one view, in the frame of the views to come."""
        camera_to_worlds = orbit_camera(camera.azimuths, camera.elevations, camera.radii)
        return self.condition_on(image[None], camera_to_worlds, torch.full_like(camera.azimuths, self.camera.fov_deg))

    @torch.inference_mode()
    def condition_on(
        self, images: Float[Tensor, "R H W 3"], camera_to_worlds: Float[Tensor, "R 4 4"], fovs_deg: Float[Tensor, " R"]
    ) -> SmallConditioning:
        """Conditioning on pictures in [0, 1] on white from any cameras (OpenGL, animal's centroid at 0, its length 1).

        The first shows the animal at the time of the views to come; others may show it at other times.
        """
        pictures = F.interpolate(images.to(self.device).permute(0, 3, 1, 2), [self.image_size] * 2, mode="area")
        cameras = camera_to_worlds.to(self.device)
        rays = view_rays(cameras[None], fovs_deg.to(self.device)[None], self.network.config.grid)
        return SmallConditioning(self.network.encode_references(2 * pictures[None] - 1, rays), cameras[:1])

    def rays_of(self, views: RelativeViews, conditioning: SmallConditioning) -> Float[Tensor, "1 V patches 6"]:
        """Rays of views with the prior's own field of view."""
        cameras = orbit_camera(views.azimuths, views.elevations, views.radii).to(self.device)[None]
        fovs = torch.full(cameras.shape[:2], self.camera.fov_deg, device=self.device)
        return view_rays(cameras, fovs, self.network.config.grid, conditioning.first_camera)

    @torch.inference_mode()
    def predict_v(
        self,
        x_t: Float[Tensor, "V 3 size size"],
        timestep: Int[Tensor, ""] | int,
        views: RelativeViews,
        conditioning: SmallConditioning,
        guidance: float = 2.0,
    ) -> Float[Tensor, "V 3 size size"]:
        """v of noisy views of one timestep, judged jointly; with and without references in one batch."""
        rays = self.rays_of(views, conditioning)
        batch = 1 if guidance == 1 else 2
        timesteps = torch.as_tensor(timestep, device=self.device).expand(batch)
        noisy = x_t.to(self.device)[None].expand(batch, -1, -1, -1, -1)
        v = self.network(noisy, timesteps, rays.expand(batch, -1, -1, -1), conditioning.references)
        return v[0] if guidance == 1 else guide(v[0], v[1], guidance)

    def predict_noise(
        self,
        x_t: Float[Tensor, "V 3 size size"],
        timestep: Int[Tensor, ""] | int,
        views: RelativeViews,
        conditioning: SmallConditioning,
        guidance: float = 2.0,
    ) -> Float[Tensor, "V 3 size size"]:
        """The noise in noisy views of one timestep."""
        v = self.predict_v(x_t, timestep, views, conditioning, guidance)
        alpha_bar = self.alpha_bars[torch.as_tensor(timestep, device=self.device).expand(len(v))]
        return noise_from_v(x_t.to(v), v, alpha_bar)


def _load_bundled(device: torch.device) -> ViewTransformer:
    """The network with the weights inside the package."""
    resource = files("bags_ns.priors").joinpath(WEIGHTS)
    if not resource.is_file():
        raise FileNotFoundError(f"{resource} is missing: make it with `bags train-prior`, or reinstall the package")
    with as_file(resource) as path:
        return load_network(path, device)[0]


def _fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs that have it and on CPUs with instructions for it (twice as fast there), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
