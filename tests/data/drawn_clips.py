"""Small clips that are drawn here: a brown ellipse with a red dot at its centre walks over a green background."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 160, 120
FOV_DEG = 49.1
GREEN, BROWN, RED = (60, 160, 60), (150, 100, 50), (255, 0, 0)


def draw(centre: tuple[float, float], axes: tuple[float, float], size: tuple[int, int] = (WIDTH, HEIGHT)):
    """RGB and mask of an ellipse at a centre in pixels (pixel centres at half-integers)."""
    rgb = np.full((size[1], size[0], 3), GREEN, np.uint8)
    mask = np.zeros(rgb.shape[:2], np.uint8)
    shifted = [round((value - 0.5) * 256) for value in centre]
    half = [round(value * 256) for value in axes]
    for image, colour in ((rgb, BROWN), (mask, 255)):
        cv2.ellipse(image, shifted, half, 0, 0, 360, colour, -1, cv2.LINE_8, 8)
    cv2.circle(rgb, shifted, round(256 * max(1.5, axes[1] / 6)), RED, -1, cv2.LINE_8, 8)
    return rgb, mask


def walk(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames of an ellipse that walks to the right."""
    return [draw((50 + 60 * t, 60 + 8 * t), (32, 18)) for t in np.linspace(0, 1, count)]


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    assert cv2.imwrite(str(path), image)


def write_folder(root: Path, frames: list, images: str = "images", masks: str = "masks") -> Path:
    for index, (rgb, mask) in enumerate(frames):
        write_image(root / images / f"{index:05d}.png", rgb)
        write_image(root / masks / f"{index:05d}.png", mask)
    return root


def orbit(azimuth_deg: float, radius: float = 2.0) -> list[list[float]]:
    """OpenGL pose of a level camera that looks at the origin."""
    cosine, sine = math.cos(math.radians(azimuth_deg)), math.sin(math.radians(azimuth_deg))
    return [[-sine, 0, cosine, radius * cosine], [cosine, 0, sine, radius * sine], [0, 1, 0, 0], [0, 0, 0, 1]]


def write_orbit(root: Path, azimuths: list[float], name: str = "transforms_train.json", prefix: str = "train", **extra):
    """RGBA views of a ball of radius .4 at the origin, in D-NeRF's convention (no extension, camera_angle_x only)."""
    focal = 0.5 * 64 / math.tan(0.5 * math.radians(40))
    radius = focal * math.tan(math.asin(0.4 / 2.0))
    entries = []
    for index, azimuth in enumerate(azimuths):
        rgb, mask = draw((32, 32), (radius, radius), (64, 64))
        write_image(root / "images" / f"{prefix}_{index:03d}.png", np.dstack([rgb, mask]))
        time = index / max(1, len(azimuths) - 1)
        entries.append(
            {"file_path": f"./images/{prefix}_{index:03d}", "time": time, "transform_matrix": orbit(azimuth)}
        )
    meta = {"camera_angle_x": math.radians(40), "frames": entries, **extra}
    (root / name).write_text(json.dumps(meta))
    return meta
