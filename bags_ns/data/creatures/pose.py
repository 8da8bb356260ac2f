"""How creatures move: joint angles, a gait that is a smooth function of time, and the rigid motion of every part."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.data.creatures.anatomy import CONE_PARTS, FOOT_CONES, LEGS, PART_NAMES, PART_PARENTS
from bags_ns.data.creatures.batch import TensorBatch, chance, uniform
from bags_ns.data.creatures.cones import ConeField, Cones
from bags_ns.data.creatures.shape import Creatures

Angle = Tensor | float | int
Angles = tuple[Angle, Angle, Angle]
"""Pitch about x (positive lowers the head and swings a leg back), roll about y, yaw about z: numbers or [batch], radians."""


@dataclass(frozen=True)
class Poses(TensorBatch):
    """Joint angles of creatures, and where their root is."""

    angles: Float[Tensor, "batch parts 3"]
    """Rotation of each part against its parent: about x, then y, then z (radians, axes of the rest pose)."""
    T_world_root: Float[Tensor, "batch 4 4"]
    """Motion of the whole creature, applied after the joints."""


@dataclass(frozen=True)
class Gaits(TensorBatch):
    """Ways of walking on the spot. Angles in radians, phases in cycles."""

    cycles: Float[Tensor, " batch"]
    """Gait cycles in one unit of time (one clip)."""
    leg_phases: Float[Tensor, "batch 4"]
    """Phase of each of `LEGS` at time 0."""
    swing: Float[Tensor, " batch"]
    """Largest angle of a leg fore and aft."""
    lift: Float[Tensor, " batch"]
    """Bend of the knee while the leg swings forward."""
    bob: Float[Tensor, " batch"]
    """Height by which the body rises and falls."""
    spine: Float[Tensor, " batch"]
    """Sideways bend of the spine."""
    nod: Float[Tensor, " batch"]
    """Nodding of neck and head."""
    look: Float[Tensor, "batch 2"]
    """Steady pitch and yaw of the head."""
    wag: Float[Tensor, " batch"]
    """Sideways swing of the tail."""


LEG_PHASES = {"walk": (0.25, 0.75, 0.0, 0.5), "trot": (0.5, 1.0, 0.0, 0.5)}
"""Phases of `LEGS`: a walk sets the feet down one by one, a trot in diagonal pairs."""


def random_gaits(batch: int, generator: torch.Generator, device: torch.device | None = None) -> Gaits:
    """Gaits from walk to half a trot (in a full one, diagonal legs move alike), 1.5 to 2 cycles in a unit of time."""
    device = generator.device if device is None else device

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return uniform(generator, device, low, high, batch, *shape)

    walk, trot = torch.tensor([LEG_PHASES["walk"], LEG_PHASES["trot"]], device=device)
    trotting = chance(generator, device, 0.3, batch, 1) * draw(0.2, 0.6, 1)
    return Gaits(
        cycles=draw(1.5, 2.0),
        leg_phases=walk + trotting * (trot - walk) + draw(0.0, 1.0, 1) + draw(-0.02, 0.02, 4),
        swing=draw(0.3, 0.5),
        lift=draw(0.5, 0.95),
        bob=draw(0.004, 0.012),
        spine=draw(0.03, 0.12),
        nod=draw(0.02, 0.08),
        look=torch.stack([draw(-0.15, 0.15), draw(-0.2, 0.2)], dim=1),
        wag=draw(0.08, 0.35),
    )


def rest_poses(batch: int, device: torch.device | None = None) -> Poses:
    """Poses in which every part is where it is at rest."""
    return Poses(torch.zeros(batch, len(PART_NAMES), 3, device=device), torch.eye(4, device=device).expand(batch, 4, 4))


def poses_at(gaits: Gaits, times: Float[Tensor, " batch"]) -> Poses:
    """Poses of gaits at times (units of a clip), one time a gait."""
    cycle = 2 * math.pi * (gaits.cycles * times + gaits.leg_phases[:, 2])
    sway = cycle.sin()
    bend, nod, wag = gaits.spine * sway, gaits.nod * (2 * cycle).sin(), gaits.wag * (cycle - 0.6).sin()
    pitch, yaw = gaits.look.unbind(-1)
    angles: dict[str, Angles] = {
        "waist": (0.3 * nod, 0.3 * bend, 0.3 * bend),
        "chest": (0.0, 0.3 * bend, -bend),
        "hips": (0.0, -0.6 * bend, bend),
        "lower_neck": (nod + 0.4 * pitch, 0.0, 0.5 * bend + 0.35 * yaw),
        "upper_neck": (0.5 * nod, 0.0, 0.3 * yaw),
        "head": (0.6 * pitch - 1.2 * nod, 0.0, 0.35 * yaw),
        "left_ear": (0.5 * nod, 0.0, 0.0),
        "right_ear": (0.5 * nod, 0.0, 0.0),
        "tail_base": (0.5 * nod, 0.0, wag),
        "tail_middle": (nod, 0.0, 0.7 * gaits.wag * (cycle - 1.2).sin()),
        "tail_tip": (nod, 0.0, 0.7 * gaits.wag * (cycle - 1.8).sin()),
    }
    for leg, phase in zip(LEGS, gaits.leg_phases.unbind(-1), strict=True):
        angles |= _leg_angles(leg, 2 * math.pi * (gaits.cycles * times + phase), gaits.swing, gaits.lift)
    T_world_root = torch.eye(4, device=times.device).repeat(len(times), 1, 1)
    T_world_root[:, 2, 3] = gaits.bob * (2 * cycle).cos()
    return Poses(_stack_angles(angles, times), T_world_root)


def _leg_angles(
    leg: str, phase: Float[Tensor, " batch"], swing: Float[Tensor, " batch"], lift: Float[Tensor, " batch"]
) -> dict[str, Angles]:
    """Angles of a leg that stands (and moves back) around phase 0 and swings forward, knee bent, around phase pi."""
    # The warp makes the swing shorter than the stance.
    phase = phase - 0.35 * phase.sin()
    reach = swing * phase.sin()
    bent = lift * (0.5 - 0.5 * phase.cos()) ** 2
    if leg.startswith("front"):
        upper, lower, foot = reach - 0.45 * bent, bent, 0.6 * bent - 0.35 * reach
    else:
        upper, lower, foot = 0.9 * reach - 0.35 * bent, 0.95 * bent + 0.15 * reach, 0.25 * reach - 0.5 * bent
    return {f"{leg}_upper": (upper, 0.0, 0.0), f"{leg}_lower": (lower, 0.0, 0.0), f"{leg}_foot": (foot, 0.0, 0.0)}


def _stack_angles(angles: dict[str, Angles], like: Float[Tensor, " batch"]) -> Float[Tensor, "batch parts 3"]:
    """Angles of all parts; parts that are not named stay at rest."""
    rows = [angles.get(name, (0.0, 0.0, 0.0)) for name in PART_NAMES]
    numbers = [
        torch.as_tensor(value, dtype=like.dtype, device=like.device).expand_as(like) for row in rows for value in row
    ]
    return torch.stack(numbers, dim=1).reshape(len(like), len(rows), 3)


POSTURES: dict[str, dict[str, Angles]] = {
    "graze": {"lower_neck": (0.9, 0, 0), "upper_neck": (0.5, 0, 0), "head": (-0.3, 0, 0), "chest": (0.12, 0, 0)},
    "sit": {
        "waist": (-0.55, 0, 0),
        "hips": (-0.15, 0, 0),
        "lower_neck": (0.3, 0, 0),
        "head": (0.2, 0, 0),
        "tail_base": (0.5, 0, 0),
        **{f"front_{side}_upper": (0.45, 0, 0) for side in ("left", "right")},
        **{f"back_{side}_upper": (-0.75, 0, 0) for side in ("left", "right")},
        **{f"back_{side}_lower": (1.5, 0, 0) for side in ("left", "right")},
        **{f"back_{side}_foot": (-1.2, 0, 0) for side in ("left", "right")},
    },
    "stretch": {
        "chest": (0.35, 0, 0),
        "hips": (-0.1, 0, 0),
        "lower_neck": (-0.3, 0, 0),
        **{f"front_{side}_upper": (-0.8, 0, 0) for side in ("left", "right")},
        "tail_base": (-0.5, 0, 0),
    },
    "crouch": {
        **{f"{leg}_upper": (-0.7 if leg.startswith("back") else 0.6, 0, 0) for leg in LEGS},
        **{f"{leg}_lower": (1.3 if leg.startswith("back") else -1.0, 0, 0) for leg in LEGS},
        **{f"{leg}_foot": (-0.6 if leg.startswith("back") else 0.4, 0, 0) for leg in LEGS},
    },
    "rear_up": {
        "waist": (-0.5, 0, 0),
        **{f"front_{side}_lower": (0.8, 0, 0) for side in ("left", "right")},
        **{f"back_{side}_upper": (0.45, 0, 0) for side in ("left", "right")},
    },
    "turn": {
        "waist": (0, 0, 0.1),
        "chest": (0, 0, 0.3),
        "hips": (0, 0, -0.3),
        "lower_neck": (0, 0, 0.45),
        "head": (0, 0, 0.35),
    },
}
"""What a posture adds to the angles of a gait."""


def random_poses(batch: int, generator: torch.Generator, device: torch.device | None = None) -> Poses:
    """Poses of any moment of random gaits, two in five with a posture beyond walking, all with some loose joints."""
    device = generator.device if device is None else device
    gaits = random_gaits(batch, generator, device)
    poses = poses_at(gaits, uniform(generator, device, 0.0, 1.0, batch))
    tables = [_stack_angles(posture, torch.zeros(1, device=device)) for posture in POSTURES.values()]
    posture = torch.cat(tables)[
        torch.randint(len(tables), (batch,), generator=generator, device=generator.device).to(device)
    ]
    amount = chance(generator, device, 0.4, batch, 1, 1) * uniform(generator, device, 0.3, 1.1, batch, 1, 1)
    # Either turn, left or right.
    mirror = torch.tensor([1.0, -1.0, -1.0], device=device)
    posture = torch.where(chance(generator, device, 0.5, batch, 1, 1) > 0, posture, posture * mirror)
    walking = uniform(generator, device, 0.0, 1.3, batch, 1, 1) * (1 - 0.7 * amount.clamp_max(1.0))
    loose = uniform(generator, device, -0.12, 0.12, *poses.angles.shape)
    return Poses(walking * poses.angles + amount * posture + loose, poses.T_world_root)


def part_transforms(creatures: Creatures, poses: Poses) -> Float[Tensor, "batch parts 4 4"]:
    """T_world_rest of every part: where a point that is fixed to the part moves from the rest pose."""
    rotations = rotations_from_angles(poses.angles)
    translations = creatures.joints - _apply(rotations, creatures.joints)
    last_row = poses.angles.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*rotations.shape[:2], 1, 4)
    local = torch.cat([torch.cat([rotations, translations[..., None]], dim=-1), last_row], dim=-2)
    transforms: dict[str, Tensor] = {}
    for index, (name, parent) in enumerate(PART_PARENTS.items()):
        T_world_parent = poses.T_world_root if parent is None else transforms[parent]
        transforms[name] = _compose(T_world_parent, local[:, index])
    return torch.stack(list(transforms.values()), dim=1)


def rotations_from_angles(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices Rz Ry Rx of angles about x, y and z (radians)."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [
        torch.stack([cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx], dim=-1),
        torch.stack([sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx], dim=-1),
        torch.stack([-sy, cy * sx, cy * cx], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def _compose(left: Float[Tensor, "*batch 4 4"], right: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Matrix product by plain sums: exact where matmuls run in TF32, and fused by the compiler."""
    return (left[..., :, :, None] * right[..., None, :, :]).sum(dim=-2)


