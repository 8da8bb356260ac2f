"""Gaussians in the shape that files want: a rotation and three scales instead of a covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.gaussians import Gaussians
from bags_ns.rig.transforms import quat_from_rotation, quat_to_rotation

SH_C0 = 0.28209479177387814
"""The spherical harmonic of degree 0: colour = SH_C0 * coefficient + 0.5."""
MIN_SCALE = 1e-6
"""Files hold logarithms of scales: flatter Gaussians become this thick (world units)."""


@dataclass(frozen=True)
class Splats:
    """N Gaussians with their axes, activated."""

    means: Float[Tensor, "N 3"]
    """Centres."""
    quats: Float[Tensor, "N 4"]
    """Unit quaternions wxyz."""
    scales: Float[Tensor, "N 3"]
    """Standard deviations along the axes."""
    opacities: Float[Tensor, " N"]
    """In [0, 1]."""
    colors: Float[Tensor, "N 3"]
    """RGB in [0, 1], as displayed (sRGB)."""

    def __len__(self) -> int:
        return len(self.means)

    def harmonics(self) -> Float[Tensor, "N 3"]:
        """Coefficients of degree 0 of the colours."""
        return (self.colors - 0.5) / SH_C0

    def gaussians(self) -> Gaussians:
        """The same with covariances."""
        factors = quat_to_rotation(self.quats) * self.scales[:, None, :]
        return Gaussians(self.means, factors @ factors.transpose(1, 2), self.opacities, self.colors)


@torch.no_grad()
def splats_from_gaussians(gaussians: Gaussians) -> Splats:
    """Axes and scales of covariances, by eigenvalues (in double: thin Gaussians' span six orders); axes are proper rotations."""
    variances, axes = torch.linalg.eigh(gaussians.covars.double())
    axes = torch.cat([axes[..., :2], axes[..., 2:] * torch.det(axes).sign()[:, None, None]], dim=-1)
    return Splats(
        gaussians.means.detach(),
        quat_from_rotation(axes).to(gaussians.means),
        variances.clamp_min(MIN_SCALE**2).sqrt().to(gaussians.means),
        gaussians.opacities.detach(),
        gaussians.colors.detach().clamp(0, 1),
    )
