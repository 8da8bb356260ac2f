"""How far away an animal is, told by where it seems to go as the camera moves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

DOUBT = 0.03
"""Mean square of what a camera sees of a way along the canonical ray (sine of the angle between) that counts as much as none."""


def across(rays: Float[Tensor, "T 3"]) -> Float[Tensor, "T 3 3"]:
    """Projections of world vectors onto the picture's planes: what is left of them beside rays of length 1."""
    return torch.eye(3, device=rays.device) - rays[:, :, None] * rays[:, None]


def depth_error(moved: Float[Tensor, "T 3"], rays: Float[Tensor, "T 3"], canonical_ray: Float[Tensor, " 3"]) -> Tensor:
    """How much farther away than it is taken to be an animal stands that keeps its place; negative: nearer.

    Along the ray of the canonical camera an error does not show in that one's picture; where cameras stand beside it, the
    animal seems to have moved by as much of the error as they see from the side. The error explains the most of those ways,
    in least squares; less of it where cameras hardly stand beside (`DOUBT`).

    Args:
        moved: translations of the animal in frames, from where it is taken to be in the canonical one.
        rays: directions of length 1, from those frames' cameras to the animal.
        canonical_ray: that of the canonical camera.
    """
    seen = across(rays) @ canonical_ray
    return (moved * seen).sum() / (seen.square().sum() + DOUBT * len(rays))
