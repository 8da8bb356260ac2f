"""Linear blend skinning of Gaussians, and the true Jacobian of that deformation.

T(x) = sum_b w_b(x) T_b. With A the linear part of T(x), x' = T(x) x the moved point and g_b the gradient of bone b's
logit, the softmax gives grad w_b = w_b (g_b - sum_c w_c g_c), and so

    J = dx'/dx = A + sum_b (T_b x) (grad w_b)^T = A + sum_b w_b (T_b x - x') g_b^T.
"""

from __future__ import annotations

from typing import Any

import torch
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

    Covariances are moved by A and not by J, which shears them where bones meet.
    """
    poses = T_world_canonical.shape[:-3]
    transforms = T_world_canonical[..., :3, :].reshape(-1, *T_world_canonical.shape[-3:-2], 3, 4)
    moved, covars = _Deform.apply(means, factors, weights, transforms)
    return moved.reshape(*poses, *means.shape), covars.reshape(*poses, *factors.shape)


class _Deform(torch.autograd.Function):
    """`deform` in K poses: x' = A x + t and C = M M^T with M = A L, where [A t] is the blend of the transforms.

    Products of many small matrices are sums of products of their entries, with N along the last axis: several times
    faster than batched calls. The gradients are written out for the same reason.
    """

    @staticmethod
    def forward(
        ctx: Any,
        means: Float[Tensor, "N 3"],
        factors: Float[Tensor, "N 3 3"],
        weights: Float[Tensor, "N B"],
        transforms: Float[Tensor, "K B 3 4"],
    ) -> tuple[Float[Tensor, "K N 3"], Float[Tensor, "K N 3 3"]]:
        x, L = means.T.contiguous(), factors.permute(1, 2, 0).contiguous()
        blended = (transforms.flatten(2).mT @ weights.T).unflatten(1, (3, 4))  # [K 3 4 N]
        A, t = blended[:, :, :3], blended[:, :, 3]
        M = (A[:, :, :, None] * L).sum(2)
        C = (M[:, :, None] * M[:, None]).sum(3)
        ctx.save_for_backward(x, L, weights, transforms, A, M)
        return ((A * x).sum(2) + t).mT.contiguous(), C.permute(0, 3, 1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, L, weights, transforms, A, M = ctx.saved_tensors
        grad_t, grad_C = grads[0].mT.contiguous()[:, :, None], grads[1].permute(0, 2, 3, 1).contiguous()
        grad_M = ((grad_C + grad_C.transpose(1, 2))[:, :, :, None] * M[:, None]).sum(2)
        grad_A = (grad_M[:, :, None] * L).sum(3) + grad_t * x
        grad_blended = torch.cat([grad_A, grad_t], dim=2).flatten(1, 2)  # [K 12 N]
        grad_x = (A * grad_t).sum((0, 1))
        grad_L = (A[:, :, :, None] * grad_M[:, :, None]).sum((0, 1))
        grad_weights = grad_blended.flatten(0, 1).T @ transforms.flatten(2).mT.flatten(0, 1)
        grad_transforms = (grad_blended @ weights).mT.unflatten(2, (3, 4))
        return grad_x.T, grad_L.permute(2, 0, 1), grad_weights, grad_transforms


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
