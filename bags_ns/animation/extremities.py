"""Paws, head and tail of an animal without a name on any bone: found from where its parts are and how the video moves them.

Paws are the lowest parts, in four groups that move together. Which end is the head is told by the walk: a paw goes forward
through the air and back on the ground. What is posed is the mean of a group's points, which linear blend skinning moves
as sum_b T_b h_b; the h_b are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bags_ns.rig.deformation import apply_transforms, blend_transforms
from bags_ns.rig.skeleton import Skeleton

NAMES = ("fore left", "fore right", "hind left", "hind right", "head", "tail")
"""Extremities, in this order; the paws are first."""
NUM_PAWS = 4
PAW_HEIGHT = 0.15
"""Part of the animal's height that belongs to its paws."""
END_LENGTH = 0.1
"""Part of the animal's length, above the legs, that belongs to its head, and to its tail."""


@dataclass(frozen=True)
class Body:
    """An animal and its motion, in its object frame."""

    skeleton: Skeleton
    """Tree and joints."""
    centers: Float[Tensor, "B 3"]
    """Of the bones, canonical."""
    points: Float[Tensor, "P 3"]
    """Of its surface or inside, canonical."""
    weights: Float[Tensor, "P B"]
    """Their skinning weights."""
    T_object_canonical: Float[Tensor, "K B 4 4"]
    """Bone transforms over the video."""


@dataclass(frozen=True)
class Extremities:
    """Paws, head and tail, by NAMES."""

    handles: Float[Tensor, "E B 4"]
    """Mean over each one's points of the skinning weights times [point, 1]."""
    axes: Float[Tensor, "3 3"]
    """Rows: the animal's forward, left and up."""
    paths: Float[Tensor, "K E 3"]
    """Their ways in the video."""
    height: float
    """Of the middle of the body above the paws: what a step is measured by."""

    def at(self, T_object_canonical: Float[Tensor, "K B 4 4"]) -> Float[Tensor, "K E 3"]:
        """Where poses put them."""
        return torch.einsum("kbij,ebj->kei", T_object_canonical[..., :3, :], self.handles)


@torch.no_grad()
def find_extremities(body: Body) -> Extremities:
    """Finds them.

    Raises:
        ValueError: there are no four paws.
    """
    moved = apply_transforms(blend_transforms(body.weights, body.T_object_canonical), body.points)
    places = moved.mean(0)
    heights = (places[:, 2] - places[:, 2].min()) / (places[:, 2].max() - places[:, 2].min()).clamp_min(1e-6)
    paws = _groups(moved, heights < PAW_HEIGHT)
    axes = _axes(places, torch.stack([moved[:, paw].mean(1) for paw in paws], dim=1))
    seen = places @ axes.T  # forward, left, up
    paws.sort(key=lambda paw: -float(seen[paw, 0].mean()))
    ordered = [sorted(pair, key=lambda paw: -float(seen[paw, 1].mean())) for pair in (paws[:2], paws[2:])]
    along, above = seen[:, 0], heights > 0.5
    low, high = along[above].min(), along[above].max()
    margin = END_LENGTH * (high - low)
    groups = [*ordered[0], *ordered[1], above & (along >= high - margin), above & (along <= low + margin)]
    homogeneous = torch.nn.functional.pad(body.points, (0, 1), value=1.0)
    handles = torch.stack([(body.weights[group, :, None] * homogeneous[group, None]).mean(0) for group in groups])
    paths = torch.einsum("kbij,ebj->kei", body.T_object_canonical[..., :3, :], handles)
    return Extremities(handles, axes, paths, float(places[:, 2].mean() - paths[:, :NUM_PAWS, 2].mean()))


def _groups(moved: Float[Tensor, "K P 3"], low: Bool[Tensor, " P"]) -> list[Bool[Tensor, " P"]]:
    """Four groups of the low points, by their paths."""
    from sklearn.cluster import KMeans

    paths = moved[:, low].transpose(0, 1).flatten(1).cpu().numpy()
    if len(paths) < NUM_PAWS:
        raise ValueError(
            "the motion of one animal is given to another by its paws: of the lowest parts no four were found"
        )
    kmeans: Any = KMeans  # its stubs do not know a number as n_init
    labels = torch.full((len(low),), -1, device=low.device)
    labels[low] = torch.from_numpy(kmeans(NUM_PAWS, n_init=5, random_state=0).fit(paths).labels_).to(labels)
    return [labels == paw for paw in range(NUM_PAWS)]


def _axes(places: Float[Tensor, "P 3"], paws: Float[Tensor, "K 4 3"]) -> Float[Tensor, "3 3"]:
    """Forward is along the body, to where the paws go while they are lifted; up is z."""
    flat = places[:, :2] - places[:, :2].mean(0)
    along = torch.nn.functional.pad(torch.linalg.eigh(flat.T @ flat)[1][:, 1], (0, 1))
    if len(paws) > 2:
        speeds, lifts = (paws[2:] - paws[:-2]) @ along, paws[1:-1, :, 2]
        forward = torch.stack(
            [torch.corrcoef(torch.stack([speeds[:, paw], lifts[:, paw]]))[0, 1] for paw in range(NUM_PAWS)]
        )
        along = along if float(forward.nansum()) >= 0 else -along
    up = along.new_tensor([0.0, 0.0, 1.0])
    return torch.stack([along, torch.linalg.cross(up, along), up])
