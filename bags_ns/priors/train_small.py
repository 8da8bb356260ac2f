"""Trains the small prior on made-up animals: `bags train-prior`; its knobs are in `small_config.py`.

A run may be cut into commands: each goes on with `--resume` and does its part of one learning-rate schedule
(`--schedule-end`). To stay small a checkpoint holds weights only, so Adam's moments start anew, with a short warm-up.
The schedule follows the clock, or the steps where their number is given. Several GPUs of one machine train together under
`torchrun --nproc-per-node 2 --no-python bags train-prior`: each makes up its own pictures, gradients are averaged.
"""

from __future__ import annotations

import copy
import json
import math
import random
import time
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from bags_ns.files import write_json
from bags_ns.priors.creature_views import NUM_NOW, NUM_VIEWS, CreatureStudio, CreatureViews, random_colors
from bags_ns.priors.diffusion import add_noise, cosine_alpha_bars, random_timesteps, v_from_x0
from bags_ns.priors.evaluate_small import HELD_OUT_SEED, evaluate_held_out, evaluate_pairs, write_sheet
from bags_ns.priors.rays import view_rays
from bags_ns.priors.small_config import TrainSmallPriorConfig, ViewCount
from bags_ns.priors.small_weights import load_network, save_network
from bags_ns.priors.view_unet import ViewUNet
from bags_ns.priors.workers import Workers
from bags_ns.progress import timed_bar

WEIGHTS_NAME = "small.safetensors"
"""Averaged weights: what ships."""
RAW_NAME = "small_raw.safetensors"
"""Weights of the moment: needed to go on."""


def train_small_prior(config: TrainSmallPriorConfig) -> dict[str, Any]:
    """Trains, writes `small.safetensors`, `small_raw.safetensors`, `small.json` and `small.png`; returns the scores."""
    workers = Workers.join()
    try:
        trainer = SmallPriorTrainer(config, workers)
        return trainer.benchmark() if config.benchmark_images else trainer.train()
    finally:
        workers.leave()


