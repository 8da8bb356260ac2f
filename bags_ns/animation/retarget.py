"""One animal's motion on another: bones are matched by their places in the two bodies, and turn alike.

A bone of the target takes the *whole* turn (its own and its ancestors') of the bone that it is matched with, so the two
trees may differ; what moves between two skeletons is turns about joints, and the root's way scaled to the new size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.rig.skeleton import Skeleton, topological_order
from bags_ns.rig.transforms import rigid, so3_exp

DEPTH_WEIGHT = 0.2
"""How much the whole depth of a tree counts against the whole length of the animal when bones are matched."""
HEADINGS = 36
"""Directions that are tried to turn one animal as the other stands."""


@dataclass(frozen=True)
class Body:
    """What matching needs of an animal in its canonical frame."""

    skeleton: Skeleton
    """Tree and joints."""
    centers: Float[Tensor, "B 3"]
    """Of the bones."""
    points: Float[Tensor, "P 3"]
    """Of its surface or inside."""

    def depths(self) -> Float[Tensor, " B"]:
        """Steps from the root to each bone, as a part of the longest way."""
        depths = torch.zeros(len(self.centers))
        for bone in topological_order(self.skeleton.parents):
            parent = int(self.skeleton.parents[bone])
            depths[bone] = 0 if parent < 0 else depths[parent] + 1
        return (depths / depths.max().clamp_min(1)).to(self.centers)

    def size(self) -> float:
        """Longest side of its box, in canonical units."""
        return float((self.points.amax(0) - self.points.amin(0)).max())


@dataclass(frozen=True)
class Match:
    """How a source's bones lie in a target."""

    bones: Int[Tensor, " target"]
    """For each bone of the target, its counterpart in the source."""
    turn: Float[Tensor, "3 3"]
    """Rotation about z from the source's canonical axes to the target's: both then face the same way."""
    scale: float
    """Size of the target over that of the source."""


def about_z(angle: float) -> Float[Tensor, "3 3"]:
    """Rotation about the vertical axis, in radians."""
    return so3_exp(torch.tensor([0.0, 0.0, angle]))


def box_coordinates(points: Float[Tensor, "N 3"], body: Float[Tensor, "P 3"]) -> Float[Tensor, "N 3"]:
    """Points in the box of `body`: -0.5 to 0.5 along each of its sides."""
    low, high = body.amin(0), body.amax(0)
    return (points - 0.5 * (low + high)) / (high - low).clamp_min(1e-6)


def _unlikeness(a: Float[Tensor, "A 3"], b: Float[Tensor, "C 3"]) -> float:
    """Mean distance of each point to the nearest of the other set, both ways."""
    distances = torch.cdist(a, b)
    return float(distances.amin(0).mean() + distances.amin(1).mean())


def fit_turn(source: Body, target: Body, max_points: int = 500) -> Float[Tensor, "3 3"]:
    """The rotation about z of the source after which its shape is most like the target's, both of size 1."""
    shapes = []
    for body in (source, target):
        points = body.points[:: math.ceil(len(body.points) / max_points)].detach().cpu()
        middle = 0.5 * (points.amin(0) + points.amax(0))
        shapes.append((points - middle) / body.size())
    turns = [about_z(2 * math.pi * index / HEADINGS) for index in range(HEADINGS)]
    costs = [_unlikeness(shapes[0] @ turn.T, shapes[1]) for turn in turns]
    return turns[min(range(HEADINGS), key=costs.__getitem__)].to(target.centers)


def match_bones(source: Body, target: Body, turn: Float[Tensor, "3 3"] | None = None) -> Match:
    """Finds for each bone of the target the source's bone nearest to it in the animal's box and in the tree's depth.

    Args:
        turn: from the source's canonical axes to the target's; found from the two shapes unless given.
    """
    turn = fit_turn(source, target) if turn is None else turn.to(target.centers)
    turned = [points.to(target.centers) @ turn.T for points in (source.centers, source.points)]
    places = box_coordinates(turned[0], turned[1]), box_coordinates(target.centers, target.points)
    depths = source.depths().to(target.centers), target.depths()
    apart = torch.cdist(places[1], places[0]) + DEPTH_WEIGHT * (depths[1][:, None] - depths[0]).abs()
    return Match(apart.argmin(dim=1), turn, target.size() / source.size())


def whole_turns(rotations: Float[Tensor, "K B 3 3"], skeleton: Skeleton) -> Float[Tensor, "K B 3 3"]:
    """Local rotations with those of the ancestors: the turn of each bone in canonical axes."""
    result = [rotations[:, 0]] * rotations.shape[1]
    for bone in topological_order(skeleton.parents):
        parent = int(skeleton.parents[bone])
        result[bone] = rotations[:, bone] if parent < 0 else result[parent] @ rotations[:, bone]
    return torch.stack(result, dim=1)


def local_turns(turns: Float[Tensor, "K B 3 3"], skeleton: Skeleton) -> Float[Tensor, "K B 3 3"]:
    """The inverse of `whole_turns`."""
    has_parent = (skeleton.parents >= 0)[:, None, None]
    inherited = torch.where(has_parent, turns[:, skeleton.parents.clamp_min(0)], torch.eye(3).to(turns))
    return inherited.transpose(-1, -2) @ turns


def retarget_rotations(
    rotations: Float[Tensor, "K source 3 3"],
    source: Skeleton,
    target: Skeleton,
    match: Match,
    base: Float[Tensor, "source 3 3"] | None = None,
) -> Float[Tensor, "K target 3 3"]:
    """Local rotations of the source as local rotations of the target.

    Args:
        rotations: of K poses.
        source: skeleton that they are of.
        target: skeleton to turn.
        match: of their bones.
        base: local rotations of the source's pose that is like the target's canonical one; unturned unless given.
    """
    turns = whole_turns(rotations, source)
    if base is not None:
        turns = turns @ whole_turns(base[None], source).transpose(-1, -2)
    turn = match.turn.to(turns)
    turned = turn @ turns @ turn.T
    return local_turns(turned[:, match.bones.to(turns.device)].to(target.joints), target)


def retarget_roots(T_world_object: Float[Tensor, "K 4 4"], match: Match, base: int) -> Float[Tensor, "K 4 4"]:
    """Root transforms of the source as changes from pose `base`: turned to the target's axes, moves scaled to its size."""
    turn = match.turn.to(T_world_object)
    rotations = T_world_object[:, :3, :3] @ T_world_object[base, :3, :3].T
    moves = match.scale * (T_world_object[:, :3, 3] - T_world_object[base, :3, 3]) @ turn.T
    return rigid(turn @ rotations @ turn.T, moves)
