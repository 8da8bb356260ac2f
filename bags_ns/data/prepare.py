"""Turns any clip that `layouts` finds into a prepared folder: reads, measures, crops or merges, and writes it once.

Clips with cameras go through `known_cameras` and `world_frame`, plain ones through `object_centric`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bags_ns.data.cache import cached_folder, content_key
from bags_ns.data.frames import FrameChoice, choose_frames, read_clip, track_slowly
from bags_ns.data.held_out import HoldOut
from bags_ns.data.images import DataError, crop_square, fit_max_side, read_rgba, resize_rgba, write_rgba
from bags_ns.data.judgement import SHEET_NAME, judged_silhouettes
from bags_ns.data.known_cameras import build_known
from bags_ns.data.layouts import SourceClip, SourceFrame
from bags_ns.data.object_centric import ObjectCentricView, crop_boxes, object_centric_view
from bags_ns.data.prepared import Built, ClipInfo, PreparedClip, load_prepared, write_prepared, write_seed_points
from bags_ns.data.seed_points import View, seed_points
from bags_ns.data.segmentation import SegmenterName, SegmentSettings, lacks_silhouettes, with_silhouettes
from bags_ns.data.silhouettes import canonical_index
from bags_ns.data.transforms import PosedImage, SourceCamera, camera_entry
from bags_ns.data.world_frame import Orientation, moved_pose, world_frame
from bags_ns.progress import say

HULL_VIEWS = 24
"""Frames, beside the canonical one, whose silhouettes shape the seed points."""
HULL_SIDE = 256
"""Resolution in pixels at which they are looked at."""


@dataclass(frozen=True)
class PrepareSettings:
    """All that shapes a prepared folder beside the input; it is part of its key in the cache.

    The fields mean what those of the same names in `AnimalVideoDataParserConfig` do.
    """

    known_cameras: bool = True
    fov_deg: float = 49.1
    elevation_deg: float | None = None
    crop_size: int = 256
    max_side: int = 0
    fps: float = 0.0
    start: float = 0.0
    end: float = 0.0
    max_frames: int = 0
    canonical_frame: int = -1
    orientation: Orientation = "auto"
    num_seed_points: int = 50_000
    seed_radius: float = 0.6
    segmenter: SegmenterName = "auto"
    segmenter_model: str = ""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    hold_out_every: int = 0
    hold_out_block: tuple[float, float] = (0.0, 0.0)

    @property
    def hold_out(self) -> HoldOut:
        """Which frames are not for training."""
        return HoldOut(self.hold_out_every, self.hold_out_block)

    @property
    def segmentation(self) -> SegmentSettings:
        """What matters to the making of silhouettes."""
        return SegmentSettings(self.segmenter, self.segmenter_model, self.box)


def prepare(clip: SourceClip, settings: PrepareSettings, cache_dir: Path) -> PreparedClip:
    """The clip in prepared form, from the cache if it has been prepared before."""
    if not settings.known_cameras:
        clip, fov_deg = clip.without_cameras()
        settings = replace(settings, fov_deg=fov_deg)
    poses = [_pose_key(frame) for frame in (*clip.frames, *clip.test_frames)]
    named = {"settings": asdict(settings), "prepared": clip.prepared, "poses": poses, "train": len(clip.frames)}
    made = lacks_silhouettes(clip)
    if made:
        named["segmenters"] = settings.segmentation.here
    key = content_key(clip.root, clip.files, named)
    is_new = not (cache_dir / key).is_dir()
    folder = cached_folder(cache_dir, key, lambda building: _build(clip, settings, cache_dir, building, made))
    if made and is_new and (folder / SHEET_NAME).is_file():
        say(f"Check the silhouettes that were made: {folder / SHEET_NAME}")
    return load_prepared(folder, clip.root)


def _build(clip: SourceClip, settings: PrepareSettings, cache_dir: Path, folder: Path, made: bool) -> None:
    """Prepares a clip, its silhouettes made first if there are none."""
    if made:
        choice = choose_frames(clip, settings.fps, settings.start, settings.end, settings.max_frames)
        clip = with_silhouettes(clip, choice.numbers, settings.segmentation, cache_dir)
    build_prepared(clip, settings, folder, made)


def _pose_key(frame: SourceFrame) -> list[object]:
    """What a camera file says of a frame, whatever the file's own form is."""
    camera = frame.camera
    return [frame.time] if camera is None else [frame.time, camera_entry(camera), camera.distortion]


