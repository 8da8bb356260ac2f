"""The bundle of activated splat tensors that every renderer takes and every deformation gives."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians in one frame (canonical or world), activated and ready to be rendered."""

    means: Float[Tensor, "N 3"]
    """Centres, in world units."""
    covars: Float[Tensor, "N 3 3"]
    """Symmetric positive semi-definite covariances, in world units squared."""
    opacities: Float[Tensor, " N"]
    """In [0, 1]."""
    colors: Float[Tensor, "N 3"]
    """RGB in [0, 1], the same from every side."""

    def __len__(self) -> int:
        return self.means.shape[0]

    def centroid(self) -> Float[Tensor, " 3"]:
        """Opacity-weighted mean of the centres."""
        weights = self.opacities[:, None]
        return (self.means * weights).sum(0) / weights.sum().clamp_min(1e-9)
