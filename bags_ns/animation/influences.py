"""Which few bones move a point in other programs, and by how much each: four of them as a rule, where ours are all.

Gaussians keep their largest weights. Vertices of the mesh get weights that follow the motion: for a point that six bones
share, the four largest weights alone can be off by more than a hundredth of the animal.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.animation.gltf_document import GltfDocument
from bags_ns.rig.deformation import apply_transforms, blend_transforms

SPARE_BONES = 2
"""More candidates than bones that are kept; further ones changed no figure."""
DESCENT_STEPS = 50
"""Of the fit of weights."""


def largest_influences(weights: Float[Tensor, "N B"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest skinning weights of each point, made to sum to 1 again, in sets of four.

    Returns:
        Bones [N C] and weights [N C], C the next multiple of four; unused places hold bone 0 with weight 0.
    """
    count = min(count, weights.shape[1])
    values, bones = weights.detach().double().topk(count, dim=1)
    values = (values / values.sum(dim=1, keepdim=True)).float()
    bones = torch.where(values > 0, bones, torch.zeros_like(bones))
    padding = (0, -count % 4)
    bones, values = (torch.nn.functional.pad(tensor, padding) for tensor in (bones, values))
    dtype = np.uint8 if weights.shape[1] <= 256 else np.uint16
    return bones.cpu().numpy().astype(dtype), values.cpu().numpy()


def influence_attributes(document: GltfDocument, weights: Float[Tensor, "N B"], count: int) -> dict[str, int]:
    """JOINTS_n and WEIGHTS_n accessors."""
    bones, values = largest_influences(weights, count)
    result: dict[str, int] = {}
    for index in range(bones.shape[1] // 4):
        four = slice(4 * index, 4 * index + 4)
        result[f"JOINTS_{index}"] = document.array(bones[:, four], "vertices")
        result[f"WEIGHTS_{index}"] = document.array(values[:, four], "vertices")
    return result


@torch.no_grad()
def fitted_weights(
    weights: Float[Tensor, "P B"],
    points: Float[Tensor, "P 3"],
    T_object_canonical: Float[Tensor, "K B 4 4"],
    count: int,
) -> Float[Tensor, "P B"]:
    """Weights of at most `count` bones a point with which K poses put the points closest, in squares, to where all bones do.

    From the bones with the largest weights that one is dropped, again and again, without which the others do best.

    Args:
        weights: of all bones.
        points: canonical.
        T_object_canonical: of the poses; without any, the largest weights are the best guess.
        count: bones to keep.
    """
    values, bones = weights.topk(min(count + SPARE_BONES, weights.shape[1]), dim=1)
    costs = values.new_zeros(*values.shape, values.shape[1])
    for transforms in T_object_canonical:
        blended = apply_transforms(blend_transforms(weights, transforms), points)
        apart = torch.stack([apply_transforms(transforms[chosen, :3], points) - blended for chosen in bones.T], dim=1)
        costs += apart @ apart.transpose(1, 2)  # squared distance of a blend w is w^T costs w
    while bones.shape[1] > count:
        values, bones, costs = _without_one(values, bones, costs)
    return torch.zeros_like(weights).scatter(1, bones, values / values.sum(dim=1, keepdim=True))


def _without_one(
    values: Float[Tensor, "P C"], bones: Int[Tensor, "P C"], costs: Float[Tensor, "P C C"]
) -> tuple[Float[Tensor, "P D"], Int[Tensor, "P D"], Float[Tensor, "P D D"]]:
    """Weights, bones and costs of each point without the bone that it misses least, the others' weights fitted anew."""
    rest = [[other for other in range(bones.shape[1]) if other != dropped] for dropped in range(bones.shape[1])]
    kept = torch.tensor(rest[::-1], device=bones.device)  # where nothing tells them apart, the smallest weight goes
    tried_costs = costs[:, kept[:, :, None], kept[:, None, :]]
    tried = _fit_blend(values[:, kept], tried_costs)
    best = (tried[..., None, :] @ tried_costs @ tried[..., None])[..., 0, 0].argmin(dim=1)
    rows = torch.arange(len(bones), device=bones.device)
    return tried[rows, best], bones.gather(1, kept[best]), tried_costs[rows, best]


def _fit_blend(start: Float[Tensor, "*P C"], costs: Float[Tensor, "*P C C"]) -> Float[Tensor, "*P C"]:
    """Weights w >= 0 that sum to 1 with the least w^T costs w, by projected gradient descent."""
    weights = _to_simplex(start)
    step = 1 / costs.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True).clamp_min(1e-12)
    for _ in range(DESCENT_STEPS):
        weights = _to_simplex(weights - step * (costs @ weights[..., None])[..., 0])
    return weights


def _to_simplex(values: Float[Tensor, "*P C"]) -> Float[Tensor, "*P C"]:
    """The nearest values >= 0 that sum to 1."""
    ordered = values.sort(dim=-1, descending=True).values
    surplus = ordered.cumsum(dim=-1) - 1
    ranks = torch.arange(1, values.shape[-1] + 1, device=values.device)
    last = (ordered * ranks > surplus).sum(dim=-1, keepdim=True) - 1
    return (values - surplus.gather(-1, last) / (last + 1)).clamp_min(0)
