"""The numba kernels as differentiable torch functions: projection and compositing for float32 tensors on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from torch import Tensor

from bags_ns.gaussians import Gaussians
from bags_ns.rendering import numba_binning as binning
from bags_ns.rendering import numba_kernels as kernels
from bags_ns.rendering.numba_projection import project_backward, project_forward
from bags_ns.rendering.projection import EPS2D, Projection, project
from bags_ns.rendering.threads import run_in_threads


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def project_numba(
    gaussians: Gaussians,
    viewmats: Float32[Tensor, "C 4 4"],
    Ks: Float32[Tensor, "C 3 3"],
    width: int,
    height: int,
    eps2d: float = EPS2D,
) -> Projection:
    """`projection.project`, faster, and without gradients to depths; cameras that want gradients get them from the torch code."""
    if viewmats.requires_grad or Ks.requires_grad:
        return project(gaussians, viewmats, Ks, width, height, eps2d)
    return Projection(*_Project.apply(gaussians.means, gaussians.covars, viewmats, Ks, width, height, eps2d))


class _Project(torch.autograd.Function):
    """Projection of N Gaussians into C cameras."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Float32[Tensor, "N 3"],
        covars: Float32[Tensor, "N 3 3"],
        viewmats: Float32[Tensor, "C 4 4"],
        Ks: Float32[Tensor, "C 3 3"],
        width: int,
        height: int,
        eps2d: float,
    ) -> tuple[Float32[Tensor, "C N 2"], Float32[Tensor, "C N 3"], Float32[Tensor, "C N"], Int[Tensor, "C N"]]:
        shape = len(viewmats), len(means)
        means2d, conics, depths = torch.zeros(*shape, 2), torch.zeros(*shape, 3), torch.zeros(shape)
        radii = torch.zeros(shape, dtype=torch.int32)
        inputs = [_array(tensor) for tensor in (means, covars, viewmats, Ks)]
        outputs = [tensor.numpy() for tensor in (means2d, conics, depths, radii)]
        run_in_threads(project_forward, *inputs, width, height, eps2d, *outputs)
        ctx.save_for_backward(means, covars, viewmats, Ks, conics, radii)
        ctx.size = width, height
        ctx.mark_non_differentiable(depths, radii)
        return means2d, conics, depths, radii

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        means, covars, viewmats, Ks, conics, radii = (_array(tensor) for tensor in ctx.saved_tensors)
        grad_means, grad_covars = np.zeros_like(means), np.zeros_like(covars)
        grad_means2d, grad_conics = _array(grads[0]), _array(grads[1])
        run_in_threads(
            project_backward,
            *(means, covars, viewmats, Ks, *ctx.size),
            *(conics, radii, grad_means2d, grad_conics, grad_means, grad_covars),
        )
        return torch.from_numpy(grad_means), torch.from_numpy(grad_covars), None, None, None, None, None


@dataclass(frozen=True)
class _View:
    """What compositing one view needs, kept from forward to backward."""

    splats: Float32[np.ndarray, "N 9"]
    rects: Int32[np.ndarray, "N 4"]
    starts: Int32[np.ndarray, " tiles_and_one"]
    ids: Int32[np.ndarray, " pairs"]
    ends: Int32[np.ndarray, " tiles"]
    background: Float32[np.ndarray, " 3"]


