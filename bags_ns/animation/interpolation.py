"""Curves through keyframes on SO(3) and in space, constant beyond the first and the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.rig.transforms import so3_exp, so3_log

Interpolation = Literal["slerp", "cubic"]
"""slerp: the shortest turn between two keyframes; cubic: through them without a jump in speed."""


def slerp(
    start: Float[Tensor, "*batch 3 3"], end: Float[Tensor, "*batch 3 3"], share: float
) -> Float[Tensor, "*batch 3 3"]:
    """The rotation that lies `share` (0 to 1) of the shortest way from `start` to `end`."""
    return start @ so3_exp(share * so3_log(start.transpose(-1, -2) @ end))


@dataclass(frozen=True)
class _Space:
    """What a curve needs of the space that it runs in."""

    mix: Callable[[Tensor, Tensor, float], Tensor]
    """The point a share of the way from one to another."""
    way: Callable[[Tensor, Tensor], Tensor]
    """The tangent that leads from one point to another."""
    go: Callable[[Tensor, Tensor], Tensor]
    """The point to which a tangent leads."""


_ROTATIONS = _Space(slerp, lambda a, b: so3_log(a.transpose(-1, -2) @ b), lambda a, turn: a @ so3_exp(turn))
_POSITIONS = _Space(torch.lerp, lambda a, b: b - a, lambda a, step: a + step)


def rotation_at(
    knots: Float[Tensor, " K"], rotations: Float[Tensor, "K *row 3 3"], time: float, method: Interpolation
) -> Float[Tensor, "*row 3 3"]:
    """Rotations at `time` on the curve through `rotations` at the ascending `knots`."""
    return _curve(_ROTATIONS, knots, rotations, time, method)


def position_at(
    knots: Float[Tensor, " K"], positions: Float[Tensor, "K 3"], time: float, method: Interpolation
) -> Float[Tensor, "3"]:
    """Positions at `time` on the same kind of curve."""
    return _curve(_POSITIONS, knots, positions, time, method)


def _curve(space: _Space, knots: Tensor, values: Tensor, time: float, method: Interpolation) -> Tensor:
    """Cubic is a Bezier curve by de Casteljau's construction (Shoemake, "Animating rotation with quaternion curves", 1985)."""
    if len(knots) == 1:
        return values[0]
    left = int(torch.searchsorted(knots, time, right=True).clamp(1, len(knots) - 1)) - 1
    span = knots[left + 1] - knots[left]
    share = min(1.0, max(0.0, float((time - knots[left]) / span)))
    start, end = values[left], values[left + 1]
    if method == "slerp":
        return space.mix(start, end, share)
    first, last = (_speed(space, knots, values, knot) * span / 3 for knot in (left, left + 1))
    points = [start, space.go(start, first), space.go(end, -last), end]
    while len(points) > 1:
        points = [space.mix(a, b, share) for a, b in zip(points[:-1], points[1:], strict=True)]
    return points[0]


def _speed(space: _Space, knots: Tensor, values: Tensor, knot: int) -> Tensor:
    """Speed at a knot: the mean of those of the segments on its two sides, or that of its only one."""
    segments = [i for i in (knot - 1, knot) if 0 <= i < len(knots) - 1]
    return sum(space.way(values[i], values[i + 1]) / (knots[i + 1] - knots[i]) for i in segments) / len(segments)  # type: ignore[return-value]
