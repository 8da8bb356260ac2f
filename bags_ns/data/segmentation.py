"""Makes the silhouettes of a clip that comes without: chooses a segmenter that this machine has, and caches its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from bags_ns.data.cache import cached_folder, content_key
from bags_ns.data.grabcut import ROUNDS, grabcut_masks
from bags_ns.data.images import UNREADABLE, DataError, fitted_size, read_rgb, write_mask
from bags_ns.data.instances import (
    Network,
    SegmenterMissing,
    follow_instance,
    is_here,
    rembg_network,
    torchvision_network,
    transformers_network,
)
from bags_ns.data.layouts import SourceClip
from bags_ns.data.masks import fill_holes, gray_of, smooth_masks
from bags_ns.data.video import probe_video, read_video
from bags_ns.progress import progress_bar, say

SegmenterName = Literal["auto", "grabcut", "torchvision", "rembg", "transformers", "none"]
WORK_SIDE = 480
"""Longer side in pixels of the pictures that silhouettes are made on."""
FALL_BACK = ("torchvision", "rembg", "grabcut")
"""What `auto` tries, best first; a choice that cannot be had falls back to those after it."""


@dataclass(frozen=True)
class SegmentSettings:
    """How silhouettes are made; with what this machine has for it, part of their key in the cache."""

    segmenter: SegmenterName = "auto"
    segmenter_model: str = ""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def order(self) -> tuple[str, ...]:
        """The segmenters to try, one after the other; the last one needs nothing."""
        names = FALL_BACK if self.segmenter == "auto" else dict.fromkeys((self.segmenter, *FALL_BACK))
        return (*takewhile(lambda name: name != "grabcut", names), "grabcut")

    @property
    def here(self) -> list[str]:
        """Those that this machine has now, for keys in the cache: masks made without weights are not taken once they are here."""
        return [name for name in self.order if name == "grabcut" or is_here(name, self.segmenter_model)]


def lacks_silhouettes(clip: SourceClip) -> bool:
    """Whether neither masks nor an alpha channel come with the clip, by the headers of its files.

    Raises:
        DataError: they come with some of its frames only.
    """
    if clip.video is not None:
        return clip.mask_video is None and not clip.mask_files
    frames = (*clip.frames, *clip.test_frames)
    lacking = [frame.image for frame in frames if frame.mask is None and not _has_alpha(frame.image)]
    if 0 < len(lacking) < len(frames):
        raise DataError(
            f"{lacking[0]} has no silhouette, {len(frames) - len(lacking)} of {len(frames)} frames have; "
            "add the masks that are missing, or take all away."
        )
    return bool(lacking)


def _has_alpha(path: Path) -> bool:
    try:
        with Image.open(path) as file:
            return file.mode in ("RGBA", "LA", "PA") or "transparency" in file.info
    except UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as an image; it is empty or damaged, so replace or remove it."
        ) from error


def with_silhouettes(
    clip: SourceClip, numbers: Sequence[int], settings: SegmentSettings, cache_dir: Path
) -> SourceClip:
    """The clip with a mask for each of the frames `numbers` (and for all test frames), made now or found in the cache."""
    if settings.segmenter == "none":
        raise DataError(
            f"{clip.video or clip.root} has no silhouettes; add masks/ beside the frames or choose a --segmenter."
        )
    files = [path for path in clip.files if path is not None]
    named = {"silhouettes": asdict(settings), "segmenters": settings.here, "numbers": list(numbers)}
    key = content_key(clip.root, files, named)
    images = _images(clip, numbers)
    folder = cached_folder(cache_dir, key, lambda building: _build(clip, numbers, images, settings, building))
    if clip.video is not None:
        count = len(probe_video(clip.video).times)
        return replace(clip, mask_files=tuple(folder / f"{number:06d}.png" for number in range(count)))
    masks = {image: folder / f"{index:06d}.png" for index, image in enumerate(images)}
    frames, test_frames = (
        tuple(replace(frame, mask=masks.get(frame.image, frame.mask)) for frame in part)
        for part in (clip.frames, clip.test_frames)
    )
    return replace(clip, frames=frames, test_frames=test_frames)


def _images(clip: SourceClip, numbers: Sequence[int]) -> list[Path]:
    """Image files that need a mask, in an order in which neighbours look alike."""
    if clip.video is not None:
        return []
    return sorted({*(clip.frames[number].image for number in numbers), *(frame.image for frame in clip.test_frames)})


def _pictures(clip: SourceClip, numbers: Sequence[int], images: Sequence[Path]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    if clip.video is not None:
        yield from read_video(clip.video, numbers)
    else:
        yield from (read_rgb(path) for path in images)


def _build(
    clip: SourceClip, numbers: Sequence[int], images: Sequence[Path], settings: SegmentSettings, folder: Path
) -> None:
    """Writes one mask per frame, in the frame's own size, named by its number."""
    names = list(numbers) if clip.video is not None else list(range(len(images)))
    store = folder / "pictures.npy"
    frames, (width, height) = _small_pictures(_pictures(clip, numbers, images), len(names), store, clip)
    scale = frames.shape[2] / width
    box = None
    if any(settings.box):
        x, y, w, h = (round(value * scale) for value in settings.box)
        if min(settings.box[2:]) <= 0 or x >= frames.shape[2] or y >= frames.shape[1]:
            raise DataError(f"--box {settings.box} is not in the picture, {width}x{height}; give x y width height.")
        box = (x, y, w, h)
    for name, mask in zip(names, segment(frames, settings, box), strict=True):
        soft = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        write_mask(folder / f"{name:06d}.png", np.round(255 * soft).astype(np.uint8))
    del frames
    store.unlink()


