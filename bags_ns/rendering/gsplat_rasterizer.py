"""Rendering with gsplat's CUDA kernels. gsplat is imported on first use: it builds its extension then."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from bags_ns.gaussians import Gaussians
from bags_ns.rendering.projection import Projection


def rasterize_gsplat(
    gaussians: Gaussians,
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    backgrounds: Float[Tensor, "C 3"],
    width: int,
    height: int,
    with_depth: bool,
) -> tuple[Float[Tensor, "C H W 3"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 1"] | None, Projection]:
    """Composited colours on the backgrounds, alphas, the sums of weighted depths if asked for, and the projected Gaussians."""
    from gsplat import rasterization

    covars = gaussians.covars
    if covars.requires_grad:  # gsplat reads the upper triangle only; this way its gradient is symmetric, as on the CPU
        covars = 0.5 * (covars + covars.transpose(1, 2))
    unread: Any = None  # quats and scales, when covars are given
    image, alpha, meta = rasterization(
        gaussians.means,
        unread,
        unread,
        gaussians.opacities,
        gaussians.colors,
        viewmats,
        Ks,
        width,
        height,
        covars=covars,
        backgrounds=backgrounds,
        render_mode="RGB+D" if with_depth else "RGB",
        packed=False,
    )
    projection = Projection(meta["means2d"], meta["conics"], meta["depths"], meta["radii"])
    return image[..., :3], alpha, image[..., 3:] if with_depth else None, projection