def build_prepared(clip: SourceClip, settings: PrepareSettings, folder: Path, made: bool = False) -> None:
    """Fills an empty folder with the prepared form of a clip; `made` says that a segmenter made its silhouettes."""
    choice = choose_frames(clip, settings.fps, settings.start, settings.end, settings.max_frames)
    if len(choice.numbers) < 2:
        raise DataError(f"{clip.video or clip.root} leaves one frame; an animal in motion takes two, better fifty.")
    if clip.has_cameras:
        built = build_known(
            clip,
            choice,
            folder,
            max_side=settings.max_side,
            canonical_frame=settings.canonical_frame,
            hold_out=settings.hold_out,
            made=made,
        )
    else:
        built = _build_object_centric(clip, settings, choice, folder, made)
    canonical, others = _views(built.info, built.train)
    if clip.has_cameras and clip.prepared is None:
        poses = np.stack([frame.camera.camera_to_world for frame in (*built.train, *built.test)])
        T = world_frame(canonical, others, poses, settings.orientation)
        built = built.moved(T, replace(built.info, T_world_input=torch.from_numpy(T.astype(np.float32))))
        canonical, *others = (
            replace(view, camera_to_world=moved_pose(T, view.camera_to_world)) for view in (canonical, *others)
        )
    write_prepared(folder, built, clip.root if built.in_place else folder)
    rgb = read_rgba(built.train[built.info.canonical_index].image)[..., :3]
    points = seed_points(canonical, others, rgb, settings.num_seed_points, settings.seed_radius)
    write_seed_points(folder / "seed_points.ply", *points)


def _build_object_centric(
    clip: SourceClip, settings: PrepareSettings, choice: FrameChoice, folder: Path, made: bool
) -> Built:
    frames = track_slowly(read_clip(clip, choice.numbers), "Measuring silhouettes", len(choice.numbers))
    choice, silhouettes, _ = judged_silhouettes(clip.video or clip.root, frames, choice, folder, made)
    if len(np.unique(silhouettes.image_sizes, axis=0)) > 1:
        raise DataError(
            f"{clip.video or clip.root} has frames of several sizes; a plain video needs one, so resize them."
        )
    held = settings.hold_out.frames(choice.times)
    trained, measured = choice.where(~held), silhouettes.where(~held)
    canonical = canonical_index(measured, trained.numbers, settings.canonical_frame)
    width, height = (int(value) for value in silhouettes.image_sizes[0])
    view = object_centric_view(measured, canonical, (width, height), settings.fov_deg, settings.elevation_deg or 0.0)
    # A held-out frame's crop, which is where it is looked at, follows its own silhouette; its place is for motion to say.
    unknown = np.full((held.sum(), 3), np.nan)
    held_view = replace(view, crop_boxes=crop_boxes(silhouettes.boxes)[held], root_translations=unknown)
    (folder / "images").mkdir()
    train = _write_crops(clip, trained, view, settings.crop_size, folder / "images", "frame")
    held_out = []
    if held.any():
        held_out = _write_crops(clip, choice.where(held), held_view, settings.crop_size, folder / "images", "held_out")
    info = ClipInfo(
        canonical_index=canonical,
        times=torch.tensor(trained.times, dtype=torch.float32),
        object_centric=True,
        root_translations=torch.from_numpy(view.root_translations.astype(np.float32)),
        crop_boxes=torch.from_numpy(view.crop_boxes),
        source_indices=torch.tensor(trained.numbers),
        source_size=(width, height),
        fps=trained.fps,
        elevation_deg=settings.elevation_deg,
    )
    return Built(info, train, [], held_out, in_place=False)


def _write_crops(
    clip: SourceClip, choice: FrameChoice, view: ObjectCentricView, crop_size: int, folder: Path, name: str
) -> list[PosedImage]:
    """Writes each frame's square crop as `name`_00000.png and so on."""
    frames = track_slowly(read_clip(clip, choice.numbers), "Cutting out the animal", len(choice.numbers))
    posed = []
    for index, rgba in enumerate(frames):
        path = folder / f"{name}_{index:05d}.png"
        left, top, side = (int(value) for value in view.crop_boxes[index])
        write_rgba(path, resize_rgba(crop_square(rgba, left, top, side), crop_size, crop_size))
        posed.append(PosedImage(path, None, choice.times[index], _crop_camera(view, index, crop_size)))
    return posed


def _crop_camera(view: ObjectCentricView, index: int, crop_size: int) -> SourceCamera:
    focal, cx, cy = view.crop_intrinsics(index, crop_size)
    return SourceCamera(view.camera_to_world, float(focal), float(focal), float(cx), float(cy), crop_size, crop_size)


def _views(info: ClipInfo, train: Sequence[PosedImage]) -> tuple[View, list[View]]:
    """The canonical silhouette, and others at a lower resolution, evenly chosen."""
    canonical = train[info.canonical_index]
    whole = View(read_rgba(canonical.image)[..., 3], canonical.camera.intrinsics, canonical.camera.camera_to_world)
    numbers = np.unique(np.linspace(0, len(train) - 1, HULL_VIEWS).round().astype(int))
    # A camera that never moves adds nothing, and the animal is elsewhere in its other frames.
    others = [] if info.object_centric else [_view(train[n]) for n in numbers if n != info.canonical_index]
    return whole, others


def _view(frame: PosedImage) -> View:
    alpha = fit_max_side(read_rgba(frame.image), HULL_SIDE)[..., 3]
    camera = frame.camera.resized(alpha.shape[1], alpha.shape[0])
    return View(alpha, camera.intrinsics, camera.camera_to_world)
