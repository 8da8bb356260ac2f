"""Tables over time: interpolation, and what all strides have in common."""

import math

import torch

from bags_ns.rig.motion import BoneMotion, RootMotion
from bags_ns.rig.timetable import Timetable, interpolation_weights


def test_interpolation_is_linear_constant_beyond_the_ends_and_works_for_one_knot():
    knots = torch.tensor([0.2, 0.3, 0.8])
    weights = interpolation_weights(knots, torch.tensor([0.0, 0.25, 0.55, 1.0]))
    assert torch.allclose(weights, torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]]), atol=1e-6)
    uneven = torch.rand(300, generator=torch.Generator().manual_seed(0)).sort().values
    assert torch.equal(interpolation_weights(uneven, uneven), torch.eye(300)), "a frame's own time is its own row alone"
    assert torch.equal(interpolation_weights(knots[:1], torch.tensor([0.0, 0.9])), torch.ones(2, 1))


@torch.no_grad()
def test_a_stride_changes_no_frame_and_goes_on_where_frames_are_missing():
    every = torch.linspace(0, 1, 61)
    knots = every[(every < 0.41) | (every > 0.56)]
    motion = BoneMotion(4, knots, float(knots[10]))
    motion.table.copy_((2 * math.pi * knots / 0.29 + torch.arange(4)[:, None]).sin().T[..., None] * torch.arange(1, 7))
    before, missing = motion(knots), torch.linspace(0.43, 0.54, 9)
    lost = (motion(missing) - motion(missing - 0.29)).abs().mean()
    motion.repeat_every(0.29)
    assert torch.allclose(motion(knots), before, atol=1e-5)
    assert (motion(missing) - motion(missing - 0.29)).abs().mean() < 0.2 * lost
    motion.repeat_every(None)
    assert torch.allclose(motion(knots), before, atol=1e-5)


def test_all_frames_of_a_phase_learn_a_stride_together():
    motion = BoneMotion(4, torch.linspace(0, 1, 41), 0.5)
    motion.repeat_every(0.25)
    with torch.no_grad():
        motion.stride.normal_(generator=torch.Generator().manual_seed(0))
        twists = motion(torch.tensor([0.1, 0.35, 0.6, 0.85, 0.9]))
    assert torch.allclose(twists[:1].expand(4, -1, -1), twists[:4], atol=1e-5)
    assert not torch.allclose(twists[0], twists[4], atol=1e-1)


@torch.no_grad()
def test_an_animal_sways_on_where_frames_are_missing_while_it_goes_somewhere():
    every = torch.linspace(0, 1, 61)

    def way(times):
        return 0.02 * (2 * math.pi * times / 0.3).sin() + 0.2 * times - 0.1 * times**2

    missing = (every > 0.44) & (every < 0.61)
    knots = every[~missing]
    root = RootMotion(knots, float(knots[0]))
    root.table[:, 5] = way(knots)
    straight = (root(every)[:, 2, 3] - way(every)).abs().max()
    root.repeat_every(0.3)
    assert torch.allclose(root(knots)[:, 2, 3], way(knots), atol=1e-5)
    assert (root(every)[:, 2, 3] - way(every)).abs().max() < 0.2 * straight


def test_a_timetable_takes_its_period_along():
    timetable, other = (Timetable(torch.linspace(0, 1, 5), 0.5, 2) for _ in range(2))
    timetable.repeat_every(0.4)
    other.load_state_dict(timetable.state_dict())
    assert other.period == 0.4


def test_a_frame_that_is_left_out_is_learned_by_its_neighbours_alone_but_the_stride_goes_on():
    motion = BoneMotion(2, torch.linspace(0, 1, 11), 0.0)
    motion.repeat_every(0.35)
    hidden = torch.zeros(11, dtype=torch.bool)
    hidden[4] = True
    with motion.without(hidden):
        motion(motion.knots[[4]])[0, 0].sum().backward()
    assert motion.table.grad is not None and motion.stride.grad is not None
    touched = motion.table.grad.abs().sum((1, 2)).nonzero().flatten().tolist()
    assert touched == [0, 3, 5], "0 is the canonical one, which all is counted from"
    assert motion.stride.grad.abs().sum() > 0
