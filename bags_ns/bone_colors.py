"""Colours that show the rig: one a bone, and how much a bone moves each Gaussian."""

from __future__ import annotations

import colorsys
import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.gaussians import Gaussians
from bags_ns.model import BagsModel

UNMOVED, MOVED = (0.86, 0.88, 0.92), (0.85, 0.10, 0.15)
"""Of Gaussians that a bone does not move at all, and of those that it moves alone."""


def bone_colors(num_bones: int) -> Float[Tensor, "B 3"]:
    """One vivid colour a bone, neighbours in order far apart in hue."""
    golden = (math.sqrt(5) - 1) / 2
    return torch.tensor([colorsys.hsv_to_rgb((bone * golden) % 1, 0.75, 0.95) for bone in range(num_bones)])


def in_bone_colors(model: BagsModel, gaussians: Gaussians) -> Gaussians:
    """The model's Gaussians coloured by their skinning weights."""
    colors = model.skin_weights() @ bone_colors(len(model.bones)).to(model.device)
    return dataclasses.replace(gaussians, colors=colors)


def in_weight_colors(model: BagsModel, gaussians: Gaussians, bone: int) -> Gaussians:
    """The model's Gaussians from grey to red by the weight of one bone."""
    weight = model.skin_weights()[:, bone, None]
    colors = torch.lerp(weight.new_tensor(UNMOVED), weight.new_tensor(MOVED), weight)
    return dataclasses.replace(gaussians, colors=colors)
