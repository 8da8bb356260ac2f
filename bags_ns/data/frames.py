"""Which frames of a clip are used, and reading them as RGBA, one at a time, whatever they come from."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, UInt8
from rich.progress import Progress, TaskID

from bags_ns.data.images import DataError, fit_max_side, join_rgba, read_mask, read_rgb, read_rgba, undistort_rgba
from bags_ns.data.layouts import SourceClip, SourceFrame
from bags_ns.data.video import probe_video, read_video

FOLDER_FPS = 24.0
"""Frames a second that a folder of frames is taken to have (DAVIS has 24)."""
PATIENCE = 2.0
"""Seconds of work after which a progress bar appears."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class FrameChoice:
    """The frames that are used, in the order of time."""

    numbers: tuple[int, ...]
    """Position of each in the source."""
    times: tuple[float, ...]
    """Time of each in [0, 1] over the clip."""
    fps: float
    """Frames a second of the choice (an average where the rate varies)."""

    def where(self, kept: Bool[np.ndarray, " T"]) -> FrameChoice:
        """The frames that are kept; their average rate is as much lower, so that the clip lasts as long."""
        numbers, times = (tuple(np.array(values)[kept].tolist()) for values in (self.numbers, self.times))
        fps = self.fps * max(1, len(numbers) - 1) / max(1, len(self.numbers) - 1)
        return FrameChoice(numbers, times, fps)


def choose_frames(
    clip: SourceClip, fps: float = 0.0, start: float = 0.0, end: float = 0.0, max_frames: int = 0
) -> FrameChoice:
    """The frames of `clip` that the options leave; see `pick_times` for what they mean."""
    if clip.video is not None:
        info = probe_video(clip.video)
        seconds, source_fps = info.times, info.fps
        if clip.mask_files and len(clip.mask_files) != len(seconds):
            folder = clip.mask_files[0].parent
            raise DataError(f"{folder} holds {len(clip.mask_files)} masks for {len(seconds)} frames; give one a frame.")
    else:
        source_fps = float((clip.prepared or {}).get("fps", FOLDER_FPS))
        seconds = _seconds(clip, source_fps)
    numbers = pick_times(seconds, fps, start, end, max_frames)
    if not numbers:
        raise DataError(
            f"{clip.video or clip.root} has no frame between {start} s and {end} s; it is {seconds[-1]:.2f} s long."
        )
    chosen = [seconds[number] for number in numbers]
    span = chosen[-1] - chosen[0]
    times = [(second - chosen[0]) / (span or 1.0) for second in chosen]
    return FrameChoice(tuple(numbers), tuple(times), (len(chosen) - 1) / span if span else source_fps)


def _seconds(clip: SourceClip, fps: float) -> tuple[float, ...]:
    """Time of every frame of a clip of files: evenly, or as its camera file spaces them; all last as long as at `fps`."""
    last = max(1, len(clip.frames) - 1)
    given = [number / last if frame.time is None else frame.time for number, frame in enumerate(clip.frames)]
    # A clip that was prepared before may lack its first or last frames: its times are those of the whole all the same.
    first, span = (0.0, 1.0) if clip.prepared else (given[0], (given[-1] - given[0]) or 1.0)
    return tuple((time - first) / span * last / fps for time in given)


def tests_within(clip: SourceClip, numbers: Sequence[int], times: Sequence[float]) -> list[SourceFrame]:
    """The test views of what is used of a clip, in its times; what is shown at an end may be half a frame beyond.

    Args:
        clip: The clip, whose frames have times.
        numbers: Position of each used frame in the source.
        times: Time of each in [0, 1], as `choose_frames` has them.
    """
    first, last = (clip.frames[number].time or 0.0 for number in (numbers[0], numbers[-1]))
    scale, margin = (times[-1] - times[0]) / ((last - first) or 1.0), 0.5 / max(1, len(numbers) - 1)
    placed = [(frame, times[0] + scale * ((frame.time or 0.0) - first)) for frame in clip.test_frames]
    return [replace(frame, time=min(1.0, max(0.0, time))) for frame, time in placed if -margin <= time <= 1.0 + margin]


