"""Renders Gaussians: gsplat's kernels on CUDA, numba's on the CPU, one verb for both. Nothing here knows cameras' poses or bones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.gaussians import Gaussians
from bags_ns.rendering.projection import EPS2D, FAR_PLANE, Projection, project

Backend = Literal["numba", "torch", "gsplat"]


@dataclass(frozen=True)
class RenderOutput:
    """What C cameras see."""

    rgb: Float[Tensor, "C H W 3"]
    """Composited on the background, or premultiplied by alpha where none was given. Not clamped."""
    alpha: Float[Tensor, "C H W 1"]
    """Silhouettes, in [0, 1]."""
    depth: Float[Tensor, "C H W 1"] | None
    """Expected distances along the viewing direction, in world units; where a view shows nothing, its largest. No gradient on CPU."""
    info: dict[str, Any]
    """For `gsplat.DefaultStrategy`: `means2d` [C N 2] of the autograd graph in pixels, `radii`, `conics`, `depths`, sizes."""


def render(
    gaussians: Gaussians,
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    width: int,
    height: int,
    *,
    background: Float[Tensor, " 3"] | Float[Tensor, "C 3"] | None = None,
    with_depth: bool = False,
    eps2d: float = EPS2D,
    backend: Literal["auto"] | Backend = "auto",
) -> RenderOutput:
    """Renders N Gaussians from C cameras, after 3-D Gaussian splatting (Kerbl et al. 2023) with gsplat 1.4's conventions.

    Args:
        gaussians: In the world's frame. Gradients flow to all their tensors.
        viewmats: OpenCV world-to-camera matrices.
        Ks: Pinhole intrinsics in pixels, without skew.
        width: Of the images, in pixels.
        height: Of the images, in pixels.
        background: RGB behind the Gaussians, one for all cameras or one for each.
        with_depth: Whether to compute depths too.
        eps2d: Added to the variances in the images, in pixels squared, so that no Gaussian falls between pixels.
        backend: What computes: `auto` is `choose_backend`'s answer for the Gaussians' device and dtype.
    """
    backgrounds = viewmats.new_zeros(3) if background is None else background
    backgrounds = backgrounds.to(gaussians.means).expand(len(viewmats), 3)
    backend = _checked_backend(backend, gaussians.means)
    if len(gaussians) == 0:
        rgb, alpha, depth, projection = _render_nothing(gaussians, backgrounds, width, height)
    elif backend == "gsplat":
        from bags_ns.rendering.gsplat_rasterizer import rasterize_gsplat

        rgb, alpha, depth, projection = rasterize_gsplat(
            gaussians, viewmats, Ks, backgrounds, width, height, with_depth, eps2d
        )
    elif backend == "numba":
        from bags_ns.rendering.numba_rasterizer import project_numba, rasterize_numba

        projection = project_numba(gaussians, viewmats, Ks, width, height, eps2d)
        rgb, alpha, depth = rasterize_numba(
            projection, gaussians.opacities, gaussians.colors, backgrounds, width, height, with_depth
        )
    else:
        from bags_ns.rendering.torch_rasterizer import rasterize_torch

        projection = project(gaussians, viewmats, Ks, width, height, eps2d)
        rgb, alpha, depth = rasterize_torch(
            projection, gaussians.opacities, gaussians.colors, backgrounds, width, height, with_depth
        )
    expected_depth = _expected_depth(depth, alpha.detach()) if with_depth and depth is not None else None
    return RenderOutput(rgb, alpha, expected_depth, _strategy_info(projection, width, height))


def choose_backend(device: torch.device, dtype: torch.dtype = torch.float32) -> Backend:
    """gsplat on CUDA; on the CPU numba, or torch for what is not float32 and where numba cannot be imported."""
    if device.type == "cuda":
        return "gsplat"
    return "numba" if dtype == torch.float32 and _numba_is_importable() else "torch"


def _checked_backend(backend: Literal["auto"] | Backend, means: Tensor) -> Backend:
    if backend == "auto":
        return choose_backend(means.device, means.dtype)
    if backend == "numba" and (means.device.type != "cpu" or means.dtype != torch.float32):
        raise ValueError(f"backend 'numba' renders float32 on the CPU, got {means.dtype} on {means.device}: use 'auto'")
    if backend == "gsplat" and means.device.type != "cuda":
        raise ValueError(f"backend 'gsplat' renders on CUDA, got tensors on {means.device}: use 'auto'")
    return backend


@cache
def _numba_is_importable() -> bool:
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def _render_nothing(
    gaussians: Gaussians, backgrounds: Float[Tensor, "C 3"], width: int, height: int
) -> tuple[Float[Tensor, "C H W 3"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 1"], Projection]:
    """The background, for no Gaussians at all (pruning can leave none); still in the graph, so that `backward` works."""
    num_views = len(backgrounds)
    means2d = gaussians.means[None, :, :2].expand(num_views, -1, -1) * 1.0
    zeros = gaussians.means.new_zeros(num_views, height, width, 1) + means2d.sum() + gaussians.colors.sum()
    radii = torch.zeros(num_views, 0, dtype=torch.int32, device=means2d.device)
    projection = Projection(means2d, means2d.new_zeros(num_views, 0, 3), means2d.new_zeros(num_views, 0), radii)
    return zeros + backgrounds[:, None, None], zeros, zeros.detach(), projection


def _expected_depth(
    weighted_depth: Float[Tensor, "C H W 1"], alpha: Float[Tensor, "C H W 1"]
) -> Float[Tensor, "C H W 1"]:
    """Depths divided by the weights; a view's empty pixels get its largest depth, and FAR_PLANE where it shows nothing at all."""
    visible = alpha > 0
    depth = weighted_depth / torch.where(visible, alpha, 1.0)
    farthest = torch.where(visible, depth.detach(), 0.0).amax((1, 2, 3), keepdim=True)
    return torch.where(visible, depth, torch.where(farthest > 0, farthest, FAR_PLANE))


def _strategy_info(projection: Projection, width: int, height: int) -> dict[str, Any]:
    return {
        "means2d": projection.means2d,
        "radii": projection.radii,
        "conics": projection.conics,
        "depths": projection.depths,
        "width": width,
        "height": height,
        "n_cameras": len(projection.radii),
        "gaussian_ids": None,
    }
