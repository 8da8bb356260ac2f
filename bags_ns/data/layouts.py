"""Recognises what `--data` is (a video, folders of frames, a camera file) and lists its frames, without reading pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bags_ns.data.images import DataError, is_image, list_images
from bags_ns.data.prepared import clip_info
from bags_ns.data.transforms import PosedImage, SourceCamera, load_json, read_transforms
from bags_ns.data.video import VIDEO_SUFFIXES, is_video

IMAGE_FOLDERS = ("images", "imgs", "rgb", "frames")
MASK_FOLDERS = ("masks", "mask", "silhouettes")
DAVIS_RESOLUTIONS = ("Full-Resolution", "1080p", "480p", "")


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame of the input, by its files."""

    image: Path
    mask: Path | None = None
    """Silhouette; None where the image's alpha is it."""
    time: float | None = None
    """As the camera file gives it; None where it follows from the order."""
    camera: SourceCamera | None = None
    """None where it is unknown."""


@dataclass(frozen=True, eq=False)
class SourceClip:
    """The input as it was found: either files of frames, or a video with its silhouettes."""

    root: Path
    """Folder that the names of its files are relative to."""
    frames: tuple[SourceFrame, ...] = ()
    """In the order of time; empty for a video."""
    test_frames: tuple[SourceFrame, ...] = ()
    """Views with known cameras that are for testing only."""
    video: Path | None = None
    """The video, where the input is one."""
    mask_video: Path | None = None
    """A video of silhouettes with the same number of frames."""
    mask_files: tuple[Path, ...] = ()
    """Silhouettes of the video, one for each of its frames."""
    prepared: dict[str, Any] | None = None
    """The `bags` section of a camera file that was written by `bags_ns` itself."""

    @property
    def has_cameras(self) -> bool:
        """Whether every frame comes with its camera."""
        return bool(self.frames) and all(frame.camera is not None for frame in self.frames)

    def without_cameras(self) -> tuple[SourceClip, float]:
        """The clip as a plain video, without poses and test views, and its field of view in degrees.

        Raises:
            DataError: its frames have no cameras, or were not taken through one lens with its centre in the middle.
        """
        cameras = [frame.camera for frame in self.frames if frame.camera is not None]
        if not self.has_cameras:
            raise DataError(f"{self.video or self.root} has no cameras to leave out; drop --known-cameras False.")
        lenses = {(c.fx, c.fy, c.cx / c.width, c.cy / c.height, c.width, c.height) for c in cameras}
        fx, fy, x, y, width, height = next(iter(lenses))
        if len(lenses) > 1 or self.prepared is not None or max(abs(x - 0.5), abs(y - 0.5), abs(fy / fx - 1)) > 0.02:
            raise DataError(
                f"{self.root} has crops or several lenses; --known-cameras False needs whole frames of one lens."
            )
        frames = tuple(replace(frame, camera=None) for frame in self.frames)
        fov_deg = 2 * math.degrees(math.atan(0.5 * max(width, height) / fx))
        return replace(self, frames=frames, test_frames=()), fov_deg

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of pixels, in a fixed order."""
        frames = (*self.frames, *self.test_frames)
        named = [self.video, self.mask_video, *self.mask_files]
        named += [path for frame in frames for path in (frame.image, frame.mask)]
        return tuple(path for path in named if path is not None)


def find_clip(data: Path, sequence: str = "") -> SourceClip:
    """What `data` holds.

    Args:
        data: A video, a transforms.json, or a folder in any of the layouts that this module knows.
        sequence: Name of the sequence in a DAVIS folder that holds several.
    """
    if not data.exists():
        raise FileNotFoundError(f"{data} does not exist; --data takes a video or a folder of frames.")
    if data.is_file():
        return _from_file(data)
    if any((data / name).is_file() for name in ("transforms.json", "transforms_train.json")):
        return _from_transforms(data)
    if (data / "JPEGImages").is_dir():
        return _from_davis(data, sequence)
    images = next((data / name for name in IMAGE_FOLDERS if list_images(data / name)), None)
    if images is None and list_images(data):
        images = data
    if images is not None:
        return _from_images(data, images)
    return _from_video(_only_video(data))


def _from_file(data: Path) -> SourceClip:
    if data.suffix.lower() == ".json":
        return _from_transforms(data.parent, data.name)
    if is_video(data):
        return _from_video(data)
    known = ", ".join(VIDEO_SUFFIXES)
    raise DataError(f"{data} is no video or camera file; --data takes one of {known}, .json or a folder of frames.")


def _only_video(folder: Path) -> Path:
    videos = sorted(path for path in folder.iterdir() if is_video(path) and not path.stem.endswith("_mask"))
    if len(videos) == 1:
        return videos[0]
    if videos:
        raise DataError(f"{folder} holds {len(videos)} videos; give one of them as --data, such as {videos[0]}.")
    raise DataError(
        f"{folder} holds no frames; put images in {folder}/images and masks in {folder}/masks, or give a video."
    )


def _from_images(root: Path, images: Path) -> SourceClip:
    files = list_images(images)
    masks = _mask_folder(root)
    pairs = match_masks(files, list_images(masks), masks) if masks else [None] * len(files)
    return SourceClip(root, tuple(SourceFrame(image, mask) for image, mask in zip(files, pairs, strict=True)))


def _mask_folder(root: Path) -> Path | None:
    return next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)


def _stem(path: Path) -> str:
    """Name without its extension, and without the image's own extension that some tools leave in a mask's name."""
    return Path(path.stem).stem if is_image(Path(path.stem)) else path.stem


def match_masks(images: Sequence[Path], masks: Sequence[Path], folder: Path) -> list[Path]:
    """The mask of each image, by name, or by order where the names differ but the numbers agree."""
    by_stem = {_stem(mask): mask for mask in masks}
    if all(image.stem in by_stem for image in images):
        return [by_stem[image.stem] for image in images]
    if len(images) == len(masks):
        return list(masks)
    lacking = next(image for image in images if image.stem not in by_stem)
    raise DataError(
        f"{folder} holds {len(masks)} masks for {len(images)} images; every image needs one, such as {lacking.stem}.png."
    )


def _from_davis(root: Path, sequence: str) -> SourceClip:
    base = next(name for name in DAVIS_RESOLUTIONS if (root / "JPEGImages" / name).is_dir())
    images, annotations = root / "JPEGImages" / base, root / "Annotations" / base
    found = sorted(path.name for path in images.iterdir() if path.is_dir() and list_images(path))
    if not sequence and len(found) == 1:
        sequence = found[0]
    if sequence not in found:
        got = f"no sequence {sequence!r}" if sequence else f"{len(found)} sequences"
        raise DataError(f"{images} holds {got}; choose with --sequence: {', '.join(found) or 'none found'}.")
    files = list_images(images / sequence)
    if not (annotations / sequence).is_dir():
        raise FileNotFoundError(f"{annotations / sequence} does not exist; a DAVIS sequence needs its annotations.")
    masks = match_masks(files, list_images(annotations / sequence), annotations / sequence)
    return SourceClip(root, tuple(SourceFrame(image, mask) for image, mask in zip(files, masks, strict=True)))


def _from_video(video: Path) -> SourceClip:
    for folder in (video.with_name(f"{video.stem}_masks"), *(video.parent / name for name in MASK_FOLDERS)):
        if list_images(folder):
            return SourceClip(video.parent, video=video, mask_files=tuple(list_images(folder)))
    for suffix in dict.fromkeys((video.suffix, *VIDEO_SUFFIXES)):
        mask_video = video.with_name(f"{video.stem}_mask{suffix}")
        if mask_video.is_file():
            return SourceClip(video.parent, video=video, mask_video=mask_video)
    return SourceClip(video.parent, video=video)


def _from_transforms(root: Path, name: str = "") -> SourceClip:
    path = root / (name or ("transforms.json" if (root / "transforms.json").is_file() else "transforms_train.json"))
    test_path = root / "transforms_test.json"
    meta = load_json(path)
    posed = _in_order_of_time(path, read_transforms(path, meta))
    held_out = {Path(entry).name for key in ("val_filenames", "test_filenames") for entry in meta.get(key, ())}
    frames = [frame for frame in posed if frame.image.name not in held_out]
    test = [frame for frame in posed if frame.image.name in held_out]
    if test_path.is_file() and test_path != path:
        test += _in_order_of_time(test_path, read_transforms(test_path))
    if not frames:
        raise DataError(f"{path} puts every frame into val_filenames or test_filenames; leave some for training.")
    if len({frame.time for frame in frames}) < len(frames):
        raise DataError(f'{path} gives several frames the same time; correct "time", or leave it out of all frames.')
    lowest, highest = min(frame.time or 0.0 for frame in frames), max(frame.time or 0.0 for frame in frames)
    if lowest < 0 or highest > 1:  # seconds or frame numbers
        frames, test = _rescaled(frames, lowest, highest), _rescaled(test, lowest, highest)
    if (bags := meta.get("bags")) is not None:
        _check_own_section(path, bags, len(posed))
    train_frames, test_frames = (tuple(map(_frame, _with_masks(root, posed))) for posed in (frames, test))
    return SourceClip(root, train_frames, test_frames, prepared=meta.get("bags"))


def _check_own_section(path: Path, bags: Any, count: int) -> None:
    """Refuses a `bags` section that does not say what `prepared` would have written for so many frames."""
    try:
        info = clip_info(bags, [0.0] * count)
        per_frame = [info.root_translations, info.crop_boxes, info.source_indices]
        fits = all(len(values) == count for values in per_frame if values is not None)
        fits = fits and info.T_world_input.shape == (4, 4)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise DataError(
            f'{path} has a section "bags" that does not fit its frames; remove the section or prepare anew.'
        )


def _frame(posed: PosedImage) -> SourceFrame:
    return SourceFrame(posed.image, posed.mask, posed.time, posed.camera)


def _with_masks(root: Path, posed: Sequence[PosedImage]) -> list[PosedImage]:
    """Takes masks from a masks folder where the camera file names none."""
    folder = _mask_folder(root)
    by_stem = {_stem(mask): mask for mask in list_images(folder)} if folder else {}
    return [replace(frame, mask=frame.mask or by_stem.get(frame.image.stem)) for frame in posed]


def _in_order_of_time(path: Path, posed: Sequence[PosedImage]) -> list[PosedImage]:
    """Sorted by time; where no frame has one, by name, and evenly spaced over [0, 1]."""
    timed = [frame.time is not None for frame in posed]
    if all(timed):
        return sorted(posed, key=lambda frame: frame.time or 0.0)
    if any(timed):
        raise DataError(
            f'{path}: {len(timed) - sum(timed)} of {len(timed)} frames have no "time"; give it to all or to none.'
        )
    ordered = sorted(posed, key=lambda frame: str(frame.image))
    return [replace(frame, time=index / max(1, len(ordered) - 1)) for index, frame in enumerate(ordered)]


def _rescaled(posed: Sequence[PosedImage], lowest: float, highest: float) -> list[PosedImage]:
    span = (highest - lowest) or 1.0
    return [frame if frame.time is None else replace(frame, time=(frame.time - lowest) / span) for frame in posed]
