"""Cameras as the small prior sees them: one Pluecker ray a patch, in a world that is turned to face the first reference.

World of the rays: z up, the animal's centroid at the origin, unit = the animal's length, turned about z so that the first
camera stands at azimuth 0. Elevations stay absolute.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def patch_rays(
    camera_to_worlds: Float[Tensor, "*batch 4 4"], fovs_deg: Float[Tensor, "*batch"], grid: int
) -> Float[Tensor, "*batch patches 6"]:
    """Direction (unit) and moment (origin x direction) of the rays through the centres of `grid` x `grid` patches.

    Args:
        camera_to_worlds: OpenGL poses.
        fovs_deg: fields of view across the square pictures, in degrees.
        grid: patches along each side; patches run row by row from the top left.
    """
    line = (2 * torch.arange(grid, device=fovs_deg.device, dtype=fovs_deg.dtype) + 1) / grid - 1
    rows, columns = torch.meshgrid(-line, line, indexing="ij")
    half = torch.tan(torch.deg2rad(fovs_deg) / 2)[..., None]
    x, y = columns.flatten() * half, rows.flatten() * half
    local = torch.nn.functional.normalize(torch.stack([x, y, -torch.ones_like(x)], dim=-1), dim=-1)
    # Plain sums: matmuls may run in TF32, whose error is as large as a patch's ray is wide.
    directions = (camera_to_worlds[..., None, :3, :3] * local[..., None, :]).sum(dim=-1)
    origins = camera_to_worlds[..., None, :3, 3].expand_as(directions)
    return torch.cat([directions, torch.linalg.cross(origins, directions)], dim=-1)


def turn_to_first(
    rays: Float[Tensor, "*batch patches 6"], first_camera: Float[Tensor, "*#batch 4 4"]
) -> Float[Tensor, "*batch patches 6"]:
    """Rays in the world that is turned about z until `first_camera` stands at azimuth 0."""
    position = first_camera[..., :2, 3]
    cosine, sine = torch.nn.functional.normalize(position, dim=-1).unbind(-1)
    vectors = rays.unflatten(-1, (2, 3))
    x, y, z = vectors.unbind(-1)
    cosine, sine = cosine[..., None, None], sine[..., None, None]
    return torch.stack([cosine * x + sine * y, cosine * y - sine * x, z], dim=-1).flatten(-2)


def view_rays(
    camera_to_worlds: Float[Tensor, "batch views 4 4"],
    fovs_deg: Float[Tensor, "batch views"],
    grid: int,
    first_camera: Float[Tensor, "batch 4 4"] | None = None,
) -> Float[Tensor, "batch views patches 6"]:
    """Rays of the views of each sample, turned to `first_camera` (the first of the views unless told)."""
    first = camera_to_worlds[:, 0] if first_camera is None else first_camera
    return turn_to_first(patch_rays(camera_to_worlds, fovs_deg, grid), first[:, None])
