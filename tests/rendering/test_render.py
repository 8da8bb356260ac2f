"""The verb `render`: what it promises for any Gaussians, cameras, sizes, backgrounds, and for gsplat's densification."""

from __future__ import annotations

import sys

import pytest
import torch
from rendering_scenes import FIELDS, gradients, make_cameras, make_gaussians, random_loss

from bags_ns import rendering
from bags_ns.gaussians import Gaussians
from bags_ns.rendering import Backend, choose_backend, render
from bags_ns.rendering.projection import FAR_PLANE

BACKENDS = pytest.mark.parametrize("backend", ["numba", "torch"])


@BACKENDS
def test_no_gaussians_give_the_background_and_a_gradient(backend: Backend) -> None:
    empty = Gaussians(*(getattr(make_gaussians(4), name)[:0].detach().requires_grad_() for name in FIELDS))
    viewmats, Ks = make_cameras(2, 20, 9)
    background = torch.tensor([0.1, 0.2, 0.3])
    output = render(empty, viewmats, Ks, 20, 9, background=background, with_depth=True, backend=backend)
    output.info["means2d"].retain_grad()
    (output.rgb.sum() + output.alpha.sum()).backward()

    assert torch.equal(output.rgb, background.expand(2, 9, 20, 3))
    assert output.depth is not None
    assert output.alpha.eq(0).all() and output.depth.eq(FAR_PLANE).all()
    assert output.info["radii"].shape == (2, 0) and output.info["means2d"].grad.shape == (2, 0, 2)
    assert empty.means.grad is not None and empty.means.grad.shape == (0, 3)


@BACKENDS
def test_gaussians_off_screen_give_the_background_and_no_gradient(backend: Backend) -> None:
    there = make_gaussians(50)
    gaussians = Gaussians(there.means + torch.tensor([0.0, 0.0, 500.0]), there.covars, there.opacities, there.colors)
    viewmats, Ks = make_cameras(1, 33, 17)
    output = render(gaussians, viewmats, Ks, 33, 17, background=torch.ones(3), with_depth=True, backend=backend)

    assert output.depth is not None
    assert output.rgb.eq(1).all() and output.alpha.eq(0).all() and output.depth.eq(FAR_PLANE).all()
    assert output.info["radii"].eq(0).all()
    for gradient in gradients(random_loss(output.rgb, output.alpha), there).values():
        assert gradient.eq(0).all()


@BACKENDS
def test_cameras_together_are_cameras_alone(backend: Backend) -> None:
    gaussians = make_gaussians(200)
    viewmats, Ks = make_cameras(3, 40, 24)
    together = render(gaussians, viewmats, Ks, 40, 24, with_depth=True, backend=backend)
    for i in range(3):
        alone = render(gaussians, viewmats[i : i + 1], Ks[i : i + 1], 40, 24, with_depth=True, backend=backend)
        for name in ("rgb", "alpha", "depth"):
            torch.testing.assert_close(getattr(together, name)[i : i + 1], getattr(alone, name))
        assert torch.equal(together.info["radii"][i : i + 1], alone.info["radii"])


@BACKENDS
def test_background_is_per_camera_and_behind_the_premultiplied_colours(backend: Backend) -> None:
    gaussians = make_gaussians(100)
    viewmats, Ks = make_cameras(2, 24, 24)
    background = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.9, 0.0]])
    on_nothing = render(gaussians, viewmats, Ks, 24, 24, backend=backend)
    on_background = render(gaussians, viewmats, Ks, 24, 24, background=background, backend=backend)
    expected = on_nothing.rgb + (1 - on_nothing.alpha) * background[:, None, None]
    torch.testing.assert_close(on_background.rgb, expected, atol=1e-6, rtol=0)


@BACKENDS
def test_depth_is_metric_and_far_where_nothing_is(backend: Backend) -> None:
    viewmats, Ks = make_cameras(1, 32, 32)
    forward = viewmats[0, 2, :3]
    means = torch.stack([torch.zeros(3), forward])  # at distances 4 and 5 in the middle of the image
    gaussians = Gaussians(means, 0.25 * torch.eye(3).repeat(2, 1, 1), torch.tensor([0.5, 0.9]), torch.rand(2, 3))
    output = render(gaussians, viewmats, Ks, 32, 32, with_depth=True, backend=backend)
    assert output.depth is not None
    depth = output.depth[0, ..., 0]
    weights = torch.tensor([0.5, 0.5 * 0.9])
    assert depth[15:17, 15:17].mean().item() == pytest.approx(
        (weights @ torch.tensor([4.0, 5.0]) / weights.sum()).item(), abs=2e-2
    )
    assert depth[0, 0] == depth.max() and depth.max() <= 5.0 + 1e-4
    assert render(gaussians, viewmats, Ks, 32, 32, backend=backend).depth is None


@BACKENDS
def test_densification_of_gsplat_refines_with_the_info(backend: Backend) -> None:
    strategies = pytest.importorskip("gsplat.strategy")
    start = make_gaussians(60)
    values = {
        "means": start.means,
        "scales": torch.full((60, 3), -2.0),
        "quats": torch.tensor([1.0, 0, 0, 0]).expand(60, 4),
        "opacities": torch.logit(start.opacities),
        "features_dc": start.colors,
    }
    params = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(value.detach().clone()) for name, value in values.items()}
    )
    optimizers = {name: torch.optim.Adam([param]) for name, param in params.items()}
    strategy = strategies.DefaultStrategy(refine_start_iter=0, refine_every=1, grow_grad2d=1e-7, grow_scale3d=0.05)
    state = strategy.initialize_state()
    covars = torch.diag_embed(torch.exp(2 * params["scales"]))
    gaussians = Gaussians(params["means"], covars, torch.sigmoid(params["opacities"]), params["features_dc"])
    viewmats, Ks = make_cameras(2, 48, 32)

    output = render(gaussians, viewmats, Ks, 48, 32, backend=backend)
    strategy.step_pre_backward(params, optimizers, state, 1, output.info)
    random_loss(output.rgb, output.alpha).backward()
    assert output.info["means2d"].grad.norm() > 0
    strategy.step_post_backward(params, optimizers, state, 1, output.info)
    assert len(params["means"]) > 60


def test_backend_follows_device_dtype_and_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert choose_backend(torch.device("cuda")) == "gsplat"
    assert choose_backend(cpu) == "numba"
    assert choose_backend(cpu, torch.float64) == "torch"

    rendering._numba_is_importable.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    assert choose_backend(cpu) == "torch"
    rendering._numba_is_importable.cache_clear()


def test_backends_that_cannot_render_the_tensors_say_what_can() -> None:
    viewmats, Ks = make_cameras(1, 16, 16, torch.float64)
    gaussians = make_gaussians(5, dtype=torch.float64)
    with pytest.raises(ValueError, match="renders float32 on the CPU, got torch.float64"):
        render(gaussians, viewmats, Ks, 16, 16, backend="numba")
    with pytest.raises(ValueError, match="renders on CUDA, got tensors on cpu"):
        render(gaussians, viewmats, Ks, 16, 16, backend="gsplat")
    assert render(gaussians, viewmats, Ks, 16, 16).rgb.dtype == torch.float64
