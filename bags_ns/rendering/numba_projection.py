"""Numba kernels of the projection, forward and backward: `projection.project` for float32 on CPU, some ten times faster.

Scalars are float64 inside, inputs and outputs float32. No fast-math: the comparisons that cull must stay false for NaN.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32, Int32
from numba import njit

from bags_ns.rendering.projection import FAR_PLANE, FRUSTUM_MARGIN, MAX_RADIUS, NEAR_PLANE

# `no_type_check` keeps the tests' type checker from wrapping what numba must compile. Helpers are inlined and not cached themselves:
# a cached kernel that calls a cached helper loses the inlining, and half its speed, when it is loaded from the cache.


@njit(inline="always", error_model="numpy")
@no_type_check
def _limits(focal: float, center: float, size: int) -> tuple[float, float]:
    """Smallest and largest slope at which the perspective is linearised, along one image axis."""
    margin = FRUSTUM_MARGIN * 0.5 * size / focal
    return -center / focal - margin, (size - center) / focal + margin


@njit(inline="always", error_model="numpy")
@no_type_check
def _linearise(
    mean: Float32[np.ndarray, " 3"],
    covar: Float32[np.ndarray, "3 3"],
    viewmat: Float32[np.ndarray, "4 4"],
    K: Float32[np.ndarray, "3 3"],
    width: int,
    height: int,
    position: Float[np.ndarray, " 3"],
    rows: Float[np.ndarray, "2 3"],
    covar_rows: Float[np.ndarray, "2 3"],
) -> None:
    """Fills the camera-space `position` [3], `rows` = J W [2 3] and `covar_rows` = J W Sigma [2 3] of one Gaussian."""
    for i in range(3):
        position[i] = viewmat[i, 0] * mean[0] + viewmat[i, 1] * mean[1] + viewmat[i, 2] * mean[2] + viewmat[i, 3]
    for axis in range(2):
        low, high = _limits(K[axis, axis], K[axis, 2], width if axis == 0 else height)
        slope = min(max(position[axis] / position[2], low), high)
        for j in range(3):
            rows[axis, j] = K[axis, axis] / position[2] * (viewmat[axis, j] - slope * viewmat[2, j])
        for j in range(3):
            covar_rows[axis, j] = (
                rows[axis, 0] * covar[0, j] + rows[axis, 1] * covar[1, j] + rows[axis, 2] * covar[2, j]
            )


@njit(inline="always", error_model="numpy")
@no_type_check
def _dot(a: Float[np.ndarray, " 3"], b: Float[np.ndarray, " 3"]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(inline="always", error_model="numpy")
@no_type_check
def _radius(x: float, y: float, xx: float, yy: float, determinant: float, width: int, height: int) -> int:
    """Three standard deviations of the footprint's longer axis in whole pixels; 0 where it is not drawn."""
    if not (determinant > 0.0 and xx > 0.0):
        return 0
    mean_variance = 0.5 * (xx + yy)
    radius = math.ceil(
        3.0 * math.sqrt(mean_variance + math.sqrt(max(mean_variance * mean_variance - determinant, 0.01)))
    )
    if not (x + radius > 0 and x - radius < width and y + radius > 0 and y - radius < height and radius < MAX_RADIUS):
        return 0
    return int(radius)


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def project_forward(
    means: Float32[np.ndarray, "N 3"],
    covars: Float32[np.ndarray, "N 3 3"],
    viewmats: Float32[np.ndarray, "C 4 4"],
    Ks: Float32[np.ndarray, "C 3 3"],
    width: int,
    height: int,
    eps2d: float,
    means2d: Float32[np.ndarray, "C N 2"],
    conics: Float32[np.ndarray, "C N 3"],
    depths: Float32[np.ndarray, "C N"],
    radii: Int32[np.ndarray, "C N"],
    share: int,
    num_shares: int,
) -> None:
    """Fills the last four arrays, which come in as zeros, for this share of the Gaussians."""
    position, rows, covar_rows = np.empty(3), np.empty((2, 3)), np.empty((2, 3))
    first, end = len(means) * share // num_shares, len(means) * (share + 1) // num_shares
    for camera in range(len(viewmats)):
        viewmat, K = viewmats[camera], Ks[camera]
        for n in range(first, end):
            _linearise(means[n], covars[n], viewmat, K, width, height, position, rows, covar_rows)
            depths[camera, n] = position[2]
            if not (position[2] > NEAR_PLANE and position[2] < FAR_PLANE):
                continue
            x = K[0, 0] * position[0] / position[2] + K[0, 2]
            y = K[1, 1] * position[1] / position[2] + K[1, 2]
            xx, yy = _dot(covar_rows[0], rows[0]) + eps2d, _dot(covar_rows[1], rows[1]) + eps2d
            xy = _dot(covar_rows[0], rows[1])
            determinant = xx * yy - xy * xy
            radii[camera, n] = _radius(x, y, xx, yy, determinant, width, height)
            if radii[camera, n] > 0:
                means2d[camera, n, 0], means2d[camera, n, 1] = x, y
                conics[camera, n, 0], conics[camera, n, 1] = yy / determinant, -xy / determinant
                conics[camera, n, 2] = xx / determinant


