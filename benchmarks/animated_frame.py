"""An animated frame (pose at a time, deformation, rasterization) against the rasterization of the same Gaussians at rest.

    python benchmarks/animated_frame.py

`raster` is that of the canonical Gaussians: on CUDA gsplat's own call with their quaternions and scales, on the CPU the
package's. Every `frame` is of another time; on CUDA the package replays pose and deformation as one graph, which is
captured in the untimed rounds. `model` is the whole of nerfstudio's `get_outputs_for_camera`, which renders depth too; it
is to be seen beside `render with depth`, the package's own of Gaussians at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from made_animal import made_animal
from rich.console import Console
from rich.table import Table
from timing import device_name, median_ms

from bags_ns.cameras import viewmats_from_camera_to_worlds
from bags_ns.files import write_json
from bags_ns.gaussians import Gaussians
from bags_ns.model import BagsModel
from bags_ns.visualize import orbit_view

BARS = {"cuda": (50_000, 512, 1.25), "cpu": (10_000, 256, 1.35)}
"""Gaussians, side of the picture in pixels, and how many times the raw rasterization an animated frame may cost there."""
SCENES = {"cuda": [(10_000, 512), (50_000, 256), (50_000, 512), (50_000, 1080), (200_000, 512)]}
SCENES["cpu"] = [(10_000, 256), (10_000, 512), (50_000, 256)]
"""Gaussians and side of the picture in pixels."""


@dataclass
class AnimatedFrame:
    """Frames a second, ratios to the raw rasterization, and cost against the number of bones."""

    num_bones: int = 24
    """Bones, where their number does not vary."""
    bone_numbers: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    """Bones with which the frame is timed at the size of the bar."""
    repeats: int = 50
    """Frames timed; the median counts."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> list[dict[str, Any]]:
        """One row for each scene and number of bones."""
        torch.set_num_threads(1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        num_gaussians, size, _ = BARS[device]
        scenes = [(*scene, self.num_bones) for scene in SCENES[device]]
        scenes += [(num_gaussians, size, num_bones) for num_bones in self.bone_numbers if num_bones != self.num_bones]
        return [self._measure(*scene, *(BARS[device] if scene[:2] == BARS[device][:2] else ())) for scene in scenes]

    @torch.no_grad()
    def _measure(self, num_gaussians: int, size: int, num_bones: int, *bar: float) -> dict[str, Any]:
        model = made_animal(num_gaussians, num_bones).eval()
        cases = make_cases(model, size)
        ms = median_ms(cases, self.repeats)
        row: dict[str, Any] = {"device": device_name(), "gaussians": num_gaussians, "size": size, "bones": num_bones}
        row |= {f"{name}_ms": value for name, value in ms.items()}
        row |= {"frames_per_second": 1e3 / ms["frame"], "ratio": ms["frame"] / ms["raster"]}
        return row | {"bar": bar[2] if bar and num_bones == self.num_bones else None}


def make_cases(model: BagsModel, size: int) -> dict[str, Callable[[], object]]:
    """What is timed, each without arguments."""
    camera = orbit_view(0.5, 0.2, 2.0, torch.zeros(3), size).to(model.device)
    viewmats = viewmats_from_camera_to_worlds(camera.camera_to_worlds)
    Ks, white = camera.get_intrinsics_matrices().to(model.device), torch.ones(3, device=model.device)
    still = model.posed_gaussians(model.pose_at(model.bone_motion.canonical_time))
    times = iter(torch.rand(1_000_000).tolist())

    def rendered(gaussians: Gaussians, with_depth: bool = False) -> object:
        return model.render(gaussians, viewmats, Ks, size, size, background=white, with_depth=with_depth)

    def through_nerfstudio() -> object:
        camera.times = torch.full((1, 1), next(times))
        return model.get_outputs_for_camera(camera)

    return {
        "raster": bare_gsplat(model, viewmats, Ks, size) if model.device.type == "cuda" else lambda: rendered(still),
        "render": lambda: rendered(still),
        "pose": lambda: model.pose_at(next(times)),
        "posed": lambda: model.gaussians_at(next(times)),
        "frame": lambda: rendered(model.gaussians_at(next(times))),
        "render_with_depth": lambda: rendered(still, with_depth=True),
        "model": through_nerfstudio,
    }


def bare_gsplat(model: BagsModel, viewmats: torch.Tensor, Ks: torch.Tensor, size: int) -> Callable[[], object]:
    """gsplat's own call for the canonical Gaussians, with nothing of the package round it."""
    from gsplat import rasterization

    tensors = (model.means, model.quats, model.scales.exp(), model.canonical_opacities(), model.colors)
    white, eps2d = torch.ones(1, 3, device=model.device), model.config.eps2d
    return lambda: rasterization(*tensors, viewmats, Ks, size, size, eps2d=eps2d, backgrounds=white, packed=False)


def table(rows: list[dict[str, Any]]) -> Table:
    """One column a scene."""
    result = Table(title=f"An animated frame, {rows[0]['device']}; milliseconds")
    result.add_column("")
    for _ in rows:
        result.add_column(justify="right")
    for name in rows[0]:
        if name != "device":
            cells = ("" if row[name] is None else row[name] for row in rows)
            result.add_row(
                name.removesuffix("_ms").replace("_", " "),
                *(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells),
            )
    return result


if __name__ == "__main__":
    benchmark = tyro.cli(AnimatedFrame)
    figures = benchmark.measure()
    Console().print(table(figures))
    if benchmark.output:
        write_json(benchmark.output, figures)  # type: ignore[arg-type]
