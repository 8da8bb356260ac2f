"""Mirrors a pose left and right: bones are paired across the animal's plane of symmetry and swap their turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SymmetryPlane:
    """Points x of canonical space with normal . x = offset."""

    normal: Float[Tensor, "3"]
    """Of length 1, across the animal."""
    offset: float = 0.0
    """Canonical units."""

    def reflection(self) -> Float[Tensor, "3 3"]:
        """Linear part I - 2 n n^T."""
        return torch.eye(3).to(self.normal) - 2 * torch.outer(self.normal, self.normal)

    def reflect(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Points on the other side."""
        return points - 2 * (points @ self.normal - self.offset)[..., None] * self.normal


MIDDLE = SymmetryPlane(torch.tensor([1.0, 0.0, 0.0]))
"""x = 0: for animals that face along y."""


def fit_plane(points: Float[Tensor, "N 3"], num_headings: int = 72, max_points: int = 2000) -> SymmetryPlane:
    """The vertical plane through the points' middle across which they are most alike (mean distance to the nearest)."""
    from scipy.spatial import KDTree

    points = points.detach()[:: math.ceil(len(points) / max_points)].cpu()
    middle, tree = points.mean(dim=0), KDTree(points.numpy())
    planes = []
    for index in range(num_headings):
        heading = math.pi * index / num_headings
        normal = torch.tensor([math.cos(heading), math.sin(heading), 0.0])
        planes.append(SymmetryPlane(normal, float(normal @ middle)))
    distances = [tree.query(plane.reflect(points).numpy())[0].mean() for plane in planes]
    return planes[min(range(num_headings), key=distances.__getitem__)]


def pair_bones(centers: Float[Tensor, "B 3"], plane: SymmetryPlane = MIDDLE) -> Int[Tensor, " B"]:
    """The bone on the other side of each (itself on the middle line), nearest pairs first; pairing twice leads back."""
    distances = torch.cdist(plane.reflect(centers), centers)
    pairs = torch.full((len(centers),), -1, dtype=torch.long, device=centers.device)
    for flat in (distances + distances.T).flatten().argsort().tolist():
        first, second = divmod(flat, len(centers))
        if pairs[first] < 0 and pairs[second] < 0:
            pairs[first], pairs[second] = second, first
    return pairs


def mirror_rotations(
    rotations: Float[Tensor, "*K B 3 3"], pairs: Int[Tensor, " B"], plane: SymmetryPlane = MIDDLE
) -> Float[Tensor, "*K B 3 3"]:
    """Local rotations with left and right exchanged: M R M of each bone's partner.

    Exact where the skeleton is its own mirror image; else each joint turns as its partner's nearest likeness.
    """
    reflection = plane.reflection().to(rotations)
    return reflection @ rotations[..., pairs, :, :] @ reflection
