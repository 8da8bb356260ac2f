"""Motion: time in [0, 1] -> one rigid transform for every bone, and one for the animal as a whole (the root).

Gauge. Root, common bone motion and canonical shape could stand in for each other, so they are pinned by construction:
at the canonical time every bone transform and the root's change are exactly the identity, and the bones' rotation
vectors and translations have zero mean over the bones at all times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bags_ns.rig.transforms import rigid, rigid_about, so3_exp

TRACKING_DAMPING = 0.7
"""Part of the last frame's speed that a frame starts with when it enters: limbs also slow down and turn back."""
STRIDE_ROWS = 16
"""Rows of the table of one stride."""
STRIDE_BENDING = 1e-2
"""What the bending of a stride counts against how far it is from the motion that it is fitted to: it fills phases without a frame."""


@dataclass(frozen=True)
class Pose:
    """What the rig needs to deform the animal: made by motion, by the viewer or by a pose track."""

    T_object_canonical: Float[Tensor, "B 4 4"]
    """Bone transforms."""
    T_world_object: Float[Tensor, "4 4"]
    """Root transform."""
    time: Float[Tensor, ""] | None = None
    """Moment of the video, where a deformation field moves the Gaussians and no bone does."""

    @property
    def T_world_canonical(self) -> Float[Tensor, "B 4 4"]:
        """Bone transforms with the root applied after them."""
        return self.T_world_object @ self.T_object_canonical


def interpolation_weights(knots: Float[Tensor, " T"], times: Float[Tensor, " K"]) -> Float[Tensor, "K T"]:
    """What each of the ascending `knots` counts at `times`: linear between them, constant beyond, all or nothing at a knot.

    Times a table this interpolates its rows, and its gradient is a product too, where that of indexing is a scatter.
    """
    return _hats(*_hat_ends(knots), times)


def _hat_ends(knots: Float[Tensor, " T"]) -> tuple[Float[Tensor, "2 1 T"], Float[Tensor, "2 1 T"]]:
    """Where the weight of each knot in [0, 1] ends, before and after it, and how far from it that is (before: negative)."""
    never = knots.new_full((1,), 1e6)
    ends = torch.stack([torch.cat([-never, knots[:-1]]), torch.cat([knots[1:], never])])
    return ends[:, None], (ends - knots).clamp(-1, 1)[:, None]  # so that the first and the last never fall below 1


def _hats(
    ends: Float[Tensor, "2 1 T"], spans: Float[Tensor, "2 1 T"], times: Float[Tensor, " K"]
) -> Float[Tensor, "K T"]:
    return ((ends - times[:, None]) / spans).amin(0).clamp(0, 1)


