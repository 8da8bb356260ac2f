"""Left and right: the plane in which a walking animal is its own mirror image, half a period later.

In a walk or a trot each side does what the other did half a period before (Hildebrand, "Symmetrical gaits of horses",
1965). So the animal as it was then, mirrored, looks as it does now: every frame also shows the side that it hides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import mean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bags_ns.rig.transforms import rigid

AZIMUTHS_DEG = range(-40, 41, 8)
"""The plane's normal is looked for at these angles to the shorter horizontal axis of the Gaussians."""
OFFSETS = (-0.04, 0.0, 0.04)
"""And the plane at these distances from their middle, in lengths of the animal."""
STEPS = (math.radians(4), 0.02)
"""First steps in azimuth and offset from the best of these."""
MAX_LOOKS = 24
"""Planes that are tried from there."""
LEAST_GAIN = 0.55
"""A mirror that has been learned with is believed where it gains so much of what a whole period does, in the mean of its looks."""


class MirrorPlane(nn.Module):
    """An upright plane, and the shift in time after which the animal, mirrored in it, looks as it does now; no shift: no mirror.

    The plane goes on learning: a search in an animal whose far side is not known yet finds it within some degrees only. For
    the same reason it cannot tell whether there is one: it is on trial, until `judge` has seen what the animal makes of it.
    """

    point: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.plane = nn.Parameter(torch.zeros(2))
        self.register_buffer("point", torch.zeros(3))
        self.shift: float | None = None
        self.on_trial = False
        self.gains: list[float] = []
        """What it gained at each look of its trial, as a part of what a whole period does."""

    def get_extra_state(self) -> dict[str, Any]:
        """The shift, whether it still has to prove itself, and how it did so far."""
        return {"shift": self.shift, "on_trial": self.on_trial, "gains": self.gains}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self.shift, self.on_trial = state["shift"], state.get("on_trial", False)
        self.gains = list(state.get("gains", []))

    @torch.no_grad()
    def place(self, point: Float[Tensor, " 3"], azimuth: float, offset: float, shift: float | None) -> None:
        """Puts the plane at the distance `offset` from a point, its normal at an azimuth (radians), and sets the shift (part of the clip)."""
        self.point.copy_(point)
        self.plane.copy_(torch.tensor([azimuth, offset]))
        self.shift = shift

    def forward(self) -> Float[Tensor, "4 4"]:
        """The reflection, a matrix of the canonical frame."""
        azimuth, offset = self.plane
        normal = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)])
        distance = self.point @ normal + offset
        return rigid(torch.eye(3, device=normal.device) - 2 * normal[:, None] * normal, 2 * distance * normal)

    @torch.no_grad()
    def weigh(self, period: float, difference: Callable[[float, Tensor | None], float]) -> None:
        """Looks at what the mirror gains by now (`find_mirror` explains the arguments).

        That is over half a period alone and over the mirror alone. The second tells sides that move together, as in a bound
        or a gallop: those are nearer to their own mirror image at once, which a shape learns to change only slowly.
        """
        mirror = self()
        alone = min(difference(period / 2, None), difference(0.0, mirror))
        gained, expected = (alone - other for other in (difference(period / 2, mirror), difference(period, None)))
        self.gains.append(gained / expected if expected > 0 else 0.0)

    def judge(self) -> None:
        """Ends the trial: forgets the shift unless the mirror has gained enough."""
        self.on_trial = False
        if mean(self.gains) < LEAST_GAIN:
            self.shift = None

    def times_like(self, times: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """When the mirrored animal looks as at `times`: before or after, at random where the clip has both; it has one,
        for no period is longer than it."""
        assert self.shift is not None
        before, after = times - self.shift, times + self.shift
        first, second = (before, after) if torch.rand(()) < 0.5 else (after, before)
        return torch.where((first >= 0) & (first <= 1), first, second)


@torch.no_grad()
def find_mirror(
    mirror: MirrorPlane,
    means: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    period: float,
    difference: Callable[[float, Tensor | None], float],
) -> None:
    """Places a mirror, on trial, in which the animal half a period away looks most as in the frame.

    Args:
        mirror: the plane.
        means: of the canonical Gaussians, z up, the animal about 1 long.
        opacities: theirs.
        period: of the gait, as a part of the clip.
        difference: how much the video differs from the animal as it was so much (a part of the clip) earlier or later,
            mirrored by a matrix where there is one.
    """
    from scipy.optimize import minimize

    points, weights = means.cpu().double(), (opacities / opacities.sum()).cpu().double()[:, None]
    middle = (weights * points).sum(0)
    spread = (points - middle)[:, :2]
    across = torch.linalg.eigh(spread.T @ (weights * spread))[1][:, 0]
    start = math.atan2(float(across[1]), float(across[0]))
    planes = [(start + math.radians(turn), offset) for turn in AZIMUTHS_DEG for offset in OFFSETS]

    def misfit(plane: Iterable[float]) -> float:
        mirror.place(middle, *plane, shift=None)
        return difference(period / 2, mirror())

    best = np.array(min(planes, key=misfit))
    options = {"initial_simplex": np.stack([best, *(best + np.diag(STEPS))]), "maxfev": MAX_LOOKS}
    found: Any = minimize(misfit, best, method="Nelder-Mead", options=options)
    mirror.place(middle, *found.x, shift=period / 2)
    mirror.on_trial, mirror.gains = True, []
