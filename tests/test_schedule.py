"""Phases at their edges, and when frames enter."""

import pytest

from bags_ns.schedule import Phase, PhaseSchedule, entry_order, takes_of_frames


def test_phases_follow_each_other():
    schedule = PhaseSchedule(canonical_end=0.2, window_end=0.4, bones_end=0.5)
    assert [schedule.phase(p) for p in (0.0, 0.199, 0.2, 0.499, 0.5, 1.0)] == [
        Phase.CANONICAL, Phase.CANONICAL, Phase.BONES, Phase.BONES, Phase.JOINT, Phase.JOINT,
    ]  # fmt: skip


@pytest.mark.parametrize(("num_steps", "looks"), [(400, [10, 20]), (2000, [50, 100]), (10_000, [50, 100])])
def test_a_mirrors_trial_is_a_part_of_a_short_run_and_no_longer_in_a_long_one(num_steps, looks):
    schedule = PhaseSchedule(bones_end=0.6)
    assert [num_steps * (look - 0.6) for look in schedule.mirror_looks(num_steps)] == pytest.approx(looks)


@pytest.mark.parametrize("canonical_index", [0, 4, 9])
def test_window_grows_outward_from_the_canonical_frame_to_the_whole_clip(canonical_index):
    schedule, num_frames = PhaseSchedule(), 10
    order = entry_order([index / 9 for index in range(num_frames)], canonical_index)
    assert order == [abs(index - canonical_index) for index in range(num_frames)]
    assert list(schedule.window(0.0, order).active) == [canonical_index]
    windows = [schedule.window(p / 100, order) for p in range(101)]
    assert list(windows[-1].active) == list(range(num_frames)) and not windows[-1].newest
    assert list(schedule.window(schedule.window_end, order).active) == list(range(num_frames))
    for earlier, later in zip(windows, windows[1:], strict=False):
        assert set(earlier.active) <= set(later.active)
        assert set(later.newest) <= set(later.active)


def test_a_clip_of_one_frame_has_one_window():
    assert entry_order([0.0], 0) == [0]
    assert list(PhaseSchedule().window(0.9, [0]).active) == [0]


def test_a_take_has_entered_before_any_gap_is_crossed_and_the_window_stays_in_one_piece():
    times = [0.0, 0.02, 0.5, 0.52, 0.54, 0.56, 0.8, 0.82, 0.84]
    assert takes_of_frames(times) == [0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert entry_order(times, 3) == [4, 3, 1, 0, 1, 2, 3, 4, 5]
    assert entry_order(times, 8) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    windows = [PhaseSchedule().window(p / 200, entry_order(times, 3)).active for p in range(201)]
    assert range(2, 6) in windows and len({*windows}) == 6
    every_eighth_missing = [index / 40 for index in range(40) if index % 8 != 4]
    assert not any(takes_of_frames(every_eighth_missing))