@njit(inline="always", error_model="numpy")
@no_type_check
def _covariance_gradient(
    conic: Float32[np.ndarray, " 3"], grad_conic: Float32[np.ndarray, " 3"]
) -> tuple[float, float, float]:
    """Gradient by the symmetric 2 x 2 covariance, -Q G Q for its inverse Q, as (xx, xy, yy) of that matrix."""
    xx, xy, yy = float(conic[0]), float(conic[1]), float(conic[2])
    # The loss depends on the off-diagonal once, the matrix holds it twice: each place has half its gradient.
    g_xx, g_xy, g_yy = float(grad_conic[0]), 0.5 * grad_conic[1], float(grad_conic[2])
    a, b = xx * g_xx + xy * g_xy, xx * g_xy + xy * g_yy
    c, d = xy * g_xx + yy * g_xy, xy * g_xy + yy * g_yy
    return -(a * xx + b * xy), -(a * xy + b * yy), -(c * xy + d * yy)


@njit(inline="always", error_model="numpy")
@no_type_check
def _position_gradient(
    grad_mean2d: Float32[np.ndarray, " 2"],
    grad_rows: Float[np.ndarray, "2 3"],
    position: Float[np.ndarray, " 3"],
    viewmat: Float32[np.ndarray, "4 4"],
    K: Float32[np.ndarray, "3 3"],
    width: int,
    height: int,
    grad_position: Float[np.ndarray, " 3"],
) -> None:
    """Fills the gradient by the camera-space position, from those by the pixel position and by `rows` = J W."""
    grad_position[:] = 0.0
    depth = position[2]
    for axis in range(2):
        low, high = _limits(K[axis, axis], K[axis, 2], width if axis == 0 else height)
        scale, slope = K[axis, axis] / depth, position[axis] / depth
        clamped = min(max(slope, low), high)
        # J holds `scale` at (axis, axis) and `-scale * clamped` at (axis, 2).
        grad_scale = _dot(grad_rows[axis], viewmat[axis]) - clamped * _dot(grad_rows[axis], viewmat[2])
        grad_slope = -scale * _dot(grad_rows[axis], viewmat[2]) if clamped == slope else 0.0
        grad_slope += K[axis, axis] * grad_mean2d[axis]
        grad_position[axis] += grad_slope / depth
        grad_position[2] -= (grad_scale * scale + grad_slope * slope) / depth


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def project_backward(
    means: Float32[np.ndarray, "N 3"],
    covars: Float32[np.ndarray, "N 3 3"],
    viewmats: Float32[np.ndarray, "C 4 4"],
    Ks: Float32[np.ndarray, "C 3 3"],
    width: int,
    height: int,
    conics: Float32[np.ndarray, "C N 3"],
    radii: Int32[np.ndarray, "C N"],
    grad_means2d: Float32[np.ndarray, "C N 2"],
    grad_conics: Float32[np.ndarray, "C N 3"],
    grad_means: Float32[np.ndarray, "N 3"],
    grad_covars: Float32[np.ndarray, "N 3 3"],
    share: int,
    num_shares: int,
) -> None:
    """Adds to the last two gradients, for this share of the Gaussians; the covariances' gradient is symmetric."""
    position, rows, covar_rows = np.empty(3), np.empty((2, 3)), np.empty((2, 3))
    grad_position, grad_rows = np.empty(3), np.empty((2, 3))
    first, end = len(means) * share // num_shares, len(means) * (share + 1) // num_shares
    for camera in range(len(viewmats)):
        viewmat, K = viewmats[camera], Ks[camera]
        for n in range(first, end):
            if radii[camera, n] == 0:
                continue
            _linearise(means[n], covars[n], viewmat, K, width, height, position, rows, covar_rows)
            xx, xy, yy = _covariance_gradient(conics[camera, n], grad_conics[camera, n])
            for j in range(3):
                grad_rows[0, j] = 2.0 * (xx * covar_rows[0, j] + xy * covar_rows[1, j])
                grad_rows[1, j] = 2.0 * (yy * covar_rows[1, j] + xy * covar_rows[0, j])
            for i in range(3):
                for j in range(3):
                    cross = rows[0, i] * rows[1, j] + rows[1, i] * rows[0, j]
                    grad_covars[n, i, j] += xx * rows[0, i] * rows[0, j] + xy * cross + yy * rows[1, i] * rows[1, j]
            _position_gradient(grad_means2d[camera, n], grad_rows, position, viewmat, K, width, height, grad_position)
            for j in range(3):
                for i in range(3):
                    grad_means[n, j] += viewmat[i, j] * grad_position[i]
