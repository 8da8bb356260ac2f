"""What is behind the animal: other frames, brought into a frame's view by homographies, show what it hides there.

A homography per pair of frames is exact for a camera that only turns or a scene that is flat, and close enough for most
hand-held clips; where it is not, the difference is large everywhere and says so itself (`noise`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from bags_ns.data.masks import gray_of, optical_flow

OTHERS = 10
"""Frames that are asked what is behind the animal in one frame."""
MIN_SAMPLES = 3
"""How many of them must have seen a pixel's background before it counts as known."""
STILL = 1.0
"""Pixels by which a pixel may miss the camera's motion and still count as the background's."""
TOLERANCE = 0.7
"""Pixels by which a point may miss the homography that it is said to obey."""


class Background:
    """Registers the frames of a clip with each other, once, and compares each with what is behind the animal."""

    def __init__(self, frames: Sequence[UInt8[np.ndarray, "H W 3"]], advance: Callable[[], None] = lambda: None):
        self._frames = frames
        self._chain = _chain(frames)
        self._views: list[dict[int, Float[np.ndarray, "3 3"]]] = []
        self._still: list[UInt8[np.ndarray, "H W"]] = []
        for index in range(len(frames)):
            self._register(index)
            advance()

    def _register(self, index: int) -> None:
        """Homographies from a frame into others: along the chain of neighbours, then corrected on the pair itself."""
        gray, views = gray_of(self._frames[index]), {}
        still, seen = np.zeros(gray.shape, np.float32), np.full(gray.shape, 1e-6, np.float32)
        for other in np.unique(np.linspace(0, len(self._frames) - 1, OTHERS + 2).round().astype(int)).tolist():
            if other == index:
                continue
            matrix = np.linalg.inv(self._chain[other]) @ self._chain[index]
            flow = optical_flow(gray, _seen(gray_of(self._frames[other]), matrix))
            correction = camera_motion(flow)
            views[other] = matrix if correction is None else matrix @ correction
            inside = _seen(np.ones_like(gray), matrix, cv2.INTER_NEAREST)
            still += inside * (beside_camera(flow, correction) < STILL)
            seen += inside
        self._views.append(views)
        self._still.append(np.clip(255 * still / seen, 0, 255).astype(np.uint8))

    def stillness(self, index: int) -> Float[np.ndarray, "H W"]:
        """In what part of the other frames a pixel's surroundings are seen where they are in this one.

        High on the background; low on what moves, and in a margin of some ten pixels around it.
        """
        return self._still[index].astype(np.float32) / 255

    def difference(
        self, index: int, masks: Mapping[int, Bool[np.ndarray, "H W"]], window: tuple[slice, slice]
    ) -> Float[np.ndarray, "H W"]:
        """By how many of 255 levels a frame's pixels differ from what is behind the animal; NaN where nobody saw that.

        Args:
            index: The frame.
            masks: Silhouettes as far as they are known; they hide the background in the other frames.
            window: Rows and columns that matter; all others are NaN.
        """
        frame = self._frames[index]
        result = np.full(frame.shape[:2], np.nan, np.float32)
        samples = [self._behind(other, matrix, masks)[window] for other, matrix in self._views[index].items()]
        if not samples:
            return result
        plate, counts = _median_of_finite(np.stack(samples))
        # A pixel of error in the registration must not count: edges of the background are everywhere.
        shifts = [np.roll(frame, shift, axis=(0, 1))[window] for shift in _NEIGHBOURS]
        low = np.min([np.abs(shifted.astype(np.float32) - plate).max(axis=-1) for shifted in shifts], axis=0)
        result[window] = np.where(counts >= min(MIN_SAMPLES, len(samples)), low, np.nan)
        return result

    def _behind(
        self, other: int, matrix: Float[np.ndarray, "3 3"], masks: Mapping[int, Bool[np.ndarray, "H W"]]
    ) -> Float[np.ndarray, "H W 3"]:
        """Another frame as this one sees it; infinite where the animal hides the background."""
        sample = _seen(self._frames[other], matrix).astype(np.float32)
        hides = masks.get(other, np.zeros(sample.shape[:2], np.bool_))
        open_ = 1 - cv2.dilate(hides.astype(np.uint8), np.ones((7, 7), np.uint8))
        sample[_seen(open_, matrix, cv2.INTER_NEAREST) == 0] = np.inf
        return sample


_NEIGHBOURS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


def noise(difference: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"]) -> float:
    """Typical difference outside the animal: what registration, light and coding leave."""
    outside = difference[~mask & np.isfinite(difference)]
    return float(np.median(outside)) if len(outside) else float("inf")


def camera_motion(flow: Float[np.ndarray, "H W 2"]) -> Float[np.ndarray, "3 3"] | None:
    """The homography that most of a flow field obeys."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(0, width, 6), np.arange(0, height, 6))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    if len(points) < 8:
        return None
    cv2.setRNGSeed(0)  # the same clip gives the same silhouettes
    matrix, _ = cv2.findHomography(points, points + flow[y.ravel(), x.ravel()], cv2.RANSAC, TOLERANCE)
    return matrix if matrix is not None and abs(np.linalg.det(matrix)) > 1e-6 else None


def beside_camera(
    flow: Float[np.ndarray, "H W 2"], camera: Float[np.ndarray, "3 3"] | None
) -> Float[np.ndarray, "H W"]:
    """Length of what is left of a flow field when the camera's motion is taken out, in pixels."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    points = np.stack([x, y], axis=-1)
    expected = 0 if camera is None else cv2.perspectiveTransform(points, camera) - points
    return np.linalg.norm(flow - expected, axis=-1)


def _chain(frames: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[Float[np.ndarray, "3 3"]]:
    """Homographies from every frame into the first one."""
    chain, before = [np.eye(3)], gray_of(frames[0])
    for index in range(1, len(frames)):
        gray = gray_of(frames[index])
        matrix = camera_motion(optical_flow(gray, before))
        chain.append(chain[-1] if matrix is None else chain[-1] @ matrix)
        before = gray
    return chain


def _seen(
    image: UInt8[np.ndarray, "H W *c"], matrix: Float[np.ndarray, "3 3"], interpolation: int = cv2.INTER_LINEAR
) -> UInt8[np.ndarray, "H W *c"]:
    """The image as seen from where `matrix` comes from; zero outside it."""
    return cv2.warpPerspective(image, matrix, image.shape[1::-1], flags=interpolation | cv2.WARP_INVERSE_MAP)


def _median_of_finite(
    samples: Float[np.ndarray, "K H W 3"],
) -> tuple[Float[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Median of the finite samples of each pixel (the lower one of two), and their number."""
    ordered = np.sort(samples, axis=0)
    counts = np.isfinite(samples[..., 0]).sum(axis=0)
    middle = np.maximum(counts - 1, 0) // 2
    plate = np.take_along_axis(ordered, np.broadcast_to(middle[None, ..., None], (1, *ordered.shape[1:])), axis=0)[0]
    return np.where(np.isfinite(plate), plate, 0).astype(np.float32), counts.astype(np.uint8)
