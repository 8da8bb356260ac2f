"""What every creature has in common: the tree of rigid parts and the rounded cones fixed to them."""

from __future__ import annotations

from typing import NamedTuple

LEGS = ("front_left", "front_right", "back_left", "back_right")

PART_PARENTS: dict[str, str | None] = {
    "waist": None,
    "chest": "waist",
    "hips": "waist",
    "lower_neck": "chest",
    "upper_neck": "lower_neck",
    "head": "upper_neck",
    "left_ear": "head",
    "right_ear": "head",
    "tail_base": "hips",
    "tail_middle": "tail_base",
    "tail_tip": "tail_middle",
    **{f"{leg}_upper": "chest" if leg.startswith("front") else "hips" for leg in LEGS},
    **{f"{leg}_lower": f"{leg}_upper" for leg in LEGS},
    **{f"{leg}_foot": f"{leg}_lower" for leg in LEGS},
}
"""Parent of every part, parents before children."""

PART_NAMES = tuple(PART_PARENTS)
FOOT_NAMES = tuple(f"{leg}_foot" for leg in LEGS)


class ConeKind(NamedTuple):
    """One rounded cone of the body: where it belongs and which colours of the coat it wears."""

    name: str
    part: str
    start_color: str
    """Colour (a slot of `coat.COLOR_SLOTS`) at the cone's start."""
    end_color: str
    underside: float
    """How much the pale underside shows on it, 0 to 1."""
    pattern: float
    """How much spots or stripes show on it, 0 to 1."""


CONES = (
    ConeKind("chest_trunk", "chest", "body", "body", 1.0, 1.0),
    ConeKind("hip_trunk", "hips", "body", "body", 1.0, 1.0),
    ConeKind("keel", "chest", "body", "body", 1.0, 1.0),
    ConeKind("belly", "waist", "body", "body", 1.0, 1.0),
    ConeKind("front_hump", "chest", "body", "body", 0.0, 0.5),
    ConeKind("rear_hump", "hips", "body", "body", 0.0, 0.5),
    ConeKind("lower_neck", "lower_neck", "body", "body", 1.0, 1.0),
    ConeKind("upper_neck", "upper_neck", "body", "body", 1.0, 1.0),
    ConeKind("lower_mane", "lower_neck", "mane", "mane", 0.0, 0.0),
    ConeKind("upper_mane", "upper_neck", "mane", "mane", 0.0, 0.0),
    ConeKind("head", "head", "face", "face", 0.8, 0.5),
    ConeKind("snout", "head", "face", "muzzle", 1.0, 0.3),
    ConeKind("left_ear", "left_ear", "face", "ear_tip", 0.0, 0.0),
    ConeKind("right_ear", "right_ear", "face", "ear_tip", 0.0, 0.0),
    ConeKind("left_horn", "head", "horn", "horn", 0.0, 0.0),
    ConeKind("right_horn", "head", "horn", "horn", 0.0, 0.0),
    ConeKind("tail_base", "tail_base", "body", "body", 0.3, 0.7),
    ConeKind("tail_middle", "tail_middle", "body", "body", 0.3, 0.7),
    ConeKind("tail_tip", "tail_tip", "body", "tip", 0.0, 0.0),
    *(ConeKind(f"{leg}_upper", f"{leg}_upper", "body", "body", 0.3, 1.0) for leg in LEGS),
    *(ConeKind(f"{leg}_lower", f"{leg}_lower", "body", "sock", 0.0, 0.5) for leg in LEGS),
    *(ConeKind(f"{leg}_foot", f"{leg}_foot", "sock", "sock", 0.0, 0.0) for leg in LEGS),
)

CONE_PARTS = tuple(PART_NAMES.index(cone.part) for cone in CONES)
"""Index of the part that carries each cone."""

FOOT_CONES = tuple(index for index, cone in enumerate(CONES) if cone.part in FOOT_NAMES)
"""The four feet's cones, in the order of `FOOT_NAMES`; their ends are the toes."""
