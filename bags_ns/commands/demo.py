"""`bags demo`: a clip of a made-up animal with known truth, trained on this machine, turned round in a video."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from bags_ns.commands.evaluate import summary_table
from bags_ns.evaluation import evaluate, num_pictures
from bags_ns.files import write_json
from bags_ns.progress import progress_bar
from bags_ns.runs import open_run, train
from bags_ns.visualize import write_views


@dataclass(frozen=True)
class DemoResult:
    """Where everything was put."""

    clip: Path
    config: Path
    turntable: Path
    sheet: Path


def run_demo(output_dir: Path, seed: int, method: Literal["bags", "bags-tiny"], num_steps: int | None) -> DemoResult:
    """Makes the clip, trains, evaluates and renders; prints where to look."""
    from bags_ns.data.creatures import write_creature_clip

    console = Console()
    clip = output_dir / "clip"
    started = time.monotonic()
    if not (clip / "transforms_train.json").is_file():
        with progress_bar("Making the clip") as advance:
            write_creature_clip(clip, seed, body_plans=["fox"], progress=advance)
    made = time.monotonic()
    config = train(clip, output_dir, method=method, num_steps=num_steps)
    trained = time.monotonic()
    run = open_run(config)
    datamanager = run.pipeline.datamanager
    with progress_bar("Evaluating", num_pictures(datamanager)) as advance:
        summary = evaluate(run.model, datamanager, lambda: advance(None, None))
    write_json(output_dir / "evaluation.json", summary)
    evaluated = time.monotonic()
    turntable, sheet = write_views(run.pipeline, output_dir, kind="turntable", size=256)
    write_views(run.pipeline, output_dir, kind="source", size=256)
    rendered = time.monotonic()
    console.print(summary_table(summary))
    console.print(
        f"clip {made - started:.0f} s, training {trained - made:.0f} s, evaluation {evaluated - trained:.0f} s, "
        f"rendering {rendered - evaluated:.0f} s"
    )
    console.print(f"Watch [bold]{turntable}[/bold] (all at a glance: {sheet})")
    console.print(f"Turn it yourself: [bold]ns-viewer --load-config {config}[/bold]")
    return DemoResult(clip, config, turntable, sheet)
