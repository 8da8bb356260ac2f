"""A turning is found from its outlines alone, up to the twin that only an expectation tells from it."""

import math

import cv2
import numpy as np
import pytest
import torch

from bags_ns.cameras import orbit_camera
from bags_ns.data.seed_points import View, lean
from bags_ns.rig.transforms import so3_exp
from bags_ns.turned_outlines import TurnedOutlines, Turning, find_turning

SIZE, FOCAL = 160, 640.0
TIMES = torch.linspace(0, 1, 9)
SINCE = TIMES - 0.5
POSE = orbit_camera(torch.zeros(1), torch.zeros(1), torch.full((1,), 6.0))[0].double()


def animal():
    """A body along y with a head that is higher than the tail, four legs, and less width than height."""
    g = torch.Generator().manual_seed(0)
    parts = [((0, 0, 0), (0.1, 0.4, 0.14)), ((0, 0.42, 0.2), (0.06, 0.1, 0.1)), ((0, -0.5, 0.05), (0.03, 0.2, 0.03))]
    parts += [((x, y, -0.25), (0.035, 0.05, 0.2)) for x in (-0.07, 0.07) for y in (-0.25, 0.25)]
    balls = [torch.nn.functional.normalize(torch.randn(700, 3, generator=g), dim=1) for _ in parts]
    return torch.cat([torch.tensor(c) + torch.tensor(r) * b for (c, r), b in zip(parts, balls, strict=True)])


def view_of(points):
    """A dense silhouette of points."""
    view = View(np.zeros((SIZE, SIZE), np.uint8), np.array([[FOCAL, 0, 80], [0, FOCAL, 80], [0, 0, 1]]), POSE.numpy())
    pixels, _ = view.project(points.double().numpy())
    columns, rows = np.floor(pixels).astype(int).T
    view.alpha[rows, columns] = 255
    closed = cv2.morphologyEx(view.alpha, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    return View(closed, view.intrinsics, view.camera_to_world)


def outlines_of(turning, moved=None):
    """What a camera sees of the animal as it turns, and the shape as it is before it leans, as seeds would be."""
    moved = torch.zeros(9, 3) if moved is None else moved
    angles = turning.at(TIMES) - turning.at(TIMES[4:5])
    points, axis = animal(), torch.tensor([math.sin(turning.elevation), 0.0, math.cos(turning.elevation)])
    rotations = so3_exp(angles[:, None] * axis)
    seen = [view_of(points @ R.T + way) for R, way in zip(rotations, moved, strict=True)]
    seeds = torch.from_numpy(lean(points.double().numpy(), seen[4], -turning.slope)).float()
    return TurnedOutlines(seeds, seen, torch.zeros(9, 3), TIMES, 0.5)


def degrees(turning):
    return math.degrees(turning.turn), math.degrees(turning.elevation)


@pytest.mark.parametrize(("turn", "elevation"), [(60, 10), (-80, 10), (40, 20)])
def test_turn_and_elevation_are_found_without_any_help(turn, elevation):
    done = []
    found = find_turning(
        outlines_of(Turning.even(math.radians(turn), math.radians(elevation), 0.0)), None, None, lambda: done.append(1)
    )
    assert degrees(found) == pytest.approx((turn, elevation), abs=8.0) and len(done) == 25
    assert abs(found.slope) < 0.2


@pytest.mark.parametrize("turns_deg", [(0, 0, 5, 35, 70), (0, 20, 50, 80, 50)])
def test_an_animal_may_turn_late_or_turn_back(turns_deg, monkeypatch):
    truth = Turning(tuple(math.radians(turn) for turn in turns_deg), math.radians(10), 0.0)
    outlines = outlines_of(truth)

    def error_deg():
        off = find_turning(outlines, None).at(TIMES) - truth.at(TIMES)
        return math.degrees(float((off - off[4]).square().mean().sqrt()))

    uneven = error_deg()
    monkeypatch.setattr("bags_ns.turned_outlines.EVEN_WEIGHT", 1e6)
    assert uneven < 10 and uneven < 0.6 * error_deg()


def test_times_between_are_at_an_even_rate_and_unevenness_is_that_of_the_rate():
    turning = Turning((0.0, 0.1, 0.3, 0.3, 0.4), 0.0, 0.0)
    assert turning.at(torch.tensor([0.0, 0.125, 0.5, 1.0])).tolist() == pytest.approx([0.0, 0.05, 0.3, 0.4])
    assert turning.turn == pytest.approx(0.4) and turning.unevenness == pytest.approx(0.1**2 + 0.2**2 + 0.1**2)
    assert Turning.even(1.0, 0.0, 0.0).unevenness == pytest.approx(0.0, abs=1e-12)


def test_a_body_that_stands_out_of_the_picture_is_leaned():
    found = find_turning(outlines_of(Turning.even(math.radians(60), math.radians(10), 0.4)), None)
    assert degrees(found) == pytest.approx((60.0, 10.0), abs=8.0)
    assert found.slope == pytest.approx(0.4, abs=0.15)


def test_the_truth_agrees_best_wherever_the_animal_goes():
    truth = Turning.even(math.radians(60), math.radians(10), 0.0)
    moved = torch.stack([0.3 * SINCE, 0.5 * SINCE, 0.05 * SINCE], dim=1)
    unmoved, there = outlines_of(truth).agreement(truth), outlines_of(truth, moved).agreement(truth)
    assert unmoved > 0.86 and there > unmoved - 0.05
    for other in (
        Turning.even(math.radians(30), truth.elevation, 0.0),
        Turning.even(truth.turn, -truth.elevation, 0.0),
    ):
        assert outlines_of(truth, moved).agreement(other) < there - 0.05


@pytest.mark.parametrize("expected_deg", [None, 40, -15])
def test_an_animal_that_stays_as_it_is_does_not_turn_whatever_is_expected(expected_deg):
    expected = None if expected_deg is None else math.radians(expected_deg)
    assert find_turning(outlines_of(Turning.even(0.0, 0.0, 0.0)), expected) == Turning.even(0.0, 0.0, 0.0)


def test_what_is_expected_tells_twins_apart():
    """From below, turning left, or its depth reversed from above, turning right: without help the camera looks down."""
    outlines = outlines_of(Turning.even(math.radians(60), math.radians(-10), 0.0))
    turn, elevation = degrees(find_turning(outlines, math.radians(70)))
    assert turn == pytest.approx(60.0, abs=10.0) and elevation < 0
    turn, elevation = degrees(find_turning(outlines, None))
    assert turn < -20 and elevation > 0


def test_a_known_elevation_is_kept():
    known = math.radians(25)
    assert (
        find_turning(outlines_of(Turning.even(math.radians(60), math.radians(20), 0.0)), None, known).elevation == known
    )


def test_the_axis_is_upright_for_a_camera_that_is_level_and_leans_to_one_that_looks_down():
    outlines = outlines_of(Turning.even(0.0, 0.0, 0.0))
    assert torch.allclose(outlines.axis(Turning.even(1.0, 0.0, 0.0)), torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
    leaning = outlines.axis(Turning.even(1.0, math.radians(30), 0.0))
    assert torch.allclose(leaning, torch.tensor([0.5, 0.0, math.sqrt(0.75)]), atol=1e-6)
