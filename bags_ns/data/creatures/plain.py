"""Plain creatures: fewer cones, any proportions, any colours, rings along the parts. Training data of the small prior only.

They look like no animal in particular, so that a network that learns from them relies on the reference picture more
than on what foxes look like. Lengths are in torso lengths before scaling; a plain creature is built in its pose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.data.creatures.anatomy import CONES, LEGS, PART_NAMES
from bags_ns.data.creatures.batch import TensorBatch, chance, uniform
from bags_ns.data.creatures.coat import NUM_WAVES, Coats
from bags_ns.data.creatures.shading import Lights
from bags_ns.data.creatures.shape import ABSENT, Creatures

SHAPE_RANGES = {
    "length": (0.55, 0.95), "trunk": (0.12, 0.24), "chest": (0.9, 1.25), "neck": (0.12, 0.5), "neck_pitch": (0.2, 1.2),
    "head": (0.08, 0.15), "snout": (0.08, 0.26), "snout_radius": (0.04, 0.08), "ear": (0.04, 0.16), "ear_radius": (0.015, 0.035),
    "leg": (0.35, 0.75), "leg_radius": (0.04, 0.075), "foot_radius": (0.03, 0.055), "tail": (0.1, 0.6), "tail_pitch": (-0.9, 0.7),
    "tail_radius": (0.015, 0.05), "hump": (0.08, 0.2),
}  # fmt: skip
"""Lengths, radii and angles (radians) of plain creatures; `chest` is a factor of `trunk`."""

POSE_RANGES = {
    "phase": (0.0, 2 * math.pi), "gait": (0.0, 2 * math.pi), "swing": (0.1, 0.7), "bend": (-0.35, 0.35), "head_yaw": (-0.7, 0.7),
    "head_pitch": (-0.6, 0.3), "tail_yaw": (-0.8, 0.8), "knee": (0.2, 0.9),
}  # fmt: skip

Numbers = dict[str, Tensor]
"""[batch] of each of the above."""

COLORED = {
    "body": ("chest_trunk", "hip_trunk", "front_hump", "lower_neck", "tail_base", *(f"{leg}_upper" for leg in LEGS)),
    "belly": ("belly",),
    "head": ("head", "snout"),
    "tail": ("tail_middle",),
    "leg": ("left_ear", "right_ear", *(f"{leg}_{link}" for leg in LEGS for link in ("lower", "foot"))),
}
"""Cones of a plain creature by the colour that they wear; the other cones are absent."""

CONE_COLORS = tuple(next((i for i, cones in enumerate(COLORED.values()) if cone.name in cones), 0) for cone in CONES)


@dataclass(frozen=True)
class PlainBodies(TensorBatch):
    """Plain creatures without a pose."""

    shape: Float[Tensor, "batch numbers"]
    """In the order of `SHAPE_RANGES`."""
    coat: Coats

    def random_poses(self, generator: torch.Generator) -> Creatures:
        """The creatures, each in a random pose that is taken for its rest pose."""
        shape = dict(zip(SHAPE_RANGES, self.shape.unbind(1), strict=True))
        pose = _draw(POSE_RANGES, len(self.shape), generator, self.shape.device)
        return _assemble(shape, pose, self.coat)


def random_plain_bodies(batch: int, generator: torch.Generator, device: torch.device | None = None) -> PlainBodies:
    """Plain creatures of random shape and coat."""
    device = generator.device if device is None else device
    shape = _draw(SHAPE_RANGES, batch, generator, device)
    shape["hump"] = shape["hump"] * chance(generator, device, 0.2, batch)
    return PlainBodies(torch.stack(list(shape.values()), dim=1), _random_coats(batch, generator, device))


def plain_lights(batch: int, device: torch.device) -> Lights:
    """One soft light from above, the left and the front, as strong a light from all round, and a little at the camera."""
    direction = torch.nn.functional.normalize(torch.tensor([0.4, -0.3, 0.86], device=device), dim=0)
    key, around = (torch.full((batch, 3), strength, device=device) for strength in (0.35, 0.5))
    return Lights(direction.expand(batch, 3), key, around, around, torch.full((batch,), 0.25, device=device))


def _draw(
    ranges: dict[str, tuple[float, float]], batch: int, generator: torch.Generator, device: torch.device
) -> Numbers:
    """Uniform numbers in the ranges."""
    return {name: uniform(generator, device, *limits, batch) for name, limits in ranges.items()}


def _random_coats(batch: int, generator: torch.Generator, device: torch.device) -> Coats:
    """Free colours: one for the body, others near it or far from it, and rings of any colour on half of the creatures."""
    base = uniform(generator, device, 0.1, 0.9, batch, 1, 3)
    gray = base.mean(dim=-1, keepdim=True)
    base = gray + (base - gray) * uniform(generator, device, 0.3, 1.0, batch, 1, 1)
    spread = torch.tensor([0.0, 0.6, 0.6, 0.8, 0.8], device=device)[:, None]
    noise = torch.randn(batch, 5, 3, generator=generator, device=generator.device).to(device)
    colors = base * (1 + spread * uniform(generator, device, -1.0, 1.0, batch, 5, 1)) + 0.15 * spread * noise
    worn = colors.clamp(0.02, 0.98)[:, list(CONE_COLORS)]
    zeros = torch.zeros(batch, len(CONES), device=device)
    rings = [uniform(generator, device, *limits, batch) for limits in ((6.0, 22.0), (0.0, 2 * math.pi))]
    return Coats(
        start_colors=worn,
        end_colors=worn,
        color_splits=zeros + 0.5,
        under_shown=zeros,
        pattern_shown=zeros,
        under_color=worn[:, 0],
        under_level=zeros[:, 0] - 2,
        marking_color=uniform(generator, device, 0.0, 1.0, batch, 3),
        waves=torch.zeros(batch, NUM_WAVES, 3, device=device),
        wave_phases=zeros[:, :NUM_WAVES],
        marking_level=zeros[:, 0] + 2,
        asymmetry=zeros[:, 0],
        mark_color=zeros[:, :3],
        rings=torch.stack([*rings, 0.75 * chance(generator, device, 0.5, batch)], dim=1),
    )


def _assemble(shape: Numbers, pose: Numbers, coat: Coats) -> Creatures:
    """Plain creatures in their poses, facing -y, about one unit long."""
    cones = _build(shape, pose)
    size = 0.5 * (shape["length"] + shape["neck"] + shape["snout"] + shape["leg"]) + shape["trunk"]
    scale = (0.8 / size)[:, None]
    zero = torch.zeros_like(size)
    center = _vector(0.1 * shape["length"], zero, 0.62 * shape["leg"] + 0.1 * shape["neck"])
    nowhere, absent = torch.zeros_like(center), torch.full_like(size, ABSENT)
    rows = [cones.get(cone.name, (nowhere + center, nowhere + center, absent, absent)) for cone in CONES]
    starts, ends, start_radii, end_radii = (torch.stack(values, dim=1) for values in zip(*rows, strict=True))
    # They are built facing +x.
    starts, ends = (
        torch.stack([p[..., 1], -p[..., 0], p[..., 2]], dim=-1) * scale[..., None]
        for p in (starts - center[:, None], ends - center[:, None])
    )
    joints = torch.zeros(len(size), len(PART_NAMES), 3, device=size.device)
    far = torch.full_like(joints[:, :3], 10.0)
    return Creatures(
        joints=joints,
        cone_starts=starts,
        cone_ends=ends,
        start_radii=torch.where(start_radii > 0, start_radii * scale, ABSENT),
        end_radii=torch.where(end_radii > 0, end_radii * scale, ABSENT),
        mark_centers=far,
        mark_radii=torch.full_like(far[..., 0], 1e-3),
        coat=coat,
    )


def _build(s: Numbers, p: Numbers) -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Start, end and radii of every cone, before scaling; x forward, y to the left, the ground at 0."""
    zero, trunk, chest = torch.zeros_like(s["length"]), s["trunk"], s["trunk"] * s["chest"]
    middle = _vector(zero, zero, s["leg"])
    shoulder = middle + _turned(s["length"] / 2, zero, p["bend"])
    hip = middle - _turned(s["length"] / 2, zero, -p["bend"])
    down, up = -0.35 * _lift(trunk), _lift(0.6 * trunk)
    cones = {
        "chest_trunk": (middle, shoulder, trunk, chest),
        "hip_trunk": (hip, middle, 0.95 * trunk, trunk),
        "belly": (hip + down, shoulder + down, 0.8 * trunk, 0.8 * chest),
        "front_hump": (middle + up, middle + up + _lift(s["hump"]), 0.6 * trunk, 0.4 * trunk),
    }
    cones |= _build_head(s, p, shoulder, chest) | _build_tail(s, p, hip)
    for leg in LEGS:
        cones |= _build_leg(s, p, leg, shoulder if leg.startswith("front") else hip)
    return cones


