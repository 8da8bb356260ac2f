"""The training loop's own parts: the run's total length, learning rates that follow its phases, whole checkpoints.

nerfstudio counts `--max-num-iterations` as additional steps after a resume, and writes checkpoints in place. Here the
total length of a run is stored in its checkpoint and a resumed run goes on in the schedule it was in; a checkpoint
appears under its name only when it is complete, and never after a loss or a parameter has ceased to be a number.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import writer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tyro.conf import Suppress

from bags_ns.data.images import DataError
from bags_ns.files import whole_file
from bags_ns.model import BagsModel
from bags_ns.pipeline import BagsPipelineConfig, ConfigError
from bags_ns.priors.base import PriorError
from bags_ns.schedule import PhaseSchedule
from bags_ns.watch import LossWatch

UNTRIED_CONFIG = ".config.yml"
"""The config of a run that is not set up yet."""


@dataclass
class PhasedSchedulerConfig(SchedulerConfig):
    """Exponential decay over the run, times a factor for each of its phases."""

    _target: type = field(default_factory=lambda: PhasedScheduler)
    final_ratio: float = 1.0
    """Learning rate at the end of the run, as a fraction of that at its start."""
    phase_factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors in the canonical, the bones' and the joint phase; 0 freezes the group."""
    run_length: Suppress[int] = 1
    """Steps of the whole run; set by the trainer."""
    phases: Suppress[PhaseSchedule] = field(default_factory=PhaseSchedule)
    """Where the phases lie; set by the trainer from the pipeline's config."""

    def factor(self, step: int) -> float:
        """Learning rate at `step` relative to the optimizer's."""
        progress = min(1.0, step / self.run_length)
        return self.final_ratio**progress * self.phase_factors[self.phases.phase(progress)]


class PhasedScheduler(Scheduler):
    """Makes torch's scheduler of a `PhasedSchedulerConfig`."""

    config: PhasedSchedulerConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LambdaLR:
        """A LambdaLR; the closure keeps the config out of checkpoints."""
        factor: Callable[[int], float] = self.config.factor
        return LambdaLR(optimizer, lr_lambda=lambda step: factor(step))  # noqa: PLW0108  a closure, see above


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam as one kernel for a whole group, where most of a step's time would go into launching small ones."""

    def setup(self, params: Any) -> torch.optim.Adam:
        """The optimizer of one group."""
        return torch.optim.Adam(params, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=True)


@dataclass
class BagsTrainerConfig(TrainerConfig):
    """nerfstudio's trainer, with runs that can be moved from folder to folder and resumed."""

    _target: type = field(default_factory=lambda: BagsTrainer)

    def save_config(self) -> None:
        """Saves the config with absolute paths, so that it does not matter where later commands are started.

        nerfstudio calls this before the setup, which makes it the run's config.yml only when nothing has gone wrong.
        """
        datamanager = self.pipeline.datamanager
        self.output_dir = self.output_dir.resolve()
        if self.load_dir is not None and self.load_step is not None:
            # Later commands would look for this step in this run.
            self.load_checkpoint = self.load_dir.resolve() / f"step-{self.load_step:09d}.ckpt"
            self.load_dir = self.load_step = None
        for holder in (self, datamanager, getattr(datamanager, "dataparser", None)):
            data = getattr(holder, "data", None)
            if data is not None:
                setattr(holder, "data", data.resolve())  # noqa: B010  the three have no common type
        with whole_file(self.get_base_dir() / UNTRIED_CONFIG) as unfinished:
            unfinished.write_text(yaml.dump(self), encoding="utf-8")


