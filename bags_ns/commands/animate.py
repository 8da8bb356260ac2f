"""`bags animate`: plays a track, or another animal's motion, and films it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animation.pose_track import PoseTrack
from bags_ns.model import BagsModel
from bags_ns.rig.motion import Pose
from bags_ns.rigged import track_poses
from bags_ns.visualize import (
    TURNTABLE_ELEVATION_DEG,
    TURNTABLE_RADIUS,
    Frame,
    orbit_view,
    render_pose,
    write_film,
)


@torch.no_grad()
def film(model: BagsModel, poses: list[Pose], azimuth: float, size: int) -> Iterator[Frame]:
    """Pictures of the poses from one camera that has the animal in view all the time.

    Args:
        azimuth: from which the camera looks, in radians.
        size: side of the picture, in pixels.
    """
    centers = torch.stack([model.posed_gaussians(pose).centroid() for pose in poses])
    middle = 0.5 * (centers.amin(0) + centers.amax(0))
    radius = TURNTABLE_RADIUS + (centers - middle).norm(dim=-1).max().item()
    camera = orbit_view(azimuth, math.radians(TURNTABLE_ELEVATION_DEG), radius, middle, size)
    for pose in poses:
        yield render_pose(model, pose, camera)


def side_azimuth(points: Float[Tensor, "P 3"]) -> float:
    """Direction from which the animal is seen broadside: across the longest horizontal axis of its points, in radians."""
    flat = points[:, :2] - points[:, :2].mean(dim=0)
    _, axes = torch.linalg.eigh(flat.T @ flat)
    return math.atan2(float(axes[1, 0]), float(axes[0, 0]))


def write_animation(
    model: BagsModel, track: PoseTrack, output_dir: Path, *, size: int, azimuth: float
) -> tuple[Path, Path]:
    """Films a track into `output_dir`/animation.mp4 and animation.png (a contact sheet), and returns both paths."""
    track.check_model(model.skeleton)
    poses = track_poses(model, track)
    return write_film(output_dir, "animation", film(model, poses, azimuth, size), len(poses), fps=track.fps)
