"""Growth of main memory while a full-HD clip with masks is prepared and held for training.

python benchmarks/memory.py --num-frames 100
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from rich.console import Console

from bags_ns.data.datamanager import BagsDataManagerConfig
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.files import write_json


@dataclass
class Memory:
    """Writes a made-up clip, loads it as ns-train does, and reads this process's memory."""

    num_frames: int = 100
    """Frames of 1920 x 1080."""
    known_cameras: bool = True
    """Whether a transforms.json gives cameras: frames are then kept whole; otherwise they become crops."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, float | int | bool]:
        """Growth of resident memory in GiB: at its peak while loading, and what stays."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self._write_clip(folder / "clip")
            parser = AnimalVideoDataParserConfig(data=folder / "clip", cache_dir=folder / "cache")
            before = resident_gib("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # starts the high-water mark anew
            manager = BagsDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode="val")
            frames = manager.next_frames(4)
            figures = {
                "frames": self.num_frames,
                "known_cameras": self.known_cameras,
                "height": frames.images.shape[1],
                "peak_gib": resident_gib("VmHWM") - before,
                "held_gib": resident_gib("VmRSS") - before,
            }
        return figures

    def _write_clip(self, clip: Path) -> None:
        """An ellipse that walks across noise."""
        (clip / "images").mkdir(parents=True)
        (clip / "masks").mkdir()
        generator = np.random.default_rng(0)
        noise = cv2.resize(generator.integers(0, 255, (108, 192, 3), np.uint8), (1920, 1080))
        pose = [[0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
        frames = []
        for index in range(self.num_frames):
            mask = np.zeros((1080, 1920), np.uint8)
            cv2.ellipse(mask, (700 + 5 * index, 540), (300, 150), 0, 0, 360, 255, -1)
            image = np.where(mask[..., None] > 0, (40, 120, 200), noise).astype(np.uint8)
            cv2.imwrite(str(clip / f"images/{index:03d}.jpg"), image)
            cv2.imwrite(str(clip / f"masks/{index:03d}.png"), mask)
            paths = {"file_path": f"images/{index:03d}.jpg", "mask_path": f"masks/{index:03d}.png"}
            frames.append({**paths, "time": index / (self.num_frames - 1), "transform_matrix": pose})
        if self.known_cameras:
            intrinsics = {"fl_x": 1900.0, "fl_y": 1900.0, "cx": 960.0, "cy": 540.0, "w": 1920, "h": 1080}
            (clip / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))


def resident_gib(field: str) -> float:
    """A field of this process's status, in GiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**20


if __name__ == "__main__":
    benchmark = tyro.cli(Memory)
    result = benchmark.measure()
    Console().print(result)
    if benchmark.output:
        write_json(benchmark.output, result)
