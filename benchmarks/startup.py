"""Seconds until the commands answer: `bags --help`, and what the package adds to `ns-train --help`.

    python benchmarks/startup.py

For the latter the same program starts with and without the package's entry points, taking turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from bags_ns.files import write_json

BARS = {"bags_help_bar": 1.5, "added_to_ns_train_help_bar": 0.3}
"""Seconds."""

NS_TRAIN = "from nerfstudio.scripts.train import entrypoint; entrypoint()"
NS_TRAIN_WITHOUT = f"""
from importlib import metadata
find = metadata.entry_points
def others(**selection):
    found = find(**selection)
    return metadata.EntryPoints(point for point in found if "bags_ns." not in point.value) if selection else found
metadata.entry_points = others
{NS_TRAIN}
"""


@dataclass
class StartUp:
    """Starts each command in a process of its own."""

    repeats: int = 7
    """Starts of each command, after one to warm the file cache; the median counts."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, float]:
        """Medians in seconds of the clock, and of the processor, to which other programs add little."""
        commands = {
            "bags_help": [str(Path(sys.executable).with_name("bags")), "--help"],
            "ns_train_help": [sys.executable, "-c", NS_TRAIN, "--help"],
            "ns_train_help_without": [sys.executable, "-c", NS_TRAIN_WITHOUT, "--help"],
        }
        for name in ("ns_train_help", "ns_train_help_without"):
            offered = "bags-tiny" in subprocess.run(commands[name], check=True, capture_output=True, text=True).stdout
            assert offered == (name == "ns_train_help"), "the package's methods are offered where they should not be"
        timed(commands["bags_help"])
        rounds = [{name: timed(command) for name, command in commands.items()} for _ in range(self.repeats)]
        figures: dict[str, float] = {}
        for index, suffix in enumerate(("s", "processor_s")):
            for name in commands:
                figures[f"{name}_{suffix}"] = statistics.median(times[name][index] for times in rounds)
            added = (times["ns_train_help"][index] - times["ns_train_help_without"][index] for times in rounds)
            figures[f"added_to_ns_train_help_{suffix}"] = statistics.median(added)
        return figures | BARS


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a command takes."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    clock, after = time.perf_counter() - start, os.times()
    return clock, after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    benchmark = tyro.cli(StartUp)
    result = benchmark.measure()
    Console().print(result)
    if benchmark.output:
        write_json(benchmark.output, result)
