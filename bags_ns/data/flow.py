"""Optical flow between neighbouring train frames, by cv2's DIS matcher (no weights), kept with the derived data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bags_ns.data.cache import cached_folder, content_key
from bags_ns.data.frames import track_slowly
from bags_ns.data.images import FOREGROUND, fit_max_side, read_rgba
from bags_ns.data.masks import carry, gray_of, optical_flow

FLOW_SIDE = 256
"""Longer side in pixels of the pictures that flow is computed on: flow is smooth, and kept for every frame."""
CONSISTENT = 1.0
"""Pixels by which the way to the next frame and back may miss its start."""
BEHIND = 128
"""Gray level behind the cut-out animal: a far brighter or darker one would make its outline all that is matched."""


@dataclass(frozen=True, eq=False)
class FlowPair:
    """Two neighbouring frames and where the animal's pixels go between them."""

    times: Float[Tensor, "2"]
    """In [0, 1]."""
    viewmats: Float[Tensor, "2 4 4"]
    """OpenCV world-to-camera matrices."""
    Ks: Float[Tensor, "2 3 3"]
    """Intrinsics in pixels of `flow`."""
    flow: Float[Tensor, "H W 2"]
    """Offset in pixels from each pixel of the first frame to its place in the second; NaN where it is not known."""


def clip_flow(images: Sequence[Path], cache_dir: Path) -> list[Float[Tensor, "_H _W 2"]]:
    """Flow from each RGBA image to the one after it (one fewer than images), as in `FlowPair`, in half precision."""
    key = content_key(images[0].parent, images, {"flow": FLOW_SIDE})
    folder = cached_folder(cache_dir, key, lambda building: _build(images, building))
    return [torch.from_numpy(np.load(folder / f"{index:05d}.npy")) for index in range(len(images) - 1)]


def _build(images: Sequence[Path], folder: Path) -> None:
    before = None
    for index, path in enumerate(track_slowly(images, "Optical flow", len(images))):
        rgba = fit_max_side(read_rgba(path), FLOW_SIDE)
        if before is not None:
            np.save(folder / f"{index - 1:05d}.npy", consistent_flow(before, rgba).astype(np.float16))
        before = rgba


def consistent_flow(
    first: UInt8[np.ndarray, "H W 4"], second: UInt8[np.ndarray, "h w 4"]
) -> Float[np.ndarray, "H W 2"]:
    """Flow inside the first silhouette that ends inside the second and leads back to where it started; NaN elsewhere."""
    if first.shape != second.shape:
        return np.full((*first.shape[:2], 2), np.nan, np.float32)
    grays = [
        np.where(rgba[..., 3] >= FOREGROUND, gray_of(rgba[..., :3]), BEHIND).astype(np.uint8)
        for rgba in (first, second)
    ]
    insides = [rgba[..., 3] >= FOREGROUND for rgba in (first, second)]
    forward, backward = optical_flow(*grays), optical_flow(*grays[::-1])
    height, width = insides[0].shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = np.stack([x, y], axis=-1) + forward
    back = cv2.remap(backward, places.astype(np.float32), np.zeros(0, np.float32), cv2.INTER_LINEAR)
    known = insides[0] & (carry(insides[1], forward) > 0.5)
    known &= np.linalg.norm(forward + np.asarray(back), axis=-1) < CONSISTENT
    return np.where(known[..., None], forward, np.nan).astype(np.float32)
