"""Where the camera of a page stands when it opens: far enough for all of the animal. viser's own start lies inside it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

MARGIN = 1.15
"""Of the distance at which the animal's bounding sphere just fits into the page."""


def whole_view(
    points: Float[Tensor, "N 3"], direction: Float[Tensor, "3"], fov: float, aspect: float
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Position of a camera that has all points in view, and the point that it looks at.

    Args:
        points: of the animal; at least one.
        direction: from the animal towards the camera.
        fov: vertical, in radians.
        aspect: width over height of the picture.
    """
    middle = 0.5 * (points.amin(0) + points.amax(0))
    radius = float((points - middle).norm(dim=-1).max())
    narrower = math.atan(math.tan(fov / 2) * min(1.0, aspect))
    distance = MARGIN * max(radius, 1e-3) / math.sin(narrower)
    return middle + distance * torch.nn.functional.normalize(direction, dim=0), middle
