"""A made-up rig with a known tree: a trunk, four legs of two bones, a neck; left is +x, it faces -y."""

import math

import torch

from bags_ns.rig.skeleton import Skeleton
from bags_ns.rig.transforms import so3_exp

TRUNK, NECK = 0, 1
LEGS = {"front_left": (2, 3), "front_right": (4, 5), "back_left": (6, 7), "back_right": (8, 9)}
NUM_BONES = 10


def quadruped(length: float = 1.0, height: float = 0.6) -> tuple[Skeleton, torch.Tensor]:
    """Skeleton and bone centres."""
    centers, parents = torch.zeros(NUM_BONES, 3), [-1, 0] + [0] * 8
    centers[TRUNK] = torch.tensor([0.0, 0.05 * length, 0.1 * height])
    centers[NECK] = torch.tensor([0.0, -0.45 * length, 0.4 * height])
    for name, (upper, lower) in LEGS.items():
        x = 0.12 if "left" in name else -0.12
        y = (-0.3 if "front" in name else 0.35) * length
        centers[upper] = torch.tensor([x, y, -0.15 * height])
        centers[lower] = torch.tensor([x, y, -0.4 * height])
        parents[upper], parents[lower] = TRUNK, upper
    skeleton = Skeleton(NUM_BONES)
    skeleton.parents.copy_(torch.tensor(parents))
    partner = torch.tensor([max(parent, 0) for parent in parents])
    skeleton.joints.copy_(0.5 * (centers + centers[partner]))
    return skeleton, centers


def bone_covars(scale: float = 0.06) -> torch.Tensor:
    """Of stretched ellipsoids."""
    return torch.diag(torch.tensor([1.0, 0.6, 1.5]) * scale**2).repeat(NUM_BONES, 1, 1)


def walk(phase: float) -> torch.Tensor:
    """Local rotations of a walk: thighs swing about x, diagonal legs together, knees bend with them."""
    vectors = torch.zeros(NUM_BONES, 3)
    for name, (upper, lower) in LEGS.items():
        shift = 0.0 if name in ("front_left", "back_right") else math.pi
        vectors[upper, 0] = 0.6 * math.sin(phase + shift)
        vectors[lower, 0] = 0.3 * math.sin(phase + shift + 1.0)
    vectors[NECK, 0] = 0.1 * math.sin(2 * phase)
    return so3_exp(vectors)


def random_rotations(seed: int, *shape: int, angle: float = 1.0) -> torch.Tensor:
    return so3_exp(angle * torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed)))
