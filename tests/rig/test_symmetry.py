"""The plane between left and right: found where the mirrored animal fits, and kept only where it does."""

import math

import pytest
import torch

from bags_ns.rig.deformation import deform
from bags_ns.rig.symmetry import MirrorPlane, find_mirror


def mirror(point, azimuth, offset=0.0):
    plane = MirrorPlane()
    plane.place(point, azimuth, offset, shift=None)
    return plane().detach()


def animal(azimuth, middle):
    """An upright, long cloud whose shorter horizontal axis has this azimuth."""
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.06, 0.3, 0.1])
    c, s = math.cos(azimuth), math.sin(azimuth)
    return points @ torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]) + middle


def video_of(true):
    """Fits best where the mirror is the true one."""
    return lambda shift, T_mirror: 0.1 + float((T_mirror - true).abs().sum())


def test_a_mirror_is_its_own_inverse_and_leaves_its_plane_alone():
    point = torch.tensor([0.3, -0.2, 0.5])
    T = mirror(point, 0.7)
    assert torch.allclose(T @ T, torch.eye(4), atol=1e-6)
    assert torch.linalg.det(T) == pytest.approx(-1, abs=1e-5)
    assert torch.allclose(T[:3, :3] @ point + T[:3, 3], point, atol=1e-6)
    moved = mirror(point, 0.7, 0.1)
    assert (moved[:3, :3] @ point + moved[:3, 3] - point).norm() == pytest.approx(0.2, abs=1e-5)


def test_gaussians_are_mirrored_by_the_transforms_of_the_bones():
    """A reflection after the bones is a reflection of means and covariances."""
    torch.manual_seed(0)
    means, factors, weights = torch.randn(20, 3), torch.randn(20, 3, 3), torch.rand(20, 4).softmax(-1)
    transforms = torch.eye(4).repeat(4, 1, 1)
    transforms[:, :3, 3] = torch.randn(4, 3)
    T = mirror(torch.zeros(3), 0.3, 0.1)
    moved, covars = deform(means, factors, weights, transforms)
    mirrored, mirrored_covars = deform(means, factors, weights, T @ transforms)
    assert torch.allclose(mirrored, moved @ T[:3, :3].T + T[:3, 3], atol=1e-5)
    assert torch.allclose(mirrored_covars, T[:3, :3] @ covars @ T[:3, :3].T, atol=1e-5)


@pytest.mark.parametrize("turn_deg", [-25.0, 3.0, 30.0])
def test_the_plane_is_found_where_the_cloud_only_points_near_it(turn_deg):
    middle = torch.tensor([0.2, -0.1, 0.3])
    means = animal(0.4, middle)
    true = mirror(middle, 0.4 + math.radians(turn_deg), 0.02)
    plane = MirrorPlane()
    find_mirror(plane, means, torch.ones(len(means)), 0.5, video_of(true))
    assert plane.shift == 0.25 and plane.on_trial and (plane() - true).abs().max() < 0.02


@pytest.mark.parametrize(
    ("mirrored", "period", "is_kept"),
    [(0.1, 0.1, True), (0.2, 0.1, True), (0.3, 0.1, False), (0.5, 0.1, False), (0.4, 0.4, False)],
)
def test_a_mirror_is_kept_where_it_explains_about_as_much_as_a_whole_period(mirrored, period, is_kept):
    """Half a period away the animal differs by .4; a mirror that explains little, or where there is nothing to explain, goes."""
    plane = MirrorPlane()
    plane.place(torch.zeros(3), 0.0, 0.0, shift=0.25)
    plane.on_trial = True

    def difference(shift, T_mirror):
        return period if shift > 0.25 else 0.4 if T_mirror is None or not shift else mirrored

    plane.weigh(0.5, difference)
    assert plane.shift == 0.25 and plane.on_trial
    plane.judge()
    assert (plane.shift == 0.25) is is_kept and not plane.on_trial


@pytest.mark.parametrize(("at_once", "is_kept"), [(0.5, True), (0.3, True), (0.18, False), (0.1, False)])
def test_a_mirror_is_dropped_where_the_animal_is_about_its_own_mirror_image_at_once(at_once, is_kept):
    """Both sides of a bound do the same: half a period explains more of the .4 then only because the animal has given way."""
    plane = MirrorPlane()
    plane.place(torch.zeros(3), 0.0, 0.0, shift=0.25)

    def difference(shift, T_mirror):
        return 0.1 if shift > 0.25 else 0.4 if T_mirror is None else 0.15 if shift else at_once

    plane.weigh(0.5, difference)
    plane.judge()
    assert (plane.shift == 0.25) is is_kept


@pytest.mark.parametrize(("gains", "is_kept"), [([0.5, 0.8], True), ([0.8, 0.5], True), ([0.3, 0.7], False)])
def test_all_looks_at_a_mirror_count_alike(gains, is_kept):
    plane = MirrorPlane()
    plane.shift, plane.gains = 0.25, gains
    plane.judge()
    assert (plane.shift == 0.25) is is_kept


def test_the_plane_learns_to_fit():
    point, plane = torch.tensor([0.2, -0.1, 0.3]), MirrorPlane()
    true = mirror(point, 0.4, 0.02)
    plane.place(point, 0.3, -0.03, shift=0.25)
    optimizer = torch.optim.Adam(plane.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        (plane() - true).square().sum().backward()
        optimizer.step()
    assert torch.allclose(plane(), true, atol=1e-3)


def test_half_a_period_away_is_in_the_clip_and_on_either_side():
    plane, times = MirrorPlane(), torch.linspace(0, 1, 21)
    plane.shift = 0.34
    drawn = torch.stack([plane.times_like(times) for _ in range(20)])
    assert ((drawn >= 0) & (drawn <= 1)).all() and torch.allclose((drawn - times).abs(), torch.tensor(0.34))
    assert drawn[:, 10].unique().numel() == 2


def test_shift_and_trial_are_kept_with_the_plane():
    plane, other = MirrorPlane(), MirrorPlane()
    plane.place(torch.ones(3), 0.1, 0.2, shift=0.3)
    plane.on_trial, plane.gains = True, [0.4]
    other.load_state_dict(plane.state_dict())
    assert other.shift == 0.3 and other.on_trial and other.gains == [0.4] and torch.equal(other(), plane())
