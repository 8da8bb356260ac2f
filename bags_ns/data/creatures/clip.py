"""A clip of one creature on disk: a monocular video with cameras and masks, test views all round, and true bone poses.

The layout is that of D-NeRF: `transforms_train.json` (one frame a time), `transforms_test.json` (some of these times from
eight sides), RGBA images with straight alpha; `bones.json` holds what only a procedural animal can tell.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bags_ns.cameras import intrinsics_from_fov, orbit_camera
from bags_ns.data.creatures.anatomy import FOOT_NAMES, PART_NAMES, PART_PARENTS
from bags_ns.data.creatures.pose import AnimatedCreature, random_gaits
from bags_ns.data.creatures.render import render_creatures
from bags_ns.data.creatures.shape import random_creatures

Progress = Callable[[int, int], None]
"""Called with the number of images written so far and the number of all."""

CLIP_STEPS = 96
"""Steps along a ray; few rays need them, and the compact path drops the others early."""


@dataclass(frozen=True)
class ClipSettings:
    """What a clip shows and from where."""

    num_frames: int = 24
    """Frames of the video, at times 0 to 1."""
    size: int = 128
    """Width and height of the images, pixels."""
    arc_deg: float = 60.0
    """How far the camera's azimuth moves over the video (0: a static camera)."""
    azimuth_deg: float = -45.0
    """Azimuth of the first frame: 0 sees the left side, -90 the face."""
    elevation_deg: float = 10.0
    """Elevation of the video's cameras."""
    test_elevation_deg: float = 12.0
    """Elevation of the test cameras."""
    radius: float = 1.95
    """Distance of all cameras from the origin; the creature's longest side is 1."""
    fov: float = 0.69
    """Field of view across the image, radians."""
    num_test_times: int = 12
    """Times of the test views, spread over those of the video."""
    num_test_azimuths: int = 8
    """Test views of each of these times, evenly all round."""


@dataclass(frozen=True)
class _Shot:
    """One image of the clip."""

    file_path: str
    time: float
    azimuth_deg: float
    elevation_deg: float
    labels: dict[str, int]
    """What test frames say besides: index of the train frame of the same time, azimuth in degrees."""

    def camera_to_world(self, radius: float) -> Float[Tensor, "4 4"]:
        """OpenGL pose of the camera."""
        azimuth, elevation = (
            torch.tensor(math.radians(angle), dtype=torch.float64) for angle in (self.azimuth_deg, self.elevation_deg)
        )
        return orbit_camera(azimuth, elevation, torch.tensor(radius, dtype=torch.float64))


def random_animated_creature(seed: int, body_plans: Sequence[str] | None = None) -> AnimatedCreature:
    """The creature and gait of a seed."""
    generator = torch.Generator().manual_seed(seed)
    return AnimatedCreature(random_creatures(1, generator, body_plans=body_plans), random_gaits(1, generator))


