"""The CPU's rendering against gsplat's CUDA kernels, which the conventions are taken from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rendering_scenes import FIELDS, Kind, gradients, make_cameras, make_gaussians, random_loss, relative_error

from bags_ns.gaussians import Gaussians
from bags_ns.rendering import RenderOutput, render
from bags_ns.rendering.gsplat_rasterizer import rasterize_gsplat

pytestmark = pytest.mark.gpu
WIDTH, HEIGHT = 200, 136


def on_cuda(gaussians: Gaussians) -> Gaussians:
    """A copy with leaf tensors of its own."""
    return Gaussians(*(getattr(gaussians, name).detach().cuda().requires_grad_() for name in FIELDS))


def render_both(gaussians: Gaussians, copy: Gaussians, count: int = 2) -> tuple[RenderOutput, RenderOutput]:
    """On the CPU and on CUDA, from the same cameras on the same backgrounds."""
    viewmats, Ks = make_cameras(count, WIDTH, HEIGHT)
    background = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    cpu = render(gaussians, viewmats, Ks, WIDTH, HEIGHT, background=background, with_depth=True)
    cuda = render(copy, viewmats.cuda(), Ks.cuda(), WIDTH, HEIGHT, background=background.cuda(), with_depth=True)
    return cpu, cuda


@pytest.mark.parametrize("kind", ["trained", "early", "opaque"])
def test_numba_agrees_with_gsplat(kind: Kind) -> None:
    gaussians = make_gaussians(3000, kind)
    copy = on_cuda(gaussians)
    cpu, cuda = render_both(gaussians, copy)

    assert relative_error(cpu.rgb, cuda.rgb.cpu()) <= 1e-4
    assert relative_error(cpu.alpha, cuda.alpha.cpu()) <= 1e-4
    assert cpu.depth is not None and cuda.depth is not None
    assert relative_error(cpu.depth, cuda.depth.detach().cpu()) <= 1e-4
    assert torch.equal(cpu.info["radii"], cuda.info["radii"].cpu())
    actual = gradients(random_loss(cpu.rgb, cpu.alpha), gaussians)
    expected = gradients(random_loss(cuda.rgb, cuda.alpha), copy)
    errors = {name: relative_error(actual[name], expected[name].cpu()) for name in FIELDS}
    assert max(errors.values()) <= 2e-3, errors


@pytest.mark.parametrize(("count", "eps2d"), [(1, 0.3), (3, 0.3), (1, 0.1)])
def test_it_is_what_gsplats_own_verb_gives(count: int, eps2d: float) -> None:
    from gsplat import rasterization

    gaussians = on_cuda(make_gaussians(3000))
    viewmats, Ks = (tensor.cuda() for tensor in make_cameras(count, WIDTH, HEIGHT))
    backgrounds = torch.rand(count, 3, generator=torch.Generator().manual_seed(0)).cuda()
    rgb, own_alpha, depth, projected = rasterize_gsplat(
        gaussians, viewmats, Ks, backgrounds, WIDTH, HEIGHT, with_depth=True, eps2d=eps2d
    )
    unread: Any = None  # quats and scales, when covars are given
    image, alpha, info = rasterization(
        gaussians.means,
        unread,
        unread,
        gaussians.opacities,
        gaussians.colors,
        viewmats,
        Ks,
        WIDTH,
        HEIGHT,
        covars=0.5 * (gaussians.covars + gaussians.covars.mT),
        backgrounds=backgrounds,
        render_mode="RGB+D",
        eps2d=eps2d,
        packed=False,
    )
    assert depth is not None
    assert relative_error(torch.cat([rgb, depth, own_alpha], -1), torch.cat([image, alpha], -1)) <= 1e-6
    for name in ("means2d", "conics", "depths", "radii"):
        assert relative_error(getattr(projected, name), info[name]) <= 1e-6, name
    actual = gradients(random_loss(rgb, own_alpha) + 0.1 * depth.square().sum(), gaussians)
    expected = gradients(random_loss(image[..., :3], alpha) + 0.1 * image[..., 3:].square().sum(), gaussians)
    errors = {name: relative_error(actual[name], expected[name]) for name in FIELDS}
    assert max(errors.values()) <= 1e-4, errors  # the kernels' sums have no fixed order


def test_covariances_give_what_quaternions_and_scales_give() -> None:
    from gsplat import quat_scale_to_covar_preci, rasterization

    gaussians = on_cuda(make_gaussians(3000))
    generator = torch.Generator().manual_seed(0)
    quats = torch.randn(3000, 4, generator=generator).cuda()
    scales = 0.03 * torch.exp(0.4 * torch.randn(3000, 3, generator=generator)).cuda()
    covars, _ = quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    viewmats, Ks = (tensor.cuda() for tensor in make_cameras(1, WIDTH, HEIGHT))
    expected, _, _ = rasterization(
        gaussians.means, quats, scales, gaussians.opacities, gaussians.colors, viewmats, Ks, WIDTH, HEIGHT
    )
    assert covars is not None
    posed = Gaussians(gaussians.means, covars, gaussians.opacities, gaussians.colors)
    assert relative_error(render(posed, viewmats, Ks, WIDTH, HEIGHT).rgb, expected) <= 1e-4


def test_gradient_of_the_centres_on_screen_is_there() -> None:
    gaussians = make_gaussians(500)
    outputs = render_both(gaussians, on_cuda(gaussians))
    for output in outputs:
        output.info["means2d"].retain_grad()
        random_loss(output.rgb, output.alpha).backward()
    cpu, cuda = (output.info["means2d"].grad.cpu() for output in outputs)
    assert relative_error(cpu, cuda) <= 2e-3


@pytest.mark.parametrize("offset", [None, 500.0])
def test_nothing_to_see_is_survived(offset: float | None) -> None:
    gaussians = on_cuda(make_gaussians(10))
    tensors = [getattr(gaussians, name)[: 0 if offset is None else 10] for name in FIELDS]
    shifted = Gaussians(tensors[0] + (offset or 0.0) * torch.tensor([0.0, 0, 1], device="cuda"), *tensors[1:])
    viewmats, Ks = (tensor.cuda() for tensor in make_cameras(2, 40, 24))
    output = render(shifted, viewmats, Ks, 40, 24, background=torch.ones(3, device="cuda"), with_depth=True)
    random_loss(output.rgb, output.alpha).backward()
    assert output.rgb.eq(1).all() and output.alpha.eq(0).all()