def _build_head(
    s: Numbers, p: Numbers, shoulder: Tensor, chest: Tensor
) -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Neck, head, snout and ears."""
    head, yaw = s["head"], p["bend"] + p["head_yaw"]
    base = shoulder + _lift(0.3 * chest)
    top = base + _turned(s["neck"] + chest, s["neck_pitch"], p["bend"] + 0.5 * p["head_yaw"])
    ahead = _turned(torch.ones_like(head), p["head_pitch"], yaw)
    side = _turned(torch.ones_like(head), torch.zeros_like(head), yaw + math.pi / 2)
    cones = {
        "lower_neck": (base, top, 0.6 * chest, 0.8 * head),
        "head": (top, top + ahead * (0.3 * head)[:, None], head, head),
        "snout": (top, top + ahead * (head + s["snout"])[:, None], 0.7 * head, s["snout_radius"]),
    }
    for sign, name in ((1, "left_ear"), (-1, "right_ear")):
        root = top + side * (sign * 0.6 * head)[:, None] + _lift(0.6 * head)
        tip = root + side * (sign * 0.3 * s["ear"])[:, None] + _lift(s["ear"])
        cones[name] = (root, tip, 1.3 * s["ear_radius"], s["ear_radius"])
    return cones


def _build_tail(s: Numbers, p: Numbers, hip: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """A tail of two links."""
    half, radius, yaw = 0.5 * s["tail"], s["tail_radius"], p["tail_yaw"] - p["bend"] + math.pi
    start = hip + _vector(-0.6 * s["trunk"], torch.zeros_like(half), 0.3 * s["trunk"])
    bend = start + _turned(half, s["tail_pitch"], yaw)
    end = bend + _turned(half, s["tail_pitch"], yaw + 0.5 * p["tail_yaw"])
    return {"tail_base": (start, bend, 1.3 * radius, radius), "tail_middle": (bend, end, radius, 0.8 * radius)}


def _build_leg(s: Numbers, p: Numbers, leg: str, root: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Two links and a foot, somewhere in a step."""
    front, left = leg.startswith("front"), leg.endswith("left")
    phase = p["phase"] + (0.0 if front == left else math.pi) + (0.0 if front else p["gait"])
    swing = p["swing"] * phase.sin()
    shin = swing - (1 if front else -1) * p["knee"] * p["swing"] * phase.cos().clamp_min(0)
    link = 0.5 * (s["leg"] - 0.35 * s["trunk"])
    top = root + _vector(torch.zeros_like(link), (0.62 if left else -0.62) * s["trunk"], -0.35 * s["trunk"])
    straight = -math.pi / 2
    knee = top + _turned(link, swing + straight, torch.zeros_like(link))
    foot = knee + _turned(link, shin + straight, torch.zeros_like(link))
    toes = foot + foot.new_tensor([0.05, 0.0, 0.0])
    radius, foot_radius = s["leg_radius"], s["foot_radius"]
    return {
        f"{leg}_upper": (top, knee, 1.5 * radius, radius),
        f"{leg}_lower": (knee, foot, radius, foot_radius),
        f"{leg}_foot": (foot, toes, foot_radius, foot_radius),
    }


def _vector(x: Tensor, y: Tensor, z: Tensor) -> Float[Tensor, "batch 3"]:
    """Vectors of their components."""
    return torch.stack([x, y, z], dim=-1)


def _lift(height: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3"]:
    """Vectors straight up."""
    return _vector(torch.zeros_like(height), torch.zeros_like(height), height)


def _turned(
    length: Float[Tensor, " batch"], pitch: Float[Tensor, " batch"], yaw: Float[Tensor, " batch"]
) -> Float[Tensor, "batch 3"]:
    """Vectors of a length, an angle above the horizon and one about z (0: ahead, growing to the left)."""
    flat = length * pitch.cos()
    return _vector(flat * yaw.cos(), flat * yaw.sin(), length * pitch.sin())
