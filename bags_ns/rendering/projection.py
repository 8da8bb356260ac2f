"""Projects 3-D Gaussians to 2-D ones (EWA splatting) in plain torch, with gsplat 1.4's conventions, for any device and dtype.

This is the readable reference of `numba_projection`, and what runs where that cannot: float64, or gradients to the cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.gaussians import Gaussians

NEAR_PLANE = 0.01
"""Gaussians closer than this are not drawn, in world units (gsplat's default)."""
FAR_PLANE = 1e10
"""Gaussians farther than this are not drawn, in world units (gsplat's default)."""
EPS2D = 0.3
"""Added to the variances in the image, in pixels squared: no Gaussian falls between pixels (gsplat's default)."""
FRUSTUM_MARGIN = 0.3
"""Centres count as no further outside the image than this fraction of its half size where the perspective is linearised."""
MAX_RADIUS = 1e9
"""Footprints that are wider than this, in pixels, are numerical accidents and are not drawn."""


@dataclass(frozen=True)
class Projection:
    """N Gaussians as C cameras see them. Rows of Gaussians that are not drawn have radius 0 and no other meaning."""

    means2d: Float[Tensor, "C N 2"]
    """Centres in pixels; the middle of the first pixel is at 0.5."""
    conics: Float[Tensor, "C N 3"]
    """Inverse covariances in the image as (xx, xy, yy), in 1 / pixels squared."""
    depths: Float[Tensor, "C N"]
    """Distances along the viewing direction, in world units."""
    radii: Int[Tensor, "C N"]
    """Three standard deviations of the longer axis, in whole pixels; 0 where a Gaussian is not drawn."""


def project(
    gaussians: Gaussians,
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    width: int,
    height: int,
    eps2d: float = EPS2D,
) -> Projection:
    """The Gaussians' footprints in the images of C cameras (OpenCV world-to-camera matrices, intrinsics without skew).

    The covariance in the image is J W Sigma W^T J^T + eps2d with the perspective's Jacobian J at the centre (Zwicker et al. 2001,
    EWA volume splatting, eq. 31); clamping and culling follow `fully_fused_projection` of gsplat 1.4.
    """
    rotations = viewmats[:, :3, :3]
    camera_means = torch.einsum("cij,nj->cni", rotations, gaussians.means) + viewmats[:, None, :3, 3]
    depths = camera_means[..., 2]
    in_range = (depths > NEAR_PLANE) & (depths < FAR_PLANE)
    # Dividing by the depth of a Gaussian at the camera would send NaN back to the parameters, though it is not drawn.
    safe_means = torch.cat([camera_means[..., :2], torch.where(in_range, depths, 1.0)[..., None]], dim=-1)

    jacobians = _perspective_jacobians(safe_means, Ks, width, height) @ rotations[:, None]
    covars2d = jacobians @ gaussians.covars @ jacobians.transpose(-1, -2)
    xx, yy = covars2d[..., 0, 0] + eps2d, covars2d[..., 1, 1] + eps2d
    xy = 0.5 * (covars2d[..., 0, 1] + covars2d[..., 1, 0])  # so that the covariances' gradient is symmetric
    determinants = xx * yy - xy * xy
    in_range = in_range & (determinants > 0) & (xx > 0)
    safe_determinants = torch.where(in_range, determinants, 1.0)
    conics = torch.stack([yy, -xy, xx], dim=-1) / safe_determinants[..., None]

    means2d = Ks[:, None, [0, 1], [0, 1]] * safe_means[..., :2] / safe_means[..., 2:] + Ks[:, None, :2, 2]
    radii = _radii(means2d.detach(), xx.detach(), yy.detach(), safe_determinants.detach(), width, height)
    return Projection(means2d, conics, depths, torch.where(in_range, radii, 0.0).int())


def _perspective_jacobians(
    camera_means: Float[Tensor, "C N 3"], Ks: Float[Tensor, "C 3 3"], width: int, height: int
) -> Float[Tensor, "C N 2 3"]:
    """Derivatives of pixel coordinates by camera coordinates, at centres clamped to a frustum a little wider than the image."""
    size = Ks.new_tensor([width, height])
    focal, center = Ks[:, None, [0, 1], [0, 1]], Ks[:, None, :2, 2]
    margin = FRUSTUM_MARGIN * 0.5 * size / focal
    depths = camera_means[..., 2:]
    slopes = camera_means[..., :2] / depths
    slopes = torch.minimum(torch.maximum(slopes, -center / focal - margin), (size - center) / focal + margin)
    return torch.cat([torch.diag_embed(focal / depths), (-focal * slopes / depths)[..., None]], dim=-1)


def _radii(
    means2d: Float[Tensor, "C N 2"],
    xx: Float[Tensor, "C N"],
    yy: Float[Tensor, "C N"],
    determinants: Float[Tensor, "C N"],
    width: int,
    height: int,
) -> Float[Tensor, "C N"]:
    """Three standard deviations along the longer axis, rounded up; 0 where that square misses the image."""
    mean_variance = 0.5 * (xx + yy)
    largest_variance = mean_variance + torch.sqrt((mean_variance * mean_variance - determinants).clamp(min=0.01))
    radii = torch.ceil(3.0 * torch.sqrt(largest_variance))
    x, y = means2d.unbind(-1)
    drawn = (x + radii > 0) & (x - radii < width) & (y + radii > 0) & (y - radii < height) & (radii < MAX_RADIUS)
    return torch.where(drawn, radii, 0.0)
