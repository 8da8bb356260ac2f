"""Random bodies: proportions near those of the table of body plans, and the rounded cones that they make at rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.data.creatures.anatomy import CONES, LEGS, PART_NAMES
from bags_ns.data.creatures.batch import TensorBatch, chance, pick, uniform
from bags_ns.data.creatures.coat import Coats, random_coats
from bags_ns.data.creatures.cones import cone_boxes
from bags_ns.data.creatures.plans import ANGLE_COLUMNS, BODY_PLANS, HALF_TORSO

ABSENT = -1.0
"""Radius of a cone that this creature lacks: its surface is nowhere."""


@dataclass(frozen=True)
class Proportions(TensorBatch):
    """A batch of body plans (`BodyPlan`'s groups, angles in radians)."""

    trunk: Float[Tensor, "batch 3"]
    legs: Float[Tensor, "batch 4"]
    neck: Float[Tensor, "batch 4"]
    head: Float[Tensor, "batch 4"]
    ears: Float[Tensor, "batch 3"]
    tail: Float[Tensor, "batch 6"]
    extras: Float[Tensor, "batch 4"]


@dataclass(frozen=True)
class Creatures(TensorBatch):
    """Creatures at rest: where their parts turn, the rounded cones that make their surface, and their coats."""

    joints: Float[Tensor, "batch parts 3"]
    """Point about which each part turns against its parent."""
    cone_starts: Float[Tensor, "batch cones 3"]
    cone_ends: Float[Tensor, "batch cones 3"]
    start_radii: Float[Tensor, "batch cones"]
    """Radius at the start of each cone; negative where the creature lacks it."""
    end_radii: Float[Tensor, "batch cones"]
    mark_centers: Float[Tensor, "batch 3 3"]
    """Left eye, right eye and nose: dark balls on the surface of the head."""
    mark_radii: Float[Tensor, "batch 3"]
    coat: Coats


def random_creatures(
    batch: int, generator: torch.Generator, device: torch.device | None = None, body_plans: Sequence[str] | None = None
) -> Creatures:
    """Creatures of random shape and coat, made from the named body plans (all of them unless told)."""
    names = list(BODY_PLANS) if body_plans is None else list(body_plans)
    if unknown := set(names) - set(BODY_PLANS):
        raise ValueError(f"unknown body plans {sorted(unknown)}; there are {', '.join(BODY_PLANS)}")
    device = generator.device if device is None else device
    plans = torch.tensor([list(BODY_PLANS).index(name) for name in names], device=device)
    plans = plans[pick(generator, device, len(names), batch)]
    # A fifth of the creatures are crosses, when there are plans to cross.
    partners = plans[pick(generator, device, batch, batch)]
    crossing = chance(generator, device, 0.2, batch) * uniform(generator, device, 0.2, 0.5, batch)
    proportions = _random_proportions(plans, partners, crossing, generator)
    coats = random_coats(batch, generator, device, list(BODY_PLANS), plans)
    return _assemble(proportions, coats)


def _random_proportions(
    plans: Int[Tensor, " batch"],
    partners: Int[Tensor, " batch"],
    crossing: Float[Tensor, " batch"],
    generator: torch.Generator,
) -> Proportions:
    """Proportions between those of `plans` (crossing 0) and of `partners` (1), each number moved a little."""
    device, mix, groups = plans.device, crossing[:, None], {}
    for group in Proportions.__dataclass_fields__:
        table = torch.tensor([getattr(plan, group) for plan in BODY_PLANS.values()], device=device, dtype=torch.float32)
        values = table[plans] * (1 - mix) + table[partners] * mix
        values = values * uniform(generator, device, 0.82, 1.2, *values.shape)
        shifts = uniform(generator, device, -12.0, 12.0, *values.shape)
        for column in ANGLE_COLUMNS.get(group, ()):
            values[:, column] = (values[:, column] + shifts[:, column]) * (math.pi / 180)
        groups[group] = values
    # One hump or two; horns and manes come and go within a kind.
    keep = torch.stack([chance(generator, device, p, len(plans)) for p in (0.75, 0.8, 0.7, 0.7)], dim=1)
    groups["extras"] = groups["extras"] * keep
    return Proportions(**groups)


class _Builder:
    """Collects named joints and cones of a batch of creatures, in the unit of the table."""

    def __init__(self) -> None:
        self.joints: dict[str, Tensor] = {}
        self.cones: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def cone(self, name: str, start: Tensor, end: Tensor, start_radius: Tensor, end_radius: Tensor) -> None:
        """Adds a cone; radii are [batch], points [batch 3]."""
        self.cones[name] = (start, end, start_radius, end_radius)

    def stacked(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Joints in the order of `PART_NAMES`, then starts, ends and both radii in the order of `CONES`."""
        joints = torch.stack([self.joints[name] for name in PART_NAMES], dim=1)
        starts, ends, start_radii, end_radii = zip(*(self.cones[cone.name] for cone in CONES), strict=True)
        starts, ends, start_radii, end_radii = (torch.stack(v, dim=1) for v in (starts, ends, start_radii, end_radii))
        return joints, starts, ends, start_radii, end_radii


def _assemble(proportions: Proportions, coats: Coats) -> Creatures:
    """Creatures of the given proportions at rest, centred, longest side 1."""
    builder = _Builder()
    shoulder, hip = _build_trunk(builder, proportions)
    marks, mark_radii = _build_head(builder, proportions, _build_neck(builder, proportions, shoulder))
    _build_tail(builder, proportions, hip)
    for leg in LEGS:
        _build_leg(builder, proportions, leg, shoulder if leg.startswith("front") else hip)
    joints, starts, ends, start_radii, end_radii = builder.stacked()
    low, high = cone_boxes(starts, ends, start_radii, end_radii)
    center, size = 0.5 * (low + high)[:, None], (high - low).amax(dim=1)[:, None]
    present = start_radii > 0
    return Creatures(
        joints=(joints - center) / size[..., None],
        cone_starts=(starts - center) / size[..., None],
        cone_ends=(ends - center) / size[..., None],
        start_radii=torch.where(present, start_radii / size, ABSENT),
        end_radii=torch.where(present, end_radii / size, ABSENT),
        mark_centers=(marks - center) / size[..., None],
        mark_radii=mark_radii / size,
        coat=coats,
    )


def _vector(
    x: Tensor | float | int, y: Tensor | float | int, z: Tensor | float | int, like: Tensor
) -> Float[Tensor, "batch 3"]:
    """Vectors of components that are numbers or [batch]."""
    return torch.stack(
        [torch.as_tensor(v, dtype=like.dtype, device=like.device).expand_as(like) for v in (x, y, z)], dim=-1
    )


def _build_trunk(
    builder: _Builder, proportions: Proportions
) -> tuple[Float[Tensor, "batch 3"], Float[Tensor, "batch 3"]]:
    """Torso, belly and humps; returns the shoulder and hip ends of the torso's axis."""
    chest, waist, rump = proportions.trunk.unbind(-1)
    height = proportions.legs[:, 0]
    _, _, front_hump, rear_hump = proportions.extras.unbind(-1)
    shoulder, middle, hip = (_vector(0, y, height, height) for y in (-HALF_TORSO, 0.0, HALF_TORSO))
    builder.joints.update(waist=middle, chest=_vector(0, -0.12, height, height), hips=_vector(0, 0.15, height, height))
    builder.cone("chest_trunk", middle, shoulder, waist, chest * 0.92)
    builder.cone("hip_trunk", middle, hip, waist, rump)
    # A circle is too shallow for a ribcage: the keel hangs below it.
    builder.cone(
        "keel",
        _vector(0, -0.37, height - 0.32 * chest, chest),
        _vector(0, -0.08, height - 0.3 * waist, chest),
        chest * 0.8,
        waist * 0.82,
    )
    builder.cone("belly", _vector(0, -0.1, height - 0.3 * waist, chest), _vector(0, 0.24, height - 0.12 * waist, chest), waist * 0.82, waist * 0.82)  # fmt: skip
    for name, y, bump, size in (("front_hump", -0.2, front_hump, chest), ("rear_hump", 0.2, rear_hump, rump)):
        radius = torch.where(bump > 0.02, 0.72 * size, ABSENT)
        top = torch.where(bump > 0.02, 0.4 * size, ABSENT)
        builder.cone(
            name, _vector(0, y, height + 0.3 * size, size), _vector(0, y, height + 0.6 * size + bump, size), radius, top
        )
    return shoulder, hip


def _build_neck(
    builder: _Builder, proportions: Proportions, shoulder: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch 3"]:
    """Neck of two links, a little S-shaped, and its mane; returns the top of the neck."""
    length, pitch, base, top = proportions.neck.unbind(-1)
    chest = proportions.trunk[:, 0]
    mane = proportions.extras[:, 1]
    start = shoulder + _vector(0, -0.15 * chest, 0.3 * chest, chest)
    links = [
        _vector(0, -angle.cos(), angle.sin(), angle) * (0.5 * (length + 0.5 * chest))[:, None]
        for angle in (pitch - 0.12, pitch + 0.12)
    ]
    middle, end = start + links[0], start + links[0] + links[1]
    builder.joints.update(lower_neck=start, upper_neck=middle)
    radius = 0.5 * (base + top)
    builder.cone("lower_neck", start, middle, base, radius)
    builder.cone("upper_neck", middle, end, radius, top)
    # The mane lies on the neck's upper side, perpendicular to it.
    crest = _vector(0, pitch.sin(), pitch.cos(), pitch)
    for name, a, b, size in (("lower_mane", start, middle, radius), ("upper_mane", middle, end, top)):
        thickness = torch.where(mane > 0.02, 0.55 * size + mane, ABSENT)
        lift = crest * (0.5 * size)[:, None]
        builder.cone(name, a + lift, b + lift, thickness, thickness)
    return end


def _build_head(
    builder: _Builder, proportions: Proportions, neck_end: Float[Tensor, "batch 3"]
) -> tuple[Float[Tensor, "batch 3 3"], Float[Tensor, "batch 3"]]:
    """Head, snout, ears and horns; returns centres and radii of the eyes and the nose."""
    radius, drop, snout, snout_radius = proportions.head.unbind(-1)
    ear, ear_radius, ear_out = proportions.ears.unbind(-1)
    horn = proportions.extras[:, 0]
    forward, up = _vector(0, -drop.cos(), -drop.sin(), drop), _vector(0, -drop.sin(), drop.cos(), drop)

    def at(
        out: Tensor | float | int, ahead: Tensor | float | int, above: Tensor | float | int
    ) -> Float[Tensor, "batch 3"]:
        """A point of the head: out to the left, ahead and above its centre, in head radii."""
        offset = (
            _vector(out, 0, 0, radius)
            + forward * _vector(ahead, ahead, ahead, radius)
            + up * _vector(above, above, above, radius)
        )
        return neck_end + radius[:, None] * offset

    tip = at(0, 0.7 + snout / radius, -0.3)
    builder.joints.update(head=neck_end)
    builder.cone("head", at(0, 0, 0.05), at(0, 0.35, 0), radius, radius * 0.92)
    builder.cone("snout", at(0, 0.4, -0.15), tip, radius * 0.68, snout_radius)
    for side, name in ((1.0, "left"), (-1.0, "right")):
        base = at(0.6 * side, -0.1, 0.62)
        lean = _vector(side * ear_out.sin(), 0, 0, ear) + up * ear_out.cos()[:, None] + 0.15 * forward
        builder.joints[f"{name}_ear"] = base
        builder.cone(f"{name}_ear", base, base + 1.2 * lean * ear[:, None], ear_radius, 0.3 * ear_radius)
        horn_radius = torch.where(horn > 0.03, 0.03, ABSENT)
        base = at(0.38 * side, 0.0, 0.75)
        lean = _vector(0.5 * side, 0.25, 0, horn) + 0.85 * up
        builder.cone(
            f"{name}_horn", base, base + lean * horn[:, None], horn_radius, torch.where(horn > 0.03, 0.012, ABSENT)
        )
    eyes = [at(0.62 * side, 0.85, 0.32) for side in (1.0, -1.0)]
    nose = tip + forward * (0.6 * snout_radius)[:, None] + up * (0.3 * snout_radius)[:, None]
    radii = torch.stack([0.24 * radius, 0.24 * radius, 0.75 * snout_radius.clamp_min(0.03)], dim=1)
    return torch.stack([*eyes, nose], dim=1), radii


def _build_tail(builder: _Builder, proportions: Proportions, hip: Float[Tensor, "batch 3"]) -> None:
    """Tail of three links."""
    length, pitch, curl, base, middle, tip = proportions.tail.unbind(-1)
    rump = proportions.trunk[:, 2]
    start = hip + _vector(0, 0.75 * rump, 0.5 * rump, rump)
    radii = (base, middle, middle, tip)
    for link, name in enumerate(("tail_base", "tail_middle", "tail_tip")):
        angle = pitch + link * curl
        end = start + _vector(0, angle.cos(), angle.sin(), angle) * (length / 3)[:, None]
        builder.joints[name] = start
        builder.cone(name, start, end, radii[link], radii[link + 1])
        start = end


FRONT_LEG = ((0.04, 0.52), (0.0, 0.14), (-0.05, 0.0))
HIND_LEG = ((-0.11, 0.56), (0.11, 0.28), (0.03, 0.0))
"""Knee, ankle and toes of a standing leg: backward from the leg's root and above the ground, in leg heights."""


def _build_leg(builder: _Builder, proportions: Proportions, leg: str, root: Float[Tensor, "batch 3"]) -> None:
    """Two links and a foot; a hind foot begins at the high hock, as in animals that walk on their toes."""
    height, thigh, knee_radius, foot_radius = proportions.legs.unbind(-1)
    front, side = leg.startswith("front"), 1.0 if leg.endswith("left") else -1.0
    trunk = proportions.trunk[:, 0 if front else 2]
    out = side * (0.62 * trunk).clamp_min(0.06)
    top = torch.stack([out, root[:, 1] + (0.1 if front else -0.2) * trunk, root[:, 2] - 0.25 * trunk], dim=-1)
    knee, ankle, toes = (
        torch.stack([out * 0.95, top[:, 1] + back * height, above * height + foot_radius], dim=-1)
        for back, above in (FRONT_LEG if front else HIND_LEG)
    )
    builder.joints.update({f"{leg}_upper": top, f"{leg}_lower": knee, f"{leg}_foot": ankle})
    builder.cone(f"{leg}_upper", top, knee, thigh * (0.9 if front else 1.1), knee_radius * 1.25)
    builder.cone(f"{leg}_lower", knee, ankle, knee_radius * 1.1, knee_radius * 0.85)
    builder.cone(f"{leg}_foot", ankle, toes, knee_radius * 0.85, foot_radius)
