"""Recutting a frame as a prior's reference, and views for a prior."""

import math

import torch

from bags_ns.cameras import (
    intrinsics_from_fov,
    look_at,
    orbit_camera,
    orbit_coordinates,
    viewmats_from_camera_to_worlds,
)
from bags_ns.gaussians import Gaussians
from bags_ns.priors.base import PriorCamera
from bags_ns.priors.reference import recut, taken_by
from bags_ns.priors.views import moved, random_views
from bags_ns.rendering import render


def blob(center):
    g = torch.Generator().manual_seed(0)
    offsets = torch.randn(60, 3, generator=g) * torch.tensor([0.25, 0.1, 0.1])
    covars = (0.06**2 * torch.eye(3)).repeat(60, 1, 1)
    return Gaussians(center + offsets, covars, torch.full((60,), 0.99), torch.rand(60, 3, generator=g))


def picture(gaussians, pose, K, size):
    output = render(gaussians, viewmats_from_camera_to_worlds(pose[None]), K[None], size, size)
    alpha = output.alpha[0]
    return torch.cat([output.rgb[0] / alpha.clamp_min(1e-6), alpha], dim=-1)


def on_white(rgba):
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def test_a_recut_frame_is_what_the_turned_camera_sees():
    center = torch.tensor([0.5, 0.3, -0.1])
    gaussians = blob(center)
    pose = look_at(torch.tensor([3.0, 0.2, 0.6]), torch.zeros(3))  # looks past the blob
    K = intrinsics_from_fov(45.0, 512, 512)
    reference = recut(picture(gaussians, pose, K, 512), pose[:3], K, 64)
    turned = look_at(reference.position, reference.position + reference.direction)
    fine = picture(gaussians, turned, intrinsics_from_fov(reference.fov_deg, 512, 512), 512)
    expected = torch.nn.functional.interpolate(on_white(fine).permute(2, 0, 1)[None], (64, 64), mode="area")[0]
    assert (reference.picture - expected.permute(1, 2, 0)).abs().mean() < 0.01
    inside = (reference.picture < 0.9).any(dim=-1).nonzero().float()
    assert (0.5 * (inside.amin(0) + inside.amax(0)) - 31.5).abs().max() < 2


def test_the_target_lies_on_the_central_ray_at_the_animals_distance():
    pose = look_at(torch.tensor([3.0, 0.0, 0.5]), torch.zeros(3))
    K = intrinsics_from_fov(40.0, 128, 128)
    reference = recut(picture(blob(torch.zeros(3)), pose, K, 128), pose, K, 32)
    target = reference.target(torch.tensor([0.1, 0.2, 0.0]))
    along = (target - reference.position) @ reference.direction
    assert torch.allclose(reference.position + along * reference.direction, target, atol=1e-6)
    assert abs(float((torch.tensor([0.1, 0.2, 0.0]) - target) @ reference.direction)) < 1e-6


def test_an_empty_silhouette_stands_for_the_whole_frame():
    pose = look_at(torch.tensor([3.0, 0.0, 0.5]), torch.zeros(3))
    reference = recut(torch.zeros(48, 48, 4), pose, intrinsics_from_fov(40.0, 48, 48), 16)
    assert torch.allclose(reference.picture, torch.ones(16, 16, 3))


def test_a_narrow_picture_is_what_the_priors_camera_sees_from_its_nearest_place():
    camera = PriorCamera(fov_deg=49.0, radius_range=(1.5, 2.2), elevation_range_deg=(-10.0, 40.0))
    gaussians = blob(torch.zeros(3))
    far = look_at(torch.tensor([60.0, 0.0, 1.0]), torch.zeros(3))  # from far away perspective does not matter
    narrow_fov = math.degrees(2 * math.atan(0.45 / 60))
    narrow = on_white(picture(gaussians, far, intrinsics_from_fov(narrow_fov, 256, 256), 256))
    taken, radius = taken_by(narrow, narrow_fov, 60.0, camera)
    assert radius == 1.5 and taken.shape == narrow.shape
    wide_fov = math.degrees(2 * math.atan(1.5 * math.tan(math.radians(24.5)) / 60))
    expected = on_white(picture(gaussians, far, intrinsics_from_fov(wide_fov, 256, 256), 256))
    assert (taken - expected).abs().mean() < 0.01 and (narrow - expected).abs().mean() > 0.05
    same, radius = taken_by(narrow, 40.0, 2.2, camera)
    assert same is narrow and 1.5 < radius < 2.2


def test_rings_share_elevation_and_radius_and_lie_between_each_other():
    camera = PriorCamera(fov_deg=47.0, radius_range=(1.3, 1.7), elevation_range_deg=(0.0, 30.0), views_per_ring=4)
    azimuths, elevations, radii = orbit_coordinates(random_views(8, camera, torch.device("cpu")))
    for shared in (elevations, radii):
        first, second = shared.unflatten(0, (2, 4))
        assert torch.allclose(first, first[:1].expand(4)) and torch.allclose(second, second[:1].expand(4))
        assert not torch.allclose(first, second)
    rings = azimuths.unflatten(0, (2, 4))
    assert torch.allclose(rings.diff(dim=1) % (2 * math.pi), torch.full((2, 3), math.pi / 2), atol=1e-4)
    assert torch.allclose((rings[1] - rings[0]) % (2 * math.pi), torch.full((4,), math.pi / 4), atol=1e-4)


def test_orbit_coordinates_undo_orbit_cameras():
    coordinates = torch.tensor([[0.3, -3.0, 2.0], [0.2, -0.9, 1.2], [1.0, 2.5, 0.4]])
    for given, found in zip(coordinates, orbit_coordinates(orbit_camera(*coordinates)), strict=True):
        torch.testing.assert_close(found, given)


def test_views_look_at_their_target_from_within_the_priors_range():
    camera = PriorCamera(fov_deg=40.0, radius_range=(1.5, 2.5), elevation_range_deg=(-10.0, 30.0))
    torch.manual_seed(0)
    poses = random_views(4, camera, torch.device("cpu"))
    positions = poses[:, :3, 3]
    radii = positions.norm(dim=1)
    assert ((radii >= 1.5) & (radii <= 2.5)).all()
    elevations = torch.rad2deg((positions[:, 2] / radii).asin())
    assert ((elevations >= -10.001) & (elevations <= 30.001)).all()
    azimuths = torch.atan2(positions[:, 1], positions[:, 0])
    gaps = torch.diff(azimuths) % (2 * math.pi)
    assert torch.allclose(gaps, torch.full((3,), math.pi / 2), atol=1e-4)
    shift = torch.tensor([1.0, -2.0, 0.5])
    shifted = moved(poses, shift)
    assert torch.allclose(shifted[:, :3, 3] - shift, positions) and torch.equal(shifted[:, :3, :3], poses[:, :3, :3])
