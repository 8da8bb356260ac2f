"""Frames that come with their cameras: used where they lie, or merged with their masks, straightened and shrunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from bags_ns.data.frames import FrameChoice, read_clip, read_frame, tests_within, track_slowly
from bags_ns.data.held_out import HoldOut
from bags_ns.data.images import DataError, fitted_size, write_rgba
from bags_ns.data.judgement import judged_silhouettes
from bags_ns.data.layouts import SourceClip, SourceFrame
from bags_ns.data.prepared import Built, ClipInfo, clip_info, recentred
from bags_ns.data.silhouettes import MIN_AREA, Silhouettes, canonical_index, measure_silhouettes
from bags_ns.data.transforms import PosedImage
from bags_ns.progress import say


def build_known(
    clip: SourceClip,
    choice: FrameChoice,
    folder: Path,
    *,
    max_side: int,
    canonical_frame: int,
    hold_out: HoldOut,
    made: bool,
) -> Built:
    """Prepares a clip whose frames all have cameras, which are taken as they are.

    Args:
        clip: The clip.
        choice: The frames to use.
        folder: Where merged images go; frames that are RGBA pictures of pinhole cameras stay where they are.
        max_side: Longest side of an image in pixels, 0 for no limit.
        canonical_frame: Source frame to be canonical; -1 chooses the clearest.
        hold_out: Which frames are not for training.
        made: Whether a segmenter made the silhouettes: bad frames are left out then.
    """
    sources = [replace(clip.frames[n], time=time) for n, time in zip(choice.numbers, choice.times, strict=True)]
    tests = tests_within(clip, choice.numbers, choice.times)
    if beyond := len(clip.test_frames) - len(tests):
        say(f"Left out {beyond} of {len(clip.test_frames)} test views: they show other times than the frames used.")
    in_place = all(_is_ready(frame, max_side) for frame in (*sources, *tests))
    train, test = ([_posed(frame) for frame in frames] for frames in (sources, tests))
    if in_place:
        frames = read_clip(clip, choice.numbers)
    else:
        train, test = (
            _merged_entries(posed, folder / name, max_side)
            for posed, name in ((train, "images"), (test, "images_test"))
        )
        frames = _merged(sources, train, max_side)
        for _ in _merged(tests, test, max_side):
            pass
    frames = track_slowly(frames, "Reading silhouettes", len(sources))
    if made:
        choice, silhouettes, kept = judged_silhouettes(clip.root, frames, choice, folder, made)
        for frame, keep in zip(train, kept, strict=True):
            if not keep and not in_place:  # merged files are ours, those in place are not
                frame.image.unlink()
        train = [frame for frame, keep in zip(train, kept, strict=True) if keep]
    else:
        silhouettes = measure_silhouettes(frames)
        if silhouettes.areas.max() < MIN_AREA:
            raise DataError(
                f"{clip.root}: the silhouettes of all {len(sources)} frames are empty; check alpha or masks."
            )
    held = hold_out.frames(choice.times)
    info = _info(clip, choice.where(~held), silhouettes.where(~held), canonical_frame)
    trained = [frame for frame, hold in zip(train, held, strict=True) if not hold]
    built = Built(info, trained, test, [frame for frame, hold in zip(train, held, strict=True) if hold], in_place)
    return built if info.root_translations is None else recentred(built)


def _is_ready(frame: SourceFrame, max_side: int) -> bool:
    """Whether nerfstudio can read a frame's file as the RGBA picture of a pinhole camera."""
    camera = frame.camera
    if (
        frame.mask is not None
        or camera is None
        or camera.is_distorted
        or 0 < max_side < max(camera.width, camera.height)
    ):
        return False
    with Image.open(frame.image) as file:
        return file.mode == "RGBA" and file.size == (camera.width, camera.height)


def _posed(frame: SourceFrame) -> PosedImage:
    if frame.camera is None or frame.time is None:
        raise DataError(f"{frame.image} has no camera or no time in its camera file; add it.")
    return PosedImage(frame.image, frame.mask, frame.time, frame.camera)


def _merged_entries(posed: Sequence[PosedImage], folder: Path, max_side: int) -> list[PosedImage]:
    """The entries as they will be once their images are merged into `folder`."""
    moved = []
    for index, frame in enumerate(posed):
        camera = frame.camera
        resized = camera.resized(*fitted_size(camera.width, camera.height, max_side))
        moved.append(PosedImage(folder / f"frame_{index:05d}.png", None, frame.time, resized))
    return moved


def _merged(
    sources: Sequence[SourceFrame], targets: Sequence[PosedImage], max_side: int
) -> Iterator[UInt8[np.ndarray, "H W 4"]]:
    """Writes each frame as one RGBA file and passes it on."""
    for source, target in zip(sources, targets, strict=True):
        target.image.parent.mkdir(exist_ok=True)
        rgba = read_frame(source, max_side)
        write_rgba(target.image, rgba)
        yield rgba


def _info(clip: SourceClip, choice: FrameChoice, silhouettes: Silhouettes, canonical_frame: int) -> ClipInfo:
    """The clip's facts; those of a clip that was prepared by this package before are kept."""
    numbers = torch.tensor(choice.numbers)
    width, height = (int(value) for value in silhouettes.image_sizes[0])
    fresh = ClipInfo(
        canonical_index=canonical_index(silhouettes, choice.numbers, canonical_frame),
        times=torch.tensor(choice.times, dtype=torch.float32),
        object_centric=False,
        root_translations=None,
        crop_boxes=None,
        source_indices=numbers,
        source_size=(width, height),
        fps=choice.fps,
    )
    if clip.prepared is None:
        return fresh
    known = clip_info(clip.prepared, [frame.time or 0.0 for frame in clip.frames])
    if canonical_frame < 0:
        fresh = replace(fresh, canonical_index=int((numbers - known.canonical_index).abs().argmin()))
    return replace(
        fresh,
        object_centric=known.object_centric,
        elevation_deg=known.elevation_deg,
        root_translations=None if known.root_translations is None else known.root_translations[numbers],
        crop_boxes=None if known.crop_boxes is None else known.crop_boxes[numbers],
        source_indices=known.source_indices[numbers],
        source_size=known.source_size,
        T_world_input=known.T_world_input,
    )
