"""What a diffusion prior is to the rest of the project: an object that scores novel views of the posed animal.

A prior is a plain object made by the pipeline from its config, never an `nn.Module` child of it: nothing of it may
land in a checkpoint. It can sit on a device of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from jaxtyping import Float
from torch import Tensor


@dataclass
class PriorConfig:
    """Which diffusion prior fills in the sides that the video does not show."""

    name: Literal["none"] = "none"
    """none: no prior."""

    def setup(self) -> DiffusionPrior | None:
        """The prior, or None where it is switched off."""
        return None


@dataclass(frozen=True)
class PriorCamera:
    """The cameras that a prior was trained on."""

    fov_deg: float
    """Field of view of its square images, in degrees."""
    radius_range: tuple[float, float]
    """Distances to the animal's centre, in lengths of the animal."""
    elevation_range_deg: tuple[float, float]
    """Elevations, in degrees above the horizon."""


@dataclass(frozen=True)
class RelativeViews:
    """V novel views relative to the reference frame's camera, about the posed animal's centroid. Radians, world units."""

    azimuths: Float[Tensor, " V"]
    elevations: Float[Tensor, " V"]
    radii: Float[Tensor, " V"]


class DiffusionPrior(Protocol):
    """Four members make a prior."""

    num_views: int
    """Views that it judges at once."""
    camera: PriorCamera
    """What it was trained on."""

    def condition(self, image: Float[Tensor, "H W 3"], camera: RelativeViews) -> Any:
        """What the networks need to know of the reference image; made once a frame."""
        ...

    def sds_loss(
        self, renders: Float[Tensor, "V H W 3"], views: RelativeViews, conditioning: Any, progress: float
    ) -> Float[Tensor, ""]:
        """Unweighted loss of novel views; `progress` of the run in [0, 1] anneals the noise."""
        ...
