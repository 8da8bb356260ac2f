"""Camera files in nerfstudio's and D-NeRF's conventions (transforms*.json), read into plain cameras.

Only pinhole cameras with OpenCV distortion; poses are OpenGL camera-to-world matrices and are used as they are.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bags_ns.data.images import IMAGE_SUFFIXES, DataError, image_size

PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
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
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid JSON ({error.msg}, line {error.lineno}); repair or rewrite it."
        ) from error
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
    return [
        _posed_image(path, folder, {**meta, **frame}, number, first_size) for number, frame in enumerate(meta["frames"])
    ]


def _posed_image(
    path: Path, folder: Path, frame: dict[str, Any], number: int, first_size: list[tuple[int, int]]
) -> PosedImage:
    if "file_path" not in frame:
        raise DataError(f'{path}: frame {number} has no "file_path"; add it.')
    image = find_image(folder, str(frame["file_path"]), path)
    mask = find_image(folder, str(frame["mask_path"]), path) if frame.get("mask_path") else None
    if "w" not in frame or "h" not in frame:
        if not first_size:
            first_size.append(image_size(image))
        frame["w"], frame["h"] = first_size[0]
    time = float(frame["time"]) if frame.get("time") is not None else None
    return PosedImage(image, mask, time, _camera(path, frame, f"frame {number} ({frame['file_path']})"))


def _camera(path: Path, values: dict[str, Any], where: str) -> SourceCamera:
    width, height = int(values["w"]), int(values["h"])
    fx = _focal(values, "fl_x", "camera_angle_x", width)
    fy = _focal(values, "fl_y", "camera_angle_y", height) or fx
    if not fx or not fy:
        raise DataError(f'{path}: {where} has no focal length; add "fl_x" (pixels) or "camera_angle_x" (radians).')
    distortion = values.get("distortion_params") or [values.get(key, 0.0) for key in DISTORTION_KEYS]
    if len(distortion) != len(DISTORTION_KEYS):
        raise DataError(f"{path}: {where} has {len(distortion)} distortion_params; give {', '.join(DISTORTION_KEYS)}.")
    return SourceCamera(
        camera_to_world=_pose(path, values.get("transform_matrix"), where),
        fx=fx,
        fy=fy,
        cx=float(values.get("cx", width / 2)),
        cy=float(values.get("cy", height / 2)),
        width=width,
        height=height,
        distortion=tuple(float(value) for value in distortion),
    )


def _focal(values: dict[str, Any], key: str, angle_key: str, side: int) -> float | None:
    if values.get(key):
        return float(values[key])
    return 0.5 * side / math.tan(0.5 * float(values[angle_key])) if values.get(angle_key) else None


def _pose(path: Path, matrix: Any, where: str) -> Float[np.ndarray, "4 4"]:
    try:
        rows = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError):
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
    candidates = [exact, *(exact.with_name(exact.name + suffix) for suffix in IMAGE_SUFFIXES)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{exact} does not exist but {named_in} names it; restore it or remove the frame.")
