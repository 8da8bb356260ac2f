"""Kills ns-train and the preparation at random moments, resumes each, and compares the end with undisturbed runs.

python benchmarks/kill_resume.py --output results/kill_resume.json

After every kill all that is there under a final name is read: checkpoints, config.yml files, cached and written folders.
One that cannot be read, or a result that differs from the undisturbed one where it must not, ends the benchmark.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
import tyro
import yaml
from rich.console import Console

from bags_ns import method_configs  # noqa: F401  run configs name its classes
from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.data.images import read_mask, read_rgba
from bags_ns.data.prepared import load_prepared
from bags_ns.evaluation import evaluate
from bags_ns.files import write_json
from bags_ns.progress import say
from bags_ns.runs import open_run

BIN = Path(sys.executable).parent


@dataclass
class KillResume:
    """20 kills of training, 20 of the preparation."""

    training_kills: int = 20
    """Kills of ns-train; each time it goes on from the newest checkpoint."""
    preparation_kills: int = 20
    """Kills of `bags process-video`, every fourth time from an empty cache."""
    num_steps: int = 400
    """Steps of the training run."""
    seeds: list[int] = field(default_factory=lambda: [42, 43, 44])
    """Seeds of the undisturbed runs; the killed run has the first."""
    output: Path | None = None
    """JSON file for the figures."""
    work_dir: Path = Path("kill_resume")
    """Folder for clips and runs; it is emptied first."""

    def measure(self) -> dict[str, object]:
        """All figures."""
        shutil.rmtree(self.work_dir, ignore_errors=True)
        clip = self.work_dir / "clip"
        write_creature_clip(clip, 5, ClipSettings(num_frames=12, size=64, num_test_times=2))
        chance = random.Random(0)
        figures: dict[str, object] = {}
        if self.preparation_kills:
            figures["preparation"] = self._preparation(clip, chance)
        if self.training_kills:
            figures["training"] = self._training(clip, chance)
        return figures

    def _preparation(self, clip: Path, chance: random.Random) -> dict[str, object]:
        source = _film(clip, self.work_dir / "film")

        def start(name: str) -> subprocess.Popen[bytes]:
            out, cache = self.work_dir / name, self.work_dir / f"{name}_cache"
            words = ["process-video", "--data", source, "--output-dir", out, "--cache-dir", cache, "--crop-size", "128"]
            return _start("bags", *words)

        seconds = _finish(start("whole"))
        finished = 0
        for kill in range(self.preparation_kills):
            if kill % 4 == 0 or (self.work_dir / "cut").exists():
                shutil.rmtree(self.work_dir / "cut", ignore_errors=True)
                shutil.rmtree(self.work_dir / "cut_cache", ignore_errors=True)
            after = chance.uniform(0, seconds)
            finished += not _kill(start("cut"), after)
            say(
                f"preparation {kill + 1} of {self.preparation_kills}: killed after {after:.0f} CPU seconds, or done before"
            )
            _read_cache(self.work_dir / "cut_cache")
            if (self.work_dir / "cut").exists():
                _read_prepared(self.work_dir / "cut")
        shutil.rmtree(self.work_dir / "cut", ignore_errors=True)
        _finish(start("cut"))
        assert _contents(self.work_dir / "cut") == _contents(self.work_dir / "whole"), "another result after kills"
        return {
            "kills": self.preparation_kills - finished,
            "finished before": finished,
            "undisturbed CPU seconds": seconds,
        }

    def _training(self, clip: Path, chance: random.Random) -> dict[str, object]:
        def start(name: str, seed: int, load_dir: Path | None = None) -> subprocess.Popen[bytes]:
            words = ["bags-tiny", "--data", clip, "--vis", "tensorboard", "--output-dir", self.work_dir / name]
            words += ["--max-num-iterations", self.num_steps, "--steps-per-save", 20, "--machine.seed", seed]
            words += ["--pipeline.model.num-random", 800, "--pipeline.model.max-gaussians", 1500]
            return _start("ns-train", *words, *(["--load-dir", load_dir] if load_dir else []))

        undisturbed, seconds = {}, []
        for seed in self.seeds:
            seconds.append(_finish(start(f"seed_{seed}", seed)))
            undisturbed[seed] = _quality(self.work_dir / f"seed_{seed}")
            say(f"seed {seed}: {seconds[-1]:.0f} CPU seconds, {undisturbed[seed]}")
        kills, reached, chains = 0, [], [self.work_dir / "killed_0"]
        while kills < self.training_kills:
            newest, step = _read_runs(chains[-1])
            if step >= self.num_steps - 1:  # the run came to its end between kills: another one begins
                chains.append(self.work_dir / f"killed_{len(chains)}")
                newest = None
            kills += _kill(start(chains[-1].name, self.seeds[0], newest), chance.uniform(0, min(seconds)))
            reached.append(_read_runs(chains[-1])[1])
            say(f"training, {kills} of {self.training_kills} killed: checkpoint of step {reached[-1]}")
        newest, step = _read_runs(chains[-1])
        if step < self.num_steps - 1:
            _finish(start(chains[-1].name, self.seeds[0], newest))
        return {
            "kills": kills,
            "steps reached after each": reached,
            "undisturbed CPU seconds": seconds,
            "undisturbed": undisturbed,
            "killed": [_quality(folder) for folder in chains],
        }


def _film(clip: Path, folder: Path) -> Path:
    """The clip's train frames over a textured ground and without silhouettes, so that those have to be made."""
    ground = np.random.default_rng(0).integers(0, 90, (256, 256, 4), np.uint8)
    folder.mkdir(parents=True)
    for index, path in enumerate(sorted((clip / "images").glob("train_*.png"))):
        rgba = np.kron(read_rgba(path), np.ones((4, 4, 1), np.uint8))
        alpha = rgba[..., 3:] / 255
        picture = (alpha * rgba + (1 - alpha) * ground).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:03d}.jpg"), picture[..., 2::-1])
    return folder


