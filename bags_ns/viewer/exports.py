"""The viewer's export buttons: the same files as `bags export` writes, into the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from bags_ns.animation.export_gltf import write_gltf
from bags_ns.animation.export_ply import write_ply, write_ply_sequence
from bags_ns.animation.export_spz import write_spz
from bags_ns.animation.export_web import write_web
from bags_ns.model import BagsModel
from bags_ns.rigged import motions_by_name, posed_splats, rigged_animal, track_poses, video_motion
from bags_ns.viewer.editor import PoseEditor

Share = Callable[[float], None]
"""Called with the share, 0 to 1, that is done."""


def _gltf(model: BagsModel, editor: PoseEditor, folder: Path, share: Share) -> Path:
    path = folder / "animal.glb"
    write_gltf(path, rigged_animal(model), motions_by_name(model, editor.track))
    return path


def _web(model: BagsModel, editor: PoseEditor, folder: Path, share: Share) -> Path:
    return write_web(folder / "web", rigged_animal(model), motions_by_name(model, editor.track))


def _ply(model: BagsModel, editor: PoseEditor, folder: Path, share: Share) -> Path:
    path = folder / f"pose_{editor.seconds:.3f}s.ply"
    write_ply(path, posed_splats(model, editor.pose_at(editor.time)))
    return path


def _spz(model: BagsModel, editor: PoseEditor, folder: Path, share: Share) -> Path:
    path = folder / f"pose_{editor.seconds:.3f}s.spz"
    write_spz(path, posed_splats(model, editor.pose_at(editor.time)))
    return path


def _ply_sequence(model: BagsModel, editor: PoseEditor, folder: Path, share: Share) -> Path:
    track = editor.track
    motion = video_motion(model)
    poses = [motion.pose(i) for i in range(len(motion))] if track is None else track_poses(model, track)
    done = iter(range(1, len(poses) + 1))
    frames = (posed_splats(model, pose) for pose in poses)
    write_ply_sequence(folder / "frames", frames, lambda: share(next(done) / len(poses)))
    return folder / "frames"


EXPORTS: dict[str, Callable[[BagsModel, PoseEditor, Path, Share], Path]] = {
    "skeleton, animation and mesh (GLB)": _gltf,
    "a page for any web server": _web,
    "this pose (PLY)": _ply,
    "this pose (SPZ)": _spz,
    "all frames (PLY files)": _ply_sequence,
}
"""By what a person reads: writes into a folder, and returns what it wrote.

Raises:
    OSError: the folder cannot be written.
    ImportError: a package for it is not installed; the message says how to get it.
    ValueError: there is nothing to export.
"""


@torch.no_grad()
def export(name: str, model: BagsModel, editor: PoseEditor, folder: Path, share: Share) -> Path:
    """Runs one of the EXPORTS."""
    return EXPORTS[name](model, editor, folder, share)
