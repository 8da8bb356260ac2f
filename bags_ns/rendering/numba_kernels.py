"""Numba kernels that composite projected Gaussians on the CPU, front to back in 16 x 16 tiles, and their hand-written adjoint.

Everything a kernel needs of one Gaussian lies in one row of `splats` [N 9] (columns: `numba_binning`); gradients are alike.
Each pixel row of a tile is a fixed-width loop that the compiler turns into vector instructions, so the state of a tile is laid out
row by row. The rules are those of gsplat 1.4's CUDA kernels: alpha at most 0.999, skipped below 1/255, a pixel is done when its
transmittance would fall to 1e-4, and a Gaussian touches only the 16 px tiles within its radius.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit

from bags_ns.rendering.numba_binning import (
    BLUE,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    GREEN,
    MIN_ALPHA,
    OPACITY,
    RED,
    TILE,
    X,
    Y,
)

_MAX_ALPHA = np.float32(0.999)
_MIN_TRANSMITTANCE = np.float32(1e-4)
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_STOP_CHECK_EVERY = 32
# Planes of a tile's state: transmittance, the colour so far, the alpha so far.
_T, _R, _G, _B, _A = range(5)
# The adjoint's state has the pixel's gradients there instead, and the loss's share of what is behind (their product with colours).
_BEHIND = 5
# Sums over a row, of the gradient by sigma (the exponent, negated) times powers of y, and by the other columns.
_SIGMA, _SIGMA_Y, _SIGMA_YY, _OPACITY, _RED, _GREEN, _BLUE = range(7)

# `no_type_check` keeps the tests' type checker from wrapping what numba must compile. Helpers are inlined and not cached themselves:
# a cached kernel that calls a cached helper loses the inlining, and half its speed, when it is loaded from the cache.


@njit(inline="always", fastmath=True, error_model="numpy")
@no_type_check
def _exp(x: np.float32) -> np.float32:
    """e^x in plain arithmetic that vectorises: 2^n times a polynomial of the rest (Cephes' `expf`, accurate to 2e-7)."""
    x = max(x, np.float32(-87.0))  # below, the exponent bits would wrap round
    n = np.rint(x * np.float32(1.44269504))
    r = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + _ONE
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always", fastmath=True, error_model="numpy")
@no_type_check
def _composite_row(
    state: Float32[np.ndarray, "5 tile"], splat: Float32[np.ndarray, " 9"], x: np.float32, y: np.float32
) -> None:
    """Puts one Gaussian behind what one row of a tile shows; `x`, `y`: the first pixel's centre, from the Gaussian's."""
    quadratic, linear = _HALF * splat[CONIC_XX], splat[CONIC_XY] * y
    constant, opacity = _HALF * splat[CONIC_YY] * y * y, splat[OPACITY]
    red, green, blue = splat[RED], splat[GREEN], splat[BLUE]
    for i in range(TILE):
        dx = np.float32(i) + x
        alpha = min(_MAX_ALPHA, opacity * _exp(-(quadratic * dx * dx + linear * dx + constant)))
        alpha = alpha if alpha >= MIN_ALPHA else _ZERO
        transmittance = state[_T, i]
        rest = transmittance * (_ONE - alpha)
        # The Gaussian that would use up the light is left out, and a transmittance of 0 says that the pixel is done.
        goes_on = rest > _MIN_TRANSMITTANCE
        weight = alpha * transmittance if goes_on else _ZERO
        state[_T, i] = rest if goes_on else _ZERO
        state[_R, i] += weight * red
        state[_G, i] += weight * green
        state[_B, i] += weight * blue
        state[_A, i] += weight


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
@no_type_check
def composite_forward(
    splats: Float32[np.ndarray, "N 9"],
    rects: Int32[np.ndarray, "N 4"],
    starts: Int32[np.ndarray, " tiles_and_one"],
    ids: Int32[np.ndarray, " pairs"],
    background: Float32[np.ndarray, " 3"],
    rgb: Float32[np.ndarray, "H W 3"],
    alpha: Float32[np.ndarray, "H W"],
    ends: Int32[np.ndarray, " tiles"],
    share: int,
    num_shares: int,
) -> None:
    """Fills `rgb` (on the background), `alpha`, and where in its list each tile was done, for this share of the tiles."""
    height, width = alpha.shape
    tiles_x = -(-width // TILE)
    state = np.empty((TILE, 5, TILE), np.float32)
    for tile in range(share, len(ends), num_shares):
        left, top = tile % tiles_x * TILE, tile // tiles_x * TILE
        state[:] = _ZERO
        state[:, _T] = _ONE
        k = starts[tile]
        while k < starts[tile + 1]:
            if (k - starts[tile]) % _STOP_CHECK_EVERY == _STOP_CHECK_EVERY - 1 and state[:, _T].max() <= _ZERO:
                break
            n = ids[k]
            x = np.float32(left) + _HALF - splats[n, X]
            for row in range(max(rects[n, 2] - top, 0), min(rects[n, 3] - top, TILE)):
                _composite_row(state[row], splats[n], x, np.float32(top + row) + _HALF - splats[n, Y])
            k += 1
        ends[tile] = k
        for row in range(min(TILE, height - top)):
            for i in range(min(TILE, width - left)):
                rest = _ONE - state[row, _A, i]
                alpha[top + row, left + i] = state[row, _A, i]
                for channel in range(3):
                    rgb[top + row, left + i, channel] = state[row, _R + channel, i] + rest * background[channel]


@njit(inline="always", fastmath=True, error_model="numpy")
@no_type_check
def _adjoint_row(
    state: Float32[np.ndarray, "6 tile"],
    sums: Float32[np.ndarray, "7 tile"],
    splat: Float32[np.ndarray, " 9"],
    x: np.float32,
    y: np.float32,
) -> None:
    """`_composite_row` again, adding to `sums`, lane by lane, what one Gaussian gets from this row."""
    quadratic, linear = _HALF * splat[CONIC_XX], splat[CONIC_XY] * y
    constant, opacity = _HALF * splat[CONIC_YY] * y * y, splat[OPACITY]
    red, green, blue = splat[RED], splat[GREEN], splat[BLUE]
    for i in range(TILE):
        dx = np.float32(i) + x
        falloff = _exp(-(quadratic * dx * dx + linear * dx + constant))
        unclamped = opacity * falloff
        alpha = min(_MAX_ALPHA, unclamped)
        alpha = alpha if alpha >= MIN_ALPHA else _ZERO
        transmittance = state[_T, i]
        rest = transmittance * (_ONE - alpha)
        goes_on = rest > _MIN_TRANSMITTANCE
        weight = alpha * transmittance if goes_on else _ZERO
        state[_T, i] = rest if goes_on else _ZERO
        grad_weight = state[_R, i] * red + state[_G, i] * green + state[_B, i] * blue + state[_A, i]
        behind = state[_BEHIND, i] - weight * grad_weight
        state[_BEHIND, i] = behind
        # More alpha here shows more of this Gaussian and less of all behind it.
        grad_alpha = transmittance * grad_weight - behind / (_ONE - alpha)
        grad_alpha = grad_alpha if weight > _ZERO else _ZERO
        grad_opacity = falloff * (grad_alpha if unclamped <= _MAX_ALPHA else _ZERO)
        grad_sigma = -opacity * grad_opacity
        sums[_SIGMA, i] += grad_sigma
        sums[_SIGMA_Y, i] += grad_sigma * y
        sums[_SIGMA_YY, i] += grad_sigma * y * y
        sums[_OPACITY, i] += grad_opacity
        sums[_RED, i] += weight * state[_R, i]
        sums[_GREEN, i] += weight * state[_G, i]
        sums[_BLUE, i] += weight * state[_B, i]


@njit(inline="always", fastmath=True, error_model="numpy")
@no_type_check
def _finish_gradient(
    sums: Float32[np.ndarray, "7 tile"],
    splat: Float32[np.ndarray, " 9"],
    x: np.float32,
    gradient: Float32[np.ndarray, " 9"],
) -> None:
    """Adds the lanes up into one Gaussian's gradient; sigma = xx dx^2 / 2 + xy dx dy + yy dy^2 / 2."""
    sigma_x, sigma_y, sigma_xx, sigma_xy, sigma_yy = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
    opacity, red, green, blue = _ZERO, _ZERO, _ZERO, _ZERO
    for i in range(TILE):
        dx = np.float32(i) + x
        sigma_x += sums[_SIGMA, i] * dx
        sigma_y += sums[_SIGMA_Y, i]
        sigma_xx += sums[_SIGMA, i] * dx * dx
        sigma_xy += sums[_SIGMA_Y, i] * dx
        sigma_yy += sums[_SIGMA_YY, i]
        opacity += sums[_OPACITY, i]
        red += sums[_RED, i]
        green += sums[_GREEN, i]
        blue += sums[_BLUE, i]
    gradient[X] = -(splat[CONIC_XX] * sigma_x + splat[CONIC_XY] * sigma_y)
    gradient[Y] = -(splat[CONIC_XY] * sigma_x + splat[CONIC_YY] * sigma_y)
    gradient[CONIC_XX], gradient[CONIC_XY], gradient[CONIC_YY] = _HALF * sigma_xx, sigma_xy, _HALF * sigma_yy
    gradient[OPACITY], gradient[RED], gradient[GREEN], gradient[BLUE] = opacity, red, green, blue


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
@no_type_check
def composite_backward(
    splats: Float32[np.ndarray, "N 9"],
    rects: Int32[np.ndarray, "N 4"],
    starts: Int32[np.ndarray, " tiles_and_one"],
    ids: Int32[np.ndarray, " pairs"],
    background: Float32[np.ndarray, " 3"],
    rgb: Float32[np.ndarray, "H W 3"],
    alpha: Float32[np.ndarray, "H W"],
    ends: Int32[np.ndarray, " tiles"],
    grad_rgb: Float32[np.ndarray, "H W 3"],
    grad_alpha: Float32[np.ndarray, "H W"],
    gradients: Float32[np.ndarray, "pairs 9"],
    share: int,
    num_shares: int,
) -> None:
    """Fills the gradient of each pair of tile and Gaussian (rows as in `ids`), for this share of the tiles.

    Walks front to back as `composite_forward` does. What lies behind a Gaussian is the pixel's total less what came before it.
    """
    height, width = alpha.shape
    tiles_x = -(-width // TILE)
    state, sums = np.empty((TILE, 6, TILE), np.float32), np.empty((7, TILE), np.float32)
    for tile in range(share, len(ends), num_shares):
        left, top = tile % tiles_x * TILE, tile // tiles_x * TILE
        state[:] = _ZERO
        state[:, _T] = _ONE
        for row in range(min(TILE, height - top)):
            for i in range(min(TILE, width - left)):
                # alpha takes the background away; without it, rgb is rgb - (1 - alpha) background.
                state[row, _A, i] = grad_alpha[top + row, left + i]
                state[row, _BEHIND, i] = grad_alpha[top + row, left + i] * alpha[top + row, left + i]
                for channel in range(3):
                    grad = grad_rgb[top + row, left + i, channel]
                    state[row, _R + channel, i] = grad
                    state[row, _A, i] -= grad * background[channel]
                    state[row, _BEHIND, i] += grad * (rgb[top + row, left + i, channel] - background[channel])
        for k in range(starts[tile], ends[tile]):
            n = ids[k]
            x = np.float32(left) + _HALF - splats[n, X]
            sums[:] = _ZERO
            for row in range(max(rects[n, 2] - top, 0), min(rects[n, 3] - top, TILE)):
                _adjoint_row(state[row], sums, splats[n], x, np.float32(top + row) + _HALF - splats[n, Y])
            _finish_gradient(sums, splats[n], x, gradients[k])
