"""Trains on each clip, evaluates it and keeps its pictures: the quality tables of docs/RESULTS.md.

python benchmarks/quality.py DATA [DATA ...] --method bags --output-dir results
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console

from bags_ns.commands.evaluate import summary_table
from bags_ns.evaluation import evaluate
from bags_ns.files import write_json
from bags_ns.runs import open_run, train
from bags_ns.visualize import write_views


@dataclass
class Quality:
    """Trains, evaluates and renders."""

    data: tyro.conf.Positional[list[Path]]
    """Clips."""
    method: Literal["bags", "bags-tiny"] = "bags"
    """Method, with its default settings."""
    num_steps: int | None = None
    """Training steps; the method's own number unless given."""
    seed: int = 42
    """Seed of the run."""
    output_dir: Path = Path("results")
    """Folder for runs, evaluations and pictures."""
    kinds: list[Literal["turntable", "source", "bones"]] = field(default_factory=lambda: ["turntable", "source"])
    """Pictures to keep."""

    with_video: bool = True
    """Whether to write videos beside the contact sheets."""

    def run(self) -> None:
        """Prints one table a clip and writes everything to DATA's own folder of `output_dir`."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        for data in self.data:
            folder = self.output_dir / data.name
            started = time.monotonic()
            config = train(data, folder, method=self.method, num_steps=self.num_steps, seed=self.seed)
            seconds = time.monotonic() - started
            run = open_run(config)
            summary = evaluate(run.model, run.pipeline.datamanager)
            write_json(folder / "evaluation.json", {"seconds": seconds, "device": device, "seed": self.seed, **summary})
            for kind in self.kinds:
                write_views(run.pipeline, folder, kind=kind, size=256, with_video=self.with_video)
            Console(width=140).print(
                f"{data.name}: {seconds:.0f} s on {device}, {run.model.num_points} Gaussians", summary_table(summary)
            )


if __name__ == "__main__":
    tyro.cli(Quality).run()
