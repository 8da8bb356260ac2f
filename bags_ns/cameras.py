"""Cameras in the two conventions that meet here: OpenGL camera-to-world (nerfstudio) and OpenCV world-to-camera (gsplat).

World: z up. OpenGL camera axes: x right, y up, looking along -z. OpenCV: x right, y down, looking along +z.
Azimuth 0 looks from +x and grows towards +y; elevation is positive above the horizon. Angles are radians here.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def viewmats_from_camera_to_worlds(camera_to_worlds: Float[Tensor, "C rows 4"]) -> Float[Tensor, "C 4 4"]:
    """OpenCV world-to-camera matrices of OpenGL camera-to-world poses (`rows` is 3 or 4, rotations orthonormal)."""
    rotations = camera_to_worlds[:, :3, :3] * camera_to_worlds.new_tensor([1.0, -1.0, -1.0])
    inverse_rotations = rotations.transpose(1, 2)
    translations = -inverse_rotations @ camera_to_worlds[:, :3, 3:4]
    last_row = camera_to_worlds.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(camera_to_worlds), 1, 4)
    return torch.cat([torch.cat([inverse_rotations, translations], dim=-1), last_row], dim=1)


def look_at(
    positions: Float[Tensor, "*batch 3"],
    targets: Float[Tensor, "*batch 3"],
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Float[Tensor, "*batch 4 4"]:
    """OpenGL camera-to-world poses at `positions` that look at `targets`; `up` must not be parallel to the view."""
    backward = torch.nn.functional.normalize(positions - targets, dim=-1)
    right = torch.nn.functional.normalize(
        torch.linalg.cross(positions.new_tensor(up).expand_as(backward), backward), dim=-1
    )
    upward = torch.linalg.cross(backward, right)
    pose = torch.stack([right, upward, backward, positions], dim=-1)
    last_row = positions.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*pose.shape[:-2], 1, 4)
    return torch.cat([pose, last_row], dim=-2)


def orbit_camera(
    azimuth: Float[Tensor, "*batch"],
    elevation: Float[Tensor, "*batch"],
    radius: Float[Tensor, "*batch"],
    target: Float[Tensor, "*batch 3"] | None = None,
) -> Float[Tensor, "*batch 4 4"]:
    """OpenGL camera-to-world poses on a sphere of `radius` about `target` (the origin), looking at it. Angles in radians."""
    directions = torch.stack(
        [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin().expand_as(azimuth)], dim=-1
    )
    targets = torch.zeros_like(directions) if target is None else target.expand_as(directions)
    return look_at(targets + directions * radius[..., None], targets)


def orbit_coordinates(
    camera_to_worlds: Float[Tensor, "*batch 4 4"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Azimuth, elevation (radians) and radius of camera centres about the origin: what `orbit_camera` takes."""
    x, y, z = camera_to_worlds[..., :3, 3].unbind(-1)
    radius = camera_to_worlds[..., :3, 3].norm(dim=-1)
    return torch.atan2(y, x), torch.asin((z / radius.clamp_min(1e-9)).clamp(-1, 1)), radius


def intrinsics_from_fov(fov_deg: float, width: int, height: int) -> Float[Tensor, "3 3"]:
    """Pinhole intrinsics with the field of view `fov_deg` (degrees) across `width` and the centre in the middle."""
    focal = 0.5 * width / math.tan(0.5 * math.radians(fov_deg))
    return torch.tensor([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]])


def project_points(
    points: Float[Tensor, "C N 3"], viewmats: Float[Tensor, "C 4 4"], Ks: Float[Tensor, "C 3 3"]
) -> Float[Tensor, "C N 2"]:
    """Pixels at which C cameras (OpenCV world-to-camera, pinhole) see C sets of points, which must lie before them."""
    local = points @ viewmats[:, :3, :3].transpose(1, 2) + viewmats[:, None, :3, 3]
    homogeneous = local @ Ks.transpose(1, 2)
    return homogeneous[..., :2] / homogeneous[..., 2:].clamp_min(1e-6)
