"""Cameras for a plain video: one camera that never moves, square crops that follow the animal, and its path in space.

The source camera is a pinhole of an assumed field of view with its centre in the middle of the picture. A crop of the
picture is a camera with the same pose and other intrinsics, so cropping needs no approximation. All movement of the
animal is its root translation here. World: z up; the camera is on the +x side and looks along -x, level or down by the
elevation; one unit is the longer side of the silhouette in the canonical frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int

from bags_ns.cameras import orbit_camera
from bags_ns.data.silhouettes import Silhouettes

CROP_MARGIN = 0.15
"""Part of the silhouette's longer side that a crop adds to it."""
CROP_SMOOTHING = 0.1
"""Standard deviation, as a part of the clip, of the smoothing of the crops' sides."""
PATH_SMOOTHING = 0.03
"""Standard deviation, as a part of the clip, of the smoothing of crop centres and of the animal's path."""


@dataclass(frozen=True, eq=False)
class ObjectCentricView:
    """One camera for all frames, and what moves before it."""

    focal: float
    """Of the source camera, in source pixels."""
    source_size: tuple[int, int]
    """Width and height of the source picture."""
    camera_to_world: Float[np.ndarray, "4 4"]
    """OpenGL pose of every frame."""
    crop_boxes: Int[np.ndarray, "T 3"]
    """Left, top and side of each frame's square crop in source pixels; it may reach past the picture."""
    root_translations: Float[np.ndarray, "T 3"]
    """World position of the animal's centre relative to the canonical frame's."""

    def crop_intrinsics(self, index: int, crop_size: int) -> tuple[float, float, float]:
        """Focal length and centre (fx = fy, cx, cy) of a frame's crop, resized to `crop_size` pixels."""
        left, top, side = self.crop_boxes[index]
        factor = crop_size / side
        width, height = self.source_size
        return self.focal * factor, (0.5 * width - left) * factor, (0.5 * height - top) * factor


def object_centric_view(
    silhouettes: Silhouettes, canonical: int, source_size: tuple[int, int], fov_deg: float, elevation_deg: float
) -> ObjectCentricView:
    """Crops, camera and path for a clip whose cameras are unknown.

    Args:
        silhouettes: Measured in the source frames.
        canonical: Frame whose centroid is put at the world's origin.
        source_size: Width and height of the source frames.
        fov_deg: Assumed field of view of the source camera across the longer side of the picture, in degrees.
        elevation_deg: How far the camera looks down, in degrees.
    """
    focal = 0.5 * max(source_size) / math.tan(0.5 * math.radians(fov_deg))
    positions = camera_space_path(silhouettes, canonical, source_size, focal)
    elevation = torch.tensor(math.radians(elevation_deg), dtype=torch.float64)
    pose = orbit_camera(torch.zeros_like(elevation), elevation, torch.ones_like(elevation)).numpy().copy()
    depth = focal / silhouettes.robust_sizes[canonical].max()
    pose[:3, 3] = -pose[:3, :3] @ _unproject(silhouettes.centroids[canonical], depth, source_size, focal)
    return ObjectCentricView(
        focal=focal,
        source_size=source_size,
        camera_to_world=pose,
        crop_boxes=crop_boxes(silhouettes.boxes),
        root_translations=(positions - positions[canonical]) @ pose[:3, :3].T,
    )


def camera_space_path(
    silhouettes: Silhouettes, canonical: int, source_size: tuple[int, int], focal: float
) -> Float[np.ndarray, "T 3"]:
    """Smoothed positions of the animal's centre in the camera's OpenGL axes.

    Depth follows from apparent size: depth(t) = depth(t0) size(t0) / size(t). Size is the *height* of the silhouette:
    when an animal turns about the vertical axis its silhouette's area and length shrink, its height does not.
    """
    sigma = max(1.0, PATH_SMOOTHING * len(silhouettes))
    distances = 1 / silhouettes.robust_sizes[:, 1:]
    # Depth is proportional to 1 / size. Smoothing beyond the ends may overshoot, even below zero, hence the limits.
    smoothed = smooth_in_time(distances, sigma).clip(distances.min(), distances.max())
    depths = focal / silhouettes.robust_sizes[canonical].max() * smoothed / smoothed[canonical]
    return smooth_in_time(_unproject(silhouettes.centroids, depths, source_size, focal), sigma)


def _unproject(
    pixels: Float[np.ndarray, "*T 2"], depth: Float[np.ndarray, "*T 1"] | float, size: tuple[int, int], focal: float
) -> Float[np.ndarray, "*T 3"]:
    """Points in OpenGL camera axes that are seen at `pixels` of the source picture at `depth`."""
    sideways = (pixels - np.array(size) / 2) / focal * np.array([1.0, -1.0])
    return np.concatenate([sideways, np.full_like(sideways[..., :1], -1.0)], axis=-1) * depth


def smooth_in_time(values: Float[np.ndarray, "T C"], sigma: float) -> Float[np.ndarray, "T C"]:
    """Gaussian smoothing over frames; the ends are continued point-symmetrically, so a straight line stays as it is."""
    if len(values) == 1:
        return values.copy()
    reach = math.ceil(3 * sigma)
    kernel = cv2.getGaussianKernel(2 * reach + 1, sigma)[:, 0]
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1)


def crop_boxes(boxes: Int[np.ndarray, "T 4"]) -> Int[np.ndarray, "T 3"]:
    """Square crops (left, top, side) that follow the silhouettes' boxes smoothly and never cut one.

    Where smoothing would cut a silhouette, that frame's crop is enlarged or moved just as far as it must be.
    """
    count, corners = len(boxes), boxes.astype(np.float64)
    longer = (corners[:, 2:] - corners[:, :2]).max(axis=1, keepdims=True)
    sides = smooth_in_time(longer * (1 + CROP_MARGIN), max(1.0, CROP_SMOOTHING * count))
    sides = np.ceil(np.maximum(sides, longer)).astype(np.int64)
    centres = smooth_in_time((corners[:, :2] + corners[:, 2:]) / 2, max(1.0, PATH_SMOOTHING * count))
    corner = np.round(centres - sides / 2).astype(np.int64)
    corner = np.clip(corner, boxes[:, 2:] - sides, boxes[:, :2])
    return np.concatenate([corner, sides], axis=1)
