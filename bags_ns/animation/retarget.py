"""One animal's motion on another: its paws, head and tail move as the other's do, and its joints turn to bring them there.

Bones of two trained rigs have no counterparts: a fore leg may hang on the head in one and on the trunk in the other. So
nothing of the source's tree is used. Each extremity of the target leaves the middle of its own path as far as the source's
does, scaled to the length of the legs, and the joints follow in least squares from the canonical pose.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animation.extremities import NUM_PAWS, Body, Extremities
from bags_ns.animation.joint_rotations import bones_from_rotations
from bags_ns.rig.transforms import rigid, so3_exp, transform_points

HOLD_WEIGHT = 1.0
"""How much it counts that bones above the legs leave their places, against extremities that miss their paths."""
TURN_WEIGHT = 0.003
"""The same of joints that turn (in squares of radians): of two ways to the same place the lesser turn is taken."""
ITERATIONS = 80
"""Of the fit; it comes to rest within about 50."""


def axes_turn(source: Extremities, target: Extremities) -> Float[Tensor, "3 3"]:
    """Rotation about z from the source's canonical axes to the target's: both then face the same way."""
    return target.axes.T @ source.axes.to(target.axes)


def retargeted_paths(source: Extremities, target: Extremities) -> Float[Tensor, "K E 3"]:
    """Where the target's extremities go with the source's motion; paws straight ahead, for what a video shows of their
    ways to the sides is mostly error."""
    away = (source.paths - source.paths.mean(0)) @ source.axes.T  # forward, left, up
    away[:, :NUM_PAWS, 1] = 0
    scale = target.height / max(source.height, 1e-6)
    return target.paths.mean(0) + scale * away.to(target.axes) @ target.axes


def reach(paths: Float[Tensor, "K E 3"], body: Body, extremities: Extremities) -> Float[Tensor, "K B 3 3"]:
    """Local rotations that bring the extremities of an animal onto paths while its body keeps its place, in least squares."""
    size = float((body.points.amax(0) - body.points.amin(0)).max())
    middles = transform_points(
        body.T_object_canonical, body.centers[:, None].expand(len(body.T_object_canonical), -1, 1, 3)
    )
    above = middles[..., 0, 2].mean(0) - extremities.paths[:, :NUM_PAWS, 2].mean()
    hold = (above / extremities.height).clamp(0, 1).square()  # legs are free, more so towards the paws
    places = body.centers[:, None].expand(len(paths), -1, 1, 3)
    vectors = torch.zeros(len(paths), len(body.centers), 3, device=paths.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([vectors], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        bones = bones_from_rotations(so3_exp(vectors), body.skeleton)
        missed = (extremities.at(bones) - paths).square().sum(-1).mean() / size**2
        left = hold * (transform_points(bones, places) - places).square().sum((-1, -2)) / size**2
        loss = missed + HOLD_WEIGHT * left.mean() + TURN_WEIGHT * vectors.square().sum(-1).mean()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return so3_exp(vectors.detach())


def retarget_roots(
    T_world_object: Float[Tensor, "K 4 4"], source: Extremities, target: Extremities, base: int
) -> Float[Tensor, "K 4 4"]:
    """Root transforms of the source as changes from pose `base`: turned to the target's axes, moves scaled to its legs."""
    turn, scale = axes_turn(source, target).to(T_world_object), target.height / max(source.height, 1e-6)
    rotations = T_world_object[:, :3, :3] @ T_world_object[base, :3, :3].T
    moves = scale * (T_world_object[:, :3, 3] - T_world_object[base, :3, 3]) @ turn.T
    return rigid(turn @ rotations @ turn.T, moves)
