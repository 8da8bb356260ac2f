"""Random coats: colours of body regions, a pale underside, patches, spots or stripes that stick to the body."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.data.creatures.anatomy import CONES
from bags_ns.data.creatures.batch import TensorBatch, chance, pick, uniform

COLOR_SLOTS = ("body", "under", "sock", "tip", "face", "marking", "mane", "muzzle", "ear_tip", "horn")
"""Colours of a coat. The first six are drawn, the others follow from them."""

NUM_WAVES = 5
"""Sine waves whose sum makes a pattern."""


class CoatPlan(NamedTuple):
    """Typical colours (hex) of one kind of animal, and its pattern."""

    body: str
    under: str
    sock: str
    tip: str
    face: str
    marking: str
    pattern: str = "none"


COAT_PLANS = {
    "fox": CoatPlan("c2651d", "efe6da", "2b1d16", "f4efe8", "c2651d", "7d3a12"),
    "dog": CoatPlan("55534f", "d6d1c7", "d6d1c7", "cfcac0", "8d8a84", "2c2b2a"),
    "hound": CoatPlan("e4ddd0", "efe9df", "e8e2d6", "efe9df", "8a5730", "4a3524", "patches"),
    "dachshund": CoatPlan("5f3319", "8d5a35", "6d3d1f", "4a2713", "6a3a1d", "2f1a10"),
    "cat": CoatPlan("94877a", "d9d0c3", "cfc5b8", "4b443d", "94877a", "4b423a", "stripes"),
    "lion": CoatPlan("c79a5e", "e3cda4", "c79a5e", "5d3a1c", "cfa56c", "8a6236"),
    "tiger": CoatPlan("cf7a2a", "efe6d8", "d6893c", "2a2018", "d6893c", "2a2018", "stripes"),
    "bear": CoatPlan("5d4029", "5d4029", "4a321f", "5d4029", "7a583a", "3c2818"),
    "cow": CoatPlan("e9e4da", "ece4dc", "ddd5c8", "2b2623", "e2dbd0", "2b2623", "patches"),
    "pig": CoatPlan("dba79b", "e3b5aa", "c99488", "dba79b", "dfaea3", "5b4a45"),
    "sheep": CoatPlan("e3dccd", "e3dccd", "41382f", "e3dccd", "453b33", "cfc6b4"),
    "horse": CoatPlan("7b4b2b", "7b4b2b", "2a1d15", "211710", "74462a", "e6ddd0"),
    "deer": CoatPlan("9b6c45", "dcc9ad", "7d5535", "ece2d0", "97693f", "ecdfc8", "spots"),
    "camel": CoatPlan("b98f5f", "a98155", "b98f5f", "7d5a38", "b08656", "94703f"),
    "giraffe": CoatPlan("dcb678", "e6d2a6", "dfc391", "3a2a1d", "cfa768", "8b5a2d", "spots"),
}
"""Keyed like the body plans, but a creature may wear the coat of another kind."""

PATTERN_KINDS = ("none", "patches", "spots", "stripes")


@dataclass(frozen=True)
class Coats(TensorBatch):
    """Colours (RGB in [0, 1]) of creatures, by cone and by place on the body at rest."""

    start_colors: Float[Tensor, "batch cones 3"]
    end_colors: Float[Tensor, "batch cones 3"]
    color_splits: Float[Tensor, "batch cones"]
    """Where along the cone the start colour gives way to the end colour, in cone lengths."""
    under_shown: Float[Tensor, "batch cones"]
    """How much the underside's colour shows on each cone, 0 to 1."""
    pattern_shown: Float[Tensor, "batch cones"]
    """The same for the pattern."""
    under_color: Float[Tensor, "batch 3"]
    under_level: Float[Tensor, " batch"]
    """The underside is where the upward component of the rest normal is below this."""
    marking_color: Float[Tensor, "batch 3"]
    waves: Float[Tensor, "batch waves 3"]
    """Wave vectors of the pattern, radians a unit of length."""
    wave_phases: Float[Tensor, "batch waves"]
    marking_level: Float[Tensor, " batch"]
    """The pattern shows where the mean of the waves is above this."""
    asymmetry: Float[Tensor, " batch"]
    """1: the pattern differs between left and right; 0: it is mirrored."""
    mark_color: Float[Tensor, "batch 3"]
    """Eyes and nose."""
    rings: Float[Tensor, "batch 3"]
    """Rings around the parts, in the marking's colour: waves along a part (radians), phase, and strength (0: none)."""


