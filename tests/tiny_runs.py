"""Training runs of seconds, in this process, on a made-up clip of 64 pixels."""

from __future__ import annotations

import copy
from pathlib import Path

from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location

from bags_ns import method_configs
from bags_ns.trainer import BagsTrainer

STEPS = 240


def trainer_on(
    clip: Path,
    folder: Path,
    *,
    steps: int = STEPS,
    load_dir: Path | None = None,
    load_step: int | None = None,
    prior: str = "none",
    **model,
) -> BagsTrainer:
    """A trainer that is set up: bags-tiny with few Gaussians and bones; further names are fields of the model's config."""
    config = copy.deepcopy(method_configs.bags_tiny.config)
    config.data = config.pipeline.datamanager.data = clip
    config.output_dir, config.vis, config.max_num_iterations = folder, "tensorboard", steps
    config.load_dir, config.load_step, config.pipeline.prior.name = load_dir, load_step, prior
    for name, value in {"num_bones": 8, "num_random": 800, **model}.items():
        assert hasattr(config.pipeline.model, name)
        setattr(config.pipeline.model, name, value)
    config.set_timestamp()
    config.save_config()
    trainer = BagsTrainer(config)
    trainer.setup()
    return trainer


def run(trainer: BagsTrainer, steps: range) -> None:
    """Some steps as nerfstudio's loop makes them, without its logging and saving."""
    for step in steps:
        trainer.step = step
        trainer.pipeline.train()
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=Location.BEFORE_TRAIN_ITERATION)
        trainer.train_iteration(step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=Location.AFTER_TRAIN_ITERATION)
