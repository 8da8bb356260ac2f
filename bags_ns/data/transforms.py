"""Camera files in nerfstudio's and D-NeRF's conventions (transforms*.json), read into plain cameras.

Only pinhole cameras with OpenCV distortion; poses are OpenGL camera-to-world matrices and are used as they are.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bags_ns.data.images import IMAGE_SUFFIXES, DataError, image_size

PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
MAX_SIDE, MAX_FOCAL = 100_000, 1e7
"""Limits in pixels of what can be a picture and a lens."""
DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")


@dataclass(frozen=True, eq=False)
class SourceCamera:
    """A known camera: intrinsics in pixels (pixel centres at half-integers) and an OpenGL camera-to-world pose."""

    camera_to_world: Float[np.ndarray, "4 4"]
    """OpenGL axes: x right, y up, looking along -z."""
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, ...] = (0.0,) * 6
    """k1, k2, k3, k4, p1, p2."""

    @property
    def intrinsics(self) -> Float[np.ndarray, "3 3"]:
        """The 3x3 pinhole matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def is_distorted(self) -> bool:
        """Whether the lens bends straight lines."""
        return any(value != 0.0 for value in self.distortion)

    def resized(self, width: int, height: int) -> SourceCamera:
        """The camera of the same picture without distortion at another resolution."""
        x, y = width / self.width, height / self.height
        return SourceCamera(self.camera_to_world, self.fx * x, self.fy * y, self.cx * x, self.cy * y, width, height)


@dataclass(frozen=True, eq=False)
class PosedImage:
    """One entry of a camera file."""

    image: Path
    mask: Path | None
    time: float | None
    camera: SourceCamera


def load_json(path: Path) -> dict[str, Any]:
    """The contents of a JSON file that holds an object with a list of frames."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        reason = f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "no UTF-8 text"
        raise DataError(f"{path} is not valid JSON ({reason}); repair or rewrite it.") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list) or not meta["frames"]:
        raise DataError(
            f'{path} lists no frames; it needs a non-empty list "frames" (nerfstudio\'s transforms format).'
        )
    return meta


def read_transforms(path: Path, meta: dict[str, Any] | None = None, root: Path | None = None) -> list[PosedImage]:
    """The frames of a camera file in the order of the file.

    Args:
        path: The file.
        meta: Its contents, where they have been read already.
        root: The folder that image and mask names in it are relative to, if it is not the file's own.
    """
    meta = load_json(path) if meta is None else meta
    model = str(meta.get("camera_model", "OPENCV")).upper()
    if model not in PINHOLE_MODELS:
        raise DataError(f"{path} has camera_model {model}; undistort the frames to OPENCV or PINHOLE first.")
    first_size: list[tuple[int, int]] = []  # the header of one image is enough where the file gives no size
    folder = path.parent if root is None else root
    for number, frame in enumerate(meta["frames"]):
        if not isinstance(frame, dict):
            raise DataError(f"{path}: frame {number} is not an object; give it file_path and transform_matrix.")
    return [
        _posed_image(path, folder, {**meta, **frame}, number, first_size) for number, frame in enumerate(meta["frames"])
    ]


def _posed_image(
    path: Path, folder: Path, frame: dict[str, Any], number: int, first_size: list[tuple[int, int]]
) -> PosedImage:
    if not isinstance(frame.get("file_path"), str):
        raise DataError(f'{path}: frame {number} has no "file_path" that is a text; add it.')
    image = find_image(folder, frame["file_path"], path)
    mask = find_image(folder, str(frame["mask_path"]), path) if frame.get("mask_path") else None
    if "w" not in frame or "h" not in frame:
        if not first_size:
            first_size.append(image_size(image))
        frame["w"], frame["h"] = first_size[0]
    where = f"frame {number} ({frame['file_path']})"
    time = _number(path, frame, "time", where) if frame.get("time") is not None else None
    return PosedImage(image, mask, time, _camera(path, frame, where))


def _number(path: Path, values: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A finite number of a camera file."""
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f'{path}: {where} has "{key}" {str(value)[:40]!r}; give a finite number.')
    return float(value)


