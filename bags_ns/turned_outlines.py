"""How an animal turns before a camera that is not known, by the outlines of its turned shape.

The inflated silhouette of the canonical frame is a first shape of the animal. Turned about a vertical axis as far as the
animal has turned, it looks like the other silhouettes; turned less, or more, it is too long or too short. So the turn over
the clip, how far the camera looks down and how the body stands to the canonical picture are found together: as those with
the largest overlap. Pictures are compared at the same height and with the same middle, for where the animal goes is not
known yet, and many of them, for legs move.

Seen from far away, an animal that turns left before a camera that looks down looks like its depth-reversed twin that turns
right before one that looks up. What a prior expects (`priors/turning.py`) tells them apart; without one, the camera is
taken to look down.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from bags_ns.data.images import FOREGROUND
from bags_ns.data.seed_points import View, lean
from bags_ns.rig.timetable import interpolation_weights
from bags_ns.rig.transforms import so3_exp

TURNS_DEG = tuple(range(-180, 181, 15))
"""Turns that are compared first, the largest half a round."""
ELEVATIONS_DEG = (-10.0, 0.0, 10.0, 20.0, 30.0)
"""Elevations that are compared first; none beyond them is found."""
SLOPES = (-0.8, -0.4, 0.0, 0.4, 0.8)
"""Slopes that are compared first."""
THINNED_POINTS, THINNED_VIEWS = 2, 3
"""One of so many is used for that."""
TURN_KNOTS = 5
"""Times at which an animal that does not turn evenly has turned by some angle."""
EVEN_WEIGHT = 0.12
"""Overlap that makes up for an unevenness of 1 (radian squared)."""
STEPS = (math.radians(7.5), math.radians(5.0), 0.2)
"""By which turn, elevation and slope are then changed as long as that is better, and by half of it, and a quarter."""
STEEPEST = 1.0
"""Largest slope that is found."""
STILL = 0.005
"""An animal that overlaps so nearly as much unturned as with any turn has not turned, whatever is expected."""
EXPECTED_WEIGHT = 0.06
"""Overlap that makes up for a turn that is off by as much as was expected, or by `LEAST_EXPECTED` if that is more."""
LEAST_EXPECTED = math.radians(40.0)
"""How far off a smaller turn is, is measured by this."""
SIDE = 72
"""Cells along a side of the pictures that are compared."""
MARGIN = 1.3
"""Side of these pictures, in longer sides of the silhouette."""
TAILS = 0.01
"""Part of what is seen that may lie beyond either end of what counts as its width and height."""


@dataclass(frozen=True)
class Turning:
    """How an animal turns and stands."""

    turns: tuple[float, ...]
    """How far it has turned at times evenly over the clip, in radians; positive is to its left. Between them the rate is even."""
    elevation: float
    """How far the camera looks down, in radians."""
    slope: float
    """Change of the body's depth for each unit of its way across the canonical picture, to the right; see `seed_points.lean`."""

    @staticmethod
    def even(turn: float, elevation: float, slope: float) -> Turning:
        """That of an animal which turns at an even rate by `turn`."""
        return Turning(tuple(turn * k / (TURN_KNOTS - 1) for k in range(TURN_KNOTS)), elevation, slope)

    @property
    def turn(self) -> float:
        """From time 0 to 1."""
        return self.turns[-1] - self.turns[0]

    @property
    def unevenness(self) -> float:
        """Sum of the squared changes of what it turns by from one of the times to the next."""
        steps = [after - before for before, after in pairwise(self.turns)]
        return sum((after - before) ** 2 for before, after in pairwise(steps))

    def at(self, times: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """How far it has turned at `times`."""
        knots = torch.linspace(0, 1, len(self.turns), device=times.device)
        return interpolation_weights(knots, times) @ torch.tensor(self.turns, device=times.device)


class TurnedOutlines:
    """The canonical shape, turned, beside the silhouettes of a camera that stays where it is.

    Args:
        points: of the shape, in the world.
        views: silhouettes, and the one camera in whose picture they lie.
        moved: where the animal is in them, from where `points` are, as far as that is known.
        times: of them, in [0, 1].
        canonical_time: at which the shape is as in the points.
    """

    def __init__(
        self,
        points: Float[Tensor, "N 3"],
        views: Iterable[View],
        moved: Float[Tensor, "V 3"],
        times: Float[Tensor, " V"],
        canonical_time: float,
    ) -> None:
        views = iter(views)
        first = next(views)
        spans, wanted = [], []
        for view in chain([first], views):
            outline = _outline(view)
            span = _span(outline)[None]
            spans.append(span)
            wanted.append(_cells(_framed(outline[None], span, span)))
        pose = torch.from_numpy(first.camera_to_world).to(points)
        self._axes = pose[:3, :3]
        self._camera = pose[:3, 3] @ self._axes  # all in the camera's own axes, but from the world's origin
        self._points, self._moved, self._times = points @ self._axes, moved @ self._axes, times
        leaned = torch.from_numpy(lean(points.double().numpy(), first, 1.0)).to(points)
        self._by_slope = (leaned - points) @ self._axes
        self._spans, self._wanted = torch.cat(spans), torch.cat(wanted)
        self._canonical_time = torch.tensor([canonical_time])

    def thinned(self) -> TurnedOutlines:
        """Some of the points and of the views: quicker, and less exact."""
        few = copy.copy(self)
        for name in ("_points", "_by_slope"):
            setattr(few, name, getattr(self, name)[::THINNED_POINTS])
        for name in ("_moved", "_times", "_spans", "_wanted"):
            setattr(few, name, getattr(self, name)[::THINNED_VIEWS])
        return few

    def agreement(self, turning: Turning) -> float:
        """Mean IoU of the silhouettes and the shape."""
        seen = _projected(self._turned(turning) + self._moved[:, None])
        cells = _cells(_framed(seen, _spans(seen), self._spans))
        both, either = (cells & self._wanted).sum((1, 2)), (cells | self._wanted).sum((1, 2))
        return float((both / either).mean())

    def axis(self, turning: Turning) -> Float[Tensor, " 3"]:
        """The animal's vertical in the world."""
        return self._axes @ self._vertical(turning)

    def _vertical(self, turning: Turning) -> Float[Tensor, " 3"]:
        return self._axes.new_tensor([0.0, math.cos(turning.elevation), math.sin(turning.elevation)])

    def _turned(self, turning: Turning) -> Float[Tensor, "V N 3"]:
        """The shape's points in the views before the animal has gone anywhere, seen from the camera in its axes."""
        leaned = self._points + turning.slope * self._by_slope
        angles = turning.at(self._times) - turning.at(self._canonical_time)
        rotations = so3_exp(angles[:, None] * self._vertical(turning))
        return leaned @ rotations.mT - self._camera


@torch.no_grad()
def find_turning(
    outlines: TurnedOutlines,
    expected: float | None,
    elevation: float | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Turning:
    """The turning whose outlines overlap the most; of those that overlap alike, an even one as far as expected, or none.

    Args:
        outlines: to compare.
        expected: turn from time 0 to 1, in radians, that something else says; a small one says nothing of the side.
        elevation: in radians, where it is known.
        advance: called after each of `TURNS_DEG`, which are compared first.
    """
    has_side = expected is not None and abs(expected) > LEAST_EXPECTED / 2
    elevations = [math.radians(degrees) for degrees in ELEVATIONS_DEG if has_side or degrees >= 0]
    if elevation is not None:
        elevations = [elevation]
    few = outlines.thinned()

    def cost(turning: Turning) -> float:
        off = 0.0 if expected is None else (turning.turn - expected) / max(abs(expected), LEAST_EXPECTED)
        return EXPECTED_WEIGHT * off**2 + EVEN_WEIGHT * turning.unevenness

    def worth(turning: Turning) -> float:
        return outlines.agreement(turning) - cost(turning)

    compared: dict[Turning, float] = {}
    for turn in TURNS_DEG:
        for candidate in (Turning.even(math.radians(turn), e, slope) for e in elevations for slope in SLOPES):
            compared[candidate] = few.agreement(candidate)
        advance()
    still = max(agreement for turning, agreement in compared.items() if not turning.turn)
    if still > max(compared.values()) - STILL:
        return Turning.even(0.0, elevation or 0.0, 0.0)
    best = max(compared, key=lambda turning: compared[turning] - cost(turning))
    value = worth(best)
    for neighbours in (_turned_evenly, _turned_unevenly):
        for part in (1.0, 0.5, 0.25):
            improved = True
            while improved:
                improved = False
                for change in neighbours(part):
                    candidate = change(best)
                    within = min(max(candidate.elevation, elevations[0]), elevations[-1])
                    slope = min(max(candidate.slope, -STEEPEST), STEEPEST)
                    candidate = replace(candidate, elevation=within, slope=slope)
                    if candidate != best and (found := worth(candidate)) > value:
                        best, value, improved = candidate, found, True
    return best


Change = Callable[[Turning], Turning]


def _leaned_otherwise(part: float) -> Iterator[Change]:
    """Changes of elevation and slope, by a part of their steps."""
    for sign in (-part, part):
        yield lambda turning, by=sign * STEPS[1]: replace(turning, elevation=turning.elevation + by)
        yield lambda turning, by=sign * STEPS[2]: replace(turning, slope=turning.slope + by)


def _turned_evenly(part: float) -> Iterator[Change]:
    """And of the turn at all times alike."""
    for sign in (-part, part):
        yield lambda turning, by=sign * STEPS[0]: Turning.even(turning.turn + by, turning.elevation, turning.slope)
    yield from _leaned_otherwise(part)


def _turned_unevenly(part: float) -> Iterator[Change]:
    """And of the turn at one time, or at all from that on."""
    for first in range(1, TURN_KNOTS):
        for last in {first, TURN_KNOTS - 1}:
            for sign in (-part, part):
                by = [sign * STEPS[0] * (first <= k <= last) for k in range(TURN_KNOTS)]
                yield lambda turning, by=by: replace(
                    turning, turns=tuple(turn + change for turn, change in zip(turning.turns, by, strict=True))
                )
    yield from _leaned_otherwise(part)


def _outline(view: View) -> Float[Tensor, "P 2"]:
    """Where a silhouette's pixels are seen, left and down, one unit before the camera."""
    rows, columns = np.nonzero(view.alpha >= FOREGROUND)
    pixels = np.stack([columns, rows], axis=1) + 0.5
    seen = (pixels - view.intrinsics[:2, 2]) / view.intrinsics[[0, 1], [0, 1]]
    return torch.from_numpy(seen * [-1.0, 1.0]).float()


def _projected(points: Float[Tensor, "V P 3"]) -> Float[Tensor, "V P 2"]:
    """Where points in a camera's axes are seen, left and down, one unit before it."""
    return points[..., :2] / points[..., 2:]


def _span(places: Float[Tensor, "P 2"]) -> Float[Tensor, "2 2"]:
    """First and last place, of both axes; specks do not count."""
    rank = max(1, round(TAILS * len(places)))
    return torch.stack([places.kthvalue(r, dim=0).values for r in (rank, len(places) + 1 - rank)])


def _spans(places: Float[Tensor, "V P 2"]) -> Float[Tensor, "V 2 2"]:
    return torch.stack([_span(each) for each in places])


def _framed(
    places: Float[Tensor, "V P 2"], spans: Float[Tensor, "V 2 2"], wanted: Float[Tensor, "V 2 2"]
) -> Float[Tensor, "V P 2"]:
    """Places in pictures of side 1 about the `wanted` spans, brought to the same middle and height as these."""
    sizes = wanted.diff(dim=1)[:, 0]
    factors = sizes[:, 1] / spans.diff(dim=1)[:, 0, 1] / (MARGIN * sizes.amax(dim=1))
    return (places - spans.mean(dim=1)[:, None]) * factors[:, None, None] + 0.5


def _cells(places: Float[Tensor, "V P 2"]) -> Bool[Tensor, "V S S"]:
    """Cells of these pictures in which something is seen, small holes filled."""
    rim = SIDE + 2  # what lies beyond falls into it
    columns, rows = (places * SIDE).floor().long().clamp(-1, SIDE).add(1).unbind(-1)
    cells = places.new_zeros(len(places), rim * rim).scatter_(1, rows * rim + columns, 1.0).view(-1, 1, rim, rim)
    closed = -F.max_pool2d(-F.max_pool2d(cells, 3, 1, 1), 3, 1, 1)
    return closed[:, 0, 1:-1, 1:-1] > 0.5
