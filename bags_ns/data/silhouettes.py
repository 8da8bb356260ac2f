"""What is measured of each frame's silhouette, and the choice of the canonical frame from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from bags_ns.data.images import FOREGROUND

MIN_AREA = 16
"""Pixels below which a silhouette counts as missing."""
OUTLINE_SIZE = 96
"""Square root of the area, in pixels, at which outlines are measured: gaps between legs are still there, ragged edges are not."""


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """Measures of T silhouettes, in pixels of their images (pixel i covers [i, i + 1))."""

    areas: Int[np.ndarray, " T"]
    """Pixels inside; a frame without an animal has fewer than `MIN_AREA`."""
    centroids: Float[np.ndarray, "T 2"]
    """Mean x, y."""
    boxes: Int[np.ndarray, "T 4"]
    """Left, top, right, bottom edge of all that is inside."""
    robust_sizes: Float[np.ndarray, "T 2"]
    """Width and height between the 1st and the 99th percentile of the pixels, so that specks do not count."""
    touches_border: Bool[np.ndarray, " T"]
    """Whether the animal may reach out of the picture."""
    sharpness: Float[np.ndarray, " T"]
    """Variance of the Laplacian inside: low in blurred pictures."""
    outlines: Float[np.ndarray, " T"]
    """Length of the outline, holes included, in square roots of the area: long where limbs stand apart."""
    image_sizes: Int[np.ndarray, "T 2"]
    """Width and height of the images."""

    def __len__(self) -> int:
        return len(self.areas)

    def where(self, kept: Bool[np.ndarray, " T"]) -> Silhouettes:
        """The measures of the frames that are kept."""
        return Silhouettes(**{item.name: getattr(self, item.name)[kept] for item in fields(self)})


def measure_silhouettes(frames: Iterable[UInt8[np.ndarray, "H W 4"]]) -> Silhouettes:
    """Measures of the frames' silhouettes, read one after another."""
    columns = list(zip(*(_measure(frame) for frame in frames), strict=True))
    return Silhouettes(*(np.array(column) for column in columns))


def _measure(rgba: UInt8[np.ndarray, "H W 4"]) -> tuple[object, ...]:
    """One value for each field of `Silhouettes`."""
    inside = rgba[..., 3] >= FOREGROUND
    area, size = int(inside.sum()), [inside.shape[1], inside.shape[0]]
    if area < MIN_AREA:
        return area, [0.0, 0.0], [0, 0, 1, 1], [1.0, 1.0], False, 0.0, 0.0, size
    spans = [_span(inside.sum(axis=axis)) for axis in (0, 1)]
    (left, right, x, width), (top, bottom, y, height) = spans
    border = left == 0 or top == 0 or right == inside.shape[1] or bottom == inside.shape[0]
    cropped = inside[top:bottom, left:right]
    sharpness = _sharpness(rgba[top:bottom, left:right], cropped)
    return area, [x, y], [left, top, right, bottom], [width, height], border, sharpness, _outline(cropped), size


def _span(counts: Int[np.ndarray, " N"]) -> tuple[int, int, float, float]:
    """First edge, last edge, mean position and 1-99 percentile extent of pixels counted along one axis."""
    filled = np.flatnonzero(counts)
    cumulative = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    low, high = np.interp([0.01, 0.99], cumulative, np.arange(len(cumulative)))
    mean = float((counts * (np.arange(len(counts)) + 0.5)).sum() / counts.sum())
    return int(filled[0]), int(filled[-1]) + 1, mean, float(max(high - low, 1.0))


def _sharpness(rgba: UInt8[np.ndarray, "H W 4"], inside: Bool[np.ndarray, "H W"]) -> float:
    gray = cv2.cvtColor(rgba[..., :3], cv2.COLOR_RGB2GRAY)
    core = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # the outline is sharp in every cut-out
    return float(cv2.Laplacian(gray, cv2.CV_32F)[core].var()) if core.any() else 0.0


def _outline(inside: Bool[np.ndarray, "H W"]) -> float:
    padded = np.pad(inside.astype(np.float32), 2)
    factor = OUTLINE_SIZE / float(np.sqrt(inside.sum()))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    small = (cv2.resize(padded, None, fx=factor, fy=factor, interpolation=method) >= 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return sum(cv2.arcLength(contour, closed=True) for contour in contours) / OUTLINE_SIZE


def canonical_index(silhouettes: Silhouettes, numbers: Sequence[int], asked: int) -> int:
    """Position of the canonical frame: the source frame `asked` for (or the nearest that is used); below 0, the best."""
    return choose_canonical(silhouettes) if asked < 0 else int(np.abs(np.array(numbers) - asked).argmin())


def choose_canonical(silhouettes: Silhouettes) -> int:
    """The frame that shows the animal best: large, whole, not blurred, limbs apart, near the middle of the clip on ties."""
    count = len(silhouettes)
    share = silhouettes.areas / max(1, silhouettes.areas.max())
    relative_sharpness = silhouettes.sharpness / max(1e-6, float(np.median(silhouettes.sharpness)))
    blur = np.clip(0.5 - relative_sharpness, 0.0, 0.5)
    distance = np.abs(np.arange(count) - (count - 1) / 2) / count
    apart = silhouettes.outlines / max(1e-6, float(silhouettes.outlines.max()))
    # A cut animal loses to any whole one; the middle decides between areas and outlines within a fifth: motion is tracked
    # outward from the canonical frame, and its errors add up over half as many frames. Legs that hide each other there get
    # one leg's Gaussians.
    return int(np.argmax(share + apart - silhouettes.touches_border - blur - 0.6 * distance))
