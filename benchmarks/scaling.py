"""Training step and memory against the number of frames and of Gaussians: nothing may grow faster than they do.

    python benchmarks/scaling.py             clips of 854 x 480 on CUDA, of 256 x 144 on the CPU

Each row is measured in a process of its own, without a prior. The files of a model with 40,000 Gaussians are measured too.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from made_animal import made_animal
from memory import resident_gib, write_clip
from rich.console import Console
from rich.table import Table
from timing import device_name, median_ms
from training_step import run_step, trainer_on

from bags_ns.animation.export_gltf import write_gltf
from bags_ns.animation.export_ply import write_ply
from bags_ns.files import write_json
from bags_ns.rigged import posed_splats, rigged_animal, video_motion

COSTS = ("step_ms", "main_memory_gib", "cuda_memory_gib")
BAR_MB = 12.0
"""A model's PLY and its rig may take so much."""


@dataclass(frozen=True)
class Row:
    """What one process measures."""

    frames: int
    gaussians: int
    size: tuple[int, int]
    repeats: int


@dataclass
class Scaling:
    """Costs at each number of frames and of Gaussians, and how their growth compares with that of the number."""

    frames: tuple[int, ...] = (30, 90, 300)
    """Frames of the clips, with `usual_gaussians`."""
    gaussians: tuple[int, ...] = (5_000, 10_000, 20_000, 40_000)
    """Numbers of Gaussians, with `usual_frames`."""
    usual_frames: int = 90
    """Frames where the number of Gaussians changes."""
    usual_gaussians: int = 10_000
    """Gaussians where the number of frames changes."""
    size: tuple[int, int] | None = None
    """Width and height of the frames in pixels."""
    repeats: int = 20
    """Steps timed; the median counts."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, Any]:
        """A list of rows for each of the two, and the sizes of the files."""
        size = self.size or ((854, 480) if torch.cuda.is_available() else (256, 144))
        series = {
            "frames": [Row(count, self.usual_gaussians, size, self.repeats) for count in self.frames],
            "gaussians": [Row(self.usual_frames, count, size, self.repeats) for count in self.gaussians],
        }
        figures: dict[str, Any] = {"device": device_name(), "size": size}
        for name, rows in series.items():
            figures[name] = []
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
                for measured in pool.map(measure_row, rows):
                    Console().print(measured)  # each takes a while: worth having, should nobody wait for the next ones
                    figures[name].append(measured)
            for before, after in zip(figures[name], figures[name][1:], strict=False):
                growth = after[name] / before[name]
                after |= {
                    f"{cost}_per_{name}": (after[cost] / before[cost]) / growth for cost in COSTS if cost in after
                }
        return figures | {"files_at_40000_gaussians": file_sizes()}


def measure_row(row: Row) -> dict[str, Any]:
    """Milliseconds of a step late in a run, and peaks of memory: of the process beyond what its imports take, and of the card."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "clip"
        write_clip(clip, row.frames, row.size)
        before = resident_gib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        trainer = trainer_on(clip, row.gaussians)
        last = trainer.run_length - 1
        for step in (0, last // 2, last):
            run_step(trainer, step)
        ms = median_ms({"step": lambda: run_step(trainer, last)}, row.repeats)
        figures = {"frames": row.frames, "gaussians": trainer.model.num_points, "step_ms": ms["step"]}
        figures["main_memory_gib"] = resident_gib("VmHWM") - before
        if torch.cuda.is_available():
            figures["cuda_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return figures


def file_sizes(num_gaussians: int = 40_000) -> dict[str, float]:
    """Megabytes of a model's exports: its PLY, and its rig with 90 frames of motion, with and without the Gaussians in it."""
    model = made_animal(num_gaussians, num_bones=32).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ply(folder / "splats.ply", posed_splats(model))
        motions = {"video": video_motion(model)}
        for stem, with_splats in (("rig", False), ("rig_with_splats", True)):
            write_gltf(folder / f"{stem}.glb", rigged_animal(model), motions, with_splats=with_splats)
        sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(folder.iterdir())}
    return sizes | {"ply_and_rig": sizes["splats.ply"] + sizes["rig_with_splats.glb"], "bar": BAR_MB}


def tables(figures: dict[str, Any]) -> list[Table]:
    """One for each series; the last columns are growth of a cost by that of the number: 1 is linear."""
    result = []
    for name in ("frames", "gaussians"):
        table = Table(title=f"Costs against {name}, frames of {figures['size']}, {figures['device']}")
        names = list(figures[name][-1])
        for column in names:
            table.add_column(column.replace("_", " "), justify="right")
        for row in figures[name]:
            cells = (row.get(column, "") for column in names)
            table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells))
        result.append(table)
    return result


if __name__ == "__main__":
    benchmark = tyro.cli(Scaling)
    result = benchmark.measure()
    Console().print(*tables(result), result["files_at_40000_gaussians"])
    if benchmark.output:
        write_json(benchmark.output, result)
