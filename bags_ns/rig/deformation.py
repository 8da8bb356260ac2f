"""Linear blend skinning of Gaussians, and the true Jacobian of that deformation.

T(x) = sum_b w_b(x) T_b. With A the linear part of T(x), x' = T(x) x the moved point and g_b the gradient of bone b's
logit, the softmax gives grad w_b = w_b (g_b - sum_c w_c g_c), and so

    J = dx'/dx = A + sum_b (T_b x) (grad w_b)^T = A + sum_b w_b (T_b x - x') g_b^T.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from bags_ns.rig.bones import Bones
from bags_ns.rig.skinning import SkinningField


def blend_transforms(weights: Float[Tensor, "N B"], transforms: Float[Tensor, "*K B 4 4"]) -> Float[Tensor, "*K N 3 4"]:
    """T(x) of every point: the rigid bone transforms averaged by the point's weights."""
    return (weights @ transforms[..., :3, :].flatten(-2)).unflatten(-1, (3, 4))


def apply_transforms(transforms: Float[Tensor, "*K N 3 4"], points: Float[Tensor, "N 3"]) -> Float[Tensor, "*K N 3"]:
    """Each point moved by its own affine transform."""
    return (transforms[..., :3] * points[:, None, :]).sum(-1) + transforms[..., 3]


def deform(
    means: Float[Tensor, "N 3"],
    factors: Float[Tensor, "N 3 3"],
    weights: Float[Tensor, "N B"],
    T_world_canonical: Float[Tensor, "*K B 4 4"],
) -> tuple[Float[Tensor, "*K N 3"], Float[Tensor, "*K N 3 3"]]:
    """Means and covariances of canonical Gaussians carried into the world by the bones, in K poses at once.

    Args:
        means: of the canonical Gaussians.
        factors: L with canonical covariance L L^T: rotation times scales.
        weights: skinning weights of the means.
        T_world_canonical: one transform a bone, the root included.

    Covariances are moved by A and not by J, which shears them where bones meet. Products of many small matrices are
    sums of products of their entries here, N along the last axis: several times faster than batched calls.
    """
    blended = (T_world_canonical[..., :3, :].flatten(-2).mT @ weights.T).unflatten(-2, (3, 4))  # [*K 3 4 N]
    linear = blended[..., :3, :]
    moved = (linear.unsqueeze(-2) * factors.permute(1, 2, 0).contiguous()).sum(-3)
    covars = (moved.unsqueeze(-3) * moved.unsqueeze(-4)).sum(-2)
    placed = (linear * means.T.contiguous()).sum(-2) + blended[..., 3, :]
    return placed.mT.contiguous(), covars.movedim(-1, -3).contiguous()


def deformation_jacobian(
    points: Float[Tensor, "N 3"],
    weights: Float[Tensor, "N B"],
    skinning: SkinningField,
    bones: Bones,
    T_object_canonical: Float[Tensor, "B 4 4"],
) -> Float[Tensor, "N 3 3"]:
    """J = dx'/dx at canonical `points` with their skinning `weights`, whose change is included (module docstring)."""
    rows = T_object_canonical[:, :3].transpose(0, 1)  # [3 B 4]
    per_bone = points @ rows[..., :3].flatten(0, 1).T + rows[..., 3].flatten()
    blended = blend_transforms(weights, T_object_canonical)
    moved = apply_transforms(blended, points)
    factors = weights[:, None, :] * (per_bone.unflatten(1, (3, -1)) - moved[..., None])
    return blended[:, :, :3] + skinning.weighted_logit_gradient(points, bones, factors)
