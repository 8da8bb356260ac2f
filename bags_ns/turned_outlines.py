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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from bags_ns.data.images import FOREGROUND
from bags_ns.data.seed_points import View
from bags_ns.rig.transforms import so3_exp

TURNS_DEG = tuple(range(-180, 181, 15))
"""Turns that are compared first, the largest half a round."""
ELEVATIONS_DEG = (-10.0, 0.0, 10.0, 20.0, 30.0)
"""Elevations that are compared first; none beyond them is found."""
SLOPES = (-0.8, -0.4, 0.0, 0.4, 0.8)
"""Slopes that are compared first."""
THINNED_POINTS, THINNED_VIEWS = 2, 3
"""One of so many is used for that."""
STEPS = (math.radians(7.5), math.radians(5.0), 0.2)
"""By which turn, elevation and slope are then changed as long as that is better, and by half of it, and a quarter."""
STEEPEST = 1.0
"""Largest slope that is found."""
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

    turn: float
    """From time 0 to 1, at an even rate, in radians; positive is to its left."""
    elevation: float
    """How far the camera looks down, in radians."""
    slope: float
    """Change of the body's depth for each unit of its way across the canonical picture, to the right; see `seed_points.lean`."""


class TurnedOutlines:
    """The canonical shape, turned, beside the silhouettes of a camera that stays where it is.

    Args:
        points: of the shape, in the world.
        views: silhouettes, and the one camera in whose picture they lie.
        moved: where the animal is in them, from where `points` are, as far as that is known.
        times: of them, from the canonical one, in parts of the clip.
    """

    def __init__(
        self,
        points: Float[Tensor, "N 3"],
        views: Iterable[View],
        moved: Float[Tensor, "V 3"],
        times: Float[Tensor, " V"],
    ) -> None:
        spans, wanted, pose = [], [], torch.eye(4)
        for view in views:
            pose = torch.from_numpy(view.camera_to_world).to(points)
            outline = _outline(view)
            span = _span(outline)[None]
            spans.append(span)
            wanted.append(_cells(_framed(outline[None], span, span)))
        self._axes = pose[:3, :3]
        self._camera = pose[:3, 3] @ self._axes  # all in the camera's own axes, but from the world's origin
        self._points, self._moved, self._times = points @ self._axes, moved @ self._axes, times
        self._spans, self._wanted = torch.cat(spans), torch.cat(wanted)

    def thinned(self) -> TurnedOutlines:
        """Some of the points and of the views: quicker, and less exact."""
        few = copy.copy(self)
        few._points = self._points[::THINNED_POINTS]
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
        from_camera = self._points - self._camera
        across = self._points[:, 0] - self._points[:, 0].mean()
        leaned = self._camera + from_camera * (1 - turning.slope * across / from_camera[:, 2])[:, None]
        rotations = so3_exp(self._times[:, None] * turning.turn * self._vertical(turning))
        return leaned @ rotations.mT - self._camera


@torch.no_grad()
def find_turning(
    outlines: TurnedOutlines,
    expected: float | None,
    elevation: float | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Turning:
    """The turning whose outlines overlap the most.

    Args:
        outlines: to compare.
        expected: turn, in radians, that something else says; of turns that overlap alike it is the nearest to it.
        elevation: in radians, where it is known.
        advance: called after each of `TURNS_DEG`, which are compared first.
    """
    elevations = [math.radians(degrees) for degrees in ELEVATIONS_DEG if expected is not None or degrees >= 0]
    if elevation is not None:
        elevations = [elevation]
    few = outlines.thinned()

    def worth(turning: Turning, judge: TurnedOutlines) -> float:
        off = 0.0 if expected is None else (turning.turn - expected) / max(abs(expected), LEAST_EXPECTED)
        return judge.agreement(turning) - EXPECTED_WEIGHT * off**2

    best, value = Turning(0.0, elevations[0], 0.0), -math.inf
    for turn in TURNS_DEG:
        for candidate in (Turning(math.radians(turn), e, slope) for e in elevations for slope in SLOPES):
            if (found := worth(candidate, few)) > value:
                best, value = candidate, found
        advance()
    value, limits = worth(best, outlines), ((-math.pi, math.pi), (elevations[0], elevations[-1]), (-STEEPEST, STEEPEST))
    for part in (1.0, 0.5, 0.25):
        improved = True
        while improved:
            improved = False
            for name, step, (lowest, highest) in zip(("turn", "elevation", "slope"), STEPS, limits, strict=True):
                for change in (-part * step, part * step):
                    candidate = replace(best, **{name: min(max(getattr(best, name) + change, lowest), highest)})
                    if candidate != best and (found := worth(candidate, outlines)) > value:
                        best, value, improved = candidate, found, True
    return best


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
