"""Silhouettes without any network: colour models (GrabCut) from a box or from motion, carried from frame to frame.

Works where the animal's colours differ from what is around it. `box` on the first frame is the safer start; without
one, whatever moves against the camera's own motion is taken for the animal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from bags_ns.data.background import Background, noise
from bags_ns.data.images import DataError
from bags_ns.data.masks import box_mask, carry, fill_holes, follow_component, gray_of, optical_flow, overlap

Rgb = UInt8[np.ndarray, "H W 3"]
Mask = Bool[np.ndarray, "H W"]

RIM = 0.012
"""Half width of the band around the carried outline that is decided anew, as a part of the picture's longer side."""
SURROUNDINGS = 4.0
"""How many rims around the animal's box the colour models look at."""
SAME, OTHER = 2.5, 5.0
"""Below / above so many times the noise, a pixel is the background's / is not."""
UNRELIABLE = 24.0
"""Noise (of 255 levels) from which the background is no help: too much parallax, or too little in common."""
MOVING, RESTING = 0.2, 0.5
"""Part of the other frames, below / above which a pixel that is still in them is something moving / the background."""
ROUNDS = 2


def grabcut_masks(
    frames: Sequence[Rgb], box: tuple[int, int, int, int] | None, advance: Callable[[], None] = lambda: None
) -> list[Mask]:
    """A silhouette for each frame.

    Args:
        frames: RGB pictures of one size, some hundred pixels wide.
        box: x, y, width and height of the animal in the first frame; None looks for what moves.
        advance: Called `ROUNDS` + 1 times a frame.
    """
    background = Background(frames, advance)
    around: dict[int, Mask] = {}
    if box is not None:
        seed = box_mask(box, frames[0].shape[:2])
        if seed.sum() < 64:
            raise DataError(f"The box {box} holds next to nothing of the first frame; give x y width height in pixels.")
        look = _Look(frames, None, {})
        around = _carry_through(look, 0, first_mask(look, 0, seed), advance)  # by colour alone: holds too much
    found = moving_region(background, len(frames), around)
    if found is None and box is None:
        raise DataError("Nothing moves against the background; give the animal's box in the first frame with --box.")
    if found is None:
        return [around[index] for index in range(len(frames))]
    start, region = found
    masks: dict[int, Mask] = {}
    for _ in range(ROUNDS):  # what is behind the animal becomes known step by step
        look = _Look(frames, background, masks)
        masks = _carry_through(look, start, first_mask(look, start, region & masks.get(start, region)), advance)
    return [masks[index] for index in range(len(frames))]


@dataclass(frozen=True)
class _Look:
    """All that is known of a frame before its silhouette is drawn."""

    frames: Sequence[Rgb]
    background: Background | None
    masks: dict[int, Mask]
    """Of the round before."""

    def still(self, index: int) -> Mask:
        """Where there is background for sure, if it can be told."""
        shape = self.frames[index].shape[:2]
        return np.zeros(shape, np.bool_) if self.background is None else self.background.stillness(index) > RESTING

    def difference(self, index: int, guess: Mask) -> Float[np.ndarray, "H W"] | None:
        """From the background, scaled so that noise is 1; none where the background says nothing."""
        if self.background is None:
            return None
        window = _surroundings(guess)
        difference = self.background.difference(index, self.masks, window)
        level = noise(difference, guess)
        return difference / max(level, 3.0) if level < UNRELIABLE else None


def _carry_through(look: _Look, start: int, seed: Mask, advance: Callable[[], None]) -> dict[int, Mask]:
    """From the frame `start` to both ends of the clip."""
    found: dict[int, Mask] = {start: seed}
    advance()
    count = len(look.frames)
    for order in (range(start + 1, count), range(start - 1, -1, -1)):
        before, before_gray = seed, gray_of(look.frames[start])
        for index in order:
            gray = gray_of(look.frames[index])
            mask = carried_on(look, index, carry(before, optical_flow(gray, before_gray)) > 0.5)
            found[index] = mask
            if mask.any():  # after a frame without the animal, go on from the last one with it
                before, before_gray = mask, gray
            advance()
    return found


def first_mask(look: _Look, index: int, region: Mask) -> Mask:
    """The animal in a box (or another coarse region): what looks neither like its surroundings nor like what is behind it."""
    difference, inside = look.difference(index, region), region & ~look.still(index)
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    if difference is not None:
        labels[inside & (difference < SAME)] = cv2.GC_PR_BGD
    mask = _grabcut(_features(look.frames[index], inside, difference), labels, iterations=5)
    return fill_holes(follow_component(mask & inside)) if mask.any() else inside


