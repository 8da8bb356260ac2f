"""The gait: after what time an animal's motion repeats, read from its bones and from the video together.

The video is exact, but looks alike half a period later, when the legs of one side have taken the places of the other's. Bones
tell the sides apart, but follow each frame only as well as they could.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.rig.motion import BoneMotion

SAMPLES_A_FRAME = 4
"""Motion is compared with itself at so many times a frame."""
SHORTEST_FRAMES = 4
"""Periods below are no gait: frames that follow each other resemble each other anyway."""
LONGEST_PART = 0.68
"""Of the clip: only what is left can be compared."""
MAX_LOOKS = 48
"""Periods at which the video is compared with itself; between them it is interpolated."""
LEAST_REPETITION = 0.2
"""Motion that repeats less is not taken for a gait."""
LEAST_BY_BONES = 0.2
"""Bones alone that repeat less do not bear out a period before all of the clip is known."""
ABOUT_AS_GOOD = 0.8
"""The shortest period that reaches this part of the best one's repetition is taken: its multiples are periods too."""
NEAR = 0.1
"""Part of a period by which its exact length may differ from the one that bones and video agreed to."""


@torch.no_grad()
def gait_period(
    motion: BoneMotion,
    difference: Callable[[float], float],
    span: tuple[float, float] = (0.0, 1.0),
    least_by_bones: float = -1.0,
) -> float | None:
    """The time after which a motion repeats, as a part of the clip; None if it does not.

    Args:
        motion: as far as it is trained.
        difference: how much the video differs from the animal as it was so much (a part of the clip) earlier or later.
        span: first and last time to look at.
        least_by_bones: how much bones alone have to repeat (-1: no matter). Where little is known, the video alone takes
            half of a period for it, and frames that then enter as half of one before make bones repeat so.
    """
    length = span[1] - span[0]
    num_samples = SAMPLES_A_FRAME * round(length / motion.mean_spacing) + 1
    times = torch.linspace(*span, num_samples, device=motion.knots.device)
    period = find_period(motion(times)[..., 3:].flatten(1), lambda part: difference(part * length), least_by_bones)
    return None if period is None else period * length


def find_period(
    bones: Float[Tensor, "S D"], difference: Callable[[float], float], least_by_bones: float = -1.0
) -> float | None:
    """The time after which sampled motions repeat, as a part of the whole; None if they do not.

    Both choose among the periods that either could have; its exact length is what differs least in the video.

    Args:
        bones: paths of the bones at S evenly spaced times, `SAMPLES_A_FRAME` a frame.
        difference: how much the video differs from the animal as it was so much (a part of their length) earlier or later.
        least_by_bones: how much the bones alone have to repeat after it.
    """
    count = len(bones)
    shortest, longest = SHORTEST_FRAMES * SAMPLES_A_FRAME, int(LONGEST_PART * (count - 1))
    if longest < shortest + 2:
        return None
    looks = np.unique(np.linspace(0, longest, MAX_LOOKS).round())
    differences = np.interp(np.arange(longest + 1), looks, [difference(lag / (count - 1)) for lag in looks])
    by_bones = repetition(bones, longest)
    values = 0.5 * (by_bones + torch.from_numpy(recovery(differences)).to(bones.device))
    is_peak = (values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:])
    is_peak &= by_bones[1:-1] >= least_by_bones
    peaks = [lag for lag in (1 + torch.nonzero(is_peak).flatten()).tolist() if lag >= shortest]
    best = max((float(values[lag]) for lag in peaks), default=0.0)
    if best < LEAST_REPETITION:
        return None
    period = next(lag for lag in peaks if values[lag] >= ABOUT_AS_GOOD * best) / (count - 1)
    return closest_period(difference, period, 0.5 / count)


def closest_period(difference: Callable[[float], float], period: float, tolerance: float) -> float:
    """The time near a `period`, or itself, after which the video differs least, to a tolerance; all in what `difference` takes."""
    from scipy.optimize import minimize_scalar

    bounds = ((1 - NEAR) * period, min(1.0, (1 + NEAR) * period))
    closest: Any = minimize_scalar(difference, bounds=bounds, method="bounded", options={"xatol": tolerance})
    return min(period, float(closest.x), key=difference)


def repetition(motion: Float[Tensor, "S D"], longest: int) -> Float[Tensor, " L"]:
    """How well a motion repeats after 0, 1 .. `longest` samples: 1 exactly, 0 not at all.

    The autocorrelation that finds periods in videos (Cutler and Davis, "Robust real-time periodic motion detection",
    2000), of the change over a frame: any slow movement resembles itself half a clip later, its changes do not.
    """
    changes = (motion[SAMPLES_A_FRAME:] - motion[:-SAMPLES_A_FRAME]).double()
    changes = changes - changes.mean(0)  # a steady turn or drift is no gait
    squares = changes.square().sum(1)
    values = []
    for lag in range(longest + 1):
        earlier, later = slice(0, len(changes) - lag), slice(lag, None)
        product = (changes[earlier] * changes[later]).sum()
        usual = 2 * len(squares[later]) * squares.mean()  # so that rest does not count as the repetition of rest
        values.append(
            2 * product / torch.maximum(squares[earlier].sum() + squares[later].sum(), usual).clamp_min(1e-24)
        )
    return torch.stack(values)


def recovery(differences: Float[np.ndarray, " L"]) -> Float[np.ndarray, " L"]:
    """How far a difference that has grown with the time between is gone again: 1 down to that of no time, 0 not at all."""
    most = np.maximum.accumulate(differences)
    return (most - differences) / np.maximum(most - differences[0], 1e-9)
