"""Main memory while a clip with masks is prepared and held for training, and while it is trained on.

python benchmarks/memory.py --num-frames 100
python benchmarks/memory.py --num-frames 300 --num-steps 8
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from rich.console import Console
from training_step import run_step, trainer_on

from bags_ns.data.datamanager import BagsDataManagerConfig
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.files import write_json


@dataclass
class Memory:
    """Writes a made-up clip, loads it as ns-train does, and reads this process's memory."""

    num_frames: int = 100
    """Frames of the clip."""
    size: tuple[int, int] = (1920, 1080)
    """Their width and height, in pixels."""
    known_cameras: bool = True
    """Whether a transforms.json gives cameras: frames are then kept whole; otherwise they become crops."""
    num_steps: int = 0
    """Training steps after loading, spread over a run; 0 loads only."""
    num_gaussians: int = 40_000
    """About how many Gaussians are trained."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, float | int | bool]:
        """Growth of resident memory in GiB: at its peak, and what stays; and the peak of all of the process."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_clip(folder / "clip", self.num_frames, self.size, self.known_cameras)
            figures: dict[str, float | int | bool] = {
                "frames": self.num_frames,
                "known_cameras": self.known_cameras,
                "steps": self.num_steps,
            }
            before = resident_gib("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # starts the high-water mark anew
            if self.num_steps:
                trainer = trainer_on(folder / "clip", self.num_gaussians)
                for step in np.linspace(0, trainer.run_length - 1, self.num_steps).astype(int):
                    run_step(trainer, int(step))
                figures["gaussians"] = trainer.model.num_points
                if torch.cuda.is_available():
                    figures["peak_cuda_gib"] = torch.cuda.max_memory_allocated() / 2**30
                manager = trainer.pipeline.datamanager
            else:
                parser = AnimalVideoDataParserConfig(data=folder / "clip", cache_dir=folder / "cache")
                manager = BagsDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode="val")
            figures["height"] = manager.next_frames(4).images.shape[1]
            figures["peak_gib"] = resident_gib("VmHWM") - before
            figures["held_gib"] = resident_gib("VmRSS") - before
            figures["process_peak_gib"] = resident_gib("VmHWM")
        return figures


def write_clip(clip: Path, num_frames: int, size: tuple[int, int], known_cameras: bool = True) -> None:
    """An ellipse that walks across noise."""
    width, height = size
    (clip / "images").mkdir(parents=True)
    (clip / "masks").mkdir()
    generator = np.random.default_rng(0)
    noise = cv2.resize(generator.integers(0, 255, (108, 192, 3), np.uint8), size)
    pose = [[0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    frames = []
    for index in range(num_frames):
        time = index / (num_frames - 1)
        mask = np.zeros((height, width), np.uint8)
        center = (int((0.35 + 0.25 * time) * width), height // 2)
        cv2.ellipse(mask, center, (int(0.16 * width), int(0.14 * height)), 0, 0, 360, 255, -1)
        image = np.where(mask[..., None] > 0, (40, 120, 200), noise).astype(np.uint8)
        cv2.imwrite(str(clip / f"images/{index:03d}.jpg"), image)
        cv2.imwrite(str(clip / f"masks/{index:03d}.png"), mask)
        paths = {"file_path": f"images/{index:03d}.jpg", "mask_path": f"masks/{index:03d}.png"}
        frames.append({**paths, "time": time, "transform_matrix": pose})
    if known_cameras:
        intrinsics = {"fl_x": width, "fl_y": width, "cx": width / 2, "cy": height / 2, "w": width, "h": height}
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