class BagsTrainer(Trainer):
    """Knows how long the whole run is, resumes it in its schedule and writes checkpoints atomically."""

    config: BagsTrainerConfig

    def __init__(self, config: BagsTrainerConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.watch = LossWatch()

    @property
    def model(self) -> BagsModel:
        """The model in training."""
        return cast(BagsModel, self.pipeline.model)

    def setup(self, test_mode: Any = "val") -> None:
        """Sets up as nerfstudio does, then limits this session to what the run has left."""
        untried = self.base_dir / UNTRIED_CONFIG
        try:
            cast(BagsPipelineConfig, self.config.pipeline).check()
            super().setup(test_mode)
        except (ConfigError, DataError, PriorError, FileNotFoundError) as error:
            untried.unlink(missing_ok=True)
            raise SystemExit(f"ns-train: {error}") from None  # nerfstudio would show a traceback
        if self.local_rank == 0 and untried.is_file():
            untried.replace(self.base_dir / "config.yml")
        left = self.run_length - self._start_step
        if left > 0:
            self.config.max_num_iterations = min(self.config.max_num_iterations, left)
        writer.GLOBAL_BUFFER["max_iter"] = self._start_step + self.config.max_num_iterations

    def setup_optimizers(self) -> Optimizers:
        """Optimizers whose schedules span the whole run, also when this session is only its second half."""
        self.run_length = self._checkpoint_run_length() or self.config.max_num_iterations
        self.model.set_run_length(self.run_length)
        phases = cast(BagsPipelineConfig, self.config.pipeline).phases
        for group in self.config.optimizers.values():
            if isinstance(group["scheduler"], PhasedSchedulerConfig):
                group["scheduler"] = dataclasses.replace(group["scheduler"], run_length=self.run_length, phases=phases)
        return super().setup_optimizers()

    def _checkpoint_path(self) -> Path | None:
        """The checkpoint that this session starts from."""
        if self.config.load_dir is None:
            return self.config.load_checkpoint
        step = self.config.load_step
        steps = sorted(int(path.stem.split("-")[1]) for path in self.config.load_dir.glob("step-*.ckpt"))
        if not steps:
            raise FileNotFoundError(
                f"{self.config.load_dir} holds no step-*.ckpt: give the nerfstudio_models folder of a run"
            )
        return self.config.load_dir / f"step-{steps[-1] if step is None else step:09d}.ckpt"

    def _checkpoint_run_length(self) -> int | None:
        path = self._checkpoint_path()
        if path is None:
            return None
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: see --load-dir and --load-step")
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        return int(state["pipeline"]["_model._extra_state"]["run_length"])

    def train_iteration(self, step: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
        """One step; training ends here, with one line, when a loss is lost."""
        loss, terms, metrics = super().train_iteration(step)
        self.watch.add(step, terms)
        if self.watch.is_due:
            self._stop_if_lost()
        return loss, terms, metrics

    def _stop_if_lost(self) -> None:
        """Ends the program where a loss exploded or stopped being a number; the checkpoints stay as they are."""
        if (problem := self.watch.problem()) is None:
            return
        newest = max(self.checkpoint_dir.glob("step-*.ckpt"), default=None)
        remedy = "Lower that term's weight or the learning rates (--optimizers.NAME.optimizer.lr)."
        kept = "No checkpoint was saved yet." if newest is None else f"The last good checkpoint is {newest}."
        raise SystemExit(f"ns-train: {problem}, so training stops. {kept} {remedy}")

    def save_checkpoint(self, step: int) -> None:
        """Writes a checkpoint beside its folder and renames it into place, then drops older ones if so configured."""
        self.watch.look_at(step, self.model.named_parameters())
        self._stop_if_lost()
        self.model.rebuild_skeleton()
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        unfinished = self.checkpoint_dir.parent / f".{path.name}.unfinished"
        torch.save(
            {
                "step": step,
                "pipeline": self.pipeline.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self.optimizers.optimizers.items()},
                "schedulers": {name: s.state_dict() for name, s in self.optimizers.schedulers.items()},
                "scalers": self.grad_scaler.state_dict(),
            },
            unfinished,
        )
        os.replace(unfinished, path)
        if self.config.save_only_latest_checkpoint:
            for other in self.checkpoint_dir.glob("step-*.ckpt"):
                if other != path:
                    other.unlink()
