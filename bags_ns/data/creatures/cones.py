"""The surface of a creature: the smooth union of rounded cones, as a signed distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.data.creatures.batch import TensorBatch

BLEND = 0.016
"""Width (world units) over which neighbouring cones melt into each other."""


@dataclass(frozen=True)
class Cones(TensorBatch):
    """Rounded cones (balls of changing radius along a segment) in world space."""

    starts: Float[Tensor, "batch cones 3"]
    ends: Float[Tensor, "batch cones 3"]
    start_radii: Float[Tensor, "batch cones"]
    """Negative where the creature lacks the cone."""
    end_radii: Float[Tensor, "batch cones"]
    T_world_rest: Float[Tensor, "batch cones 4 4"]
    """Motion of each cone's part from the rest pose."""


def cone_boxes(
    starts: Float[Tensor, "batch cones 3"],
    ends: Float[Tensor, "batch cones 3"],
    start_radii: Float[Tensor, "batch cones"],
    end_radii: Float[Tensor, "batch cones"],
) -> tuple[Float[Tensor, "batch 3"], Float[Tensor, "batch 3"]]:
    """Lowest and highest corner of the boxes around cones; cones of negative radius do not count."""
    points = torch.cat([starts, ends], dim=1)
    radii = torch.cat([start_radii, end_radii], dim=1)[..., None]
    low = torch.where(radii > 0, points - radii, torch.inf).amin(dim=1)
    high = torch.where(radii > 0, points + radii, -torch.inf).amax(dim=1)
    return low, high


class ConeSamples(NamedTuple):
    """Points seen from every cone."""

    distances: Float[Tensor, "batch points cones"]
    """Signed distance to each cone."""
    along: Float[Tensor, "batch points cones"]
    """Distance from the cone's start to the centre of the ball that is nearest, along the axis."""
    center_distances: Float[Tensor, "batch points cones"]
    """Distance to that centre."""


class ConeField:
    """Signed distances to posed cones.

    A rounded cone is the union of balls whose centre runs along the segment; the nearest ball's centre lies a little
    towards the thick end from the foot of the perpendicular, which makes the distance exact.
    """

    def __init__(self, cones: Cones) -> None:
        self.cones = cones
        offsets = cones.ends - cones.starts
        lengths = offsets.norm(dim=-1).clamp_min(1e-6)
        # Where one end's ball holds the other's, the bounded slope leaves the larger ball.
        slopes = ((cones.start_radii - cones.end_radii) / lengths).clamp(-0.95, 0.95)
        axes = offsets / lengths[..., None]
        self.starts, self.axes = cones.starts[:, None], axes[:, None]
        self.lengths = lengths[:, None]
        self.slopes = slopes[:, None]
        self.shifts = (slopes / (1 - slopes.square()).sqrt())[:, None]
        self.start_radii = cones.start_radii[:, None]
        self.start_feet = -(cones.starts * axes).sum(dim=-1)[:, None]
        self.start_squares = cones.starts.square().sum(dim=-1)[:, None]

    def evaluate(self, points: Float[Tensor, "batch points 3"]) -> ConeSamples:
        """Distances of points to every cone."""
        # (p - a).u and |p - a|^2 multiplied out by components: few passes when run eagerly, and no matmul, whose TF32
        # would be too coarse. Creatures are near the origin, so that little precision is lost.
        feet = self.start_feet
        squares = self.start_squares + points.square().sum(dim=-1, keepdim=True)
        for i in range(3):
            component = points[..., i : i + 1]
            feet = torch.addcmul(feet, component, self.axes[..., i])
            squares = torch.addcmul(squares, component, self.starts[..., i], value=-2.0)
        squares = torch.addcmul(squares, feet, feet, value=-1.0).clamp_min(1e-9)
        along = torch.addcmul(feet, squares.sqrt(), self.shifts, value=-1.0).clamp_min(0.0).minimum(self.lengths)
        center_distances = (squares + (feet - along).square()).sqrt()
        distances = torch.addcmul(center_distances - self.start_radii, self.slopes, along)
        return ConeSamples(distances, along, center_distances)

    def distance(self, points: Float[Tensor, "batch points 3"]) -> Float[Tensor, "batch points"]:
        """Signed distance to the smooth union, never above the true one."""
        return smooth_minimum(self.evaluate(points).distances)

    def normals(self, points: Float[Tensor, "batch points 3"], samples: ConeSamples) -> Float[Tensor, "batch points 3"]:
        """Unit gradient of the distance of `points`, whose `samples` are given."""
        pull = torch.softmax(-samples.distances / BLEND, dim=-1) / samples.center_distances
        along = pull * samples.along
        components = [
            (pull * (points[..., i : i + 1] - self.starts[..., i]) - along * self.axes[..., i]).sum(dim=-1)
            for i in range(3)
        ]
        return torch.nn.functional.normalize(torch.stack(components, dim=-1), dim=-1)


def smooth_minimum(distances: Float[Tensor, "batch points cones"]) -> Float[Tensor, "batch points"]:
    """Soft minimum over cones: rounds the creases where cones meet."""
    return -BLEND * torch.logsumexp(distances * (-1 / BLEND), dim=-1)
