"""Points to start the Gaussians from, in the canonical frame's pose: a visual hull, or an inflated silhouette.

Where the cameras see the animal from all round, points fill the part of a ball that the canonical silhouette and nearly
all others allow. Where they do not (a fixed camera, or one that walks along one side), silhouettes say little about
depth; the canonical one is inflated: its half-thickness at each pixel is that of the union of the balls that fit in the
silhouette, so that a disc becomes a ball and a stripe a cylinder; points are spread over somewhat less, since bodies are
narrower than they are high. Views from an arc say how far its plane leans towards the camera, and how far away it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from bags_ns.data.images import FOREGROUND, DataError

ALIKE_SPREAD = math.radians(25.0)
"""Views whose directions differ by less than this do not tell where their rays meet."""
HULL_SPREAD = math.radians(100.0)
"""Views must differ by this much for a hull. On the walking fox and husky, against held-out silhouettes from all sides,
the inflated silhouette wins up to 85 degrees (mean IoU .62 / .67; hulls .49 / .57) and the hull from 128 (.67 / .69)."""
HULL_AGREEMENT = 0.9
"""Part of the other silhouettes that a point of the hull is in: not all of them, for the animal moves."""
MIN_AGREEMENT = 0.5
"""Views that agree less than this anywhere do not show one animal near the place that was searched."""
HULL_CELLS = 96
"""Cells of the hull's grid across the ball."""
LEANS = np.linspace(-1.0, 1.0, 21)
"""Slopes of the inflated silhouette's plane that are tried: change of depth over change across."""
PUSHES = np.linspace(-0.1, 0.1, 21)
"""Ways along the canonical camera's rays that are tried, in lengths of the animal."""
LEAN_SIDE, LEAN_POINTS = 96, 5_000
"""Resolution in pixels, and number of points, at which they are compared with the other silhouettes."""
THICKNESS = 0.8
"""Part of the inflated thickness that points are given: bodies are narrower than they are high."""
INFLATION_SIDE = 256
"""Resolution in pixels, of the longer side, at which a silhouette is inflated."""


@dataclass(frozen=True, eq=False)
class View:
    """A silhouette and the camera that saw it."""

    alpha: UInt8[np.ndarray, "H W"]
    intrinsics: Float[np.ndarray, "3 3"]
    """In pixels of `alpha`, with pixel centres at half-integers."""
    camera_to_world: Float[np.ndarray, "4 4"]
    """OpenGL pose."""

    def project(self, points: Float[np.ndarray, "N 3"]) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, " N"]]:
        """Pixels at which world points are seen, and their depths (negative behind the camera)."""
        local = (points - self.camera_to_world[:3, 3]) @ self.camera_to_world[:3, :3] * np.array([1.0, -1.0, -1.0])
        depth = np.where(np.abs(local[:, 2]) < 1e-9, 1e-9, local[:, 2])
        return (local[:, :2] / depth[:, None]) @ self.intrinsics[:2, :2].T + self.intrinsics[:2, 2], local[:, 2]

    def unproject(self, pixels: Float[np.ndarray, "N 2"], depth: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 3"]:
        """World points seen at pixels in given depths."""
        rays = np.concatenate([pixels, np.ones_like(pixels[:, :1])], axis=1) @ np.linalg.inv(self.intrinsics).T
        local = rays * depth[:, None] * np.array([1.0, -1.0, -1.0])
        return local @ self.camera_to_world[:3, :3].T + self.camera_to_world[:3, 3]

    def contains(self, points: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, " N"]:
        """Which world points are seen inside the silhouette."""
        pixels, depth = self.project(points)
        height, width = self.alpha.shape
        column, row = (np.floor(np.clip(pixels, -1, 1e6)).astype(np.int64)).T
        visible = (depth > 0) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
        return visible & (self.alpha[row.clip(0, height - 1), column.clip(0, width - 1)] >= FOREGROUND)

    def centroid_ray(self) -> Float[np.ndarray, " 3"]:
        """World direction, of length 1, in which the middle of the silhouette is seen."""
        rows, columns = np.nonzero(self.alpha >= FOREGROUND)
        middle = np.array([[columns.mean() + 0.5, rows.mean() + 0.5]])
        ray = self.unproject(middle, np.ones(1))[0] - self.camera_to_world[:3, 3]
        return ray / np.linalg.norm(ray)


def seed_points(
    canonical: View,
    others: Sequence[View],
    rgb: UInt8[np.ndarray, "H W 3"],
    num_points: int,
    radius: float,
    seed: int = 0,
) -> tuple[Float[Tensor, "N 3"], UInt8[Tensor, "N 3"]]:
    """Exactly `num_points` points inside the canonical silhouette, and their colours.

    Args:
        canonical: The canonical frame.
        others: Other frames; they may have lower resolutions.
        rgb: The canonical frame's colours, seen at the points.
        num_points: How many points.
        radius: Of the ball that the hull is looked for in, in world units.
        seed: Of the random numbers; the same gives the same points.
    """
    generator = np.random.default_rng(seed)
    views = [view for view in (canonical, *others) if (view.alpha >= FOREGROUND).any()]
    spread = direction_spread(views)
    centre = scene_centre(canonical, views, spread)
    if spread < HULL_SPREAD:
        points = sample_inflated(canonical, centre, num_points, generator)
        if spread >= ALIKE_SPREAD:
            points = best_placed(points, canonical, views[1:])
    else:
        points = sample_hull(canonical, views[1:], centre, radius, num_points, generator)
    pixels, _ = canonical.project(points)
    column, row = np.floor(pixels).astype(np.int64).T
    colours = rgb[row.clip(0, rgb.shape[0] - 1), column.clip(0, rgb.shape[1] - 1)]
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(colours.copy())


def direction_spread(views: Sequence[View]) -> float:
    """Largest angle, in radians, between the directions of two views towards the animal's middle."""
    return widest_angle(rays_of(views)[1])


def widest_angle(directions: Float[np.ndarray, "V 3"]) -> float:
    """Largest angle, in radians, between two of some directions of length 1."""
    return float(np.arccos(np.clip(directions @ directions.T, -1.0, 1.0)).max())


def scene_centre(canonical: View, views: Sequence[View], spread: float) -> Float[np.ndarray, " 3"]:
    """The animal's middle: the origin, where most views see it on the animal, else where the views' rays meet."""
    if np.mean([_sees_origin(view) for view in views]) > 0.5:
        return np.zeros(3)
    position, ray = canonical.camera_to_world[:3, 3], canonical.centroid_ray()
    if spread >= ALIKE_SPREAD:
        return meeting_point(*rays_of(views))
    rows, columns = np.nonzero(canonical.alpha >= FOREGROUND)
    longer = max(np.ptp(columns), np.ptp(rows)) + 1  # no depth is known: the animal's longer side becomes one unit
    return position + ray * canonical.intrinsics[0, 0] / longer


def _sees_origin(view: View) -> bool:
    """Whether the world's origin is seen within the box of a silhouette."""
    ((x, y),), (depth,) = view.project(np.zeros((1, 3)))
    rows, columns = np.nonzero(view.alpha >= FOREGROUND)
    return bool(depth > 0 and columns.min() <= x <= columns.max() + 1 and rows.min() <= y <= rows.max() + 1)


def rays_of(views: Sequence[View]) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, "V 3"]]:
    """Positions of the cameras, and directions of length 1 to the middles of the silhouettes."""
    positions = np.stack([view.camera_to_world[:3, 3] for view in views])
    return positions, np.stack([view.centroid_ray() for view in views])


