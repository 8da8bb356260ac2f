"""Cost of a training step without a prior, as a ratio to the raw renders in it (forward + backward), on any device.

python benchmarks/training_step.py
python benchmarks/training_step.py --against-splatfacto      also to nerfstudio's splatfacto, with CUDA
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from nerfstudio.configs.method_configs import method_configs as stock_methods
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanagerConfig
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer
from rich.console import Console
from timing import device_name, median_ms

from bags_ns import method_configs
from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.files import write_json
from bags_ns.gaussians import Gaussians
from bags_ns.model import BagsModel
from bags_ns.splatfacto import without_lpips
from bags_ns.trainer import BagsTrainer


@dataclass
class TrainingStep:
    """Times steps of the joint phase against bare renders of the same Gaussians through the same cameras."""

    size: int = 256
    """Side of the frames, in pixels."""
    num_gaussians: int = 5000
    """Gaussians; densification is off."""
    frames_per_step: int = 4
    """Frames in a step."""
    repeats: int = 25
    """Steps and renders timed; the median counts."""
    threads: int = 1
    """CPU threads of torch."""
    against_splatfacto: bool = False
    """Also times a step of nerfstudio's own splatfacto with as many Gaussians on the same clip (CUDA only)."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, float | int | str]:
        """Milliseconds of both, and their ratio."""
        torch.set_num_threads(self.threads)
        with tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(Path(folder))
            num_steps = trainer.run_length
            for step in (num_steps // 2, *range(num_steps - 10, num_steps)):  # bones placed, all frames in, warm
                run_step(trainer, step)
            cases = {"step": lambda: run_step(trainer, num_steps - 1), "renders": self._renders(trainer)}
            if self.against_splatfacto and torch.cuda.is_available():
                cases["splatfacto"] = self._splatfacto_step(Path(folder) / "clip", trainer.model)
            ms = median_ms(cases, self.repeats)
        figures: dict[str, float | int | str] = {
            "device": device_name(),
            "gaussians": trainer.model.num_points,
            "frames_per_step": self.frames_per_step,
        }
        figures |= {f"{name}_ms": value for name, value in ms.items()} | {"ratio": ms["step"] / ms["renders"]}
        if not self.against_splatfacto:
            return figures
        if "splatfacto" not in ms:
            return figures | {"ratio_to_splatfacto": "left out: splatfacto renders on CUDA only"}
        # One step of splatfacto looks at one frame, one of ours at several.
        return figures | {"ratio_to_splatfacto": ms["step"] / (self.frames_per_step * ms["splatfacto"]), "bar": 1.6}

    def _trainer(self, folder: Path) -> BagsTrainer:
        clip = folder / "clip"
        write_creature_clip(clip, 7, ClipSettings(num_frames=8, size=self.size, num_test_times=1, num_test_azimuths=1))
        return trainer_on(clip, self.num_gaussians, self.frames_per_step)

    def _splatfacto_step(self, clip: Path, model: BagsModel) -> Callable[[], None]:
        """A step of splatfacto on the model's canonical Gaussians and the same frames; colours only and no densification, as here."""
        config = copy.deepcopy(stock_methods["splatfacto"])
        config.data, config.output_dir, config.vis = clip, clip.parent, "tensorboard"
        config.machine.device_type = model.device.type
        config.pipeline.datamanager = FullImageDatamanagerConfig(
            dataparser=AnimalVideoDataParserConfig(cache_dir=clip.parent / "cache"), data=clip
        )
        options = {"sh_degree": 0, "num_downscales": 0, "stop_split_at": 0, "random_init": True}
        for name, value in {**options, "num_random": model.num_points}.items():
            setattr(config.pipeline.model, name, value)
        config.set_timestamp()
        trainer = config.setup()
        with without_lpips():
            trainer.setup()
        with torch.no_grad():
            for name, values in model.gauss_params.items():
                trainer.pipeline.model.gauss_params[name].copy_(values)
        return lambda: run_step(trainer, 10_000)

    def _renders(self, trainer: BagsTrainer) -> Callable[[], None]:
        """The step's renders alone: K poses, forward and backward to every input."""
        model, frames = trainer.model, trainer.pipeline.datamanager.next_frames(self.frames_per_step)
        with torch.no_grad():
            posed = [model.gaussians_at(t) for t in frames.times]
        leaves = [
            Gaussians(*(t.detach().requires_grad_() for t in (g.means, g.covars, g.opacities, g.colors))) for g in posed
        ]
        weight = torch.rand(1, self.size, self.size, 3, device=model.device)
        white = torch.ones(3, device=model.device)

        def run() -> None:
            for k, gaussians in enumerate(leaves):
                view = slice(k, k + 1)
                output = model.render(
                    gaussians, frames.viewmats[view], frames.Ks[view], self.size, self.size, background=white
                )
                (output.rgb * weight).sum().backward()

        return run


def trainer_on(clip: Path, num_gaussians: int, frames_per_step: int = 4, num_steps: int = 1000) -> BagsTrainer:
    """bags-tiny, set up beside `clip`, without a prior, with about so many Gaussians, of which it stays."""
    config = copy.deepcopy(method_configs.bags_tiny.config)
    config.data = config.pipeline.datamanager.data = clip
    config.output_dir, config.vis, config.max_num_iterations = clip.parent, "tensorboard", num_steps
    config.pipeline.frames_per_step = frames_per_step  # type: ignore[attr-defined]
    config.pipeline.prior.name = "none"  # type: ignore[attr-defined]
    config.pipeline.model.num_random = num_gaussians  # type: ignore[attr-defined]
    config.pipeline.model.densify_end = 0.0  # type: ignore[attr-defined]
    config.pipeline.datamanager.dataparser.cache_dir = clip.parent / "cache"
    config.set_timestamp()
    trainer = BagsTrainer(config)  # type: ignore[arg-type]
    trainer.setup()
    return trainer


def run_step(trainer: Trainer, step: int) -> None:
    """One step of nerfstudio's loop, callbacks included."""
    trainer.pipeline.train()
    for location in (TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION):
        if location is TrainingCallbackLocation.AFTER_TRAIN_ITERATION:
            trainer.train_iteration(step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=location)


if __name__ == "__main__":
    benchmark = tyro.cli(TrainingStep)
    figures = benchmark.measure()
    Console().print(figures)
    if benchmark.output:
        write_json(benchmark.output, figures)
