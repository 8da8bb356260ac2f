"""Seed points lie where the silhouettes allow, with the depth of a round body."""

import numpy as np
import pytest
import torch
from drawn_clips import draw, orbit

from bags_ns.data.images import DataError
from bags_ns.data.seed_points import THICKNESS, View, direction_spread, inflate, scene_centre, seed_points

FOCAL = 100.0
INTRINSICS = np.array([[FOCAL, 0, 40], [0, FOCAL, 40], [0, 0, 1.0]])


def ball_view(azimuth_deg: float, ball_radius: float = 0.4, centre=(0.0, 0.0, 0.0)) -> View:
    pose = np.array(orbit(azimuth_deg)) + np.array([[0, 0, 0, value] for value in (*centre, 0.0)])
    disc = FOCAL * np.tan(np.arcsin(ball_radius / 2.0))
    return View(draw((40, 40), (disc, disc), (80, 80))[1], INTRINSICS, pose)


COLOURS = draw((40, 40), (20, 20), (80, 80))[0]


def test_inflating_a_disc_gives_a_ball():
    rows, columns = np.mgrid[:81, :81] + 0.5
    squared = (rows - 40.5) ** 2 + (columns - 40.5) ** 2
    thickness = inflate(squared < 30**2)
    ball = np.sqrt(np.maximum(30**2 - squared, 0))
    assert np.abs(thickness - ball)[squared < 28**2].max() < 1.5


def test_inflating_a_stripe_gives_a_cylinder():
    inside = np.zeros((40, 120), bool)
    inside[10:30] = True
    thickness = inflate(inside)[:, 40:80]
    profile = np.sqrt(np.maximum(10**2 - (np.arange(40) + 0.5 - 20) ** 2, 0))
    assert np.abs(thickness - profile[:, None])[11:29].max() < 1.5


def test_inflating_takes_the_exact_union_of_balls_so_that_it_is_the_same_each_time():
    inside = draw((16, 18), (12, 7), (32, 36))[1] > 0
    inner, outer = np.argwhere(inside), np.argwhere(~np.pad(inside, 1)) - 1  # what is beyond the picture is outside too
    reach = np.linalg.norm(inner[:, None] - outer, axis=-1).min(axis=1) - 0.5
    heights = reach**2 - ((inner[:, None] - inner) ** 2).sum(-1)
    assert inflate(inside)[inside] == pytest.approx(np.sqrt(heights.max(axis=1)), rel=1e-12)


# A hull is filled: a ball of radius .4 has a spread of .4 / sqrt(5) along every axis. An inflated silhouette is covered:
# evenly over the disc (.4 / 2), and .8 to 1 of the half-thickness away from its plane (.4 sqrt(E[s^2] / 2)), flattened.
FILLED, COVERED = [0.4 / 5**0.5] * 3, [THICKNESS * 0.4 * (0.5 * 0.8133) ** 0.5, 0.2, 0.2]


@pytest.mark.parametrize(
    "azimuths, spread", [((), COVERED), ((5.0, -5.0), COVERED), ((60.0, 120.0, 180.0, 240.0, 300.0), FILLED)]
)
def test_points_make_a_ball_seen_from_one_side_or_all(azimuths, spread):
    canonical, others = ball_view(0), [ball_view(azimuth) for azimuth in azimuths]
    xyz, rgb = seed_points(canonical, others, COLOURS, 3000, radius=0.6)
    assert xyz.shape == (3000, 3)
    assert rgb.dtype == torch.uint8
    assert canonical.contains(xyz.double().numpy()).mean() > 0.999
    distance = xyz.norm(dim=1)
    assert distance.max() < 0.5
    assert xyz.std(dim=0).tolist() == pytest.approx(spread, rel=0.12)
    assert xyz.mean(dim=0).abs().max() < 0.03


def test_points_have_the_canonical_colours_and_follow_the_seed():
    first, again, other = (seed_points(ball_view(0), [], COLOURS, 500, 0.6, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    pixels, _ = ball_view(0).project(first[0].double().numpy())
    columns, rows = np.floor(pixels).astype(int).T
    assert (first[1].numpy() == COLOURS[rows, columns]).all(axis=1).mean() > 0.99


def test_the_centre_is_where_the_views_meet_if_the_origin_is_not_on_the_animal():
    centre = (3.0, -1.0, 0.5)
    views = [ball_view(azimuth, centre=centre) for azimuth in (0, 50, 100)]
    assert np.allclose(scene_centre(views[0], views, direction_spread(views)), centre, atol=0.05)


def test_without_any_depth_the_animal_is_taken_to_be_one_unit_long():
    view = ball_view(0, centre=(0.0, 9.0, 0.0))
    centre = scene_centre(view, [view], 0.0)
    (pixel,), (depth,) = view.project(centre[None])
    assert np.abs(pixel - 40).max() < 0.6
    assert depth * 41 / FOCAL == pytest.approx(1.0, abs=0.05)  # the disc is 41 pixels wide


def test_views_that_contradict_each_other_are_refused():
    canonical = ball_view(0)
    elsewhere = [ball_view(angle, 0.05, centre=(9.0, 9.0, 9.0)) for angle in (120, 240)]
    with pytest.raises(DataError, match="--seed-radius"):
        seed_points(canonical, elsewhere, COLOURS, 100, radius=0.001)


def long_body_view(azimuth_deg: float, centre: tuple[float, ...] = (0.0, 0.0, 0.0)) -> View:
    """An ellipsoid along the world's y axis."""
    shell = np.random.default_rng(0).normal(size=(20_000, 3))
    shell *= np.array([0.1, 0.5, 0.1]) / np.linalg.norm(shell, axis=1, keepdims=True)
    shell += centre
    view = View(np.zeros((80, 80), np.uint8), INTRINSICS, np.array(orbit(azimuth_deg)))
    columns, rows = np.floor(view.project(shell)[0]).astype(int).T
    view.alpha[rows, columns] = 255
    return view


@pytest.mark.parametrize("canonical, others", [(30.0, (0.0, 15.0, 45.0)), (-30.0, (-45.0, -15.0, 0.0))])
def test_an_arc_of_views_says_how_the_inflated_body_leans(canonical: float, others: tuple[float, ...]):
    view = long_body_view(canonical)

    def off_axis_deg(views: list[View]) -> float:
        xyz = seed_points(view, views, COLOURS, 3000, radius=0.6)[0].numpy()
        longest = np.linalg.svd(xyz - xyz.mean(axis=0))[2][0]
        return float(np.degrees(np.arccos(abs(longest[1]))))

    flat = off_axis_deg([])
    assert flat > 20
    assert off_axis_deg([long_body_view(azimuth) for azimuth in others]) < flat / 3


@pytest.mark.parametrize("way", [-0.06, 0.06])
def test_an_arc_of_views_says_how_far_away_the_inflated_body_is(way: float):
    centre = (way, 0.0, 0.0)
    views = [long_body_view(azimuth, centre) for azimuth in (-30.0, -15.0, 15.0, 30.0)]
    xyz = seed_points(long_body_view(0.0, centre), views, COLOURS, 3000, radius=0.6)[0].numpy()
    assert xyz.mean(axis=0) == pytest.approx(centre, abs=0.025)
