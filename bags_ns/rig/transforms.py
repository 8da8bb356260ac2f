"""Rotations and rigid transforms as matrices, and the nearest rotation to a matrix, all batched and differentiable."""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor


def _rotation_of_outer() -> list[list[float]]:
    """The [16 9] matrix that takes q q^T to R = (w^2 - |v|^2) I + 2 v v^T + 2 w [v]x, for q = (w, v) of length 1."""
    rows = [[0.0] * 9 for _ in range(16)]
    for i in range(3):
        for j in range(3):
            rows[4 * (1 + i) + 1 + j][3 * i + j] += 2.0
        for k, sign in ((0, 1.0), (1, -1.0), (2, -1.0), (3, -1.0)):
            rows[5 * k][4 * i] += sign
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        rows[1 + k][3 * i + j] -= 2.0
        rows[1 + k][3 * j + i] += 2.0
    return rows


# Constants are made once a device: a copy to the GPU in every call would stall it.


@cache
def _rotation_of_outer_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """That matrix as a tensor."""
    return torch.tensor(_rotation_of_outer(), device=device, dtype=dtype)


@cache
def _last_row_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Of every rigid transform."""
    return torch.tensor([[0.0, 0.0, 0.0, 1.0]], device=device, dtype=dtype)


def so3_exp(rotation_vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of rotation vectors (axis times angle, radians), through the quaternion: its terms are smooth at zero."""
    half = 0.5 * rotation_vectors
    angle = torch.linalg.vector_norm(half, dim=-1, keepdim=True)  # its gradient at zero is zero
    return _unit_quat_to_rotation(torch.cat([angle.cos(), torch.sinc(angle / math.pi) * half], dim=-1))


def turned(quats: Float[Tensor, "*batch 4"], rotation_vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Quaternions wxyz, of any length, after rotations: the Hamilton product from the left."""
    half = 0.5 * rotation_vectors
    angle = torch.linalg.vector_norm(half, dim=-1, keepdim=True)
    w, v = angle.cos(), torch.sinc(angle / math.pi) * half
    real, imaginary = quats[..., :1], quats[..., 1:]
    return torch.cat(
        [
            w * real - (v * imaginary).sum(-1, keepdim=True),
            w * imaginary + real * v + torch.linalg.cross(v, imaginary),
        ],
        dim=-1,
    )


def so3_log(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vectors of rotation matrices, angles in [0, pi); through the quaternion, so that it is stable near pi."""
    quats = quat_from_rotation(rotations)
    imaginary = quats[..., 1:]
    norm = imaginary.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(norm, quats[..., :1])
    scale = torch.where(norm > 1e-8, angle / norm.clamp_min(1e-12), torch.full_like(norm, 2.0))
    return imaginary * scale


def quat_to_rotation(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions wxyz, which are normalised first.

    R is linear in the outer product q q^T: two operations for all N, where its nine entries one by one need forty.
    """
    return _unit_quat_to_rotation(torch.nn.functional.normalize(quats, dim=-1))


def _unit_quat_to_rotation(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    outer = (quats[..., :, None] * quats[..., None, :]).flatten(-2)
    return (outer @ _rotation_of_outer_on(outer.device, outer.dtype)).unflatten(-1, (3, 3))


def quat_from_rotation(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions wxyz with w >= 0 of rotation matrices.

    Row i of Davenport's outer product 4 q_i q is well conditioned where q_i is large, so the largest is taken
    (Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000).
    """
    m = rotations
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = [
        torch.stack([1 + xx + yy + zz, wx, wy, wz], dim=-1),
        torch.stack([wx, 1 + xx - yy - zz, xy, xz], dim=-1),
        torch.stack([wy, xy, 1 - xx + yy - zz, yz], dim=-1),
        torch.stack([wz, xz, yz, 1 - xx - yy + zz], dim=-1),
    ]
    outer = torch.stack(rows, dim=-2)
    best = torch.diagonal(outer, dim1=-2, dim2=-1).argmax(dim=-1)
    quats = torch.take_along_dim(outer, best[..., None, None].expand(*best.shape, 1, 4), dim=-2).squeeze(-2)
    quats = torch.nn.functional.normalize(quats, dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def rigid(
    rotations: Float[Tensor, "*batch 3 3"], translations: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Homogeneous transforms x -> R x + t."""
    top = torch.cat([rotations, translations[..., None]], dim=-1)
    last_row = _last_row_on(top.device, top.dtype)
    return torch.cat([top, last_row.expand(*top.shape[:-2], 1, 4)], dim=-2)


def rigid_inverse(transforms: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverses of rigid transforms."""
    inverse_rotations = transforms[..., :3, :3].transpose(-1, -2)
    return rigid(inverse_rotations, -(inverse_rotations @ transforms[..., :3, 3:])[..., 0])


def rigid_about(
    rotations: Float[Tensor, "*batch 3 3"], translations: Float[Tensor, "*batch 3"], pivots: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Transforms that rotate about `pivots` and then move them by `translations`."""
    return rigid(rotations, pivots + translations - (rotations @ pivots[..., None])[..., 0])


def transform_points(
    transforms: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch n 3"]
) -> Float[Tensor, "*batch n 3"]:
    """Points moved by one transform a batch element."""
    return points @ transforms[..., :3, :3].transpose(-1, -2) + transforms[..., None, :3, 3]


def _cofactor(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Cofactor matrices, det(M) M^-T where M is invertible; each row is the cross product of the next two rows of M."""
    return torch.linalg.cross(matrices.roll(-1, -2), matrices.roll(-2, -2))


@torch.no_grad()
def nearest_rotation(matrices: Float[Tensor, "*batch 3 3"], iterations: int = 6) -> Float[Tensor, "*batch 3 3"]:
    """The proper rotation closest to each matrix in the Frobenius norm, without an SVD and without gradient.

    max_R tr(R^T M) is the largest eigenvalue of Davenport's 4x4 matrix, a root of the quartic
    p(l) = l^4 - 2 |M|^2 l^2 - 8 det(M) l + |M|^4 - 4 |cof M|^2 (Shuster, "QUEST", 1981). All its roots are real, so
    Laguerre's method goes down to the largest monotonically from the upper bound sqrt(3) |M|, by cubes (near a double
    root each step still takes more than half of the error). Then R = d l / d M = -(dp/dM) / (dp/dl) in closed form.
    This also holds for det <= 0, where the polar factor would be a reflection. Where the answer is not unique
    (dp/dl = 0: a reflection with equal stretches, or rank below 2) the divisor is kept off zero, and the result is
    a finite matrix that is not a rotation.
    """
    scale = torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(1e-12)
    unit = matrices / scale  # |M| = 1: one tolerance for all sizes
    cofactor = _cofactor(unit)
    double_det = 2 * (unit[..., 0, :] * cofactor[..., 0, :]).sum(-1)
    constant = 1 - 4 * cofactor.square().sum((-1, -2))
    root = torch.full_like(double_det, 3**0.5)
    for _ in range(iterations):
        square = root * root
        value = (square - 2) * square - 4 * double_det * root + constant
        slope = (square - 1) * root - double_det  # of p / 4, as is the curvature 3 l^2 - 1
        spread = (9 * slope * slope - value * (9 * square - 3)).clamp_min(0).sqrt()
        root = root - value / (slope + spread).clamp_min(1e-7)
    root, double_det = root[..., None, None], double_det[..., None, None]
    square = root * root
    slope = ((square - 1) * root - double_det).clamp_min(1e-7)
    gram_term = unit @ unit.transpose(-1, -2) @ unit
    return ((square + 1) * unit + 2 * root * cofactor - 2 * gram_term) / slope