def random_coats(
    batch: int,
    generator: torch.Generator,
    device: torch.device,
    plan_names: Sequence[str],
    plans: Int[Tensor, " batch"],
) -> Coats:
    """Coats that suit the body plan, or another kind of animal, or (one in eight) are of any colour."""
    own = torch.tensor([list(COAT_PLANS).index(name) for name in plan_names], device=device)[plans]
    other = pick(generator, device, len(COAT_PLANS), batch)
    plan = torch.where(chance(generator, device, 0.75, batch) > 0, own, other)
    slots = _random_slots(plan, generator)
    kinds = torch.tensor([PATTERN_KINDS.index(coat.pattern) for coat in COAT_PLANS.values()], device=device)[plan]
    foreign = pick(generator, device, len(PATTERN_KINDS), batch)
    kinds = torch.where(chance(generator, device, 0.12, batch) > 0, foreign, kinds)
    waves, phases, level = _random_pattern(kinds, generator)
    order = {name: slots[:, index] for index, name in enumerate(COLOR_SLOTS)}
    return Coats(
        start_colors=torch.stack([order[cone.start_color] for cone in CONES], dim=1),
        end_colors=torch.stack([order[cone.end_color] for cone in CONES], dim=1),
        color_splits=_random_splits(batch, generator, device),
        under_shown=torch.tensor([cone.underside for cone in CONES], device=device).expand(batch, -1),
        pattern_shown=torch.tensor([cone.pattern for cone in CONES], device=device).expand(batch, -1),
        under_color=order["under"],
        under_level=uniform(generator, device, -0.5, 0.05, batch),
        marking_color=order["marking"],
        waves=waves,
        wave_phases=phases,
        marking_level=level,
        asymmetry=chance(generator, device, 0.25, batch),
        mark_color=uniform(generator, device, 0.02, 0.1, batch, 1).expand(batch, 3),
        rings=torch.zeros(batch, 3, device=device),
    )


def _random_slots(plan: Int[Tensor, " batch"], generator: torch.Generator) -> Float[Tensor, "batch slots 3"]:
    """Colours of all slots: those of the plan, moved in brightness and hue, some slots swapped, some coats free."""
    device, batch = plan.device, len(plan)
    table = torch.tensor([[_rgb(color) for color in coat[:6]] for coat in COAT_PLANS.values()], device=device)
    colors = table[plan]
    brightness = uniform(generator, device, 0.75, 1.2, batch, 1, 1) * uniform(generator, device, 0.9, 1.1, batch, 6, 1)
    colors = colors * brightness + uniform(generator, device, -0.03, 0.03, batch, 6, 3)
    # Plain animals: any region may take the body's colour.
    plain = chance(generator, device, 0.15, batch, 6, 1)
    colors = colors * (1 - plain) + colors[:, :1] * plain
    free = chance(generator, device, 1 / 8, batch, 1, 1)
    colors = colors * (1 - free) + uniform(generator, device, 0.05, 0.95, batch, 6, 3) * free
    body, under, sock, tip, face = colors[:, :5].unbind(1)
    pale_muzzle = chance(generator, device, 0.6, batch, 1)
    dark_ears = chance(generator, device, 0.5, batch, 1)
    muzzle = under * pale_muzzle + face * (1 - pale_muzzle)
    ear_tip = sock * dark_ears + face * (1 - dark_ears)
    horn = torch.tensor(_rgb("c9bb9c"), device=device) * uniform(generator, device, 0.35, 1.1, batch, 1)
    derived = torch.stack([tip, muzzle, ear_tip, horn], dim=1)
    return torch.cat([colors, derived], dim=1).clamp(0.02, 0.98)


def _random_splits(batch: int, generator: torch.Generator, device: torch.device) -> Float[Tensor, "batch cones"]:
    """Splits of all cones; the height of the socks and the length of the tail's tip vary, left equal to right."""
    sock, tip, muzzle, ear = (
        uniform(generator, device, *limits, batch) for limits in ((0.0, 0.9), (0.1, 0.6), (0.2, 0.7), (0.3, 0.8))
    )
    half = torch.full_like(sock, 0.5)
    by_slot = {"sock": sock, "tip": tip, "muzzle": muzzle, "ear_tip": ear}
    return torch.stack([by_slot.get(cone.end_color, half) for cone in CONES], dim=1)


def _random_pattern(
    kinds: Int[Tensor, " batch"], generator: torch.Generator
) -> tuple[Float[Tensor, "batch waves 3"], Float[Tensor, "batch waves"], Float[Tensor, " batch"]]:
    """Wave vectors, phases and threshold of patterns of the given `PATTERN_KINDS`."""
    device, batch = kinds.device, len(kinds)
    directions = torch.nn.functional.normalize(uniform(generator, device, -1.0, 1.0, batch, NUM_WAVES, 3), dim=-1)
    along_body = torch.nn.functional.normalize(directions * torch.tensor([0.25, 1.0, 0.25], device=device), dim=-1)
    directions = torch.where((kinds == PATTERN_KINDS.index("stripes"))[:, None, None], along_body, directions)
    lengths = uniform(generator, device, 0.0, 1.0, batch, NUM_WAVES)
    low, high = torch.tensor([[8.0, 14.0], [8.0, 14.0], [42.0, 75.0], [35.0, 60.0]], device=device)[kinds].unbind(-1)
    # Waves of one stripe pattern have nearly one length, else they break into spots.
    middle = low + (high - low) * uniform(generator, device, 0.0, 1.0, batch)
    numbers = middle[:, None] * (0.85 + 0.3 * lengths)
    phases = uniform(generator, device, 0.0, 2 * math.pi, batch, NUM_WAVES)
    level = torch.tensor([2.0, 0.08, 0.22, 0.12], device=device)[kinds] + uniform(generator, device, -0.1, 0.1, batch)
    return directions * numbers[..., None], phases, level


def _rgb(color: str) -> tuple[float, float, float]:
    """RGB in [0, 1] of six hex digits."""
    red, green, blue = (int(color[index : index + 2], 16) / 255 for index in (0, 2, 4))
    return red, green, blue
