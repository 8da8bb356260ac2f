"""Turns any clip that `layouts` finds into a prepared folder: reads, measures, crops or merges, and writes it once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from bags_ns.data.cache import cached_folder, content_key
from bags_ns.data.frames import FrameChoice, choose_frames, read_clip, read_frame, track_slowly
from bags_ns.data.images import DataError, crop_square, fit_max_side, fitted_size, read_rgba, resize_rgba, write_rgba
from bags_ns.data.judgement import ContactSheet, judge, summary, usable, write_judgement
from bags_ns.data.layouts import SourceClip, SourceFrame
from bags_ns.data.object_centric import ObjectCentricView, object_centric_view
from bags_ns.data.prepared import (
    ClipInfo,
    PreparedClip,
    clip_info,
    load_prepared,
    recentred,
    write_prepared,
    write_seed_points,
)
from bags_ns.data.seed_points import View, seed_points
from bags_ns.data.segmentation import SegmenterName, SegmentSettings, lacks_silhouettes, with_silhouettes
from bags_ns.data.silhouettes import MIN_AREA, Silhouettes, choose_canonical, measure_silhouettes
from bags_ns.data.transforms import PosedImage, SourceCamera, camera_entry
from bags_ns.progress import say

SHEET_NAME = "silhouettes.png"
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
    elevation_deg: float = 0.0
    crop_size: int = 256
    max_side: int = 0
    fps: float = 0.0
    start: float = 0.0
    end: float = 0.0
    max_frames: int = 0
    canonical_frame: int = -1
    num_seed_points: int = 50_000
    seed_radius: float = 0.6
    segmenter: SegmenterName = "auto"
    segmenter_model: str = ""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)

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
    key = content_key(clip.root, clip.files, named)
    made = lacks_silhouettes(clip)
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
        info, train, test, in_place = _build_known(clip, settings, choice, folder)
    else:
        info, train, test, in_place = _build_object_centric(clip, settings, choice, folder, made)
    write_prepared(folder, info, train, test, clip.root if in_place else folder, in_place)
    xyz, rgb = _seed(info, train, settings)
    write_seed_points(folder / "seed_points.ply", xyz, rgb)


def _build_object_centric(
    clip: SourceClip, settings: PrepareSettings, choice: FrameChoice, folder: Path, made: bool
) -> tuple[ClipInfo, list[PosedImage], list[PosedImage], bool]:
    frames = track_slowly(read_clip(clip, choice.numbers), "Measuring silhouettes", len(choice.numbers))
    # Given silhouettes were somebody's work already: a sheet is for those that were made here.
    sheet = ContactSheet(len(choice.numbers) if made else 0)
    silhouettes = measure_silhouettes(_shown(frames, sheet))
    choice, silhouettes = _without_bad(clip, choice, silhouettes, sheet, folder, made)
    if len(np.unique(silhouettes.image_sizes, axis=0)) > 1:
        raise DataError(
            f"{clip.video or clip.root} has frames of several sizes; a plain video needs one, so resize them."
        )
    canonical = _canonical(settings, choice, silhouettes)
    width, height = (int(value) for value in silhouettes.image_sizes[0])
    view = object_centric_view(silhouettes, canonical, (width, height), settings.fov_deg, settings.elevation_deg)
    frames = track_slowly(read_clip(clip, choice.numbers), "Cutting out the animal", len(choice.numbers))
    train = []
    (folder / "images").mkdir()
    for index, rgba in enumerate(frames):
        path = folder / "images" / f"frame_{index:05d}.png"
        left, top, side = (int(value) for value in view.crop_boxes[index])
        write_rgba(path, resize_rgba(crop_square(rgba, left, top, side), settings.crop_size, settings.crop_size))
        train.append(PosedImage(path, None, choice.times[index], _crop_camera(view, index, settings.crop_size)))
    info = ClipInfo(
        canonical_index=canonical,
        times=torch.tensor(choice.times, dtype=torch.float32),
        object_centric=True,
        root_translations=torch.from_numpy(view.root_translations.astype(np.float32)),
        crop_boxes=torch.from_numpy(view.crop_boxes),
        source_indices=torch.tensor(choice.numbers),
        source_size=(width, height),
        fps=choice.fps,
    )
    return info, train, [], False


def _crop_camera(view: ObjectCentricView, index: int, crop_size: int) -> SourceCamera:
    focal, cx, cy = view.crop_intrinsics(index, crop_size)
    return SourceCamera(view.camera_to_world, float(focal), float(focal), float(cx), float(cy), crop_size, crop_size)


def _shown(frames: Iterator[UInt8[np.ndarray, "H W 4"]], sheet: ContactSheet) -> Iterator[UInt8[np.ndarray, "H W 4"]]:
    for index, rgba in enumerate(frames):
        sheet.add(index, rgba)
        yield rgba


def _without_bad(
    clip: SourceClip, choice: FrameChoice, silhouettes: Silhouettes, sheet: ContactSheet, folder: Path, made: bool
) -> tuple[FrameChoice, Silhouettes]:
    """Judges every frame, writes that down and leaves out the bad ones; there must be some with an animal."""
    verdicts = judge(silhouettes)
    used = usable(verdicts, made)
    if not any(used):
        remedy = (
            "give --box x y width height of the animal in the first frame" if made else "make them white on the animal"
        )
        raise DataError(f"{clip.video or clip.root}: the masks of all {len(used)} frames are empty; {remedy}.")
    sheet.write(folder / SHEET_NAME, choice.numbers, verdicts)
    write_judgement(folder / "frames.json", choice.numbers, verdicts, used)
    if left_out := summary(choice.numbers, verdicts, used):
        say(left_out)
    kept = np.array(used)
    numbers, times = (tuple(np.array(values)[kept].tolist()) for values in (choice.numbers, choice.times))
    return replace(choice, numbers=numbers, times=times), silhouettes.where(kept)


def _canonical(settings: PrepareSettings, choice: FrameChoice, silhouettes: Silhouettes) -> int:
    """Position of the canonical frame: the one asked for (or the nearest that is used), else the best."""
    if settings.canonical_frame < 0:
        return choose_canonical(silhouettes)
    return int(np.abs(np.array(choice.numbers) - settings.canonical_frame).argmin())


def _build_known(
    clip: SourceClip, settings: PrepareSettings, choice: FrameChoice, folder: Path
) -> tuple[ClipInfo, list[PosedImage], list[PosedImage], bool]:
    sources = [clip.frames[number] for number in choice.numbers]
    in_place = all(_is_ready(frame, settings.max_side) for frame in (*sources, *clip.test_frames))
    train = [_posed(frame) for frame in sources]
    test = [_posed(frame) for frame in clip.test_frames]
    if in_place:
        frames = read_clip(clip, choice.numbers)
    else:
        train, test = (
            _moved(posed, folder / name, settings) for posed, name in ((train, "images"), (test, "images_test"))
        )
        frames = _merged(sources, train, settings)
        for _ in _merged(clip.test_frames, test, settings):
            pass
    silhouettes = measure_silhouettes(track_slowly(frames, "Reading silhouettes", len(sources)))
    if silhouettes.areas.max() < MIN_AREA:
        raise DataError(f"{clip.root}: the silhouettes of all {len(sources)} frames are empty; check alpha or masks.")
    info = _known_info(clip, settings, choice, silhouettes)
    if info.root_translations is not None:
        info, train = recentred(info, train)
    return info, train, test, in_place


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


def _moved(posed: Sequence[PosedImage], folder: Path, settings: PrepareSettings) -> list[PosedImage]:
    """The entries as they will be once their images are merged into `folder`."""
    moved = []
    for index, frame in enumerate(posed):
        camera = frame.camera
        resized = camera.resized(*fitted_size(camera.width, camera.height, settings.max_side))
        moved.append(PosedImage(folder / f"frame_{index:05d}.png", None, frame.time, resized))
    return moved


def _merged(
    sources: Sequence[SourceFrame], moved: Sequence[PosedImage], settings: PrepareSettings
) -> Iterator[UInt8[np.ndarray, "H W 4"]]:
    """Writes each frame as one RGBA file and passes it on."""
    for source, target in zip(sources, moved, strict=True):
        target.image.parent.mkdir(exist_ok=True)
        rgba = read_frame(source, settings.max_side)
        write_rgba(target.image, rgba)
        yield rgba


def _known_info(clip: SourceClip, settings: PrepareSettings, choice: FrameChoice, silhouettes: Silhouettes) -> ClipInfo:
    """The clip's facts; those of a clip that was prepared by this package before are kept."""
    numbers = torch.tensor(choice.numbers)
    width, height = (int(value) for value in silhouettes.image_sizes[0])
    fresh = ClipInfo(
        canonical_index=_canonical(settings, choice, silhouettes),
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
    if settings.canonical_frame < 0:
        fresh = replace(fresh, canonical_index=int((numbers - known.canonical_index).abs().argmin()))
    return replace(
        fresh,
        object_centric=known.object_centric,
        root_translations=None if known.root_translations is None else known.root_translations[numbers],
        crop_boxes=None if known.crop_boxes is None else known.crop_boxes[numbers],
        source_indices=known.source_indices[numbers],
        source_size=known.source_size,
    )


def _seed(
    info: ClipInfo, train: Sequence[PosedImage], settings: PrepareSettings
) -> tuple[Float[torch.Tensor, "N 3"], UInt8[torch.Tensor, "N 3"]]:
    rgba = read_rgba(train[info.canonical_index].image)
    canonical = View(
        rgba[..., 3], train[info.canonical_index].camera.intrinsics, train[info.canonical_index].camera.camera_to_world
    )
    numbers = np.unique(np.linspace(0, len(train) - 1, HULL_VIEWS).round().astype(int))
    # A camera that never moves adds nothing, and the animal is elsewhere in its other frames.
    others = [] if info.object_centric else [_view(train[n]) for n in numbers if n != info.canonical_index]
    return seed_points(canonical, others, rgba[..., :3], settings.num_seed_points, settings.seed_radius)


def _view(frame: PosedImage) -> View:
    alpha = fit_max_side(read_rgba(frame.image), HULL_SIDE)[..., 3]
    camera = frame.camera.resized(alpha.shape[1], alpha.shape[0])
    return View(alpha, camera.intrinsics, camera.camera_to_world)
