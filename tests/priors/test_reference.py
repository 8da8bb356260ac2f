"""Recutting a frame as a prior's reference, and views for a prior."""

import math

import torch

from bags_ns.cameras import intrinsics_from_fov, look_at, viewmats_from_camera_to_worlds
from bags_ns.gaussians import Gaussians
from bags_ns.priors.base import PriorCamera
from bags_ns.priors.reference import recut
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


def test_a_recut_frame_is_what_the_turned_camera_sees():
    center = torch.tensor([0.5, 0.3, -0.1])
    gaussians = blob(center)
    pose = look_at(torch.tensor([3.0, 0.2, 0.6]), torch.zeros(3))  # looks past the blob
    K = intrinsics_from_fov(45.0, 512, 512)
    reference = recut(picture(gaussians, pose, K, 512), pose[:3], K, 64)
    turned = look_at(reference.position, reference.position + reference.direction)
    fine = picture(gaussians, turned, intrinsics_from_fov(reference.fov_deg, 512, 512), 512)
    on_white = fine[..., :3] * fine[..., 3:] + 1 - fine[..., 3:]
    expected = torch.nn.functional.interpolate(on_white.permute(2, 0, 1)[None], (64, 64), mode="area")[0]
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
