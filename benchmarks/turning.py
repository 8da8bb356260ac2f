"""Motion of the whole animal without known cameras: trains each clip with its cameras and without, and compares.

python benchmarks/turning.py DATA/fox_arc DATA/husky_arc --output-dir results
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import tyro
from nerfstudio.scripts.train import main as train
from rich.console import Console
from rich.table import Table

from bags_ns import method_configs
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.evaluation import evaluate
from bags_ns.files import write_json
from bags_ns.pipeline import BagsPipelineConfig
from bags_ns.runs import open_run
from bags_ns.unposed import TrueClip, evaluate_unposed
from bags_ns.visualize import write_views


@dataclass
class Turning:
    """Trains and compares."""

    data: tyro.conf.Positional[list[Path]]
    """Clips with cameras and test views."""
    method: Literal["bags", "bags-tiny"] = "bags-tiny"
    """Method, with its default settings."""
    num_steps: int | None = None
    """Training steps; the method's own number unless given."""
    crop_size: int = 0
    """Side of the crops without cameras, in pixels; the data parser's own unless given."""
    prior_source: str = ""
    """Weights of the small prior; the bundled ones unless given."""
    turn_only: bool = False
    """The prior has a say in the turn and none in training."""
    ways: tuple[Literal["known", "unposed", "untold"], ...] = ("known", "unposed", "untold")
    """known: with cameras; unposed: without, the turn from outlines and prior; untold: without either."""
    seed: int = 42
    """Seed of the runs."""
    output_dir: Path = Path("results")
    """Folder for runs, evaluations and pictures."""

    def run(self) -> None:
        """Prints one table."""
        table = Table(title="in silhouette dB / IoU")
        for title in ("clip", "cameras", "turn (true)", "largest rotation error", "training views", "test views"):
            table.add_column(title, justify="right")
        for data in self.data:
            for way in self.ways:
                folder = self.output_dir / data.name / way
                motion, summary = self.run_one(data, way, folder)
                turn = f"{motion['turn_deg']:.0f} ({motion['true_turn_deg']:.0f})" if motion else "-"
                rotation = f"{motion['rotation_error_deg']:.0f}" if motion else "-"
                cells = [f"{summary[k]['psnr_silhouette']:.2f} / {summary[k]['iou']:.3f}" for k in ("train", "test")]
                table.add_row(data.name, way, turn, rotation, *cells)
        Console(width=140).print(table)

    def run_one(self, data: Path, way: str, folder: Path) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Trains one clip in one way; its motion's errors (none with known cameras) and its summary."""
        spec = method_configs.bags_tiny if self.method == "bags-tiny" else method_configs.bags
        config = copy.deepcopy(spec.config)
        pipeline = cast(BagsPipelineConfig, config.pipeline)
        config.data = pipeline.datamanager.data = data
        config.output_dir, config.vis, config.machine.seed = folder, "tensorboard", self.seed
        config.steps_per_eval_image = 10**9  # nobody watches a log here
        config.max_num_iterations = self.num_steps or config.max_num_iterations
        parser = cast(AnimalVideoDataParserConfig, pipeline.datamanager.dataparser)
        parser.known_cameras, parser.crop_size = way == "known", self.crop_size
        pipeline.prior.source, pipeline.turn_from_outlines = self.prior_source, way == "unposed"
        if self.turn_only:
            pipeline.prior.start, pipeline.slope_from_prior = 1.1, False  # after the run
        config.set_timestamp()
        train(config)
        run = open_run(config.get_base_dir() / "config.yml")
        dataset = run.pipeline.datamanager
        motion: dict[str, float] = {}
        if way == "known":
            summary = evaluate(run.model, dataset)
        else:
            motion, summary = evaluate_unposed(run.pipeline, TrueClip.of_run(run.pipeline))
        write_json(folder / "evaluation.json", {"motion": motion, **summary})
        write_views(run.pipeline, folder, kind="turntable", size=256, with_video=False)
        return motion, summary


if __name__ == "__main__":
    tyro.cli(Turning).run()
