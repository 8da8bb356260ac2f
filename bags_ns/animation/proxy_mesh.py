"""A triangle mesh of the animal, for programs that do not draw Gaussians: a level of the summed opacity field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.gaussians import Gaussians

LEVEL = 0.5
"""Of the summed opacities, where the surface lies."""
CUTOFF = 3.0
"""Standard deviations at which a Gaussian ends."""
MAX_RADIUS = 12
"""Cells to which a Gaussian reaches at most: larger ones would only be fog."""
CHUNK = 4_000_000
"""Values that are computed at once."""
SMALLEST_PART = 0.02
"""Loose parts with fewer than this share of the triangles are left out."""


@dataclass(frozen=True)
class Mesh:
    """P vertices and F triangles, seen from outside anticlockwise."""

    vertices: Float[Tensor, "P 3"]
    """Canonical."""
    faces: Int[Tensor, "F 3"]
    """Indices of vertices."""
    colors: Float[Tensor, "P 3"]
    """RGB in [0, 1], as displayed (sRGB)."""


@torch.no_grad()
def opacity_grid(
    gaussians: Gaussians, low: Float[Tensor, "3"], cell: float, shape: tuple[int, int, int]
) -> Float[Tensor, "X Y Z"]:
    """Sum of opacity times Gaussian at the points low + cell * index; each is widened by half a cell, so that none is missed."""
    covars = gaussians.covars + (0.5 * cell) ** 2 * torch.eye(3).to(gaussians.covars)
    precisions = torch.linalg.inv(covars)
    widest = covars.diagonal(dim1=-2, dim2=-1).amax(-1).sqrt()
    radii = (CUTOFF * widest / cell).ceil().long().clamp(1, MAX_RADIUS)
    nearest = ((gaussians.means - low) / cell).round().long()
    sizes = torch.tensor(shape, device=low.device)
    grid = torch.zeros(math.prod(shape), device=low.device)
    for radius in radii.unique().tolist():
        steps = torch.arange(-radius, radius + 1, device=low.device)
        around = torch.cartesian_prod(steps, steps, steps)
        for members in (radii == radius).nonzero()[:, 0].split(max(1, CHUNK // len(around))):
            cells = nearest[members, None] + around
            offsets = low + cell * cells - gaussians.means[members, None]
            distances = ((offsets @ precisions[members]) * offsets).sum(-1)
            values = gaussians.opacities[members, None] * (-0.5 * distances).exp() * (distances < CUTOFF**2)
            inside = ((cells >= 0) & (cells < sizes)).all(-1)
            flat = (cells[..., 0] * shape[1] + cells[..., 1]) * shape[2] + cells[..., 2]
            grid.index_add_(0, flat[inside], values[inside])
    return grid.reshape(shape)


def _without_specks(faces: np.ndarray, num_vertices: int) -> np.ndarray:
    """Faces of the parts that are large enough."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(num_vertices, num_vertices))
    _, parts = connected_components(graph, directed=False)
    counts = np.bincount(parts[faces[:, 0]])
    return faces[counts[parts[faces[:, 0]]] >= min(SMALLEST_PART * len(faces), counts.max())]


def _simplified(vertices: np.ndarray, faces: np.ndarray, max_triangles: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about `max_triangles`, without the vertices that no face uses."""
    used, flat = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], flat.reshape(-1, 3)
    if len(faces) > max_triangles:
        import fast_simplification

        simplify: Any = fast_simplification.simplify  # its stubs ask for float64 and promise collapses too
        vertices, faces = simplify(vertices.astype(np.float32), faces.astype(np.int32), target_count=max_triangles)
    return vertices, faces


def nearby_colors(gaussians: Gaussians, points: Float[Tensor, "P 3"], cell: float) -> Float[Tensor, "P 3"]:
    """Colours of the eight Gaussians nearest to each point, by opacity and nearness."""
    from scipy.spatial import KDTree

    count = min(8, len(gaussians))
    distances, near = KDTree(gaussians.means.cpu().numpy()).query(points.cpu().numpy(), k=count)
    distances, near = (torch.from_numpy(np.asarray(x).reshape(len(points), count)) for x in (distances, near))
    weights = gaussians.opacities.cpu()[near] * torch.exp(-0.5 * (distances / (2 * cell)) ** 2).float() + 1e-9
    colors = gaussians.colors.cpu()[near]
    return ((weights[..., None] * colors).sum(1) / weights.sum(1, keepdim=True)).clamp(0, 1).to(points)


@torch.no_grad()
def proxy_mesh(gaussians: Gaussians, resolution: int = 128, max_triangles: int = 20_000) -> Mesh:
    """The surface of canonical Gaussians, by marching cubes.

    Args:
        gaussians: without gradients, canonical.
        resolution: cells along the longest side of the animal.
        max_triangles: about the most that the mesh has.

    Raises:
        ImportError: scikit-image or fast-simplification is missing.
        ValueError: there is nothing to see.
    """
    try:
        import fast_simplification  # noqa: F401
        from skimage.measure import marching_cubes
    except ImportError:
        raise ImportError("the proxy mesh needs the extra packages: pip install bags-ns[export]") from None
    opaque = gaussians.opacities > 0.05
    if not bool(opaque.any()):
        raise ValueError("the animal is invisible: no Gaussian has an opacity above 0.05")
    solid = Gaussians(*(getattr(gaussians, n)[opaque].cpu() for n in ("means", "covars", "opacities", "colors")))
    low, high = solid.means.amin(0), solid.means.amax(0)
    cell = max(float((high - low).max()), 1e-3) / resolution
    low = low - 6 * cell
    x, y, z = (((high - low) / cell).ceil().long() + 7).tolist()
    grid = opacity_grid(solid, low, cell, (x, y, z)).numpy()
    grid[[0, -1]] = grid[:, [0, -1]] = grid[:, :, [0, -1]] = 0.0  # closed at the border
    level = min(LEVEL, 0.5 * float(grid.max()))
    vertices, faces, _, _ = marching_cubes(grid, level, gradient_direction="ascent")
    vertices, faces = _simplified(vertices, _without_specks(faces, len(vertices)), max_triangles)
    points = low + cell * torch.from_numpy(vertices.astype(np.float32))
    return Mesh(points, torch.from_numpy(faces.astype(np.int64)), nearby_colors(solid, points, cell))
