"""Rendering with gsplat's CUDA kernels. gsplat is imported on first use: it builds its extension then."""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.gaussians import Gaussians
from bags_ns.rendering.projection import EPS2D, FAR_PLANE, NEAR_PLANE, Projection

_TILE = 16


@cache
def _triangle_on(device: torch.device) -> Float[Tensor, "9 6"]:
    """Takes a symmetric matrix's nine entries to the upper triangle's six; made once a device, as a copy would stall it.

    Off the diagonal each is the mean of its two, so that the covariances' gradient is symmetric, as on the CPU.
    """
    matrix = torch.zeros(9, 6)
    for column, (i, j) in enumerate([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]):
        matrix[3 * i + j, column] += 0.5
        matrix[3 * j + i, column] += 0.5
    return matrix.to(device)


def rasterize_gsplat(
    gaussians: Gaussians,
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    backgrounds: Float[Tensor, "C 3"],
    width: int,
    height: int,
    with_depth: bool,
    eps2d: float = EPS2D,
) -> tuple[Float[Tensor, "C H W 3"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 1"] | None, Projection]:
    """Composited colours on the backgrounds, alphas, the sums of weighted depths if asked for, and the projected Gaussians.

    It does what `gsplat.rasterization` does, which picks the triangle by lists that wait for the device in every call.
    """
    from gsplat import fully_fused_projection, isect_offset_encode, isect_tiles, rasterize_to_pixels

    count = len(viewmats)
    triangles = gaussians.covars.flatten(1) @ _triangle_on(gaussians.covars.device)
    radii, means2d, depths, conics, _ = fully_fused_projection(
        gaussians.means,
        triangles,
        None,
        None,
        viewmats,
        Ks,
        width,
        height,
        eps2d=eps2d,
        near_plane=NEAR_PLANE,
        far_plane=FAR_PLANE,
    )
    tiles_x, tiles_y = -(-width // _TILE), -(-height // _TILE)
    _, tile_ids, gaussian_ids = isect_tiles(means2d, radii, depths, _TILE, tiles_x, tiles_y)
    starts = isect_offset_encode(tile_ids, count, tiles_x, tiles_y)
    colors, opacities = gaussians.colors.expand(count, -1, -1), gaussians.opacities.expand(count, -1)
    if with_depth:
        colors = torch.cat([colors, depths[..., None]], dim=-1)
        backgrounds = torch.nn.functional.pad(backgrounds, (0, 1))
    image, alpha = rasterize_to_pixels(
        means2d, conics, colors, opacities, width, height, _TILE, starts, gaussian_ids, backgrounds
    )
    projection = Projection(means2d, conics, depths, radii)
    return image[..., :3], alpha, image[..., 3:] if with_depth else None, projection
