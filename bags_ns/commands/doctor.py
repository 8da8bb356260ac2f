"""`bags doctor`: what this machine has, what each thing is needed for, and how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from bags_ns.ffmpeg import put_ffmpeg_on_path


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: Literal["ok", "missing", "optional"]
    """optional: not there, and only some choices need it."""
    found: str
    needed_for: str
    remedy: str = ""


def examine(cache_dir: Path | None = None) -> list[Finding]:
    """Looks at this machine; builds, downloads and writes nothing."""
    from bags_ns.data.cache import default_cache_dir

    return [
        Finding("python", "ok", f"{sys.version.split()[0]} on {platform.platform(terse=True)}", "everything"),
        *_torch(),
        _gsplat(),
        _package("numba", "fast training without CUDA", required=True),
        _package("av", "reading and writing videos", required=True),
        _ffmpeg(),
        _package(
            "transformers",
            "--segmenter transformers, the zero123 and imagedream priors",
            "pip install 'bags-ns[priors]'",
        ),
        _package("fast-simplification", "bags export gltf and web", "pip install 'bags-ns[export]'"),
        _package("gsply", "bags export spz", "pip install 'bags-ns[export]'"),
        _package("rembg", "--segmenter rembg", "pip install 'bags-ns[segment]'"),
        _segmentation_weights(),
        _space("cache folder", cache_dir or default_cache_dir()),
        _space("this folder", Path.cwd()),
    ]


def _torch() -> list[Finding]:
    import torch

    version = Finding("torch", "ok", str(torch.__version__), "everything")
    if not torch.cuda.is_available():
        return [version, Finding("CUDA", "optional", "none", "speed", "bags-tiny is made for machines without it")]
    name, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    return [version, Finding("CUDA", "ok", f"{torch.version.cuda}, {name}, {memory / 2**30:.0f} GiB", "speed")]


def _gsplat() -> Finding:
    """Finds gsplat's compiled kernels by their files: importing the backend would start a build of minutes."""
    version = _version("gsplat")
    if version is None:
        return Finding("gsplat", "missing", "none", "rendering with CUDA", "pip install gsplat==1.4.0")
    spec = importlib.util.find_spec("gsplat")
    places = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    compiled = Path(os.environ.get("TORCH_EXTENSIONS_DIR", Path.home() / ".cache" / "torch_extensions"))
    places += [*compiled.glob("gsplat_cuda"), *compiled.glob("*/gsplat_cuda")]  # where torch puts what it compiles
    built = any(path.suffix in (".so", ".pyd") for place in places for path in place.glob("*"))
    state = "kernels built" if built else "kernels not built: the first use with CUDA takes minutes"
    return Finding("gsplat", "ok", f"{version}, {state}", "rendering with CUDA")


def _ffmpeg() -> Finding:
    put_ffmpeg_on_path()
    program = shutil.which("ffmpeg")
    if program is None:
        return Finding("ffmpeg", "missing", "none", "ns-render", "pip install imageio-ffmpeg, or the system's ffmpeg")
    return Finding("ffmpeg", "ok", program, "ns-render")


def _segmentation_weights() -> Finding:
    from bags_ns.data.instances import torchvision_weights

    path = torchvision_weights()
    if path.is_file():
        return Finding("Mask R-CNN weights", "ok", str(path), "--segmenter torchvision")
    remedy = "from torchvision.models.detection import *; maskrcnn_resnet50_fpn(weights='DEFAULT')"
    return Finding(
        "Mask R-CNN weights", "optional", f"not in {path.parent}", "--segmenter torchvision", f"python: {remedy}"
    )


def _package(name: str, needed_for: str, remedy: str = "", required: bool = False) -> Finding:
    version = _version(name)
    if version is not None:
        return Finding(name, "ok", version, needed_for)
    return Finding(name, "missing" if required else "optional", "none", needed_for, remedy or f"pip install {name}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _space(name: str, folder: Path) -> Finding:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free / 2**30
    state = "ok" if free > 2 else "missing"
    return Finding(
        name, state, f"{folder}, {free:.0f} GiB free", "derived data, runs", "" if free > 2 else "free some disk"
    )


def report(findings: list[Finding]) -> Table:
    """The findings as a table."""
    table = Table("what", "state", "found", "needed for", "how to get it", title="bags doctor")
    colours = {"ok": "green", "missing": "red", "optional": "yellow"}
    for item in findings:
        table.add_row(
            item.name,
            f"[{colours[item.state]}]{item.state}[/]",
            *map(escape, (item.found, item.needed_for, item.remedy)),
        )
    return table
