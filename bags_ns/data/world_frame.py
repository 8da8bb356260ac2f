"""The model's frame for clips with known cameras: the animal about one unit long at the origin, z up.

A camera file is in the units, the place and the orientation of whatever wrote it (COLMAP, ns-process-data, a phone). The
similarity to the model's frame follows from cameras and silhouettes alone, so that it is the same scene that comes out
whatever similarity the file was in:

- Centre: where the rays through the middles of the silhouettes meet. Where they hardly differ (a fixed camera), where the
  optical axes of all cameras meet, those of test views included. Where these do not differ either, any depth does: the
  scale then fits the silhouette to it, and no picture can tell. Always moved to the ray of the canonical frame.
- Scale: the longer side of the canonical silhouette at that depth is one unit, or that of the median one if it is longer
  (the canonical frame may show the animal from its front).
- Up: the direction about which no camera is rolled, or the mean of the cameras' own where they hardly turn.
- Heading: the canonical frame's camera is on the +x side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from bags_ns.data.images import FOREGROUND
from bags_ns.data.seed_points import ALIKE_SPREAD, View, meeting_point, rays_of, widest_angle
from bags_ns.data.transforms import SourceCamera

Orientation = Literal["auto", "cameras", "z-up", "as-is"]

NEAR_ORIGIN, NEAR_UNIT, NEAR_UP = 0.5, 1.6, math.radians(30.0)
"""A scene stands in the model's frame already if its centre, its size (a factor) and its up are this near."""
LEVEL = math.radians(3.0)
"""Roll of a camera up to which it counts as level."""
TURNED = 0.2
"""Ratio of the second to the first singular value of the cameras' right axes from which they tell what is up."""


def world_frame(
    canonical: View, others: Sequence[View], poses: Float[np.ndarray, "C 4 4"], orientation: Orientation
) -> Float[np.ndarray, "4 4"]:
    """The similarity T_model_world; the identity where the scene is to be used as it is.

    Args:
        canonical: Silhouette and camera of the canonical frame.
        others: Those of other frames.
        poses: OpenGL camera-to-world of all cameras, test views included.
        orientation: auto leaves a scene that stands right already, and takes z for up where all cameras are level to
            it; cameras takes up from the cameras; z-up takes z; as-is leaves every scene.
    """
    if orientation == "as-is":
        return np.eye(4)
    views = [canonical, *(view for view in others if (view.alpha >= FOREGROUND).any())]
    centre = _centre(views, poses)
    length = _length(views, centre)
    z = np.array([0.0, 0.0, 1.0])
    up = z if orientation == "z-up" or (orientation == "auto" and _level(poses, z)) else up_of_cameras(poses)
    stands = np.linalg.norm(centre) < NEAR_ORIGIN * length and 1 / NEAR_UNIT < length < NEAR_UNIT
    if orientation == "auto" and stands and up[2] > math.cos(NEAR_UP):
        return np.eye(4)
    rotation = _axes(up, canonical.camera_to_world, centre)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation / length, -rotation @ centre / length
    return T


def moved_pose(T: Float[np.ndarray, "4 4"], pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """An OpenGL camera-to-world pose in the world that the similarity T leads to; what the camera sees stays the same."""
    moved = T @ pose
    moved[:3, :3] /= np.cbrt(np.linalg.det(T[:3, :3]))
    return moved


def moved_camera(T: Float[np.ndarray, "4 4"], camera: SourceCamera) -> SourceCamera:
    """The camera in the world that the similarity T leads to."""
    return replace(camera, camera_to_world=moved_pose(T, camera.camera_to_world))


def up_of_cameras(poses: Float[np.ndarray, "C 4 4"]) -> Float[np.ndarray, " 3"]:
    """Direction of length 1 that is up for cameras that were held level, whatever their elevation."""
    rights, mean_up = poses[:, :3, 0], poses[:, :3, 1].mean(axis=0)
    _, values, axes = np.linalg.svd(rights)
    # The right axes of level cameras lie in the horizontal plane, which takes two that differ.
    turned = len(poses) > 1 and values[1] > TURNED * values[0]
    mean_right = rights.mean(axis=0)
    up = axes[2] if turned else mean_up - mean_right * (mean_up @ mean_right) / max(1e-12, mean_right @ mean_right)
    return up * np.sign(up @ mean_up or 1.0) / np.linalg.norm(up)


def _level(poses: Float[np.ndarray, "C 4 4"], up: Float[np.ndarray, " 3"]) -> bool:
    """Whether no camera is rolled about `up`, and they stand on their feet."""
    return bool(np.abs(poses[:, :3, 0] @ up).max() < math.sin(LEVEL) and (poses[:, :3, 1] @ up).mean() > 0)


def _centre(views: Sequence[View], poses: Float[np.ndarray, "C 4 4"]) -> Float[np.ndarray, " 3"]:
    """The animal's middle, on the ray to it from the first view."""
    position, ray = views[0].camera_to_world[:3, 3], views[0].centroid_ray()
    for positions, directions in (rays_of(views), (poses[:, :3, 3], -poses[:, :3, 2])):
        if widest_angle(directions) >= ALIKE_SPREAD:
            depth = float((meeting_point(positions, directions) - position) @ ray)
            if depth > 0:
                return position + depth * ray
    origin_depth = float(-position @ ray)  # so that a scene about the origin is seen to stand there
    return position + (origin_depth if origin_depth > 0 else 1.0) * ray


def _length(views: Sequence[View], centre: Float[np.ndarray, " 3"]) -> float:
    """The animal's length in world units, from the silhouettes' longer sides at the depth of its middle."""
    lengths = []
    for view in views:
        rows, columns = np.nonzero(view.alpha >= FOREGROUND)
        pixels = max(np.ptp(columns), np.ptp(rows)) + 1
        depth = float(view.project(centre[None])[1][0])
        lengths.append(pixels * depth / view.intrinsics[0, 0])
    return max(lengths[0], float(np.median(lengths)))


def _axes(
    up: Float[np.ndarray, " 3"], camera_to_world: Float[np.ndarray, "4 4"], centre: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "3 3"]:
    """Rotation to the axes with z along `up` and the camera on the +x side."""
    position, above = camera_to_world[:3, 3] - centre, -camera_to_world[:3, 1]
    towards = [axis - up * (axis @ up) for axis in (position / np.linalg.norm(position), above)]
    x = towards[0] if np.linalg.norm(towards[0]) > 1e-3 else towards[1]  # a camera that looks straight down
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(up, x), up])
