"""The projection against gsplat's own float64 reference, and numba's against torch's."""

from __future__ import annotations

import pytest
import torch
from rendering_scenes import make_cameras, make_gaussians, relative_error

from bags_ns.gaussians import Gaussians
from bags_ns.rendering.numba_rasterizer import project_numba
from bags_ns.rendering.projection import project

WIDTH, HEIGHT = 96, 70


def scattered_gaussians(dtype: torch.dtype) -> Gaussians:
    """Gaussians all round the cameras: behind them, beside the image where the perspective is clamped, and close by."""
    gaussians = make_gaussians(1500, seed=3, dtype=dtype)
    return Gaussians((gaussians.means * 5).detach().requires_grad_(), *list(vars(gaussians).values())[1:])


def loss(means2d: torch.Tensor, conics: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Of the footprints that are drawn; the others mean nothing."""
    generator = torch.Generator().manual_seed(1)
    means_weights = torch.randn(means2d.shape, generator=generator).to(means2d)
    conics_weights = torch.randn(conics.shape, generator=generator).to(conics)
    return (means2d * means_weights)[drawn].sum() + (conics * conics_weights)[drawn].sum()


@pytest.mark.parametrize("eps2d", [0.3, 0.1])
def test_agrees_with_gsplat(eps2d: float) -> None:
    reference = pytest.importorskip("gsplat.cuda._torch_impl")._fully_fused_projection
    gaussians = scattered_gaussians(torch.float64)
    viewmats, Ks = make_cameras(2, WIDTH, HEIGHT, torch.float64)

    p = project(gaussians, viewmats, Ks, WIDTH, HEIGHT, eps2d)
    radii, means2d, depths, conics, _ = reference(gaussians.means, gaussians.covars, viewmats, Ks, WIDTH, HEIGHT, eps2d)
    drawn = radii > 0

    assert 0 < drawn.sum() < drawn.numel()
    assert torch.equal(p.radii, radii)
    for actual, expected in ((p.means2d, means2d), (p.depths, depths), (p.conics, conics)):
        assert relative_error(actual[drawn], expected[drawn]) <= 1e-13
    inputs = gaussians.means, gaussians.covars
    actual = torch.autograd.grad(loss(p.means2d, p.conics, drawn), inputs)
    expected = torch.autograd.grad(loss(means2d, conics, drawn), inputs)
    assert relative_error(actual[0], expected[0]) <= 1e-13
    assert relative_error(actual[1], expected[1]) <= 1e-13


@pytest.mark.parametrize("eps2d", [0.3, 0.1])
def test_numba_agrees_with_torch(eps2d: float) -> None:
    gaussians = scattered_gaussians(torch.float32)
    precise = Gaussians(*(tensor.detach().double().requires_grad_() for tensor in vars(gaussians).values()))
    viewmats, Ks = make_cameras(2, WIDTH, HEIGHT)

    p = project_numba(gaussians, viewmats, Ks, WIDTH, HEIGHT, eps2d)
    q = project(precise, viewmats.double(), Ks.double(), WIDTH, HEIGHT, eps2d)
    drawn = q.radii > 0

    assert torch.equal(p.radii, q.radii)
    for actual, expected in ((p.means2d, q.means2d), (p.depths, q.depths), (p.conics, q.conics)):
        assert relative_error(actual[drawn], expected[drawn]) <= 1e-6
    actual = torch.autograd.grad(loss(p.means2d, p.conics, drawn), (gaussians.means, gaussians.covars))
    expected = torch.autograd.grad(loss(q.means2d, q.conics, drawn), (precise.means, precise.covars))
    assert relative_error(actual[0], expected[0]) <= 1e-6
    assert relative_error(actual[1], expected[1]) <= 1e-6


@pytest.mark.parametrize("projector", [project, project_numba])
def test_gaussians_that_are_not_drawn_get_no_gradient(projector) -> None:
    gaussians = make_gaussians(3)
    viewmats, Ks = make_cameras(1, WIDTH, HEIGHT)
    camera = viewmats[0].inverse()[:3, 3]  # a Gaussian right at the camera would divide by 0
    means = torch.stack([camera, 2 * camera, torch.zeros(3)]).requires_grad_()
    covars = gaussians.covars.detach().requires_grad_()
    p = projector(Gaussians(means, covars, gaussians.opacities, gaussians.colors), viewmats, Ks, WIDTH, HEIGHT)
    drawn = p.radii > 0
    assert drawn.tolist() == [[False, False, True]]
    grad_means, grad_covars = torch.autograd.grad(loss(p.means2d, p.conics, drawn), (means, covars))
    assert grad_means[:2].eq(0).all() and grad_covars[:2].eq(0).all() and grad_means[2].ne(0).any()


def test_cameras_that_want_gradients_get_them() -> None:
    gaussians = make_gaussians(30)
    viewmats, Ks = make_cameras(1, WIDTH, HEIGHT)
    viewmats.requires_grad_()
    p = project_numba(gaussians, viewmats, Ks, WIDTH, HEIGHT)
    assert torch.autograd.grad(p.means2d.sum(), viewmats)[0].ne(0).any()
