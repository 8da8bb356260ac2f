"""Left and right: the plane in which a walking animal is its own mirror image, half a period later.

In a walk or a trot each side does what the other did half a period before (Hildebrand, "Symmetrical gaits of horses",
1965). So the animal as it was then, mirrored, looks as it does now: every frame also shows the side that it hides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

AZIMUTHS_DEG = range(-40, 41, 8)
"""The plane's normal is looked for at these angles to the shorter horizontal axis of the Gaussians."""
OFFSETS = (-0.04, 0.0, 0.04)
"""And the plane at these distances from their middle, in lengths of the animal."""
STEPS = (math.radians(4), 0.02)
"""First steps in azimuth and offset from the best of these."""
MAX_LOOKS = 24
"""Planes that are tried from there."""
LEAST_GAIN = 0.25
"""A mirror is believed that gains so much of what a whole period gains over half of one."""


def mirror(point: Float[Tensor, " 3"], azimuth: float, offset: float = 0.0) -> Float[Tensor, "4 4"]:
    """Reflection in an upright plane at the distance `offset` from a point; its normal has this azimuth (radians)."""
    normal = torch.tensor([math.cos(azimuth), math.sin(azimuth), 0.0])
    T_mirror = torch.eye(4)
    T_mirror[:3, :3] -= 2 * torch.outer(normal, normal)
    T_mirror[:3, 3] = 2 * (normal @ point + offset) * normal
    return T_mirror


@torch.no_grad()
def find_mirror(
    means: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    period: float,
    difference: Callable[[float, Tensor | None], float],
) -> Float[Tensor, "4 4"] | None:
    """The reflection after which the animal half a period away looks as in the frame; None if there is no such plane.

    Args:
        means: of the canonical Gaussians, z up, the animal about 1 long.
        opacities: theirs.
        period: of the gait, as a part of the clip.
        difference: how much the video differs from the animal as it was so much (a part of the clip) earlier or later,
            mirrored by a matrix where there is one.

    Returns:
        A matrix on the CPU that mirrors the canonical frame.
    """
    from scipy.optimize import minimize

    points, weights = means.cpu().double(), (opacities / opacities.sum()).cpu().double()[:, None]
    middle = (weights * points).sum(0)
    spread = (points - middle)[:, :2]
    across = torch.linalg.eigh(spread.T @ (weights * spread))[1][:, 0]
    start = math.atan2(float(across[1]), float(across[0]))

    def placed(plane: Iterable[float]) -> Float[Tensor, "4 4"]:
        return mirror(middle.float(), *(float(value) for value in plane))

    def misfit(plane: Iterable[float]) -> float:
        return difference(period / 2, placed(plane))

    planes = [(start + math.radians(turn), offset) for turn in AZIMUTHS_DEG for offset in OFFSETS]
    best = np.array(min(planes, key=misfit))
    options = {"initial_simplex": np.stack([best, *(best + np.diag(STEPS))]), "maxfev": MAX_LOOKS}
    found: Any = minimize(misfit, best, method="Nelder-Mead", options=options)
    unmirrored = difference(period / 2, None)
    gained, expected = unmirrored - found.fun, LEAST_GAIN * (unmirrored - difference(period, None))
    return placed(found.x) if gained > max(0.0, expected) else None


def half_a_period_away(times: Float[Tensor, " K"], period: float) -> Float[Tensor, " K"]:
    """Half a period before or after, at random where the clip has both; it has one, for no period is longer than it."""
    before, after = times - period / 2, times + period / 2
    first, second = (before, after) if torch.rand(()) < 0.5 else (after, before)
    return torch.where((first >= 0) & (first <= 1), first, second)