class FourierTimeCode(nn.Module):
    """t -> [t, sin(pi k t), cos(pi k t)] for k = 1 .. num_frequencies; the highest has num_frequencies / 2 periods a clip."""

    frequencies: Tensor

    def __init__(self, num_frequencies: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * torch.arange(1, num_frequencies + 1), persistent=False)

    @property
    def size(self) -> int:
        return 1 + 2 * len(self.frequencies)

    def forward(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K code"]:
        phases = times[:, None] * self.frequencies
        return torch.cat([times[:, None], phases.sin(), phases.cos()], dim=1)


def stride_weights(times: Float[Tensor, " K"], period: float) -> Float[Tensor, "K S"]:
    """What each of the `STRIDE_ROWS` rows of a stride, evenly over a period and then again from the first, counts at `times`."""
    phases = (times / period) % 1.0
    ends = interpolation_weights(torch.linspace(0, 1, STRIDE_ROWS + 1, device=times.device), phases)
    return torch.cat([ends[:, :1] + ends[:, -1:], ends[:, 1:-1]], dim=1)


class BoneMotion(nn.Module):
    """Twists of the bones over time: a network of a Fourier time code, plus a table over the frames that is interpolated.

    A twist is [rotation vector, translation of the bone's centre]. Where the motion has a period, a table of one stride is
    added: what all strides have in common is one thing to learn, from all their frames, and goes on where frames are missing.
    """

    knots: Tensor
    canonical_time: Tensor
    settled: Tensor

    def __init__(
        self,
        num_bones: int,
        knots: Float[Tensor, " T"],
        canonical_time: float,
        num_frequencies: int = 12,
        num_hidden: int = 128,
    ) -> None:
        super().__init__()
        self.code = FourierTimeCode(num_frequencies)
        self.network = nn.Sequential(
            nn.Linear(self.code.size, num_hidden), nn.SiLU(), nn.Linear(num_hidden, num_hidden), nn.SiLU()
        )
        self.head = nn.Linear(num_hidden, 6 * num_bones)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.table = nn.Parameter(torch.zeros(len(knots), num_bones, 6))
        self.stride = nn.Parameter(torch.zeros(STRIDE_ROWS, num_bones, 6))
        self.period: float | None = None
        self._mean_spacing = float(knots[-1] - knots[0]) / max(1, len(knots) - 1)
        self.register_buffer("knots", knots.clone())
        self.register_buffer("canonical_time", torch.tensor(float(canonical_time)))
        self.register_buffer("settled", torch.zeros(num_bones, 6))
        self.canonical_learns = False

    def forward(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K B 6"]:
        """Twists at `times`: exactly zero at the canonical time, and of zero mean over the bones.

        Once `canonical_learns`, the gradient is that of free poses: the canonical one has its own too, and none by the
        others. What it changes there is for `settle` to put into the shape.
        """
        times = torch.cat([self.canonical_time[None].to(times), times])
        smooth = self.head(self.network(self.code(times)))
        moving = times[1:] != times[0]  # products over many rows may round differently: exact at the canonical time
        weights, table = self._weights(times), self._rows()
        by_tables = (weights[1:] - weights[:1]) @ table
        by_time = torch.where(moving[:, None], smooth[1:], smooth[:1])
        if self.canonical_learns:
            held = table.detach()
            by_tables = (weights[1:] - weights[:1]) @ held + weights[1:] @ (table - held)
            by_time = by_time - smooth[:1].detach()
        else:
            by_time = by_time - smooth[:1]
        twists = (by_time + by_tables).unflatten(1, (-1, 6))
        return twists - twists.mean(dim=1, keepdim=True)

    def get_extra_state(self) -> dict[str, Any]:
        """The period, and whether the canonical pose learns."""
        return {"period": self.period, "canonical_learns": self.canonical_learns}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self.period, self.canonical_learns = state["period"], state["canonical_learns"]

    @torch.no_grad()
    def repeat_every(self, period: float | None, span: tuple[float, float] = (0.0, 1.0)) -> None:
        """Sets the period (a part of the clip; None: the motion has none). No frame's pose changes.

        The table of a stride starts from what the strides within a `span` of the clip have in common.
        """
        poses = self._raw(self.knots).flatten(1)
        self.period = period
        self.stride.zero_()
        if period is not None:
            known = (self.knots >= span[0]) & (self.knots <= span[1])
            weights = stride_weights(self.knots[known], period)
            identity = torch.eye(STRIDE_ROWS, device=weights.device)
            bending = identity.roll(1, 0) - 2 * identity + identity.roll(-1, 0)
            # A little of the identity, for what no frame is near and does not bend.
            normal = weights.T @ weights + STRIDE_BENDING * (bending.T @ bending + 1e-3 * identity)
            self.stride.copy_(torch.linalg.solve(normal, weights.T @ poses[known]).view_as(self.stride))
        self.table += (poses - self._raw(self.knots).flatten(1)).view_as(self.table)

    @torch.no_grad()
    def settle(self) -> Float[Tensor, "B 6"]:
        """How the canonical pose would have changed since the last call, were it not the identity: the shape's business."""
        canonical = self._raw(self.canonical_time[None])[0]
        change = canonical - self.settled
        self.settled.copy_(canonical)
        return change - change.mean(dim=0)

    def change_over(self, period: float, count: int, span: tuple[float, float] = (0.0, 1.0)) -> Float[Tensor, "K B 6"]:
        """How the twists change from `count` random times to one `period` later, both in a `span` of the clip."""
        starts = span[0] + (span[1] - span[0] - period) * torch.rand(count, device=self.knots.device)
        before, after = self(torch.cat([starts, starts + period])).chunk(2)
        return after - before

    @property
    def mean_spacing(self) -> float:
        """Mean time between frames."""
        return self._mean_spacing

    @torch.no_grad()
    def continue_frame(self, before: int, last: int, target: int) -> None:
        """Gives frame `target` the pose that follows from `before` and `last` at constant speed (`before == last`: that pose)."""
        last_pose = self._raw(self.knots[[last]])
        self._start_frame(target, last_pose + TRACKING_DAMPING * (last_pose - self._raw(self.knots[[before]])))

    @torch.no_grad()
    def repeat_frame(self, last: int, target: int, period: float) -> None:
        """Lets frame `target` go on from `last` as the animal did one `period` before (negative: after) it."""
        earlier = self.knots[[last, target]] - period
        change = self._raw(earlier[1:]) - self._raw(earlier[:1])
        self._start_frame(target, self._raw(self.knots[[last]]) + change)

    @torch.no_grad()
    def resume_frame(self, target: int, time: float) -> None:
        """Gives frame `target` the pose of another `time`."""
        self._start_frame(target, self._raw(self.knots.new_tensor([time])))

    def _start_frame(self, target: int, pose: Float[Tensor, "1 B 6"]) -> None:
        """By its row of the table, whatever the network says there: a start for tracking outward."""
        self.table[target] += (pose - self._raw(self.knots[[target]]))[0]

    def _raw(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K B 6"]:
        """Twists at `times` before they are put into the gauge."""
        smooth = self.head(self.network(self.code(times)))
        return (smooth + self._weights(times) @ self._rows()).unflatten(1, (-1, 6))

    def _weights(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K R"]:
        """What each row of the tables counts at `times`."""
        of_frames = interpolation_weights(self.knots, times)
        if self.period is None:
            return of_frames
        within = times.clamp(self.knots[0], self.knots[-1])  # beyond the clip, the pose at its end
        return torch.cat([of_frames, stride_weights(within, self.period)], dim=1)

    def _rows(self) -> Float[Tensor, "R C"]:
        """The rows of the tables: of the frames and, where there is a period, of a stride."""
        tables = [self.table] if self.period is None else [self.table, self.stride]
        return torch.cat(tables).flatten(1)

    @torch.no_grad()
    def bends(self) -> Float[Tensor, " E"]:
        """The times, ascending, between which what the tables say is linear."""
        if self.period is None:
            return self.knots
        step = self.period / STRIDE_ROWS
        of_stride = step * torch.arange(int(1 / step) + 1, device=self.knots.device)
        inside = (of_stride > self.knots[0]) & (of_stride < self.knots[-1])
        return torch.cat([self.knots, of_stride[inside]]).unique()

    @torch.no_grad()
    def tables_at(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K C"]:
        """What the tables say at `times`, less what they say at the canonical time."""
        weights = self._weights(torch.cat([self.canonical_time[None].to(times), times]))
        return (weights[1:] - weights[:1]) @ self._rows()


def bone_transforms(
    twists: Float[Tensor, "*batch B 6"], centers: Float[Tensor, "B 3"]
) -> Float[Tensor, "*batch B 4 4"]:
    """T_object_canonical: rotations about the bones' centres, then translations."""
    return rigid_about(so3_exp(twists[..., :3]), twists[..., 3:], centers.expand_as(twists[..., 3:]))


class RootMotion(nn.Module):
    """The animal as a whole over time: a given path and given turns, and a table of learned changes on top, all interpolated.

    Args:
        knots: ascending frame times in [0, 1].
        canonical_time: where the change is exactly zero.
        path: translations at the frames to start from, in world units (zeros for known cameras).
    """

    knots: Tensor
    canonical_time: Tensor
    path: Tensor
    turns: Tensor

    def __init__(
        self, knots: Float[Tensor, " T"], canonical_time: float, path: Float[Tensor, "T 3"] | None = None
    ) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(len(knots), 6))
        self.register_buffer("knots", knots.clone())
        self.register_buffer("canonical_time", torch.tensor(float(canonical_time)))
        self.register_buffer("path", torch.zeros(len(knots), 3) if path is None else path.clone())
        self.register_buffer("turns", torch.zeros(len(knots), 3))

    def start_turns(self, angles: Float[Tensor, " T"], axis: Float[Tensor, " 3"]) -> None:
        """Gives the turns at the frames to start from: angles (radians) about one unit axis, less that of the canonical time."""
        at_canonical = interpolation_weights(self.knots, self.canonical_time[None].to(angles)) @ angles
        self.turns.copy_((angles - at_canonical)[:, None] * axis)

    def _weights(self, times: Float[Tensor, " K"]) -> tuple[Float[Tensor, "K T"], Float[Tensor, "K T"]]:
        """Of the frames at `times`, and how they differ from those at the canonical time."""
        weights = interpolation_weights(self.knots, torch.cat([self.canonical_time[None].to(times), times]))
        return weights[1:], weights[1:] - weights[:1]

    def change(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K 6"]:
        """Learned [rotation vector, translation] on top of path and turns; exactly zero at the canonical time."""
        return self._weights(times)[1] @ self.table

    def tables_at(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K 9"]:
        """Learned rotation vector, translation with the path, and given turn at `times`."""
        weights, differences = self._weights(times)
        turned, moved = (differences @ self.table).split(3, dim=1)
        return torch.cat([turned, moved + weights @ self.path, weights @ self.turns], dim=1)

    def forward(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K 4 4"]:
        """T_world_object at `times`."""
        turned, moved, turns = self.tables_at(times).split(3, dim=1)
        learned, given = so3_exp(torch.stack([turned, turns]))
        return rigid(learned @ given, moved)

    @torch.no_grad()
    def continue_frame(self, before: int, last: int, target: int) -> None:
        """Gives frame `target` the learned change that follows from `before` and `last` at constant speed."""
        self.table[target] = self.table[last] + TRACKING_DAMPING * (self.table[last] - self.table[before])


class FixedMotion:
    """The poses of motion whose weights stay as they are: what depends on them alone is computed once, the rest in few operations.

    All that is linear is one product: the network's last layer, the tables less their canonical rows, turns and path. Its
    rows are twists of the bones, of the root's change with the path, and of the root's turn. The gauge is exact here too.
    """

    def __init__(self, bones: BoneMotion, root: RootMotion, centers: Float[Tensor, "B 3"]) -> None:
        self._bones = bones
        self._rest = self._hidden(bones.canonical_time[None])
        times = bones.bends()
        self._hats = _hat_ends(times)
        of_bones = torch.cat([bones.head.weight.T, bones.tables_at(times)])
        of_bones = of_bones.unflatten(1, (-1, 6))
        of_bones = (of_bones - of_bones.mean(dim=1, keepdim=True)).flatten(1)
        of_root = root.tables_at(times)
        # Two twists, of which the second only turns; the network does not move the root.
        of_root = torch.nn.functional.pad(of_root, (0, 3, self._rest.shape[1], 0))
        self._rows = torch.cat([of_bones, of_root], dim=1)
        self._pivots = torch.nn.functional.pad(centers, (0, 0, 0, 2))

    def _hidden(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K H"]:
        return self._bones.network(self._bones.code(times))

    def __call__(self, times: Float[Tensor, " 1"]) -> tuple[Float[Tensor, "B 4 4"], Float[Tensor, "4 4"]]:
        """T_object_canonical and T_world_object at one time."""
        features = [self._hidden(times) - self._rest, _hats(*self._hats, times)]
        twists = (torch.cat(features, dim=1) @ self._rows).view(-1, 6)
        transforms = rigid_about(so3_exp(twists[:, :3]), twists[:, 3:], self._pivots)
        return transforms[:-2], transforms[-2] @ transforms[-1]
