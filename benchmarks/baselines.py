"""Trains every clip with BAGS and with what it is compared with, on the same frames, and measures all in the same words.

    python benchmarks/baselines.py DATA [DATA ...] --hold-out-every 8 --output-dir baselines

bags: the method as it is. no-prior, no-rigidity: without one or the other. field: a deformation field for each Gaussian
instead of bones and no prior, after Deformable-3DGS. static: nerfstudio's splatfacto, which knows no time (CUDA only).
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
import tyro
from nerfstudio.engine.trainer import TrainerConfig
from rich.console import Console

from bags_ns.commands.evaluate import evaluate_run, runs_table
from bags_ns.data.datamanager import BagsDataManager, BagsDataManagerConfig
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.evaluation import Summary, evaluate
from bags_ns.files import write_json
from bags_ns.perceptual import load_perceptual
from bags_ns.progress import say
from bags_ns.runs import train
from bags_ns.splatfacto import without_lpips

Variant = Literal["bags", "no-prior", "no-rigidity", "field", "static"]


@dataclass
class Baselines:
    """Trains, evaluates and writes one table."""

    data: tyro.conf.Positional[list[Path]]
    """Clips."""
    variants: tuple[Variant, ...] = ("bags", "no-prior", "no-rigidity", "field", "static")
    """What to train."""
    method: Literal["bags", "bags-tiny"] = "bags"
    """Method, with its default settings."""
    num_steps: int | None = None
    """Training steps; each method's own number unless given."""
    hold_out_every: int = 0
    """Holds one of so many frames out, to compare at times that none has seen."""
    seed: int = 42
    """Seed of all runs."""
    output_dir: Path = Path("baselines")
    """Folder for runs and evaluations."""

    def run(self) -> None:
        """Trains and measures all; runs whose evaluation lies there already are not repeated."""
        variants = [name for name in self.variants if name != "static" or torch.cuda.is_available()]
        if len(variants) < len(self.variants):
            say("static is left out: splatfacto needs a CUDA device")
        perceptual = load_perceptual()
        results: dict[str, Summary] = {}
        for clip in self.data:
            for variant in variants:
                path = self.output_dir / clip.name / variant / "evaluation.json"
                if not path.is_file():
                    say(f"{clip.name}: {variant}")
                    if variant == "static":
                        model, data = self._train_static(clip, path.parent)
                        summary = evaluate(model, data, perceptual=perceptual)
                    else:
                        summary = evaluate_run(self._train(clip, path.parent, variant), perceptual)
                    write_json(path, summary)
                results[f"{clip.name} {variant}"] = json.loads(path.read_text())
        write_json(self.output_dir / "baselines.json", results)
        Console(width=160).print(runs_table(results))
        for line in perceptual.missing:
            say(line)

    def _train(self, clip: Path, folder: Path, variant: Variant) -> Path:
        def adjust(config: TrainerConfig) -> None:
            pipeline: Any = config.pipeline
            pipeline.datamanager.dataparser.hold_out_every = self.hold_out_every
            if variant in ("no-prior", "field"):
                pipeline.prior.name = "none"
            if variant == "no-rigidity":
                pipeline.model.rigidity_loss_mult = 0.0
            if variant == "field":
                pipeline.model.motion = "field"

        return train(clip, folder, method=self.method, num_steps=self.num_steps, seed=self.seed, adjust=adjust)

    def _train_static(self, clip: Path, folder: Path) -> tuple[Any, BagsDataManager]:
        """splatfacto with its own settings, on white as the frames are compared."""
        from nerfstudio.configs.method_configs import method_configs
        from nerfstudio.scripts.train import _set_random_seed

        config = copy.deepcopy(method_configs["splatfacto"])
        pipeline: Any = config.pipeline
        parser = AnimalVideoDataParserConfig(data=clip, hold_out_every=self.hold_out_every)
        pipeline.datamanager = BagsDataManagerConfig(dataparser=parser)
        pipeline.model.background_color = "white"
        config.data, config.output_dir, config.vis, config.machine.seed = clip, folder, "tensorboard", self.seed
        config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 10**9
        config.max_num_iterations = self.num_steps or config.max_num_iterations
        config.set_timestamp()
        config.save_config()
        _set_random_seed(self.seed)
        with without_lpips():
            trainer = config.setup()
            trainer.setup()
        trainer.train()
        return trainer.pipeline.model, cast(BagsDataManager, trainer.pipeline.datamanager)


if __name__ == "__main__":
    tyro.cli(Baselines).run()
