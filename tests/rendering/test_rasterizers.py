"""Both CPU rasterizers against dense compositing, against each other, and against finite differences."""

from __future__ import annotations

import pytest
import torch
from rendering_scenes import (
    Kind,
    dense_composite,
    gradients,
    make_cameras,
    make_gaussians,
    random_loss,
    relative_error,
)

from bags_ns.gaussians import Gaussians
from bags_ns.rendering import Backend, render
from bags_ns.rendering.projection import project

SIZES = {"square": (64, 64), "not whole tiles": (75, 41), "less than a tile": (11, 6)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["trained", "early", "opaque"])
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_agrees_with_dense_compositing(backend: Backend, kind: Kind, size: str) -> None:
    width, height = SIZES[size]
    gaussians = make_gaussians(400, kind)
    viewmats, Ks = make_cameras(1, width, height)

    output = render(gaussians, viewmats, Ks, width, height, backend=backend, with_depth=True)
    projection = project(gaussians, viewmats, Ks, width, height)
    rgb, alpha, depth = dense_composite(projection, 0, gaussians, width, height)

    assert relative_error(output.rgb[0], rgb) <= 1e-6
    assert relative_error(output.alpha[0, ..., 0], alpha) <= 1e-6
    assert output.depth is not None
    seen = alpha > 0
    assert relative_error(output.depth[0, ..., 0][seen], (depth / alpha)[seen]) <= 1e-6
    actual = gradients(random_loss(output.rgb, output.alpha), gaussians)
    expected = gradients(random_loss(rgb[None], alpha[None, ..., None]), gaussians)
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    # Near alpha = 1 both sides lose digits of 1 - alpha in float32.
    assert max(errors.values()) <= (5e-5 if kind == "opaque" else 1e-5), errors


@pytest.mark.parametrize("kind", ["trained", "early"])
def test_numba_agrees_with_torch(kind: Kind) -> None:
    gaussians = make_gaussians(2000, kind)
    viewmats, Ks = make_cameras(2, 128, 112)
    background = torch.tensor([[0.2, 0.5, 0.9], [1.0, 0.0, 0.3]])
    outputs = [
        render(gaussians, viewmats, Ks, 128, 112, background=background, backend=name) for name in ("numba", "torch")
    ]

    assert relative_error(outputs[0].rgb, outputs[1].rgb) <= 1e-6
    assert relative_error(outputs[0].alpha, outputs[1].alpha) <= 1e-6
    actual, expected = (gradients(random_loss(output.rgb, output.alpha), gaussians) for output in outputs)
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    assert max(errors.values()) <= 1e-5, errors


def test_numba_background_gradient_agrees_with_torch() -> None:
    gaussians = make_gaussians(50)
    viewmats, Ks = make_cameras(2, 32, 20)
    found = []
    for backend in ("numba", "torch"):
        background = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)
        output = render(gaussians, viewmats, Ks, 32, 20, background=background, backend=backend)
        found += torch.autograd.grad(random_loss(output.rgb, output.alpha), background)
    assert relative_error(found[0], found[1]) <= 1e-5


def test_torch_gradients_are_those_of_finite_differences() -> None:
    gaussians = make_gaussians(5, "early", dtype=torch.float64)
    opacities = torch.linspace(0.3, 0.8, 5, dtype=torch.float64, requires_grad=True)
    viewmats, Ks = make_cameras(2, 14, 10, torch.float64)
    background = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)

    def images(means: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = render(Gaussians(means, *others[:3]), viewmats, Ks, 14, 10, background=others[3])
        return output.rgb, output.alpha

    inputs = (gaussians.means, gaussians.covars, opacities, gaussians.colors, background)
    assert torch.autograd.gradcheck(images, inputs, eps=1e-7, atol=1e-6, fast_mode=True)


def test_gaussians_that_are_not_numbers_are_left_out() -> None:
    gaussians = make_gaussians(40)
    viewmats, Ks = make_cameras(1, 32, 32)
    broken = [getattr(gaussians, name).detach().clone() for name in ("means", "covars", "opacities", "colors")]
    broken[0][0], broken[1][1], broken[2][2] = torch.nan, torch.inf, torch.nan
    kept = Gaussians(*(tensor[3:] for tensor in broken))
    for backend in ("numba", "torch"):
        output = render(Gaussians(*broken), viewmats, Ks, 32, 32, backend=backend)
        assert torch.equal(output.rgb, render(kept, viewmats, Ks, 32, 32, backend=backend).rgb)