def pick_times(
    seconds: Sequence[float], fps: float = 0.0, start: float = 0.0, end: float = 0.0, max_frames: int = 0
) -> list[int]:
    """Positions of the frames to use.

    Args:
        seconds: Time of every frame, ascending.
        fps: Rate to thin out to, by the nearest frame to each tick (0: every frame).
        start: Seconds to leave out at the beginning.
        end: Time in seconds at which to stop (0: at the end).
        max_frames: Most frames to use, evenly spread over what the other options leave (0: no limit).
    """
    inside = [n for n, second in enumerate(seconds) if second >= start - 1e-6 and (end <= 0 or second <= end + 1e-6)]
    if inside and fps > 0:
        kept = np.array([seconds[number] for number in inside])
        ticks = np.arange(kept[0], kept[-1] + 1e-6, 1.0 / fps)
        nearest = np.abs(kept[None] - ticks[:, None]).argmin(axis=1)
        inside = [inside[position] for position in np.unique(nearest)]
    if 0 < max_frames < len(inside):
        inside = [
            inside[position] for position in np.unique(np.linspace(0, len(inside) - 1, max_frames).round().astype(int))
        ]
    return inside


def read_frame(frame: SourceFrame, max_side: int = 0) -> UInt8[np.ndarray, "H W 4"]:
    """One frame as RGBA, its lens distortion taken out, shrunk to `max_side` pixels (0: as it is)."""
    if frame.mask is None:
        rgba = read_rgba(frame.image)
    else:
        rgba = join_rgba(read_rgb(frame.image), read_mask(frame.mask), frame.mask)
    camera = frame.camera
    if camera is not None:
        if rgba.shape[:2] != (camera.height, camera.width):
            sizes = f"{rgba.shape[1]}x{rgba.shape[0]}, its camera {camera.width}x{camera.height}"
            raise DataError(f"{frame.image} is {sizes}; correct w and h in the camera file or resize the images.")
        if camera.is_distorted:
            rgba = undistort_rgba(rgba, camera.intrinsics, camera.distortion)
    return fit_max_side(rgba, max_side)


def read_clip(clip: SourceClip, numbers: Sequence[int], max_side: int = 0) -> Iterator[UInt8[np.ndarray, "H W 4"]]:
    """The chosen frames as RGBA in turn; never holds more than one."""
    if clip.video is None:
        yield from (read_frame(clip.frames[number], max_side) for number in numbers)
        return
    for rgb, (mask, name) in zip(read_video(clip.video, numbers), _video_masks(clip, numbers), strict=True):
        yield fit_max_side(join_rgba(rgb, mask, name), max_side)


def _video_masks(clip: SourceClip, numbers: Sequence[int]) -> Iterator[tuple[UInt8[np.ndarray, "H W"], str]]:
    assert clip.mask_video or clip.mask_files, "segmentation.with_silhouettes comes before"
    if clip.mask_video is None:
        yield from ((read_mask(clip.mask_files[number]), str(clip.mask_files[number])) for number in numbers)
        return
    info = probe_video(clip.mask_video)
    if len(info.times) <= numbers[-1]:
        raise DataError(f"{clip.mask_video} has {len(info.times)} frames, too few for {clip.video}; make them equal.")
    for rgb in read_video(clip.mask_video, numbers, info=info):
        # Lossy coding leaves noise in black and white areas; the silhouette's soft rim is in the middle of the range.
        mask = np.clip((rgb.max(axis=-1).astype(np.float32) - 32) * (255 / 191), 0, 255)
        yield mask.astype(np.uint8), str(clip.mask_video)


def track_slowly(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Passes items on; a transient progress bar appears once that has taken two seconds."""
    begun, progress, task = time.monotonic(), None, TaskID(0)
    try:
        for done, item in enumerate(items):
            if progress is None and time.monotonic() - begun > PATIENCE:
                progress = Progress(transient=True)
                progress.start()
                task = progress.add_task(description, total=total)
            if progress is not None:
                progress.update(task, completed=done)
            yield item
    finally:
        if progress is not None:
            progress.stop()