def carried_on(look: _Look, index: int, guess: Mask) -> Mask:
    """The silhouette in a frame, given where the one of the frame before came to lie."""
    if guess.sum() < 16:
        return np.zeros_like(guess)
    difference, still = look.difference(index, guess), look.still(index)
    rim = max(2, round(RIM * max(guess.shape)))
    depth = cv2.distanceTransform(guess.astype(np.uint8), cv2.DIST_L2, 3)
    distance = cv2.distanceTransform((~guess).astype(np.uint8), cv2.DIST_L2, 3)
    labels = np.where(guess, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[(distance > (rim if difference is None else 2 * rim)) | still] = cv2.GC_BGD
    if difference is None:
        labels[(depth > rim) & ~still] = cv2.GC_FGD
    else:
        labels[guess & (difference < SAME) & ~still] = cv2.GC_PR_BGD
        labels[(depth > 2 * rim) & ~(difference < OTHER) & ~still] = cv2.GC_FGD
    mask = _grabcut(_features(look.frames[index], guess, difference), labels, iterations=2)
    mask = fill_holes(follow_component(mask, guess))
    return mask if overlap(mask, guess) > 0.4 else guess & ~still


def _features(rgb: Rgb, guess: Mask, difference: Float[np.ndarray, "H W"] | None) -> Rgb:
    """What GrabCut models: the colours, or lightness, the stronger chroma and the difference from the background."""
    if difference is None:
        return rgb
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    chroma = lab[..., 1:].reshape(-1, 2).astype(np.float32)
    _, axes = np.linalg.eigh(np.cov(chroma.T))
    strongest = ((chroma - chroma.mean(axis=0)) @ axes[:, 1]).reshape(guess.shape)
    known = np.where(np.isfinite(difference), difference, np.where(guess, OTHER, 0.0))
    channels = [lab[..., 0], 128 + 2 * strongest, 16 * known]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def _grabcut(image: Rgb, labels: UInt8[np.ndarray, "H W"], iterations: int) -> Mask:
    """cv2's GrabCut within the surroundings of what may be the animal."""
    candidate = labels != cv2.GC_BGD
    if not candidate.any() or candidate.all():
        return candidate
    rows, columns = _surroundings(candidate)
    part = np.ascontiguousarray(labels[rows, columns])
    background, animal = (np.isin(part, kinds) for kinds in ((cv2.GC_BGD, cv2.GC_PR_BGD), (cv2.GC_FGD, cv2.GC_PR_FGD)))
    if background.sum() < 32 or animal.sum() < 16:  # too little to learn colours from
        return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    whole = (0, 0, part.shape[1], part.shape[0])  # unused with GC_INIT_WITH_MASK
    cv2.setRNGSeed(0)  # its k-means would give another result each time
    cv2.grabCut(np.ascontiguousarray(image[rows, columns]), part, whole, *models, iterations, cv2.GC_INIT_WITH_MASK)
    mask = np.zeros(labels.shape, np.bool_)
    mask[rows, columns] = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    return mask


def _surroundings(region: Mask) -> tuple[slice, slice]:
    """Rows and columns of a region's box and of what is around it."""
    if not region.any():
        return slice(None), slice(None)
    reach = round(SURROUNDINGS * RIM * max(region.shape)) + 8
    places = [np.flatnonzero(region.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (slice(max(0, int(place[0]) - reach), int(place[-1]) + 1 + reach) for place in places)
    return rows, columns


def moving_region(background: Background, count: int, around: Mapping[int, Mask]) -> tuple[int, Mask] | None:
    """The frame in which one thing stands out from the still background most clearly, and that thing's region.

    Where `around` has a frame, only what it holds is looked at.
    """
    best, best_score = None, 0.0
    for index in np.unique(np.linspace(0, count - 1, min(count, 24)).round().astype(int)).tolist():
        still = background.stillness(index)
        mask = _opened((still < MOVING) & around.get(index, np.True_))
        if not 0.002 < mask.mean() < 0.6:
            continue
        # The larger the better, but what touches the border may be the ground, or only half of the animal.
        cut = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        score = float(np.sqrt(mask.mean()) * still[~mask].mean()) * (0.5 if cut else 1.0)
        if score > best_score:
            best, best_score = (index, mask), score
    return best


def _opened(mask: Mask) -> Mask:
    """The largest part of a mask, without threads and holes."""
    size = max(3, round(0.01 * max(mask.shape)) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return fill_holes(follow_component(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0), 0.05)
