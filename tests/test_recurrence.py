"""Frames against renders of other times: small where the animal does again what it did, whatever the camera does."""

import pytest
import torch
from tiny_runs import trainer_on

from bags_ns.recurrence import MAX_SIZE, Recurrence

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def filmed(clip, tmp_path):
    """A model with two poses by turns (its six frames are .2 apart), and what makes its own pictures of them from six cameras."""
    trainer = trainer_on(clip, tmp_path, start_opacity=0.9)
    model, data = trainer.model, trainer.pipeline.datamanager
    with torch.no_grad():
        model.bones.place(model.means)
        model.bone_motion.table[1::2] = 0.1 * torch.randn(8, 6, generator=torch.Generator().manual_seed(0)).to(
            model.device
        )
        model.root_motion.table.copy_(torch.linspace(-0.2, 0.2, 6)[:, None].expand(6, 6))

    def pictures():
        model.train()
        model.eval()
        for index in range(6):
            camera, _ = data.train_image(index)
            outputs = model.get_outputs_for_camera(camera)
            alpha = outputs["accumulation"]
            straight = (outputs["rgb"] - 1 + alpha) / alpha.clamp_min(1e-3)
            rgba = torch.cat([straight.clamp(0, 1), alpha], dim=-1)
            yield camera, (255 * rgba).round().to(torch.uint8)

    return model, pictures


@pytest.fixture
def walking(filmed):
    """The model and its pictures."""
    model, pictures = filmed
    return model, list(pictures())


def test_what_the_animal_does_again_is_told_from_what_it_does_not(walking):
    model, frames = walking
    recurrence = Recurrence(model, frames)
    same, half, period, more = (recurrence(p) for p in (0.0, 0.2, 0.4, 0.6))
    assert same < 0.02 and period < 0.02, "the root and the camera move on"
    assert half > 10 * period and more > 10 * period


def test_nothing_to_compare_is_infinitely_different(walking):
    model, frames = walking
    assert Recurrence(model, frames[2:4])(0.9) == float("inf")
    assert (
        Recurrence(model, frames[2:4])(0.4)
        < float("inf")
        == Recurrence(model, frames[2:4], lambda time: 0.3 <= time <= 0.7)(0.4)
    )


def test_large_frames_are_compared_small(walking):
    model, frames = walking
    camera, image = frames[0]
    camera.rescale_output_resolution(4)
    large = image.repeat_interleave(4, 0).repeat_interleave(4, 1)
    recurrence = Recurrence(model, [(camera, large)])
    assert max(recurrence._frames[0][1].shape) == MAX_SIZE < max(large.shape)
    assert recurrence(0.0) < 0.1


@torch.no_grad()
def test_an_animal_comes_out_of_a_gap_in_a_pose_that_it_had_before(filmed):
    model, pictures = filmed
    model.root_motion.table.zero_()
    frames = list(pictures())
    motion, knots = model.bone_motion, model.bone_motion.knots
    model.take_of, model.frames_entered = [0, 0, 0, 0, 1, 1], {0, 1, 2, 3}
    motion.table[4:] = 0.1
    assert model.new_takes(range(4)) == [] and model.new_takes(range(5)) == [[4, 5]]
    model.look_back([4], frames[4:5])
    assert model.alike_after[1] % 0.4 == pytest.approx(0, abs=1e-6)
    model.canonical_index = 2
    model.enter_frames(range(6))
    assert torch.allclose(motion(knots[4:]), motion(knots[2:4]), atol=1e-5)
    assert model.frames_entered == set(range(6))


def test_a_period_that_is_a_little_off_is_set_right_and_a_mirror_keeps_half_of_it(walking):
    model, frames = walking
    before = model.bone_motion(model.bone_motion.knots)
    model.frames_entered = set(range(6))
    model.repeat_every(0.42)
    model.mirror.shift = 0.21
    model.settle_gait(frames)
    assert model.gait_period == pytest.approx(0.4, abs=0.01) and model.mirror.shift == model.gait_period / 2
    assert torch.allclose(model.bone_motion(model.bone_motion.knots), before, atol=1e-5), "poses stay"
