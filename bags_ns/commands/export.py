"""`bags export`: a run into files that other programs open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bags_ns.animation.export_gltf import write_gltf
from bags_ns.animation.export_ply import write_ply, write_ply_sequence
from bags_ns.animation.export_spz import write_spz
from bags_ns.animation.export_web import write_web
from bags_ns.animation.joint_rotations import SampledMotion
from bags_ns.animation.pose_track import load_track
from bags_ns.animation.splats import Splats
from bags_ns.model import BagsModel
from bags_ns.progress import progress_bar
from bags_ns.rig.motion import Pose
from bags_ns.rigged import motions_by_name, posed_splats, rigged_animal, track_poses
from bags_ns.runs import open_run


def _open(load_config: Path) -> BagsModel:
    return open_run(load_config, test_mode="inference").model


def _checked_time(time: float | None) -> float | None:
    if time is not None and not 0 <= time <= 1:
        raise ValueError(f"--time goes from 0 (first frame) to 1 (last), got {time:g}")
    return time


def _splats_at(model: BagsModel, time: float | None) -> Splats:
    return posed_splats(model, None if time is None else model.pose_at(time))


def export_ply(load_config: Path, output_dir: Path, time: float | None, sequence: bool, track: Path | None) -> Path:
    """Writes one pose, or all of the video or of a track; returns the file, or the folder of the sequence."""
    if time is not None and (sequence or track is not None):
        raise ValueError("give --time for one pose, or --sequence or --track for many, not both")
    _checked_time(time)
    if track is not None:
        load_track(track)  # says what is wrong before the run is opened, which takes seconds
    model = _open(load_config)
    if track is None and not sequence:
        path = output_dir / ("canonical.ply" if time is None else f"time_{time:.4f}.ply")
        write_ply(path, _splats_at(model, time))
        return path
    poses = _poses(model, track)
    with progress_bar("Writing PLY files", len(poses)) as advance:
        frames: Iterator[Splats] = (posed_splats(model, pose) for pose in poses)
        write_ply_sequence(output_dir, frames, lambda: advance(None, None))
    return output_dir


def _poses(model: BagsModel, track: Path | None) -> list[Pose]:
    if track is not None:
        return track_poses(model, load_track(track, model.skeleton))
    return [model.pose_at(time) for time in model.bone_motion.knots]


def _with_motions(load_config: Path, track: Path | None) -> tuple[BagsModel, dict[str, SampledMotion]]:
    """The model, and a track's motion and the video's by their names."""
    if track is not None:
        load_track(track)
    model = _open(load_config)
    if track is None:
        return model, motions_by_name(model, None)
    return model, motions_by_name(model, load_track(track, model.skeleton), track.stem)


def export_gltf(load_config: Path, output: Path, splats: bool, track: Path | None, influences: int) -> Path:
    """Writes a GLB with a track's motion, where there is one, and the video's as its animations."""
    model, motions = _with_motions(load_config, track)
    with progress_bar("Writing the GLB"):
        write_gltf(output, rigged_animal(model), motions, with_splats=splats, influences=influences)
    return output


def export_web(load_config: Path, output_dir: Path, track: Path | None, packages: str | None) -> Path:
    """Writes a page that plays the track, or else the video's motion."""
    model, motions = _with_motions(load_config, track)
    with progress_bar("Writing the page"):
        return write_web(output_dir, rigged_animal(model), motions, packages=packages)


def export_spz(load_config: Path, output: Path, time: float | None) -> Path:
    """Writes one pose."""
    _checked_time(time)
    write_spz(output, _splats_at(_open(load_config), time))
    return output
