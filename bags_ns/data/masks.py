"""Operations on boolean silhouettes: carrying them along the picture's motion, closing holes, smoothing in time."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

HOLE_SHARE = 0.01
"""Holes up to this part of the silhouette are filled; larger ones, as between the legs, are holes of the animal."""


def gray_of(rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """Luminance, which is what flow is computed on."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def optical_flow(source: UInt8[np.ndarray, "H W"], target: UInt8[np.ndarray, "H W"]) -> Float[np.ndarray, "H W 2"]:
    """Where each pixel of `source` is in `target`, as an offset in pixels (DIS flow, which needs no weights)."""
    matcher = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    if min(source.shape) < 16:  # smaller than the matcher's patches
        return np.zeros((*source.shape, 2), np.float32)
    return np.asarray(matcher.calc(source, target, np.zeros((*source.shape, 2), np.float32)))


def carry(mask: Bool[np.ndarray, "H W"], flow: Float[np.ndarray, "H W 2"]) -> Float[np.ndarray, "H W"]:
    """The mask of the frame that `flow` points to, seen from the frame that it starts in; soft at the rim."""
    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = np.stack([x, y], axis=-1) + flow
    return np.asarray(
        cv2.remap(mask.astype(np.float32), places.astype(np.float32), np.zeros(0, np.float32), cv2.INTER_LINEAR)
    )


def fill_holes(mask: Bool[np.ndarray, "H W"], share: float = HOLE_SHARE) -> Bool[np.ndarray, "H W"]:
    """The mask without holes smaller than `share` of it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= max(4.0, share * mask.sum())
    small[0] = False  # label 0 is the mask itself
    return mask | small[np.asarray(labels, np.int64)] if count > 1 else mask


def follow_component(
    mask: Bool[np.ndarray, "H W"], before: Bool[np.ndarray, "H W"] | None = None
) -> Bool[np.ndarray, "H W"]:
    """The connected part that shares most pixels with `before` (the largest part without one); parts of it, such as a
    leg cut off by a fence, stay if `before` holds most of them."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    shared = areas if before is None else np.bincount(labels[before], minlength=count).astype(np.float64)
    areas[0] = shared[0] = 0
    keep = np.zeros(count, np.bool_)
    keep[int(np.argmax(shared))] = True
    if before is not None:
        keep |= (shared > 0.5 * np.maximum(areas, 1)) & (areas > 0.002 * mask.sum())
    keep[0] = False
    return keep[np.asarray(labels, np.int64)]


def overlap(first: Bool[np.ndarray, "H W"], second: Bool[np.ndarray, "H W"]) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = int((first | second).sum())
    return float((first & second).sum()) / union if union else 1.0


def smooth_masks(
    masks: Sequence[Bool[np.ndarray, "H W"]], grays: Sequence[UInt8[np.ndarray, "H W"]]
) -> list[Bool[np.ndarray, "H W"]]:
    """Each mask as the majority of itself and its two neighbours, carried to it along the flow.

    A neighbour that does not agree with the frame at all (a cut, or no animal in it) has no vote.
    """
    smoothed = []
    for index, mask in enumerate(masks):
        votes = [mask.astype(np.float32)]
        for other in (index - 1, index + 1):
            if 0 <= other < len(masks):
                vote = carry(masks[other], optical_flow(grays[index], grays[other]))
                if overlap(vote > 0.5, mask) > 0.5:
                    votes.append(vote)
        smoothed.append(np.sum(votes, axis=0) > 0.5 * len(votes) if len(votes) == 3 else mask)
    return smoothed


def box_mask(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> Bool[np.ndarray, "H W"]:
    """True inside a box (x, y, width, height)."""
    inside = np.zeros(shape[:2], np.bool_)
    x, y, width, height = box
    inside[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = True
    return inside
