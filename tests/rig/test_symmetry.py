"""The plane between left and right: found where the mirrored animal fits, and only there."""

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


def video_of(true, unmirrored=0.4, period=0.1):
    """Fits best where the mirror is the true one."""

    def difference(shift, T_mirror):
        if T_mirror is None:
            return unmirrored if shift < 0.3 else period
        return 0.1 + float((T_mirror - true).abs().sum()) if true is not None else unmirrored + 0.01

    return difference


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
    assert plane.shift == 0.25 and (plane() - true).abs().max() < 0.02


@pytest.mark.parametrize("period", [0.1, 0.4])
def test_there_is_no_mirror_where_none_fits_better_than_no_reflection(period):
    means = animal(0.4, torch.zeros(3))
    plane = MirrorPlane()
    find_mirror(plane, means, torch.ones(len(means)), 0.5, video_of(None, period=period))
    assert plane.shift is None


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


def test_the_shift_is_kept_with_the_plane():
    plane, other = MirrorPlane(), MirrorPlane()
    plane.place(torch.ones(3), 0.1, 0.2, shift=0.3)
    other.load_state_dict(plane.state_dict())
    assert other.shift == 0.3 and torch.equal(other(), plane())
