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

from bags_ns.rig.timetable import Timetable, hat_ends, hats, interpolation_weights
from bags_ns.rig.transforms import rigid, rigid_about, so3_exp

TRACKING_DAMPING = 0.7
"""Part of the last frame's speed that a frame starts with when it enters: limbs also slow down and turn back."""


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


class BoneMotion(Timetable):
    """Twists of the bones over time: a network of a Fourier time code, plus tables over the frames and of a stride.

    A twist is [rotation vector, translation of the bone's centre].
    """

    settled: Tensor

    def __init__(
        self,
        num_bones: int,
        knots: Float[Tensor, " T"],
        canonical_time: float,
        num_frequencies: int = 24,
        num_hidden: int = 128,
    ) -> None:
        super().__init__(knots, canonical_time, num_bones, 6)
        self.code = FourierTimeCode(num_frequencies)
        self.network = nn.Sequential(
            nn.Linear(self.code.size, num_hidden), nn.SiLU(), nn.Linear(num_hidden, num_hidden), nn.SiLU()
        )
        self.head = nn.Linear(num_hidden, 6 * num_bones)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
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
        return super().get_extra_state() | {"canonical_learns": self.canonical_learns}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().set_extra_state(state)
        self.canonical_learns = state["canonical_learns"]

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
        return super()._raw(times) + self.head(self.network(self.code(times))).unflatten(1, (-1, 6))


def bone_transforms(
    twists: Float[Tensor, "*batch B 6"], centers: Float[Tensor, "B 3"]
) -> Float[Tensor, "*batch B 4 4"]:
    """T_object_canonical: rotations about the bones' centres, then translations."""
    return rigid_about(so3_exp(twists[..., :3]), twists[..., 3:], centers.expand_as(twists[..., 3:]))


class RootMotion(Timetable):
    """The animal as a whole over time: a given path and given turns, and learned changes on top.

    Args:
        knots: ascending frame times in [0, 1].
        canonical_time: where the change is exactly zero.
        path: translations at the frames to start from, in world units (zeros for known cameras).
    """

    path: Tensor
    turns: Tensor

    def __init__(
        self, knots: Float[Tensor, " T"], canonical_time: float, path: Float[Tensor, "T 3"] | None = None
    ) -> None:
        super().__init__(knots, canonical_time, 6)
        self.register_buffer("path", torch.zeros(len(knots), 3) if path is None else path.clone())
        self.register_buffer("turns", torch.zeros(len(knots), 3))

    def start_turns(self, angles: Float[Tensor, " T"], axis: Float[Tensor, " 3"]) -> None:
        """Gives the turns at the frames to start from: angles (radians) about one unit axis, less that of the canonical time."""
        at_canonical = interpolation_weights(self.knots, self.canonical_time[None].to(angles)) @ angles
        self.turns.copy_((angles - at_canonical)[:, None] * axis)

    def change(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K 6"]:
        """Learned [rotation vector, translation] on top of path and turns; exactly zero at the canonical time."""
        return self.tables_at(times)

    def parts_at(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K 9"]:
        """Learned rotation vector, translation with the path, and given turn at `times`."""
        weights = interpolation_weights(self.knots, times)
        turned, moved = self.change(times).split(3, dim=1)
        return torch.cat([turned, moved + weights @ self.path, weights @ self.turns], dim=1)

    def forward(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K 4 4"]:
        """T_world_object at `times`."""
        turned, moved, turns = self.parts_at(times).split(3, dim=1)
        learned, given = so3_exp(torch.stack([turned, turns]))
        return rigid(learned @ given, moved)

    @torch.no_grad()
    def continue_frame(self, before: int, last: int, target: int) -> None:
        """Gives frame `target` the learned change that follows from `before` and `last` at constant speed; a stride goes on by itself."""
        self.table[target] = self.table[last] + TRACKING_DAMPING * (self.table[last] - self.table[before])


class FixedMotion:
    """The poses of motion whose weights stay as they are: what depends on them alone is computed once, the rest in few operations.

    All that is linear is one product: the network's last layer, the tables less their canonical rows, turns and path. Its
    rows are twists of the bones, of the root's change with the path, and of the root's turn. The gauge is exact here too.
    """

    def __init__(self, bones: BoneMotion, root: RootMotion, centers: Float[Tensor, "B 3"]) -> None:
        self._bones = bones
        self._rest = self._hidden(bones.canonical_time[None])
        times = torch.cat([bones.bends(), root.bends()]).unique()
        self._hats = hat_ends(times)
        of_bones = torch.cat([bones.head.weight.T.unflatten(1, (-1, 6)), bones.tables_at(times)])
        of_bones = (of_bones - of_bones.mean(dim=1, keepdim=True)).flatten(1)
        of_root = root.parts_at(times)
        # Two twists, of which the second only turns; the network does not move the root.
        of_root = torch.nn.functional.pad(of_root, (0, 3, self._rest.shape[1], 0))
        self._rows = torch.cat([of_bones, of_root], dim=1)
        self._pivots = torch.nn.functional.pad(centers, (0, 0, 0, 2))

    def _hidden(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K H"]:
        return self._bones.network(self._bones.code(times))

    def __call__(self, times: Float[Tensor, " 1"]) -> tuple[Float[Tensor, "B 4 4"], Float[Tensor, "4 4"]]:
        """T_object_canonical and T_world_object at one time."""
        features = [self._hidden(times) - self._rest, hats(*self._hats, times)]
        twists = (torch.cat(features, dim=1) @ self._rows).view(-1, 6)
        transforms = rigid_about(so3_exp(twists[:, :3]), twists[:, 3:], self._pivots)
        return transforms[:-2], transforms[-2] @ transforms[-1]
