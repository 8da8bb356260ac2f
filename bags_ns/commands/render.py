"""`bags render`: films of a run, from a turntable or along a camera path, in the video's motion or a track's."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from bags_ns.animation.pose_track import load_track
from bags_ns.camera_paths import load_camera_path
from bags_ns.rigged import clip_fps, track_pose
from bags_ns.runs import open_run
from bags_ns.visualize import along_path, check_size, write_film, write_views


def render_run(
    load_config: Path,
    output_dir: Path,
    *,
    kind: Literal["turntable", "source", "bones"],
    size: int,
    num_frames: int | None,
    fps: float | None,
    camera_path: Path | None,
    track: Path | None,
    slow_motion: float,
) -> tuple[Path, Path]:
    """Writes the film and its contact sheet, and returns both paths."""
    check_size(size)
    _check(kind, num_frames, fps, camera_path, track, slow_motion)
    path = None if camera_path is None else load_camera_path(camera_path)
    if track is not None:
        load_track(track)  # says what is wrong before the run is opened, which takes seconds
    pipeline = open_run(load_config).pipeline
    model = pipeline.model
    motion, steps, rate = model.pose_at, len(pipeline.datamanager.clip.times), clip_fps(model)
    if track is not None:
        played = load_track(track, model.skeleton)
        motion, steps, rate = partial(track_pose, model, played), len(played.frame_times()), played.fps
    if path is not None:
        path = path.slowed(slow_motion)
        frames = along_path(model, path, motion, bones=kind == "bones")
        return write_film(output_dir, "camera_path", frames, len(path), fps=fps or path.fps)
    if kind != "source":
        num_frames = round(slow_motion * (num_frames or 2 * steps))
    return write_views(
        pipeline, output_dir, kind=kind, size=size, num_frames=num_frames, fps=fps or rate, motion=motion
    )


def _check(
    kind: str,
    num_frames: int | None,
    fps: float | None,
    camera_path: Path | None,
    track: Path | None,
    slow_motion: float,
) -> None:
    """Raises ValueError for what cannot be rendered together."""
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"--num-frames must be at least 1, got {num_frames}")
    if fps is not None and not 0 < fps <= 1000:
        raise ValueError(f"--fps must lie above 0 and be at most 1000, got {fps:g}")
    if not 1 <= slow_motion <= 100:
        raise ValueError(f"--slow-motion goes from 1 (the clip's own speed) to 100, got {slow_motion:g}")
    others = camera_path is not None or track is not None or num_frames is not None or slow_motion != 1
    if kind == "source" and others:
        raise ValueError(
            "--kind source shows all frames as filmed: no --camera-path, --track, --num-frames, --slow-motion"
        )
    if camera_path is not None and num_frames is not None:
        raise ValueError("a camera path has its own number of frames: leave --num-frames out")
