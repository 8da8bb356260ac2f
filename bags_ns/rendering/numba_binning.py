"""Numba kernels round the compositing of one view: a row per Gaussian, depth order, a list of Gaussians for each tile, and back.

No fast-math here: the comparisons that drop a Gaussian must stay false for NaN.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit

# Numba's cache looks at the date of a kernel's own file only: after changing these, delete `__pycache__`.
TILE = 16
"""Side of a tile in pixels: gsplat's, since it is part of which pixels a Gaussian touches."""
X, Y, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY, RED, GREEN, BLUE = range(9)
"""Columns of `splats`, and of its gradient."""
NUM_COLUMNS = 9
MIN_ALPHA = np.float32(1.0 / 255.0)
"""Fainter contributions to a pixel are skipped."""

# `no_type_check` keeps the tests' type checker from wrapping what numba must compile.


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def gather_splats(
    means2d: Float32[np.ndarray, "N 2"],
    conics: Float32[np.ndarray, "N 3"],
    opacities: Float32[np.ndarray, " N"],
    colors: Float32[np.ndarray, "N 3"],
    radii: Int32[np.ndarray, " N"],
    width: int,
    height: int,
) -> tuple[Float32[np.ndarray, "N 9"], Int32[np.ndarray, "N 4"]]:
    """The rows that the other kernels read, and the pixels each Gaussian can touch as [x0, x1) x [y0, y1), empty if none.

    That rectangle is the 16 px tiles within the radius, cut to where alpha can reach 1/255: half the width is
    sqrt(2 ln(255 opacity) cov_xx). It gives what the tiles alone give, from a fifth of the pixels.
    """
    splats, rects = np.zeros((len(means2d), NUM_COLUMNS), np.float32), np.zeros((len(means2d), 4), np.int32)
    for n in range(len(means2d)):
        # No fast-math here: the comparison must be false for an opacity that is NaN.
        if not (radii[n] > 0 and opacities[n] >= MIN_ALPHA):
            continue
        splats[n, X:CONIC_XX], splats[n, CONIC_XX:OPACITY] = means2d[n], conics[n]
        splats[n, OPACITY], splats[n, RED:] = opacities[n], colors[n]
        xx, xy, yy = float(conics[n, 0]), float(conics[n, 1]), float(conics[n, 2])
        reach = 2.0 * math.log(255.0 * opacities[n]) / (xx * yy - xy * xy)
        for axis in range(2):
            center, size = float(means2d[n, axis]), width if axis == 0 else height
            half = math.sqrt(max(reach * (yy if axis == 0 else xx), 0.0)) + 0.01  # a little more, against rounding
            low = max(math.ceil(center - half - 0.5), TILE * math.floor((center - radii[n]) / TILE), 0)
            high = min(math.floor(center + half - 0.5) + 1, TILE * math.ceil((center + radii[n]) / TILE), size)
            rects[n, 2 * axis], rects[n, 2 * axis + 1] = low, max(low, high)
    return splats, rects


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def depth_order(depths: Float32[np.ndarray, " N"]) -> Int32[np.ndarray, " N"]:
    """Indices from near to far, ties in their order: a radix sort, as positive floats sort like their bits (10x `argsort`)."""
    keys = depths.view(np.int32)
    order, other = np.arange(len(keys)).astype(np.int32), np.empty(len(keys), np.int32)
    starts = np.empty(2049, np.int32)
    for shift in (0, 11, 22):
        starts[:] = 0
        for n in range(len(keys)):
            starts[((keys[n] >> shift) & 2047) + 1] += 1
        for digit in range(2047):
            starts[digit + 1] += starts[digit]
        for k in range(len(keys)):
            digit = (keys[order[k]] >> shift) & 2047
            other[starts[digit]] = order[k]
            starts[digit] += 1
        order, other = other, order
    return order


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def bin_by_tile(
    rects: Int32[np.ndarray, "N 4"], order: Int32[np.ndarray, " N"], width: int, height: int
) -> tuple[Int32[np.ndarray, " tiles_and_one"], Int32[np.ndarray, " pairs"]]:
    """Where each tile's list starts, and all the lists, one after another: indices of Gaussians from near to far."""
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    starts = np.zeros(tiles_x * tiles_y + 1, np.int32)
    for x0, x1, y0, y1 in rects:
        if x0 < x1 and y0 < y1:
            for tile_y in range(y0 // TILE, (y1 - 1) // TILE + 1):
                for tile_x in range(x0 // TILE, (x1 - 1) // TILE + 1):
                    starts[tile_y * tiles_x + tile_x + 1] += 1
    for tile in range(tiles_x * tiles_y):
        starts[tile + 1] += starts[tile]
    ids, ends = np.empty(starts[-1], np.int32), starts[:-1].copy()
    for n in order:
        x0, x1, y0, y1 = rects[n]
        if x0 < x1 and y0 < y1:
            for tile_y in range(y0 // TILE, (y1 - 1) // TILE + 1):
                for tile_x in range(x0 // TILE, (x1 - 1) // TILE + 1):
                    tile = tile_y * tiles_x + tile_x
                    ids[ends[tile]] = n
                    ends[tile] += 1
    return starts, ids


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def sum_gradients(
    gradients: Float32[np.ndarray, "pairs 9"], ids: Int32[np.ndarray, " pairs"], total: Float32[np.ndarray, "N 9"]
) -> None:
    """Adds the pairs' gradients to their Gaussians', always in the same order, so that every run gives the same bits."""
    for k in range(len(ids)):
        for column in range(total.shape[1]):
            total[ids[k], column] += gradients[k, column]