def rasterize_numba(
    projection: Projection,
    opacities: Float32[Tensor, " N"],
    colors: Float32[Tensor, "N 3"],
    backgrounds: Float32[Tensor, "C 3"],
    width: int,
    height: int,
    with_depth: bool,
) -> tuple[Float[Tensor, "C H W 3"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 1"] | None]:
    """Composited colours on the backgrounds, alphas, and the sums of weighted depths (these without gradient) if asked for."""
    p = projection
    rgb, alpha, depth = _Composite.apply(
        p.means2d, p.conics, opacities, colors, backgrounds, p.depths, p.radii, width, height, with_depth
    )
    return rgb, alpha, depth if with_depth else None


class _Composite(torch.autograd.Function):
    """Compositing of C views, one after another: this keeps the memory at that of one view."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Float32[Tensor, "C N 2"],
        conics: Float32[Tensor, "C N 3"],
        opacities: Float32[Tensor, " N"],
        colors: Float32[Tensor, "N 3"],
        backgrounds: Float32[Tensor, "C 3"],
        depths: Float32[Tensor, "C N"],
        radii: Int[Tensor, "C N"],
        width: int,
        height: int,
        with_depth: bool,
    ) -> tuple[Float32[Tensor, "C H W 3"], Float32[Tensor, "C H W 1"], Float32[Tensor, " ..."]]:
        num_views = len(means2d)
        rgb, alpha = torch.empty(num_views, height, width, 3), torch.empty(num_views, height, width, 1)
        depth = torch.empty(alpha.shape if with_depth else 0)
        arrays = [_array(tensor) for tensor in (means2d, conics, radii, depths, backgrounds)]
        ctx.views = []
        for i, (view_means2d, view_conics, view_radii, view_depths, background) in enumerate(zip(*arrays, strict=True)):
            splats, rects = binning.gather_splats(
                view_means2d, view_conics, _array(opacities), _array(colors), view_radii, width, height
            )
            starts, ids = binning.bin_by_tile(rects, binning.depth_order(view_depths), width, height)
            view = _View(splats, rects, starts, ids, np.empty(len(starts) - 1, np.int32), background)
            _composite(view, rgb[i].numpy(), alpha[i, ..., 0].numpy())
            if with_depth:
                depth[i, ..., 0] = _composite_depth(view, view_depths, width, height)
            ctx.views.append(view)
        ctx.save_for_backward(rgb, alpha)
        ctx.mark_non_differentiable(depth)
        return rgb, alpha, depth

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rgb, alpha = ctx.saved_tensors
        grad_rgb, grad_alpha = grads[0].contiguous(), grads[1].contiguous()
        totals = torch.zeros(len(rgb), *ctx.views[0].splats.shape)
        for i, view in enumerate(ctx.views):
            images = _array(rgb[i]), _array(alpha[i, ..., 0])
            _add_gradients(view, images, (_array(grad_rgb[i]), _array(grad_alpha[i, ..., 0])), totals[i].numpy())
        grad_backgrounds = ((1.0 - alpha) * grad_rgb).sum((1, 2)) if ctx.needs_input_grad[4] else None
        means2d, conics, opacities, colors = totals.split([2, 3, 1, 3], dim=-1)
        summed = opacities[..., 0].sum(0), colors.sum(0)
        return means2d, conics, *summed, grad_backgrounds, None, None, None, None, None


def _composite(view: _View, rgb: Float32[np.ndarray, "H W 3"], alpha: Float32[np.ndarray, "H W"]) -> None:
    inputs = view.splats, view.rects, view.starts, view.ids, view.background
    run_in_threads(kernels.composite_forward, *inputs, rgb, alpha, view.ends)


def _composite_depth(view: _View, depths: Float32[np.ndarray, " N"], width: int, height: int) -> Float32[Tensor, "H W"]:
    """The view once more, with depths for its first colour."""
    splats = view.splats.copy()
    splats[:, binning.RED] = depths
    image, alpha = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    depth_view = _View(splats, view.rects, view.starts, view.ids, np.empty_like(view.ends), np.zeros(3, np.float32))
    _composite(depth_view, image, alpha)
    return torch.from_numpy(image[..., 0])


def _add_gradients(
    view: _View,
    images: tuple[Float32[np.ndarray, "H W 3"], Float32[np.ndarray, "H W"]],
    grad_images: tuple[Float32[np.ndarray, "H W 3"], Float32[np.ndarray, "H W"]],
    total: Float32[np.ndarray, "N 9"],
) -> None:
    """Adds one view's gradients by the columns of `splats` to `total`, given colours and alphas and the gradients by them."""
    gradients = np.zeros((len(view.ids), binning.NUM_COLUMNS), np.float32)
    inputs = view.splats, view.rects, view.starts, view.ids, view.background
    run_in_threads(kernels.composite_backward, *inputs, *images, view.ends, *grad_images, gradients)
    binning.sum_gradients(gradients, view.ids, total)
