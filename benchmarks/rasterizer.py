"""Times the CPU rasterizers against each other, and gsplat where there is CUDA: `python benchmarks/rasterizer.py`.

Everything runs on one thread, interleaved, and the least process time of all repeats counts: other load on the machine can only add
to it. Ratios within one run are comparable between machines; milliseconds are not.
"""

from __future__ import annotations

import ctypes
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "rendering"))

from rendering_scenes import FIELDS, dense_composite, make_cameras, make_gaussians, random_loss  # noqa: E402

from bags_ns.gaussians import Gaussians  # noqa: E402
from bags_ns.rendering import Backend, render  # noqa: E402
from bags_ns.rendering.numba_rasterizer import project_numba  # noqa: E402
from bags_ns.rendering.projection import project  # noqa: E402

SIZES = {128: 2_000, 256: 5_000, 480: 20_000}
"""Numbers of Gaussians by the side of the square image."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: Literal["x", "ms", "MiB"]
    target: str = ""
    met: bool | None = None


def at_least(name: str, value: float, bound: float) -> Figure:
    """A ratio that must not be lower."""
    return Figure(name, value, "x", f">= {bound:g}", value >= bound)


def at_most(name: str, value: float, bound: float, unit: Literal["x", "MiB"] = "x") -> Figure:
    """A ratio or a size that must not be higher."""
    return Figure(name, value, unit, f"<= {bound:g}", value <= bound)


@dataclass(frozen=True)
class Workload:
    """A scene at one image size."""

    size: int
    gaussians: Gaussians
    viewmats: torch.Tensor
    Ks: torch.Tensor

    @staticmethod
    def make(size: int, device: str = "cpu") -> Workload:
        """The shell of `make_gaussians`, one camera."""
        gaussians = make_gaussians(SIZES[size])
        tensors = (getattr(gaussians, name).detach().to(device).requires_grad_() for name in FIELDS)
        viewmats, Ks = make_cameras(1, size, size)
        return Workload(size, Gaussians(*tensors), viewmats.to(device), Ks.to(device))

    def forward(self, backend: Backend) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and alphas."""
        output = render(self.gaussians, self.viewmats, self.Ks, self.size, self.size, backend=backend)
        return output.rgb, output.alpha

    def forward_backward(self, backend: Backend) -> None:
        """And the gradients of their sums by all of the Gaussians' tensors."""
        images = self.forward(backend)
        torch.autograd.grad(images, list(vars(self.gaussians).values()), [torch.ones_like(image) for image in images])

    def dense(self) -> None:
        """Forward and backward with every Gaussian at every pixel."""
        projection = project(self.gaussians, self.viewmats, self.Ks, self.size, self.size)
        rgb, alpha, _ = dense_composite(projection, 0, self.gaussians, self.size, self.size)
        torch.autograd.grad(random_loss(rgb, alpha), list(vars(self.gaussians).values()))

    def projection(self) -> None:
        """Forward and backward of the projection alone."""
        p = project_numba(self.gaussians, self.viewmats, self.Ks, self.size, self.size)
        outputs = p.means2d, p.conics
        torch.autograd.grad(
            outputs, (self.gaussians.means, self.gaussians.covars), [torch.ones_like(o) for o in outputs]
        )


def best_times(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least process time in ms of each case, the cases taking turns."""
    best = dict.fromkeys(cases, float("inf"))
    for case in cases.values():
        case()
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.process_time()
            case()
            best[name] = min(best[name], 1e3 * (time.process_time() - start))
    return best


def extra_memory(case: Callable[[], object]) -> float:
    """MiB by which the process's resident memory peaks above its present size while `case` runs. Linux only."""

    def status(field: str) -> float:
        """In MiB."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # memory that is free but held would be used unseen
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status("VmRSS")
    case()
    return status("VmHWM") - before


def memory_figures() -> list[Figure]:
    """Extra memory at the largest size, before anything else has made the allocator hold some."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    small, large = Workload.make(128), Workload.make(480)
    bounds: dict[Backend, float] = {"numba": 64, "torch": 256}
    for backend in bounds:
        small.forward_backward(backend)
    return [
        at_most(
            f"extra memory, {backend} f+b, 480", extra_memory(lambda b=backend: large.forward_backward(b)), bound, "MiB"
        )
        for backend, bound in bounds.items()
    ]


def cpu_figures(repeats: int) -> list[Figure]:
    """Ratios of times at every size, and the times."""
    times = {}
    for size in SIZES:
        work = Workload.make(size)
        cases: dict[str, Callable[[], object]] = {
            "numba fwd": lambda w=work: w.forward("numba"),
            "numba f+b": lambda w=work: w.forward_backward("numba"),
            "torch fwd": lambda w=work: w.forward("torch"),
            "torch f+b": lambda w=work: w.forward_backward("torch"),
            "projection f+b": work.projection,
        }
        if size == 128:
            cases["dense f+b"] = work.dense
        times[size] = best_times(cases, repeats)
    figures = [at_least("dense f+b / numba f+b, 128", times[128]["dense f+b"] / times[128]["numba f+b"], 500)]
    for size in SIZES:
        t = times[size]
        if size > 128:
            figures.append(at_least(f"torch f+b / numba f+b, {size}", t["torch f+b"] / t["numba f+b"], 3))
        figures.append(at_most(f"numba f+b / fwd, {size}", t["numba f+b"] / t["numba fwd"], 3.5))
        figures.append(at_most(f"torch f+b / fwd, {size}", t["torch f+b"] / t["torch fwd"], 2.7))
        share = t["projection f+b"] / t["numba f+b"]
        figures.append(Figure(f"projection's share of numba f+b, {size}", share, "x"))
    figures.append(at_most("numba f+b, 480 / 128", times[480]["numba f+b"] / times[128]["numba f+b"], 14))
    figures += [Figure(f"{name}, {size}", value, "ms") for size, t in times.items() for name, value in t.items()]
    return figures


def cuda_figures(repeats: int) -> list[Figure]:
    """gsplat's times, waiting for the device."""
    figures = []
    for size in SIZES:
        work = Workload.make(size, "cuda")
        for name, case in {"fwd": work.forward, "f+b": work.forward_backward}.items():
            case("gsplat")  # builds the extension, the first time
            best = float("inf")
            for _ in range(repeats):
                torch.cuda.synchronize()
                start = time.perf_counter()
                case("gsplat")
                torch.cuda.synchronize()
                best = min(best, 1e3 * (time.perf_counter() - start))
            figures.append(Figure(f"gsplat {name}, {size}, {torch.cuda.get_device_name()}", best, "ms"))
    return figures


def main(repeats: int = 9, output: Path | None = None) -> None:
    """Prints the figures with their targets; exits with 1 if one is missed.

    Args:
        repeats: How often each case runs; the least time counts.
        output: A JSON file for the figures.
    """
    torch.set_num_threads(1)
    figures = memory_figures() + cpu_figures(repeats)
    if torch.cuda.is_available():
        figures += cuda_figures(repeats)
    table = Table("figure", "value", "target", "met", title=f"{platform.processor() or platform.machine()}, 1 thread")
    for figure in figures:
        met = "" if figure.met is None else "[green]yes" if figure.met else "[red]no"
        table.add_row(figure.name, f"{figure.value:.2f} {figure.unit}", figure.target, met)
    Console().print(table)
    if output is not None:
        output.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    sys.exit(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    tyro.cli(main)
