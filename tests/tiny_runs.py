"""Training runs of seconds, in this process, on a made-up clip of 64 pixels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location

from bags_ns import method_configs
from bags_ns.trainer import BagsTrainer, BagsTrainerConfig

STEPS = 240


def config_on(
    clip: Path,
    folder: Path,
    *,
    steps: int = STEPS,
    parser: Mapping[str, Any] = {},
    pipeline: Mapping[str, Any] = {},
    prior: Mapping[str, Any] = {},
    **model: Any,
) -> BagsTrainerConfig:
    """bags-tiny with few Gaussians and bones and no prior; all else are fields of the parts of its config."""
    config = copy.deepcopy(method_configs.bags_tiny.config)
    config.data = config.pipeline.datamanager.data = clip
    config.output_dir, config.vis, config.max_num_iterations = folder, "tensorboard", steps
    for part, values in (
        (config.pipeline.datamanager.dataparser, {"cache_dir": folder / "cache", **parser}),
        (config.pipeline, pipeline),
        (config.pipeline.prior, {"name": "none", **prior}),
        (config.pipeline.model, {"num_bones": 8, "num_random": 800, **model}),
    ):
        for name, value in values.items():
            assert hasattr(part, name), name
            setattr(part, name, value)
    config.set_timestamp()
    return config


def trainer_on(
    clip: Path,
    folder: Path,
    *,
    load_dir: Path | None = None,
    load_step: int | None = None,
    **fields: Any,
) -> BagsTrainer:
    """A trainer that is set up; `fields` are those of `config_on`."""
    config = config_on(clip, folder, **fields)
    config.load_dir, config.load_step = load_dir, load_step
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