def write_creature_clip(
    folder: Path,
    seed: int,
    settings: ClipSettings | None = None,
    body_plans: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> AnimatedCreature:
    """Writes the clip of a random creature to `folder`, which must not exist, and returns the creature.

    The folder appears only when it is complete.
    """
    folder, settings = Path(folder), settings or ClipSettings()
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it or choose another folder for the clip")
    animal = random_animated_creature(seed, body_plans)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with _one_thread():
            _write_files(unfinished, animal, settings, {"seed": seed, "body_plans": body_plans}, progress)
        unfinished.chmod(0o755)  # mkdtemp's folders are private
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return animal


@contextmanager
def _one_thread() -> Iterator[None]:
    """Runs torch on one thread: its tensors are small here, and threads that wait for each other on a busy machine made
    this 20 times slower, while a second one gains little on an idle machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _write_files(
    folder: Path, animal: AnimatedCreature, settings: ClipSettings, origin: dict[str, Any], progress: Progress | None
) -> None:
    """All files of a clip."""
    import cv2  # here, so that training on animals needs torch only

    (folder / "images").mkdir()
    splits = {"train": _train_shots(settings), "test": _test_shots(settings)}
    shots = [shot for split in splits.values() for shot in split]
    for done, shot in enumerate(shots, start=1):
        image = _rgba_bytes(*render_shot(animal, shot, settings))
        path = folder / f"{shot.file_path}.png"
        if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA)):
            raise OSError(f"could not write {path}")
        if progress is not None:
            progress(done, len(shots))
    for name, split in splits.items():
        _write_json(folder / f"transforms_{name}.json", _transforms(split, settings))
    times = [shot.time for shot in splits["train"]]
    _write_json(folder / "bones.json", _bones(animal, times) | {"origin": {**origin, **asdict(settings)}})


def _train_shots(settings: ClipSettings) -> list[_Shot]:
    """One shot for each time, along the arc."""
    last = max(settings.num_frames - 1, 1)
    return [
        _Shot(
            f"images/train_{k:03d}",
            k / last,
            settings.azimuth_deg + settings.arc_deg * k / last,
            settings.elevation_deg,
            {},
        )
        for k in range(settings.num_frames)
    ]


def _test_shots(settings: ClipSettings) -> list[_Shot]:
    """Shots from all round at some of the train times, each in the middle of its share of the clip."""
    num_times, last = min(settings.num_test_times, settings.num_frames), max(settings.num_frames - 1, 1)
    shots = []
    for index in ((2 * k + 1) * settings.num_frames // (2 * num_times) for k in range(num_times)):
        for view in range(settings.num_test_azimuths):
            azimuth = round(360 * view / settings.num_test_azimuths)
            labels = {"train_index": index, "azimuth": azimuth}
            name = f"images/test_f{index:03d}_az{azimuth:03d}"
            shots.append(_Shot(name, index / last, float(azimuth), settings.test_elevation_deg, labels))
    return shots


def render_shot(
    animal: AnimatedCreature, shot: _Shot, settings: ClipSettings
) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W 1"]]:
    """Straight colour and alpha of one image."""
    pose = animal.pose_at(torch.tensor([shot.time]))
    camera = shot.camera_to_world(settings.radius).float()[None]
    K = intrinsics_from_fov(math.degrees(settings.fov), settings.size, settings.size)[None]
    images = render_creatures(
        animal.creature,
        pose,
        camera,
        K,
        settings.size,
        settings.size,
        supersample=2,
        num_steps=CLIP_STEPS,
        compact=True,
    )
    return images.rgb[0], images.alpha[0]


def _rgba_bytes(rgb: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W 1"]) -> UInt8[np.ndarray, "H W 4"]:
    """8-bit image; colour is 0 where alpha is 0."""
    image = (torch.cat([rgb, alpha], dim=-1) * 255).round().to(torch.uint8)
    return (image * (image[..., 3:] > 0)).numpy()


def _transforms(shots: Sequence[_Shot], settings: ClipSettings) -> dict[str, Any]:
    """Contents of a transforms file."""
    focal = 0.5 * settings.size / math.tan(0.5 * settings.fov)
    center = 0.5 * settings.size
    frames = [
        {
            "file_path": shot.file_path,
            "time": shot.time,
            "transform_matrix": shot.camera_to_world(settings.radius).tolist(),
            **shot.labels,
        }
        for shot in shots
    ]
    intrinsics = {"fl_x": focal, "fl_y": focal, "cx": center, "cy": center, "w": settings.size, "h": settings.size}
    distortion = {"k1": 0, "k2": 0, "p1": 0, "p2": 0}
    return {"camera_model": "OPENCV", "camera_angle_x": settings.fov, **intrinsics, **distortion, "frames": frames}


def _bones(animal: AnimatedCreature, times: Sequence[float]) -> dict[str, Any]:
    """Names and true motion of the parts at the train times."""
    moments = torch.tensor(times, dtype=torch.float32)
    return {
        "times": list(times),
        "part_names": PART_NAMES,
        "part_parents": [PART_PARENTS[name] for name in PART_NAMES],
        "rest_joints": animal.creature.joints[0].tolist(),
        "T_world_rest": animal.bone_transforms(moments).tolist(),
        "foot_names": FOOT_NAMES,
        "foot_positions": animal.foot_positions(moments).tolist(),
    }


def _write_json(path: Path, contents: dict[str, Any]) -> None:
    """Writes JSON as UTF-8."""
    path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
