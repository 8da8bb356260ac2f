"""Recuts a frame of the video as a prior wants its reference: square, the animal in the middle, on white."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bags_ns.cameras import look_at
from bags_ns.losses import mask_box
from bags_ns.priors.base import PriorCamera

MARGIN = 1.3
"""Side of the recut picture relative to the longer side of the silhouette's box."""
SUPERSAMPLING = 4
"""Samples a pixel in each direction, averaged: frames are finer than a prior's pictures."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A frame recut as a look-at picture from the camera's own place."""

    picture: Float[Tensor, "S S 3"]
    """RGB in [0, 1] on white."""
    position: Float[Tensor, " 3"]
    """Of the camera, in the world."""
    direction: Float[Tensor, " 3"]
    """Unit vector from the camera to the middle of the silhouette's box."""
    fov_deg: float
    """Field of view of the picture, in degrees."""

    def target(self, centroid: Float[Tensor, " 3"]) -> Float[Tensor, " 3"]:
        """The point that the picture is centred on: that of its central ray nearest to the animal's centroid."""
        return self.position + ((centroid - self.position) @ self.direction) * self.direction


def recut(
    frame: Float[Tensor, "H W 4"],
    camera_to_world: Float[Tensor, "rows 4"],
    K: Float[Tensor, "3 3"],
    size: int,
    fov_deg: float | None = None,
) -> Reference:
    """The frame turned and cropped so that the silhouette's box lies in the middle of a square picture.

    Args:
        frame: straight RGBA in [0, 1]; the silhouette is alpha >= .5, an empty one stands for the whole frame.
        camera_to_world: the frame's OpenGL pose (`rows` is 3 or 4).
        K: its intrinsics, in pixels.
        size: side of the picture to make, in pixels.
        fov_deg: its field of view; by default that of the box, wider by `MARGIN`.

    A turn of the camera about its own centre moves pixels by a homography, so nothing is approximated.
    """
    rows, columns = mask_box(frame[..., 3] >= 0.5, margin=0)
    middle = frame.new_tensor([(columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2, 1.0])
    opencv = camera_to_world[:3, :3] * frame.new_tensor([1.0, -1.0, -1.0])  # columns: right, down, forward
    direction = F.normalize(opencv @ torch.linalg.solve(K, middle), dim=0)
    position = camera_to_world[:3, 3]
    turned = look_at(position, position + direction)[:3, :3] * frame.new_tensor([1.0, -1.0, -1.0])
    if fov_deg is None:
        half = 0.5 * MARGIN * max(columns.stop - columns.start, rows.stop - rows.start) / float(K[0, 0])
    else:
        half = math.tan(math.radians(fov_deg) / 2)
    fine = size * SUPERSAMPLING
    steps = half * ((2 * torch.arange(fine, device=frame.device) + 1) / fine - 1)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ (opencv.T @ turned).T
    pixels = (rays @ K.T)[..., :2] / rays[..., 2:]
    return Reference(_sample_on_white(frame, pixels, size), position, direction, math.degrees(2 * math.atan(half)))


def taken_by(
    picture: Float[Tensor, "S S 3"], fov_deg: float, distance: float, camera: PriorCamera
) -> tuple[Float[Tensor, "S S 3"], float]:
    """The picture as a prior's own camera would have taken it, and from how far away.

    With another field of view the same picture is taken from another distance (perspective within the animal aside). Where
    that is nearer than the prior knows, as in a narrow view of the animal from the front, white is added all round.

    Args:
        picture: on white, the animal in its middle.
        fov_deg: its field of view, in degrees.
        distance: from the camera to the animal's middle, in lengths of the animal.
        camera: what the prior was trained on.
    """
    radius = distance * math.tan(math.radians(fov_deg / 2)) / math.tan(math.radians(camera.fov_deg / 2))
    nearest, farthest = camera.radius_range
    if radius >= nearest:
        return picture, min(radius, farthest)
    size = len(picture)
    border = round(size * (1 - radius / nearest) / 2)
    channels_first = picture.permute(2, 0, 1)[None]
    inner = F.interpolate(channels_first, [size - 2 * border] * 2, mode="bilinear", antialias=True)
    return F.pad(inner, [border] * 4, value=1.0)[0].permute(1, 2, 0), nearest


def _sample_on_white(frame: Float[Tensor, "H W 4"], pixels: Float[Tensor, "fine fine 2"], size: int) -> Tensor:
    """Colours at pixel positions (centres at half-integers), on white, averaged down to `size`."""
    height, width = frame.shape[:2]
    premultiplied = torch.cat([frame[..., :3] * frame[..., 3:], frame[..., 3:]], dim=-1)
    grid = 2 * pixels / pixels.new_tensor([width, height]) - 1
    sampled = F.grid_sample(premultiplied.permute(2, 0, 1)[None], grid[None], align_corners=False)
    sampled = F.interpolate(sampled, (size, size), mode="area")[0].permute(1, 2, 0)
    return sampled[..., :3] + 1 - sampled[..., 3:]
