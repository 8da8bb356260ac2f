"""The `bags` command: what nerfstudio has no verb for. Each verb is a dataclass, its fields are its flags.

Nothing heavy is imported before a verb runs, so that `bags --help` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bags_ns.animation_verbs import Animate, Export


@dataclass
class Demo:
    """Makes a clip of a made-up animal, trains on it and renders a turntable: a first result, on CPU or GPU."""

    output_dir: Path = Path("bags-demo")
    """Folder for the clip, the run and the pictures."""
    seed: int = 7
    """Which animal: every number is another one."""
    method: Literal["bags", "bags-tiny"] = "bags-tiny"
    """bags-tiny is made for two CPU cores, bags for a GPU."""
    num_steps: int | None = None
    """Training steps; the method's own number unless given."""

    def run(self) -> None:
        """Does it."""
        from bags_ns.demo import run_demo

        run_demo(self.output_dir, self.seed, self.method, self.num_steps)


@dataclass
class Render:
    """Renders a trained animal into an mp4 and a PNG contact sheet."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    output_dir: Path = Path("renders")
    """Folder for the video and the sheet."""
    kind: Literal["turntable", "source", "bones"] = "turntable"
    """turntable: turning while the clip plays; source: beside the video; bones: a turntable in bone colours."""
    size: int = 512
    """Side of the turntable's square picture, in pixels (source keeps the video's size)."""
    num_frames: int | None = None
    """Frames of the turntable; twice the clip's unless given."""
    fps: float = 24.0
    """Frames per second of the video."""

    def run(self) -> None:
        """Does it."""
        from bags_ns.runs import open_run
        from bags_ns.visualize import write_views

        pipeline = open_run(self.load_config).pipeline
        video, sheet = write_views(
            pipeline, self.output_dir, kind=self.kind, size=self.size, num_frames=self.num_frames, fps=self.fps
        )
        print(f"{video}\n{sheet}")


@dataclass
class Evaluate:
    """Measures a trained animal on its training frames and, where the data have them, on views it never saw."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    output: Path | None = None
    """JSON file for the result; evaluation.json beside the config unless given."""

    def run(self) -> None:
        """Does it."""
        from rich.console import Console

        from bags_ns.demo import summary_table
        from bags_ns.evaluation import evaluate_model, write_json
        from bags_ns.progress import progress_bar
        from bags_ns.runs import open_run

        run = open_run(self.load_config)
        data = run.pipeline.datamanager
        test_dataset = data.eval_dataset if data.has_test_views else None
        total = len(data.train_dataset) + (len(test_dataset) if test_dataset else 0)
        with progress_bar("Evaluating", total) as advance:
            summary = evaluate_model(run.model, data.train_dataset, test_dataset, lambda: advance(None, None))
        write_json(self.output or run.folder / "evaluation.json", summary)
        Console().print(summary_table(summary))


Verb = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Animate, tyro.conf.subcommand("animate")]
    | Annotated[Export, tyro.conf.subcommand("export"), tyro.conf.OmitArgPrefixes]
)


def main() -> None:
    """Entry point. Errors of the user are one line and exit code 1."""
    verb = tyro.cli(Verb, description="Animatable 3-D animals from one video.")  # type: ignore[call-overload]
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch's, about nerfstudio's own calls
    try:
        verb.run()
    except (ValueError, OSError, ImportError) as error:
        print(f"bags: {error}", file=sys.stderr)
        sys.exit(1)
