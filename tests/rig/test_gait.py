"""The period of a gait: found where motion repeats, and only there."""

import math

import numpy as np
import pytest
import torch

from bags_ns.rig.gait import LEAST_BY_BONES, SAMPLES_A_FRAME, find_period, gait_period, recovery, repetition
from bags_ns.rig.motion import BoneMotion

FRAMES = 60


def seen(motion):
    """How much a motion differs from itself so much of the clip earlier or later: what a video of it would show."""

    def difference(period):
        lag = period * (len(motion) - 1)
        whole = int(lag)
        later = torch.lerp(motion[whole:-1], motion[whole + 1 :], lag - whole) if lag > whole else motion[whole:]
        return float((later - motion[: len(later)]).abs().mean()) if len(later) else math.inf

    return difference


def period_of(motion):
    """Where bones and video show the same."""
    return find_period(motion, seen(motion))


def sampled(motion, frames=FRAMES):
    """A function of time in [0, 1] at the times that periods are looked for at."""
    return motion(torch.linspace(0, 1, SAMPLES_A_FRAME * (frames - 1) + 1, dtype=torch.float64)[:, None])


def walk(times, period, harmonics=3, legs=4):
    """Paths of legs, each a quarter of a period after the last."""
    phases = 2 * math.pi * (times / period + torch.arange(legs) / 4)
    return sum((k * phases + k).sin() / k**2 for k in range(1, harmonics + 1))


@pytest.mark.parametrize("period", [0.15, 0.288, 0.434, 0.6])
def test_the_period_of_a_walk_is_found_to_a_quarter_of_a_frame(period):
    assert period_of(sampled(lambda t: walk(t, period))) == pytest.approx(period, abs=0.25 / FRAMES)


def test_a_drift_and_noise_change_little():
    noise = 0.05 * torch.randn(SAMPLES_A_FRAME * (FRAMES - 1) + 1, 4, generator=torch.Generator().manual_seed(0))
    bones = sampled(lambda t: walk(t, 0.3) + 3 * t + 2 * t**2) + noise
    video = sampled(lambda t: walk(t, 0.3) + 0.3 * t) + noise
    assert find_period(bones, seen(video)) == pytest.approx(0.3, abs=0.5 / FRAMES)


def test_bones_tell_a_period_from_half_of_it_where_the_video_does_not():
    legs = sampled(lambda t: walk(t, 0.4, harmonics=1))
    outline = legs.abs()  # the same when the sides have changed places
    assert find_period(outline, seen(outline)) == pytest.approx(0.2, abs=0.5 / FRAMES)
    assert find_period(legs, seen(outline)) == pytest.approx(0.4, abs=0.5 / FRAMES)


def test_half_of_a_period_that_the_video_alone_shows_is_not_believed_where_bones_have_to_bear_it_out():
    outline = sampled(lambda t: walk(t, 0.4, harmonics=1)).abs()
    noise = torch.randn(outline.shape, generator=torch.Generator().manual_seed(0))  # bones that are not known yet
    assert find_period(noise, seen(outline)) == pytest.approx(0.2, abs=0.5 / FRAMES)
    assert find_period(noise, seen(outline), least_by_bones=LEAST_BY_BONES) is None


def test_the_exact_period_is_the_videos():
    legs = sampled(lambda t: walk(t, 0.43))
    assert find_period(legs, seen(sampled(lambda t: walk(t, 0.41)))) == pytest.approx(0.41, abs=0.25 / FRAMES)


@pytest.mark.parametrize("seed", range(5))
def test_what_does_not_repeat_has_no_period(seed):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(FRAMES, 96, generator=generator).cumsum(0)
    wandering = torch.nn.functional.interpolate(
        steps.T[None], SAMPLES_A_FRAME * (FRAMES - 1) + 1, mode="linear", align_corners=True
    )[0].T
    assert period_of(wandering) is None
    assert period_of(sampled(lambda t: torch.exp(-(((t - 0.5) / 0.1) ** 2)))) is None, "one nod"
    assert period_of(sampled(torch.zeros_like)) is None, "a statue"


def test_a_clip_too_short_for_a_period_has_none():
    assert period_of(sampled(lambda t: walk(t, 0.5), frames=3)) is None


def test_a_period_is_found_in_a_part_of_the_clip_where_the_rest_is_unknown():
    knots, span = torch.linspace(0, 1, FRAMES), (0.25, 0.75)
    motion = BoneMotion(4, knots, 0.5)
    known = (knots >= span[0]) & (knots <= span[1])
    with torch.no_grad():
        motion.table[..., 3:] = torch.where(known[:, None], walk(knots[:, None], 0.2), torch.zeros(()))[..., None]

    def difference(period):
        times = torch.linspace(span[0], span[1] - period, 50)
        return float((motion(times + period) - motion(times)).abs().mean())

    assert gait_period(motion, difference, span) == pytest.approx(0.2, abs=0.5 / FRAMES)
    with torch.no_grad():
        inside, anywhere = (motion.change_over(0.2, 200, part).square().mean() for part in (span, (0.0, 1.0)))
    assert inside < 0.05 * anywhere


def test_repetition_is_one_after_no_time_and_after_a_period():
    values = repetition(sampled(lambda t: walk(t, 0.25)), 120)
    assert values[0] == pytest.approx(1)
    assert values[59] == pytest.approx(1, abs=0.05)


def test_a_difference_that_is_gone_has_recovered_and_one_that_grows_has_not():
    values = recovery(np.array([1.0, 3.0, 5.0, 3.0, 1.0, 6.0]))
    assert values.tolist() == pytest.approx([0, 0, 0, 0.5, 1, 0])
    assert (recovery(np.ones(4)) == 0).all()


def test_motion_that_repeats_changes_nothing_over_its_period_and_other_motion_does():
    torch.manual_seed(0)
    knots = torch.linspace(0, 1, 31)
    motion = BoneMotion(5, knots, 0.5)
    with torch.no_grad():
        motion.table.copy_((2 * math.pi * knots / 0.4).sin()[:, None, None] * torch.randn(5, 6))
        assert motion.change_over(0.3, 50).square().mean() > 100 * motion.change_over(0.4, 50).square().mean()
