"""Bones: Gaussian ellipsoids that own the space around them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bags_ns.rig.transforms import quat_from_rotation, quat_to_rotation

MIN_BONE_SCALE = 0.02
"""Smallest half axis of a bone, in canonical units (the animal is about 1 long): thinner bones own nothing."""


LLOYD_STEPS = 3
"""k-means steps after the even start: enough to centre the clusters, too few to drain the limbs."""


def farthest_points(points: Float[Tensor, "N 3"], count: int, seed: int = 0) -> Int[Tensor, " count"]:
    """Indices of `count` points, each the farthest from all before it; the first is the farthest from a random one."""
    generator = torch.Generator().manual_seed(seed)
    first = points[int(torch.randint(len(points), (1,), generator=generator))]
    chosen = [int((points - first).square().sum(-1).argmax())]
    distance = torch.full_like(points[:, 0], float("inf"))
    while len(chosen) < count:
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(-1))
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen, device=points.device)


class Bones(nn.Module):
    """B ellipsoids in the canonical frame: centres, orientations (wxyz) and half axes.

    Until `place` has put them onto an animal they lie in a small deterministic cloud about the origin.
    """

    def __init__(self, num_bones: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.centers = nn.Parameter(0.2 * torch.randn(num_bones, 3, generator=generator))
        self.quats = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(num_bones, 1))
        self.log_scales = nn.Parameter(torch.full((num_bones, 3), 0.1).log())

    def __len__(self) -> int:
        return self.centers.shape[0]

    @property
    def scales(self) -> Float[Tensor, "B 3"]:
        """Half axes, in canonical units."""
        return self.log_scales.exp()

    def precisions(self) -> Float[Tensor, "B 3 3"]:
        """Inverse covariances R S^-2 R^T of the ellipsoids."""
        whitened = quat_to_rotation(self.quats) * (-self.log_scales).exp()[:, None, :]
        return whitened @ whitened.transpose(1, 2)

    @torch.no_grad()
    def place(self, points: Float[Tensor, "N 3"], seed: int = 0) -> None:
        """Puts the bones onto a point cloud: spread evenly, then a few k-means steps; axes from each cluster's covariance.

        The start from farthest points gives thin limbs as many bones for their length as the trunk; k-means alone,
        which counts points, would spend nearly all of them on the trunk.
        """
        from sklearn.cluster import KMeans

        starts = farthest_points(points, len(self), seed)
        kmeans: Any = KMeans  # its stubs know neither an array as init nor a number as n_init
        clusters = kmeans(len(self), init=points[starts].cpu().numpy(), n_init=1, max_iter=LLOYD_STEPS)
        clusters.fit(points.cpu().numpy())
        labels = torch.from_numpy(clusters.labels_).to(points.device)
        centers, quats, scales = [], [], []
        for bone in range(len(self)):
            members = points[labels == bone]
            center = members.mean(dim=0)
            offsets = members - center
            variances, axes = torch.linalg.eigh(offsets.T @ offsets / len(members))
            axes = axes * torch.det(axes).sign()  # eigenvectors may come as a reflection
            centers.append(center)
            quats.append(quat_from_rotation(axes))
            scales.append(variances.clamp_min(0).sqrt().clamp_min(MIN_BONE_SCALE))
        self.centers.copy_(torch.stack(centers))
        self.quats.copy_(torch.stack(quats))
        self.log_scales.copy_(torch.stack(scales).log())


def squared_mahalanobis(
    points: Float[Tensor, "N 3"], centers: Float[Tensor, "B 3"], precisions: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "N B"]:
    """(x - c)^T P (x - c) of every point to every bone, expanded into one [N 13] x [13 B] product.

    Means taken out first, since the expansion cancels badly far from the origin.
    """
    origin = centers.mean(dim=0)
    x, c = points - origin, centers - origin
    linear = (precisions @ c[..., None])[..., 0]
    squares = (x[:, :, None] * x[:, None, :]).flatten(1)
    features = torch.cat([squares, x, torch.ones_like(x[:, :1])], dim=1)
    coefficients = torch.cat([precisions.flatten(1), -2 * linear, (linear * c).sum(-1, keepdim=True)], dim=1)
    return features @ coefficients.T