class SmallPriorTrainer:
    """State of one command."""

    def __init__(self, config: TrainSmallPriorConfig, workers: Workers | None = None) -> None:
        self.config, self.workers, self.started = config, workers or Workers(), time.monotonic()
        self.console = Console(quiet=not self.workers.is_first)
        self.chunk = min(config.chunk, config.num_animals)
        self.device = self.workers.choose_device(config.device)
        self.compiled = config.compile and self.device.type == "cuda"
        torch.manual_seed(config.seed)
        torch.set_float32_matmul_precision("high")
        self.step, self.progress, self.images, self.history = 0, 0.0, 0, []
        self.network, self.averaged = self._make_networks()
        if config.schedule_start is not None:
            self.progress = config.schedule_start
        # A resumed command must not see the same animals and noise again, nor one process those of another.
        seed = config.seed + self.step
        if seed == HELD_OUT_SEED:
            seed += 1
        self.generator = torch.Generator(self.device).manual_seed(seed + (self.workers.rank << 32))
        # The same for all: a step takes them equally long.
        self.choices = random.Random(seed)
        self.alpha_bars = cosine_alpha_bars(self.device)
        # Made once: a tensor from a list waits for the GPU.
        self.later_order = torch.tensor([0, *range(NUM_NOW, NUM_VIEWS), *range(1, NUM_NOW)], device=self.device)
        self.studio = CreatureStudio(
            config.network.image_size,
            self.generator,
            config.ranges,
            config.plain_share,
            self.compiled,
            config.varied_share,
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            config.learning_rate,
            (0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )

    # --- The run ---

    def train(self) -> dict[str, Any]:
        """The whole command."""
        config = self.config
        if self.progress >= config.schedule_end:
            raise ValueError(
                f"the schedule is at {self.progress:.2f} already; give a larger --schedule-end or a --schedule-start"
            )
        pool = self._fill_pool()
        self._compile(pool)
        self._log(
            f"ready after {self._elapsed():.0f} s; {self.network.num_parameters / 1e6:.2f} M parameters on {self.device}"
        )
        self._run_steps(pool)
        return self._evaluate_and_save()

    def _run_steps(self, pool: CreatureViews) -> None:
        """Steps until this command's part of the schedule is done or its time is up."""
        config, first_step, first_progress, begun = self.config, self.step, self.progress, time.monotonic()
        available = self.workers.agree(self._seconds_left())
        next_evaluation = config.evaluate_every_seconds
        losses: list[Tensor] = []
        with timed_bar("Training", self.console) as show:
            while (seconds := self.workers.agree(time.monotonic() - begun)) < available:
                steps = self.step - first_step
                done = seconds / available if config.max_steps is None else steps / config.max_steps
                if done >= 1:
                    break
                self.progress = first_progress + (config.schedule_end - first_progress) * done
                losses.append(
                    self._train_step(pool, self._choose_views(), warm=min(1.0, (steps + 1) / config.warmup_steps))
                )
                self.step += 1
                if self.step % config.refresh_every == 0:
                    self._refresh(pool)
                if show(done):
                    loss, rate = torch.stack(losses).mean().item(), self.images / seconds
                    self._log(
                        f"step {self.step}, {self.progress:.3f} of the schedule, loss {loss:.4f}, {rate:.0f} images/s"
                    )
                    losses = []
                if seconds > next_evaluation:
                    self._evaluate_and_save()
                    next_evaluation = seconds + config.evaluate_every_seconds
        if config.max_steps is None or self.step - first_step == config.max_steps:
            self.progress = config.schedule_end

    def _refresh(self, pool: CreatureViews) -> None:
        """Replaces a chunk of the animals."""
        chunk = self.chunk
        pool.write(self.choices.randrange(len(pool) // chunk) * chunk, self.studio.draw(chunk))

    def _evaluate_and_save(self) -> dict[str, Any]:
        """Scores, written with the weights; the first process does it, the others wait for its next step."""
        if not self.workers.is_first:
            return {}
        scores = self.evaluate()
        self.save(scores)
        return scores

    def evaluate(self) -> dict[str, Any]:
        """Scores of the averaged weights."""
        scores: dict[str, Any] = {
            "step": self.step,
            "progress": round(self.progress, 4),
            "seconds": round(self._elapsed(), 1),
        }
        if self.config.pairs is not None:
            scores["pairs"] = evaluate_pairs(self.averaged, self.config.pairs, self.device)
        if self.config.held_out_animals:
            scores["held_out"] = evaluate_held_out(self.averaged, self.device, self.config.held_out_animals)
        self._log(json.dumps(scores))
        return scores

    def save(self, scores: dict[str, Any]) -> None:
        """Writes weights, scores and the sheet, each in one move."""
        folder, config = self.config.output_dir, self.config
        facts = {"step": self.step, "progress": self.progress, "seed": config.seed, "licence": "Apache-2.0"}
        facts |= {
            "data": f"procedural animals, {config.plain_share:.0%} of them plain",
            "batch_images": config.batch_images,
        }
        save_network(folder / WEIGHTS_NAME, self.averaged, facts)
        save_network(folder / RAW_NAME, self.network, facts)
        self.history.append(scores)
        settings = {k: v for k, v in asdict(config).items() if k not in ("output_dir", "resume", "pairs", "device")}
        write_json(folder / "small.json", {"scores": scores, "history": self.history, "config": settings})
        if config.held_out_animals:
            write_sheet(folder / "small.png", self.averaged, self.device)

    def benchmark(self) -> dict[str, Any]:
        """Images a second for each number of target pictures and kind of sample; steps are timed after their compilation."""
        result: dict[str, Any] = {}
        pool = self._fill_pool(2 * self.chunk)
        for images in self.config.benchmark_images:
            self.config.batch_images = images
            begun = time.monotonic()
            self._compile(pool)
            result[f"{images}/compile_s"] = round(time.monotonic() - begun, 1)
            for views in self.config.view_counts:
                seconds = self._time_steps(pool, views)
                count = images // views.targets * views.targets
                name = f"{images}/{views.references}+{views.targets}"
                result[name] = {"ms": round(1e3 * seconds, 2), "images_s": round(count / seconds)}
                self._log(f"{name}: {result[name]}")
            if self.device.type == "cuda":
                result[f"{images}/peak_GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        begun = time.monotonic()
        for _ in range(4):
            self.studio.draw(self.chunk)
        self._synchronize()
        result["drawn_views_s"] = round(4 * self.chunk * NUM_VIEWS / (time.monotonic() - begun))
        self._log(json.dumps(result))
        return result

    # --- Parts of it ---

    def _make_networks(self) -> tuple[ViewUNet, ViewUNet]:
        """The network and its average: new, or from a checkpoint."""
        if self.config.resume is None:
            network = ViewUNet(self.config.network).to(self.device)
            return network, copy.deepcopy(network).eval().requires_grad_(False)
        averaged, facts = load_network(self.config.resume / WEIGHTS_NAME, self.device)
        network, raw_facts = load_network(self.config.resume / RAW_NAME, self.device)
        if facts["step"] != raw_facts["step"]:
            raise ValueError(
                f"{self.config.resume}: weights of steps {facts['step']} and {raw_facts['step']}; they must be of one step"
            )
        if network.config != self.config.network:
            raise ValueError(
                f"{self.config.resume}: {network.config} differs from the network asked for, {self.config.network}"
            )
        self.step, self.progress = int(facts["step"]), float(facts["progress"])
        report = self.config.resume / "small.json"
        self.history = json.loads(report.read_text())["history"] if report.exists() else []
        return network.train(), averaged.requires_grad_(False)

    def _seconds_left(self) -> float:
        """Time to train in. Raises ValueError where there is none."""
        left = self.config.max_seconds - self.config.reserved_seconds - self._elapsed()
        if left <= 0:
            raise ValueError("no time is left to train: take fewer --num-animals, or more --max-seconds")
        return left

    def _fill_pool(self, num_animals: int | None = None) -> CreatureViews:
        """The animals to begin with."""
        chunk = self.chunk
        count = max(1, (num_animals or self.config.num_animals) // chunk) * chunk
        begun = time.monotonic()
        with Progress(*Progress.get_default_columns(), transient=True, console=self.console) as bar:
            task = bar.add_task("Drawing animals", total=count)

            def advance(drawn: int) -> None:
                bar.advance(task, drawn)
                self._seconds_left()

            pool = self.studio.fill(count, chunk, advance)
        self._synchronize()
        self._log(f"{count} animals of {NUM_VIEWS} views drawn in {time.monotonic() - begun:.1f} s")
        return pool

    def _compile(self, pool: CreatureViews) -> None:
        """Compiles what pays, and runs each kind of sample once, learning nothing."""
        if self.compiled:
            self.network.compile_parts()
        for views in self.config.view_counts:
            self._loss(pool, views).backward()
        self.optimizer.zero_grad(set_to_none=True)
        self._synchronize()

    def _choose_views(self) -> ViewCount:
        """The kind of the next step's samples."""
        kinds = self.config.view_counts
        return self.choices.choices(kinds, [kind.share for kind in kinds])[0]

    def _train_step(self, pool: CreatureViews, views: ViewCount, warm: float) -> Float[Tensor, ""]:
        """One step of optimizer and average; nothing waits for the GPU. Returns the loss."""
        config = self.config
        rate = config.learning_rate * warm * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(self.progress, 1.0))))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(pool, views)
        loss.backward()
        self.workers.average_gradients(self.network.parameters())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(config.averaging, (self.step + 1) / (self.step + 50))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1 - decay)
        self.images += self.workers.count * (config.batch_images // views.targets * views.targets)
        return loss.detach()

    def _loss(self, pool: CreatureViews, views: ViewCount) -> Float[Tensor, ""]:
        """Mean squared error of v on a fresh batch."""
        batch = max(1, self.config.batch_images // views.targets)
        pictures, rays = self._draw_batch(pool, batch, views)
        shown = views.references
        targets, target_rays = pictures[:, shown:], rays[:, shown:]
        timesteps = random_timesteps(batch, self.generator)
        alpha_bar = self.alpha_bars[timesteps]
        noise = torch.randn(targets.shape, generator=self.generator, device=self.device)
        noisy = add_noise(targets, noise, alpha_bar)
        told = max(1, batch - round(batch * self.config.unconditional_share))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            # All are encoded, the told ones kept: fewer shapes to compile.
            references = self.network.encode_references(pictures[:, :shown], rays[:, :shown]).first(told)
            predicted = self.network(noisy, timesteps, target_rays, references)
        return F.mse_loss(predicted.float(), v_from_x0(targets, noise, alpha_bar))

    def _draw_batch(self, pool: CreatureViews, batch: int, views: ViewCount) -> tuple[Tensor, Tensor]:
        """Pictures [batch views 3 size size] and rays of random animals, references first."""
        animals = torch.randint(len(pool), (batch,), generator=self.generator, device=self.device)
        if views.references == 1:
            # Any of the views of one time can be the reference.
            order = torch.rand(batch, NUM_NOW, generator=self.generator, device=self.device).argsort(dim=1)
        else:
            order = self.later_order.expand(batch, -1)
        chosen = pool.select(animals, order[:, : views.references + views.targets])
        pictures = chosen.on_white(random_colors(batch, self.generator))
        return pictures, view_rays(chosen.camera_to_worlds, chosen.fovs_deg, self.config.network.grid)

    def _time_steps(self, pool: CreatureViews, views: ViewCount, count: int = 20) -> float:
        """Seconds a step, after a few to warm up."""
        for index in range(count + 5):
            if index == 5:
                self._synchronize()
                begun = time.monotonic()
            self._train_step(pool, views, warm=1e-3)
        self._synchronize()
        return (time.monotonic() - begun) / count

    def _elapsed(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.started

    def _synchronize(self) -> None:
        """Waits for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _log(self, text: str) -> None:
        """One line for people."""
        self.console.print(text, highlight=False, soft_wrap=True)
        self.console.file.flush()
