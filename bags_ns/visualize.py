"""Pictures that a person looks at: the animal on a turntable, beside its video, in the colours of its bones, on one sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras, CameraType
from numpy import ndarray
from torch import Tensor

from bags_ns.bone_colors import in_bone_colors
from bags_ns.camera_paths import CameraPath
from bags_ns.cameras import intrinsics_from_fov, orbit_camera
from bags_ns.data.video import write_video
from bags_ns.files import whole_file
from bags_ns.metrics import on_white
from bags_ns.model import BagsModel
from bags_ns.pipeline import BagsPipeline
from bags_ns.progress import progress_bar
from bags_ns.rig.motion import Pose

Frame = UInt8[ndarray, "H W 3"]
Motion = Callable[[float], Pose]
"""The pose at a time from 0 to 1."""

MIN_SIZE = 16
"""Smallest side of a picture in pixels that a video is made of."""
SHEET_FRAMES = 24
"""Most frames of a contact sheet."""
TURNTABLE_FOV_DEG = 40.0
TURNTABLE_RADIUS = 2.0
TURNTABLE_ELEVATION_DEG = 12.0


def orbit_view(azimuth: float, elevation: float, radius: float, target: Float[Tensor, "3"], size: int) -> Cameras:
    """A square nerfstudio camera that looks at `target`. Radians, world units, pixels."""
    angles = torch.tensor([azimuth, elevation, radius])
    pose = orbit_camera(angles[0], angles[1], angles[2], target.cpu())
    K = intrinsics_from_fov(TURNTABLE_FOV_DEG, size, size)
    return Cameras(
        camera_to_worlds=pose[None, :3],
        fx=float(K[0, 0]),
        fy=float(K[1, 1]),
        cx=float(K[0, 2]),
        cy=float(K[1, 2]),
        width=size,
        height=size,
        camera_type=CameraType.PERSPECTIVE,
    )


def check_size(size: int) -> None:
    """Raises ValueError for pictures of no size."""
    if size < MIN_SIZE:
        raise ValueError(f"--size must be at least {MIN_SIZE} pixels, got {size}")


def to_uint8(image: Float[Tensor, "H W 3"]) -> Frame:
    """A picture in [0, 1] as bytes."""
    return (image.clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()


def render_pose(model: BagsModel, pose: Pose, camera: Cameras, bones: bool = False) -> Frame:
    """The animal in `pose` on white, in its own or its bones' colours."""
    gaussians = model.posed_gaussians(pose)
    if bones:
        gaussians = in_bone_colors(model, gaussians)
    white = torch.ones(3, device=model.device)
    return to_uint8(model.render_gaussians(gaussians, camera, white, with_depth=False).rgb[0])


@torch.no_grad()
def turntable(
    model: BagsModel,
    num_frames: int,
    size: int,
    turns: float = 1.0,
    start_azimuth: float = 0.0,
    bones: bool = False,
    motion: Motion | None = None,
) -> Iterator[Frame]:
    """The animal turning about the vertical axis while time runs from 0 to 1; in the video's motion unless one is given."""
    motion = motion or model.pose_at
    for index in range(num_frames):
        pose = motion(index / max(1, num_frames - 1))
        center = model.posed_gaussians(pose).centroid()
        azimuth = start_azimuth + turns * 2 * math.pi * index / num_frames
        camera = orbit_view(azimuth, math.radians(TURNTABLE_ELEVATION_DEG), TURNTABLE_RADIUS, center, size)
        yield render_pose(model, pose, camera, bones)


@torch.no_grad()
def along_path(model: BagsModel, path: CameraPath, motion: Motion, bones: bool = False) -> Iterator[Frame]:
    """What the cameras of a path see, each at its time."""
    for index, time in enumerate(path.times.tolist()):
        yield render_pose(model, motion(time), path.cameras[index : index + 1], bones)