def _camera(path: Path, values: dict[str, Any], where: str) -> SourceCamera:
    width, height = (int(_number(path, values, key, where)) for key in ("w", "h"))
    if not 0 < width < MAX_SIDE or not 0 < height < MAX_SIDE:
        raise DataError(f'{path}: {where} has "w", "h" of {width}x{height}; give the size of its image.')
    fx = _focal(path, values, "fl_x", "camera_angle_x", width, where)
    fy = _focal(path, values, "fl_y", "camera_angle_y", height, where) or fx
    if not fx or not fy:
        raise DataError(f'{path}: {where} has no focal length; add "fl_x" (pixels) or "camera_angle_x" (radians).')
    distortion = values.get("distortion_params") or [_number(path, values, key, where, 0.0) for key in DISTORTION_KEYS]
    if not isinstance(distortion, list):
        raise DataError(f"{path}: {where} has distortion_params that are no list; give {', '.join(DISTORTION_KEYS)}.")
    if len(distortion) != len(DISTORTION_KEYS):
        raise DataError(f"{path}: {where} has {len(distortion)} distortion_params; give {', '.join(DISTORTION_KEYS)}.")
    return SourceCamera(
        camera_to_world=_pose(path, values.get("transform_matrix"), where),
        fx=fx,
        fy=fy,
        cx=_number(path, values, "cx", where, width / 2),
        cy=_number(path, values, "cy", where, height / 2),
        width=width,
        height=height,
        distortion=tuple(_number(path, {"distortion_params": v}, "distortion_params", where) for v in distortion),
    )


def _focal(path: Path, values: dict[str, Any], key: str, angle_key: str, side: int, where: str) -> float | None:
    if values.get(key):
        focal = _number(path, values, key, where)
    elif values.get(angle_key):
        key, angle = angle_key, _number(path, values, angle_key, where)
        focal = 0.5 * side / math.tan(0.5 * angle) if 0 < angle < math.pi else -1.0
    else:
        return None
    if not 0 < focal < MAX_FOCAL:
        raise DataError(f'{path}: {where} has a "{key}" that no camera has; give pixels, or radians for an angle.')
    return focal


def _pose(path: Path, matrix: Any, where: str) -> Float[np.ndarray, "4 4"]:
    try:
        rows = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        rows = np.zeros(0)
    if rows.shape not in ((4, 4), (3, 4)) or not np.isfinite(rows).all():
        raise DataError(
            f"{path}: {where} needs a transform_matrix of 4x4 finite numbers (camera-to-world, OpenGL axes)."
        )
    rotation = rows[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2) or np.linalg.det(rotation) < 0:
        raise DataError(
            f"{path}: {where} has a transform_matrix that is not a rotation and a position; export it unscaled."
        )
    return np.vstack([rows[:3], [0.0, 0.0, 0.0, 1.0]])


def camera_entry(camera: SourceCamera) -> dict[str, Any]:
    """The camera as a frame's entry in nerfstudio's convention."""
    return {
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "w": camera.width,
        "h": camera.height,
        "transform_matrix": camera.camera_to_world.tolist(),
    }


def find_image(folder: Path, name: str, named_in: Path) -> Path:
    """The file that a camera file names, with or without its extension (D-NeRF leaves it out)."""
    exact = folder / name
    if not Path(os.path.normpath(exact)).is_relative_to(os.path.normpath(folder)) or "\0" in name:
        raise DataError(f"{named_in} names {name[:80]!r}, which leaves {folder}; put the file into that folder.")
    candidates = [exact, *(exact.with_name(exact.name + suffix) for suffix in IMAGE_SUFFIXES)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{exact} does not exist but {named_in} names it; restore it or remove the frame.")
