"""Novel views for a prior to judge."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.cameras import orbit_camera
from bags_ns.priors.base import PriorCamera


def random_views(count: int, camera: PriorCamera, device: torch.device) -> Float[Tensor, "count 4 4"]:
    """OpenGL poses that look at the origin: azimuths evenly round the circle from a random start, the rest at random.

    `count` is a multiple of `camera.views_per_ring`; the views of a ring stand together, and rings are turned against
    each other.
    """
    per_ring = camera.views_per_ring
    rings = count // per_ring
    ring, place = torch.meshgrid(torch.arange(rings), torch.arange(per_ring), indexing="ij")
    turns = (place / per_ring + ring / count).flatten().to(device)
    low, high = (math.radians(angle) for angle in camera.elevation_range_deg)
    elevations = low + (high - low) * torch.rand(rings, device=device)
    near, far = camera.radius_range
    radii = near + (far - near) * torch.rand(rings, device=device)
    azimuths = 2 * math.pi * (torch.rand(1, device=device) + turns)
    return orbit_camera(azimuths, elevations.repeat_interleave(per_ring), radii.repeat_interleave(per_ring))


def moved(camera_to_worlds: Float[Tensor, "V 4 4"], offset: Float[Tensor, " 3"]) -> Float[Tensor, "V 4 4"]:
    """The same poses, `offset` away."""
    result = camera_to_worlds.clone()
    result[:, :3, 3] += offset
    return result
