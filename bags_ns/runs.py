"""Opens trained runs, and trains one from Python: what every verb of `bags` that needs a model goes through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import is_zipfile

from nerfstudio.engine.trainer import TrainerConfig

from bags_ns.model import BagsModel
from bags_ns.pipeline import BagsPipeline


@dataclass(frozen=True)
class Run:
    """A trained run, loaded."""

    folder: Path
    """Where its config.yml lies."""
    pipeline: BagsPipeline

    @property
    def model(self) -> BagsModel:
        return self.pipeline.model


def find_configs(path: Path) -> list[Path]:
    """The config.yml of each run: the file itself, or all below a folder, oldest first.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_file():
        return [path]
    configs = sorted(path.glob("**/config.yml"), key=lambda config: config.stat().st_mtime)
    if not configs:
        raise FileNotFoundError(f"{path} holds no trained run (config.yml): give the folder that ns-train wrote")
    return configs


def find_config(path: Path) -> Path:
    """The newest of `find_configs`."""
    return find_configs(path)[-1]


def open_run(path: Path, test_mode: Literal["test", "val", "inference"] = "test") -> Run:
    """Loads the newest checkpoint beside a run's config for inference, wherever the run has been moved since.

    Raises:
        FileNotFoundError: no run or no checkpoint there.
        ValueError: a damaged run, or one of another method.
    """
    import yaml
    from nerfstudio.utils.eval_utils import eval_setup

    config_path = find_config(path)
    models = config_path.parent.resolve() / "nerfstudio_models"
    checkpoints = sorted(models.glob("step-*.ckpt"))
    if not checkpoints:
        raise FileNotFoundError(f"{models} holds no checkpoint: the run was never saved")
    if not is_zipfile(checkpoints[-1]):  # as torch writes them; a torn one lacks its end
        raise ValueError(f"{checkpoints[-1]} is damaged: remove it, and the one before it is taken")

    def where_it_is(config: TrainerConfig) -> TrainerConfig:
        config.relative_model_dir, config.load_step = models, None  # an absolute path is relative to nothing
        return config

    try:
        _, pipeline, _, _ = eval_setup(config_path, test_mode=test_mode, update_config_callback=where_it_is)
    except yaml.YAMLError as error:
        raise ValueError(f"{config_path} is damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(pipeline, BagsPipeline):
        raise ValueError(f"{config_path} is a run of another method: `bags` works on runs of `ns-train bags`")
    pipeline.eval()
    return Run(config_path.parent, pipeline)


def train(
    data: Path,
    output_dir: Path,
    *,
    method: Literal["bags", "bags-tiny"],
    num_steps: int | None = None,
    seed: int = 42,
    adjust: Callable[[TrainerConfig], None] = lambda config: None,
) -> Path:
    """Trains as `ns-train METHOD --data DATA --vis tensorboard` would, in this process; returns the run's config.yml.

    `adjust` changes the method's config before the run, as further flags would.
    """
    import copy

    from nerfstudio.scripts.train import main

    from bags_ns import method_configs

    spec = method_configs.bags_tiny if method == "bags-tiny" else method_configs.bags
    config = copy.deepcopy(spec.config)
    config.data, config.output_dir, config.vis = data, output_dir, "tensorboard"
    config.pipeline.datamanager.data = data
    config.machine.seed = seed
    config.steps_per_eval_image = 10**9  # nobody watches a log here
    if num_steps is not None:
        config.max_num_iterations = num_steps
    adjust(config)
    config.set_timestamp()
    main(config)
    return config.get_base_dir() / "config.yml"