def _small_pictures(
    pictures: Iterator[UInt8[np.ndarray, "H W 3"]], count: int, store: Path, clip: SourceClip
) -> tuple[UInt8[np.ndarray, "T h w 3"], tuple[int, int]]:
    """The frames shrunk for the segmenter, in a file rather than in memory, and their original width and height."""
    small, size = None, (0, 0)
    for index, rgb in enumerate(pictures):
        if small is None:
            size = (rgb.shape[1], rgb.shape[0])
            width, height = fitted_size(*size, WORK_SIDE)
            small = np.lib.format.open_memmap(store, "w+", np.uint8, (count, height, width, 3))
        if size != (rgb.shape[1], rgb.shape[0]):
            raise DataError(f"{clip.video or clip.root} has frames of several sizes; resize them to one size.")
        small[index] = cv2.resize(rgb, small.shape[2:0:-1], interpolation=cv2.INTER_AREA)
    if small is None:
        raise DataError(f"{clip.video or clip.root} holds no frames; give a video or a folder of images.")
    return small, size


def segment(
    frames: UInt8[np.ndarray, "T H W 3"],
    settings: SegmentSettings,
    box: tuple[int, int, int, int] | None,
    networks: dict[str, Callable[[], Network]] | None = None,
) -> list[Bool[np.ndarray, "H W"]]:
    """A silhouette for each frame, by the first segmenter of the list that can be had; closed and smoothed in time.

    Args:
        frames: RGB pictures of working size.
        settings: Which segmenter.
        box: The animal in the first frame, in these pictures' pixels.
        networks: Makers of networks in place of the published ones.
    """
    pictures = list(frames)
    makers = networks or {
        "torchvision": torchvision_network,
        "rembg": rembg_network,
        "transformers": lambda: transformers_network(settings.segmenter_model),
    }
    for name in settings.order[:-1]:
        try:
            network = makers[name]()
        except SegmenterMissing as missing:
            say(f"Silhouettes: {name} is not used, {missing}.")
            continue
        with progress_bar(f"Silhouettes ({name})", len(frames)) as advance:
            masks = follow_instance(pictures, network, box, lambda: advance(None, None))
        if any(mask.any() for mask in masks):
            return finished(pictures, masks)
        say(f"Silhouettes: {name} sees no animal in this clip, so the next one is tried.")
    rounds = ROUNDS + 1 + (box is not None)
    with progress_bar("Silhouettes (grabcut)", rounds * len(frames)) as advance:
        masks = grabcut_masks(pictures, box, lambda: advance(None, None))
    return finished(pictures, masks)


def finished(
    frames: Sequence[UInt8[np.ndarray, "H W 3"]], masks: Sequence[Bool[np.ndarray, "H W"]]
) -> list[Bool[np.ndarray, "H W"]]:
    """The masks with small holes closed, smoothed over neighbouring frames."""
    closed = [fill_holes(mask) for mask in masks]
    return smooth_masks(closed, [gray_of(frame) for frame in frames])
