"""Optical flow as supervision: what is measured, what is compared with it, and that it moves the animal."""

import cv2
import numpy as np
import pytest
import torch
from tiny_runs import run, trainer_on

from bags_ns import losses
from bags_ns.cameras import project_points
from bags_ns.data import flow as flow_module
from bags_ns.data.flow import FlowPair, clip_flow, consistent_flow
from bags_ns.data.images import write_rgba

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 96


def spotted(shift: tuple[int, int]) -> np.ndarray:
    """RGBA of a spotted disc, moved by so many pixels."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 200, (SIDE, SIDE)), (0, 0), 2)
    coat = np.clip(128 + noise, 0, 255).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(mask, (40, 44), 26, 255, -1)
    return np.roll(np.dstack([coat, coat, coat, mask]), shift[::-1], axis=(0, 1))


def test_flow_follows_a_moving_coat_and_is_unknown_elsewhere():
    flow = consistent_flow(spotted((0, 0)), spotted((5, -3)))
    known = np.isfinite(flow).all(axis=-1)
    inside = spotted((0, 0))[..., 3] > 0
    assert not known[~inside].any() and known[inside].mean() > 0.7
    assert np.abs(flow[known] - [5, -3]).mean() < 0.3
    assert not np.isfinite(consistent_flow(spotted((0, 0)), spotted((5, -3))[:80])).any()


def test_flow_is_computed_once(tmp_path, monkeypatch):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(paths):
        write_rgba(path, spotted((2 * index, 0)))
    first = clip_flow(paths, tmp_path / "cache")
    monkeypatch.setattr(flow_module, "_build", lambda *_: pytest.fail("computed a second time"))
    again = clip_flow(paths, tmp_path / "cache")
    assert len(again) == 2 and all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, again, strict=True)
    )


def test_the_loss_is_taken_where_flow_is_known_and_the_animal_is():
    observed = torch.full((4, 8, 2), float("nan"))
    observed[1:3, 2:6] = torch.tensor([3.0, -1.0])
    alpha = torch.ones(4, 8, 1)
    alpha[:, 5] = 0.2
    rendered = torch.zeros(4, 8, 2, requires_grad=True)
    loss = losses.flow(rendered, alpha, observed)
    assert float(loss) == pytest.approx(4 / 8)
    loss.backward()
    assert set(torch.nonzero(rendered.grad[..., 0])[:, 1].tolist()) == {2, 3, 4}
    assert float(losses.flow(observed.nan_to_num(), alpha, observed)) == 0
    assert float(losses.flow(rendered, alpha, torch.full_like(observed, float("nan")))) == 0


def test_points_are_projected_as_the_renderer_does():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 5, 3, generator=generator) + torch.tensor([0, 0, 2.0])
    K = torch.tensor([[50.0, 0, 20], [0, 60, 10], [0, 0, 1]])
    seen = project_points(points, torch.eye(4).expand(2, 4, 4), K.expand(2, 3, 3))
    assert torch.allclose(seen[..., 0], 50 * points[..., 0] / points[..., 2] + 20)
    assert torch.allclose(seen[..., 1], 60 * points[..., 1] / points[..., 2] + 10)


def test_training_with_flow_carries_the_animal_along_it(clip, tmp_path):
    """After a warm-up, a few steps on nothing but a made-up flow move the second frame's render by about that flow."""
    torch.manual_seed(0)
    trainer = trainer_on(clip, tmp_path, flow_loss_mult=1.0)
    run(trainer, range(20))
    data = trainer.pipeline.datamanager
    assert data.flow_pair(data.active_frames) is None  # a single frame in the warm-up
    run(trainer, range(20, 40))
    assert "flow" in trainer.pipeline.get_train_loss_dict(40)[1]
    pair = data.flow_pair([2])
    wanted = torch.tensor([4.0, 0.0])
    known = pair.flow.isfinite().all(dim=-1, keepdim=True)
    made_up = FlowPair(pair.times, pair.viewmats, pair.Ks, torch.where(known, wanted, pair.flow))
    model = trainer.model
    optimizer = torch.optim.Adam([model.root_motion.table], lr=3e-3)
    before = model.flow_losses(made_up)["flow"].item()
    for _ in range(40):
        optimizer.zero_grad()
        model.flow_losses(made_up)["flow"].backward()
        optimizer.step()
    assert model.flow_losses(made_up)["flow"].item() < 0.3 * before


def test_flow_is_not_computed_where_its_weight_is_zero(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(flow_module, "clip_flow", lambda *_: pytest.fail("computed"))
    trainer = trainer_on(clip, tmp_path)
    run(trainer, range(26, 28))
    assert "_flow" not in vars(trainer.pipeline.datamanager)