@torch.no_grad()
def beside_source(
    model: BagsModel, frames: Iterable[tuple[Cameras, UInt8[Tensor, "_ _ C"]]], height: int, width: int
) -> Iterator[Frame]:
    """For each frame of the video: the frame cut out on white, the render and, where there are bones, their colours, side by side.

    Each is in the middle of `height` x `width` pixels, for frames may be of several sizes.
    """
    for camera, image in frames:
        pose = model.pose_at(model.camera_time(camera))
        source = to_uint8(on_white(model.ground_truth(image)))
        views = [source, render_pose(model, pose, camera)]
        if model.field is None:
            views.append(render_pose(model, pose, camera, bones=True))
        yield np.concatenate([_centred(view, height, width) for view in views], axis=1)


def _centred(picture: UInt8[ndarray, "_ _ 3"], height: int, width: int) -> UInt8[ndarray, "{height} {width} 3"]:
    """A picture in the middle of a white one that is as large or larger."""
    around = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    around[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return around


def sheet_places(count: int) -> list[int]:
    """Places of the frames of a contact sheet, evenly among `count`."""
    return np.unique(np.linspace(0, count - 1, SHEET_FRAMES).round().astype(int)).tolist()


def contact_sheet(frames: Sequence[Frame], columns: int) -> UInt8[ndarray, "sheet_height sheet_width 3"]:
    """Evenly chosen frames of equal size in a grid, left to right and top to bottom, on white."""
    chosen = [frames[place] for place in sheet_places(len(frames))]
    height, width = chosen[0].shape[:2]
    rows = math.ceil(len(chosen) / columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, frame in enumerate(chosen):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = frame
    return sheet


def write_png(path: Path, image: Frame) -> None:
    """Writes a picture, whole or not at all."""
    import cv2

    with whole_file(path) as unfinished:
        if not cv2.imwrite(str(unfinished), image[..., ::-1]):
            raise OSError(f"cannot write {path}: is the disk full?")


def write_film(
    output_dir: Path,
    name: str,
    frames: Iterable[Frame],
    count: int,
    *,
    fps: float,
    columns: int = 6,
    video: bool = True,
) -> tuple[Path, Path]:
    """Writes `count` frames into `output_dir`/NAME.mp4 and NAME.png (a contact sheet), and returns both paths."""
    places, shown = set(sheet_places(count)), list[Frame]()

    def watched() -> Iterator[Frame]:
        with progress_bar(f"Rendering {name}", count) as advance:
            for index, frame in enumerate(frames):
                if index in places:
                    shown.append(frame)
                advance(None, None)
                yield frame

    film, sheet = output_dir / f"{name}.mp4", output_dir / f"{name}.png"
    if video:
        write_video(film, watched(), fps)
    else:
        for _ in watched():
            pass
    write_png(sheet, contact_sheet(shown, columns))
    return film, sheet


def write_views(
    pipeline: BagsPipeline,
    output_dir: Path,
    *,
    kind: Literal["turntable", "source", "bones"],
    size: int = 512,
    num_frames: int | None = None,
    fps: float = 24.0,
    motion: Motion | None = None,
    with_video: bool = True,
) -> tuple[Path, Path]:
    """Films one kind of view; a turntable in the video's motion unless one is given."""
    model, data = pipeline.model, pipeline.datamanager
    if kind == "source":
        cameras = data.train_dataset.cameras
        count, height, width = len(cameras), int(cameras.height.max()), int(cameras.width.max())
        frames = beside_source(model, (data.train_image(index) for index in range(count)), height, width)
    else:
        count = num_frames or 2 * len(data.clip.times)
        start = first_azimuth(data.train_dataset.cameras.camera_to_worlds)
        frames = turntable(model, count, size, start_azimuth=start, bones=kind == "bones", motion=motion)
    return write_film(output_dir, kind, frames, count, fps=fps, columns=3 if kind == "source" else 6, video=with_video)


def first_azimuth(camera_to_worlds: Float[Tensor, "C 3 4"]) -> float:
    """Azimuth from which the first camera looks, in radians: where a turntable begins."""
    backward = camera_to_worlds[0, :3, 2]
    return math.atan2(float(backward[1]), float(backward[0]))