def _apply(rotations: Float[Tensor, "*batch 3 3"], points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotated points, by plain sums as in `_compose`."""
    return (rotations * points[..., None, :]).sum(dim=-1)


def transform_points(
    transforms: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """Points moved by rigid transforms, one each."""
    return _apply(transforms[..., :3, :3], points) + transforms[..., :3, 3]


def pose_cones(creatures: Creatures, poses: Poses) -> Cones:
    """The cones of creatures in the given poses."""
    T_world_rest = part_transforms(creatures, poses)[:, list(CONE_PARTS)]
    starts, ends = (transform_points(T_world_rest, points) for points in (creatures.cone_starts, creatures.cone_ends))
    return Cones(starts, ends, creatures.start_radii, creatures.end_radii, T_world_rest)


@dataclass(frozen=True)
class AnimatedCreature:
    """One creature with one gait: the ground truth of a clip. Times are in [0, 1] over the clip."""

    creature: Creatures
    """A batch of one."""
    gait: Gaits
    """A batch of one."""

    def pose_at(self, times: Float[Tensor, " times"]) -> Poses:
        """Poses at the given times."""
        return poses_at(self.gait.repeat_interleave(len(times)), times)

    def cones_at(self, times: Float[Tensor, " times"]) -> Cones:
        """The surface's cones at the given times."""
        return pose_cones(self.creature.repeat_interleave(len(times)), self.pose_at(times))

    def bone_transforms(
        self, times: Float[Tensor, " times"], reference_time: float | None = None
    ) -> Float[Tensor, "times parts 4 4"]:
        """Rigid motion of every part of `PART_NAMES` from the pose at `reference_time` (the rest pose unless told)."""
        T_world_rest = part_transforms(self.creature.repeat_interleave(len(times)), self.pose_at(times))
        if reference_time is None:
            return T_world_rest
        reference = part_transforms(self.creature, self.pose_at(times.new_tensor([reference_time])))
        return _compose(T_world_rest, torch.linalg.inv(reference).expand_as(T_world_rest))

    def foot_positions(self, times: Float[Tensor, " times"]) -> Float[Tensor, "times 4 3"]:
        """Centres of the toes of `FOOT_NAMES`."""
        return self.cones_at(times).ends[:, list(FOOT_CONES)]

    def part_of_points(self, points: Float[Tensor, "N 3"], time: float) -> Int[Tensor, " N"]:
        """Index in `PART_NAMES` of the part whose surface is nearest to each point at that time."""
        distances = ConeField(self.cones_at(points.new_tensor([time]))).evaluate(points[None]).distances
        return torch.tensor(CONE_PARTS, device=points.device)[distances[0].argmin(dim=-1)]

    def move_points(
        self, points: Float[Tensor, "N 3"], labels: Int[Tensor, " N"], time: float, new_time: float
    ) -> Float[Tensor, "N 3"]:
        """Where points on the given parts at `time` are at `new_time`."""
        transforms = self.bone_transforms(points.new_tensor([new_time]), reference_time=time)[0]
        return transform_points(transforms[labels], points)
