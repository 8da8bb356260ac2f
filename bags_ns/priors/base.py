"""What a diffusion prior is to the rest of the project: an object that scores novel views of the posed animal.

A prior is a plain object made by the pipeline from its config, never an `nn.Module` child of it: nothing of it may
land in a checkpoint. It can sit on a device of its own.

Frame of every camera here: z up as in the world, the point that the reference looks at (the animal's middle at that
time) at the origin, one unit the animal's length. Poses are OpenGL camera-to-world, pictures RGB in [0, 1] on white.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

NoisePredictor = Callable[[Tensor, int], Tensor]
"""(x_t, t) -> guided noise prediction, both of the shape of x_t."""


class PriorError(ValueError):
    """A prior cannot be had; one line that says why and what helps."""


@dataclass(frozen=True)
class PriorCamera:
    """The cameras that a prior was trained on."""

    fov_deg: float
    """Field of view of its square images, in degrees."""
    radius_range: tuple[float, float]
    """Distances to the animal's middle, in lengths of the animal."""
    elevation_range_deg: tuple[float, float]
    """Elevations, in degrees above the horizon."""
    views_per_ring: int = 1
    """Views that share an elevation and a radius, evenly round the animal; 1: every view has its own."""


@runtime_checkable
class DiffusionPrior(Protocol):
    """These members make a prior; the score itself is made of them in `sds.py`, once for all priors."""

    camera: PriorCamera
    """What it was trained on."""
    image_size: int
    """Side in pixels of the square pictures that it takes."""
    alphas_cumprod: Float[Tensor, " steps"]
    """Share of signal variance at each of its diffusion steps."""
    guidance: float
    """Strength of its classifier-free guidance."""
    limit: float
    """Largest magnitude of a clean picture in its space: 1 for pixels, infinite for latents."""

    def condition(
        self, images: Float[Tensor, "R H W 3"], camera_to_worlds: Float[Tensor, "R 4 4"], fovs_deg: Float[Tensor, " R"]
    ) -> Any:
        """What the networks need to know of the reference pictures; made once a frame.

        The first shows the animal at the time of the views to come; a prior that takes one picture ignores the rest.
        """
        ...

    def encode(self, renders: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V C h w"]:
        """Renders in the space in which the diffusion works (pixels in [-1, 1], or latents), with gradient."""
        ...

    def decode(self, x: Float[Tensor, "V C h w"]) -> Float[Tensor, "V S S 3"]:
        """Pictures in [0, 1] of what `encode` gives, without gradient."""
        ...

    def noise_predictor(self, camera_to_worlds: Float[Tensor, "V 4 4"], conditioning: Any) -> NoisePredictor:
        """The guided network for V views."""
        ...


@contextmanager
def guided_by(prior: DiffusionPrior, guidance: float) -> Iterator[None]:
    """The prior with another strength of guidance, for a while."""
    own, prior.guidance = prior.guidance, guidance
    try:
        yield
    finally:
        prior.guidance = own