def _start(program: str, *words: object) -> subprocess.Popen[bytes]:
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "CUDA_VISIBLE_DEVICES": ""}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([str(BIN / program), *map(str, words)], env=environment, **quiet)


def _finish(process: subprocess.Popen[bytes]) -> float:
    """Waits until the process has ended well; the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.wait() != 0:
        raise RuntimeError(f"{' '.join(map(str, process.args))} ended with code {process.returncode}")  # type: ignore[arg-type]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _kill(process: subprocess.Popen[bytes], after: float) -> bool:
    """Sends SIGKILL after so many CPU seconds, which do not depend on what else the machine does.

    False where the process had ended before (well, or this raises).
    """
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        times = watched.cpu_times()
        if times.user + times.system > after:
            process.kill()
            process.wait()
            return True
        time.sleep(0.02)
    _finish(process)
    return False


def _read_runs(folder: Path) -> tuple[Path | None, int]:
    """Reads every config and checkpoint of the runs below a folder; where the newest checkpoint lies, and its step."""
    for path in folder.glob("**/config.yml"):
        assert yaml.load(path.read_text(), Loader=yaml.Loader).method_name == "bags-tiny", path
    newest, last = None, -1
    for path in folder.glob("**/step-*.ckpt"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        tensors = [values for values in state["pipeline"].values() if torch.is_tensor(values)]
        assert tensors and all(bool(torch.isfinite(values).all()) for values in tensors), path
        if state["step"] > last:
            newest, last = path.parent, state["step"]
    return newest, last


def _read_prepared(folder: Path) -> None:
    clip = load_prepared(folder, folder)
    for frame in clip.train:
        read_rgba(frame.image)


def _read_cache(cache: Path) -> None:
    """Reads every folder of a cache that is there under its final name."""
    for folder in cache.glob("[!.]*"):
        reader: Callable[[Path], object] = _read_prepared if (folder / "transforms.json").exists() else _read_masks
        reader(folder)


def _read_masks(folder: Path) -> None:
    masks = sorted(folder.iterdir())
    assert len(masks) == 12 and all(read_mask(path).shape == (256, 256) for path in masks), folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _quality(folder: Path) -> dict[str, float]:
    """In-silhouette PSNR and IoU of the newest run below a folder, on its training and test views."""
    run = open_run(folder)
    data = run.pipeline.datamanager
    summary = evaluate(run.model, data)
    return {f"{split} {key}": summary[split][key] for split in ("train", "test") for key in ("psnr_silhouette", "iou")}


if __name__ == "__main__":
    benchmark = tyro.cli(KillResume)
    result = benchmark.measure()
    Console().print(result)
    if benchmark.output:
        write_json(benchmark.output, result)