def meeting_point(positions: Float[np.ndarray, "V 3"], directions: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, " 3"]:
    """The point with the least squared distance to rays whose directions have length 1."""
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    return np.linalg.solve(across.sum(axis=0), (across @ positions[..., None]).sum(axis=0))[:, 0]


def inflate(inside: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Half-thickness, in pixels, of the union of all balls that lie in the plane of a silhouette and fit into it.

    A ball of radius D(q), the distance from pixel q to the outline, has half-thickness sqrt(D(q)^2 - |p - q|^2) at p.
    The maximum over q is a dilation by a parabola, which separates into rows and columns. Within one ball of radius R
    it is sqrt(2 R d - d^2) at the distance d from the outline.
    """
    padded = np.pad(inside, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1].astype(np.float64)
    # Its last bit depends on where in memory cv2 finds the picture; squares are whole numbers.
    distance = np.sqrt(np.rint(distance**2))
    # To the outline, which runs half a pixel before the centre of the nearest outer pixel.
    squared = np.where(inside, np.maximum(distance - 0.5, 0.25) ** 2, -np.inf)
    for _ in range(2):
        squared = _dilate_rows(squared).T
    return np.where(inside, np.sqrt(np.maximum(squared, 0.0)), 0.0)


def _dilate_rows(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """The maximum over i of values[:, i] - (j - i)^2, for each j."""
    steps = np.arange(values.shape[1])
    parabolas = (steps[:, None] - steps[None]) ** 2
    return np.stack([(row[None] - parabolas).max(axis=1) for row in values])


def sample_inflated(
    view: View, centre: Float[np.ndarray, " 3"], num_points: int, generator: np.random.Generator
) -> Float[np.ndarray, "N 3"]:
    """Points spread over the surface of the inflated silhouette, whose middle plane lies at the depth of `centre`."""
    inside = view.alpha >= FOREGROUND
    factor = min(1.0, INFLATION_SIDE / max(inside.shape))
    small = cv2.resize(inside.astype(np.float32), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) >= 0.5
    thickness = (
        cv2.resize(inflate(small).astype(np.float32), inside.shape[::-1], interpolation=cv2.INTER_LINEAR) / factor
    )
    thickness = np.where(inside, np.maximum(thickness, 0.5), 0.0).ravel().astype(np.float64)
    picked = generator.choice(np.flatnonzero(inside), num_points)
    rows, columns = np.divmod(picked, inside.shape[1])
    pixels = np.stack([columns, rows], axis=1) + generator.uniform(0.001, 0.999, (num_points, 2))
    middle = float(view.project(centre[None])[1][0])
    half = THICKNESS * thickness[picked] * middle / view.intrinsics[0, 0]
    # On the surface, front and back: what lies inside is never seen.
    side = generator.choice([-1.0, 1.0], num_points) * generator.uniform(0.8, 1.0, num_points)
    return view.unproject(pixels, middle + side * half)


def best_placed(points: Float[np.ndarray, "N 3"], canonical: View, others: Sequence[View]) -> Float[np.ndarray, "N 3"]:
    """The points leaned and pushed in depth as the other silhouettes have it; each stays on its ray from the canonical camera."""
    few = points[:: max(1, len(points) // LEAN_POINTS)]
    pictures = [_small_silhouette(view) for view in others]
    length = float(np.ptp(points, axis=0).max())

    def agreement(slope: float, push: float) -> float:
        placed = pushed(lean(few, canonical, slope), canonical, push * length)
        return float(np.mean([_overlap(placed, *pair) for pair in zip(others, pictures, strict=True)]))

    slope = max(LEANS, key=lambda slope: agreement(slope, 0.0))
    push = max(PUSHES, key=lambda push: agreement(slope, push))
    slope = max(LEANS, key=lambda slope: agreement(slope, push))
    return pushed(lean(points, canonical, slope), canonical, push * length)


def pushed(points: Float[np.ndarray, "N 3"], view: View, way: float) -> Float[np.ndarray, "N 3"]:
    """Points that look the same from a view, and are farther from it by `way` in the mean."""
    position = view.camera_to_world[:3, 3]
    return position + (points - position) * (1 + way / float(view.project(points)[1].mean()))


def lean(points: Float[np.ndarray, "N 3"], view: View, slope: float) -> Float[np.ndarray, "N 3"]:
    """Points moved along their rays from a view, so that depth changes by `slope` times the way across, to the right."""
    position, right = view.camera_to_world[:3, 3], view.camera_to_world[:3, 0]
    across, (_, depth) = points @ right, view.project(points)
    return position + (points - position) * (1 + slope * (across - across.mean()) / depth)[:, None]


def _small_silhouette(view: View) -> Bool[np.ndarray, "h w"]:
    """The cells of a view's picture onto which pixels of its silhouette fall."""
    rows, columns = np.nonzero(view.alpha >= FOREGROUND)
    return _covered(np.stack([columns, rows], axis=1) + 0.5, view)


def _overlap(points: Float[np.ndarray, "N 3"], view: View, silhouette: Bool[np.ndarray, "h w"]) -> float:
    """IoU of a view's small silhouette with the cells onto which points fall."""
    pixels, depth = view.project(points)
    covered = _covered(pixels[depth > 0], view)
    return float((covered & silhouette).sum() / max(1, (covered | silhouette).sum()))


def _covered(pixels: Float[np.ndarray, "N 2"], view: View) -> Bool[np.ndarray, "h w"]:
    """Which cells of a view's picture, at most `LEAN_SIDE` along its longer side, hold some of the pixels."""
    size = np.array(view.alpha.shape[::-1])
    cells = np.maximum(1, np.rint(size * min(1.0, LEAN_SIDE / size.max()))).astype(np.int64)
    places = np.floor(np.clip(pixels * cells / size, -1, 1e6)).astype(np.int64)
    columns, rows = places[((places >= 0) & (places < cells)).all(axis=1)].T
    covered = np.zeros(cells[::-1], bool)
    covered[rows, columns] = True
    return covered


def sample_hull(
    canonical: View,
    others: Sequence[View],
    centre: Float[np.ndarray, " 3"],
    radius: float,
    num_points: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "N 3"]:
    """Points spread evenly through the visual hull inside a ball, all of them inside the canonical silhouette."""
    cell = 2 * radius / HULL_CELLS
    axis = (np.arange(HULL_CELLS) + 0.5) * cell - radius
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = cells[np.linalg.norm(cells, axis=1) <= radius] + centre
    cells = cells[canonical.contains(cells)]
    agreement = np.mean([view.contains(cells) for view in others], axis=0)
    best = float(np.max(agreement, initial=0.0))
    cells = cells[agreement >= min(HULL_AGREEMENT, best)]
    if best < MIN_AGREEMENT:
        raise DataError(
            f"No point within {radius} of {np.round(centre, 2).tolist()} is inside the silhouettes; set --seed-radius to "
            "half the animal's length in the cameras' units, or check the cameras."
        )
    points = cells[generator.integers(len(cells), size=num_points)]
    jittered = points + generator.uniform(-0.5, 0.5, points.shape) * cell
    inside = canonical.contains(jittered)  # jitter at the rim may leave the silhouette: the cell's middle does not
    return np.where(inside[:, None], jittered, points)
