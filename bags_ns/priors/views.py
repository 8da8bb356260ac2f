"""Novel views for a prior to judge."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.cameras import orbit_camera
from bags_ns.priors.base import PriorCamera


def random_views(count: int, camera: PriorCamera, device: torch.device) -> Float[Tensor, "count 4 4"]:
    """OpenGL poses that look at the origin: azimuths evenly round the circle from a random start, the rest at random."""
    azimuths = 2 * math.pi * (torch.rand(1, device=device) + torch.arange(count, device=device) / count)
    low, high = (math.radians(angle) for angle in camera.elevation_range_deg)
    elevations = low + (high - low) * torch.rand(count, device=device)
    near, far = camera.radius_range
    return orbit_camera(azimuths, elevations, near + (far - near) * torch.rand(count, device=device))


def moved(camera_to_worlds: Float[Tensor, "V 4 4"], offset: Float[Tensor, " 3"]) -> Float[Tensor, "V 4 4"]:
    """The same poses, `offset` away."""
    result = camera_to_worlds.clone()
    result[:, :3, 3] += offset
    return result
