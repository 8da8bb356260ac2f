"""Video files in, video files out, through PyAV (ffmpeg's libraries inside the wheel), one frame at a time.

Frames are known by their number in the order in which they are shown, and by their time in seconds, which need not be
evenly spaced (phones record at a variable rate).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from bags_ns.data.images import DataError, fitted_size
from bags_ns.files import whole_file

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".gif", ".m4v", ".avi")


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, found without decoding it."""

    width: int
    """As shown, that is after the rotation that the file asks for."""
    height: int
    fps: float
    """Average rate."""
    times: tuple[float, ...]
    """Time of every frame in seconds from the first."""
    timestamps: tuple[int, ...]
    """The same in the stream's own unit; they identify a frame while decoding."""


def is_video(path: Path) -> bool:
    """Whether the name is a video file's."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def probe_video(path: Path) -> VideoInfo:
    """Size, rate and frame times of a video."""
    with _open(path) as container:
        stream = container.streams.video[0]
        first = next(iter(container.decode(stream)), None)
        if first is None:
            raise DataError(f"{path} holds no frame that can be decoded; convert it to MP4 (H.264) first.")
        width, height = first.width, first.height
        if _quarter_turns(first) % 2:
            width, height = height, width
        # A stream's attributes are not valid once its container is closed.
        unit, average = float(stream.time_base or Fraction(1, 24)), float(stream.average_rate or 24)
    timestamps = _timestamps(path)
    times = tuple((timestamp - timestamps[0]) * unit for timestamp in timestamps)
    fps = (len(times) - 1) / times[-1] if len(times) > 1 and times[-1] > 0 else average
    return VideoInfo(width, height, fps, times, timestamps)


def read_video(
    path: Path, numbers: Sequence[int] | None = None, max_side: int = 0, info: VideoInfo | None = None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Decodes frames one after another; no more than one is held.

    Args:
        path: The video.
        numbers: Which frames, ascending (all of them where None).
        max_side: Longest side of the result in pixels; larger frames are shrunk (0: as they are).
        info: From `probe_video`, if it is at hand.
    """
    info = probe_video(path) if info is None else info
    wanted = [info.timestamps[number] for number in (range(len(info.times)) if numbers is None else numbers)]
    missing = set(wanted)
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if wanted and wanted[0] > info.timestamps[0]:
            container.seek(wanted[0], stream=stream)  # to the key frame before it
        for frame in container.decode(stream):
            if frame.pts in missing:
                missing.remove(frame.pts)
                yield _upright_rgb(frame, max_side)
            if not missing:
                return
    raise DataError(
        f"{path} breaks off: {len(missing)} of {len(wanted)} frames cannot be decoded; convert it or set --end."
    )


def _open(path: Path) -> Any:
    """PyAV's container, which closes itself after a `with`. PyAV takes a while to import: not where no video is read."""
    import av.error

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; check the path of the video.")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(f"{path} cannot be opened as a video ({error}); convert it to MP4.") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{path} holds no video stream; give a file with pictures.")
    return container


def _timestamps(path: Path) -> tuple[int, ...]:
    """Presentation times of all frames, ascending: from the packets, or by decoding where packets have none."""
    with _open(path) as container:
        packets = [packet.pts for packet in container.demux(video=0) if packet.size and not packet.is_discard]
    if packets and None not in packets:
        return tuple(sorted({pts for pts in packets if pts is not None}))
    with _open(path) as container:
        decoded = [frame.pts for frame in container.decode(video=0)]
    if not decoded or None in decoded:
        raise DataError(f"{path} carries no frame times; convert it to MP4 first.")
    return tuple(sorted({pts for pts in decoded if pts is not None}))


def _quarter_turns(frame: Any) -> int:
    """Anticlockwise quarter turns that bring PyAV's stored picture upright (phones store a rotation, not turned pixels)."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _upright_rgb(frame: Any, max_side: int) -> UInt8[np.ndarray, "H W 3"]:
    rgb = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame)))
    size = fitted_size(rgb.shape[1], rgb.shape[0], max_side)
    return rgb if size == rgb.shape[1::-1] else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def write_video(path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float) -> None:
    """Writes an H.264 video that every player opens (yuv420p), complete or not at all.

    Args:
        path: Ends in .mp4, .mov or .mkv; an existing file is replaced at the end.
        frames: RGB pictures of one size, consumed one at a time; odd sizes are padded by repeating the last row or column.
        fps: Frames a second.
    """
    with whole_file(path) as unfinished:
        _encode(str(unfinished), frames, fps)


def _encode(path: str, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float) -> None:
    import av

    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        count = 0
        for count, rgb in enumerate(frames, start=1):
            even = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
            if count == 1:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
        if count == 0:
            raise DataError("A video needs at least one frame; none was given.")
        container.mux(stream.encode())
