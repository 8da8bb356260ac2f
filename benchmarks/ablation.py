"""Trains every clip four times, without and with rigidity and the prior: the ablation of docs/RESULTS.md.

The four runs of a clip differ in the weights of these two losses alone. A prior of weight 0 is not there at all, though: where the
camera is fixed, it does not say either how the body stands.

    python benchmarks/ablation.py DATA [DATA ...] --creatures 3 --jobs 4 --output-dir ablation
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from nerfstudio.engine.trainer import TrainerConfig
from rich.console import Console
from rich.table import Table

from bags_ns.data.creatures import write_creature_clip
from bags_ns.evaluation import angles_to_training, evaluate, mean_of
from bags_ns.files import write_json
from bags_ns.progress import progress_bar
from bags_ns.runs import open_run, train
from bags_ns.visualize import to_uint8, write_png

VARIANTS = {"neither": (False, False), "rigidity": (True, False), "prior": (False, True), "both": (True, True)}
"""Name -> (with rigidity, with the prior)."""
FIRST_CREATURE_SEED = 9001
"""Creatures of the ablation; the demo and the tests use small seeds."""
SHOWN_VIEWS = 3
"""Unseen views of each clip on the sheet."""


@dataclass
class Ablation:
    """Trains, evaluates, and writes one table and one sheet."""

    data: tyro.conf.Positional[list[Path]]
    """Clips with test views."""
    creatures: int = 3
    """Made-up animals to add."""
    method: Literal["bags", "bags-tiny"] = "bags"
    """Method, with its default settings."""
    prior: str = "small"
    """The prior."""
    num_steps: int | None = None
    """Training steps; the method's own number unless given."""
    seed: int = 42
    """Seed of all runs."""
    jobs: int = 1
    """Runs at the same time: a GPU has room for several."""
    output_dir: Path = Path("ablation")
    """Folder for runs, evaluations and pictures."""

    def run(self) -> None:
        """Trains, measures and draws all; runs whose evaluation lies there already are not repeated."""
        clips = [*self.data, *(self._creature(FIRST_CREATURE_SEED + i) for i in range(self.creatures))]
        work = [(clip, variant) for clip in clips for variant in VARIANTS if not self._result(clip, variant).is_file()]
        context = multiprocessing.get_context("spawn")
        started = time.monotonic()
        with ProcessPoolExecutor(self.jobs, context) as pool, progress_bar("Ablation", len(work)) as advance:
            for future in as_completed([pool.submit(self.train_one, *item) for item in work]):
                future.result()
                advance(None, None)
        results = {clip.name: {v: json.loads(self._result(clip, v).read_text()) for v in VARIANTS} for clip in clips}
        write_json(self.output_dir / "ablation.json", results)
        Console(width=140).print(ablation_table(results), f"{time.monotonic() - started:.0f} s")
        self._write_sheet(clips)

    def train_one(self, clip: Path, variant: str) -> None:
        """One run, its evaluation and a strip of unseen views."""
        if not torch.cuda.is_available():
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.jobs))
        rigidity, prior = VARIANTS[variant]

        def adjust(config: TrainerConfig) -> None:
            config.pipeline.prior.name = self.prior  # type: ignore[attr-defined]
            if not rigidity:
                config.pipeline.model.rigidity_loss_mult = 0.0  # type: ignore[attr-defined]
            if not prior:
                config.pipeline.prior.loss_mult = 0.0  # type: ignore[attr-defined]

        folder = self._result(clip, variant).parent
        run = open_run(train(clip, folder, method=self.method, num_steps=self.num_steps, seed=self.seed, adjust=adjust))
        data = run.pipeline.datamanager
        summary = evaluate(run.model, data)
        angles = angles_to_training(
            data.eval_dataset.cameras.camera_to_worlds, data.train_dataset.cameras.camera_to_worlds
        )
        farthest = angles.argsort(descending=True)[: len(angles) // 4]
        views, truths = [], []
        with torch.no_grad():
            for index in farthest[torch.linspace(0, len(farthest) - 1, SHOWN_VIEWS).long()].tolist():
                camera = data.eval_dataset.cameras[index : index + 1]
                views.append(to_uint8(run.model.get_outputs_for_camera(camera)["rgb"]))
                image = run.model.ground_truth(data.eval_dataset.get_data(index, image_type="uint8")["image"])
                truths.append(to_uint8(image[..., :3] * image[..., 3:] + 1 - image[..., 3:]))
        write_png(folder / "views.png", np.concatenate(views, axis=1))
        write_png(folder / "truth.png", np.concatenate(truths, axis=1))
        write_json(self._result(clip, variant), summary)

    def _creature(self, seed: int) -> Path:
        clip = self.output_dir / "clips" / f"creature_{seed}"
        if not clip.exists():
            with progress_bar(f"Making creature {seed}") as advance:
                write_creature_clip(clip, seed, progress=advance)
        return clip

    def _result(self, clip: Path, variant: str) -> Path:
        return self.output_dir / clip.name / variant / "evaluation.json"

    def _write_sheet(self, clips: list[Path]) -> None:
        """A row a clip: the farthest views as they are, then as each variant makes them."""
        import cv2

        rows = []
        for clip in clips:
            folder = self._result(clip, "both").parent
            paths = [folder / "truth.png", *(self._result(clip, variant).parent / "views.png" for variant in VARIANTS)]
            rows.append(np.concatenate([cv2.resize(cv2.imread(str(path)), (288, 96)) for path in paths], axis=1))
        write_png(self.output_dir / "ablation.png", np.concatenate(rows)[..., ::-1])


def ablation_table(results: dict[str, dict[str, dict[str, dict[str, float]]]]) -> Table:
    """Unseen test views of every clip, and their mean over clips, for each variant."""
    table = Table(title="unseen views: PSNR in silhouette / IoU / PSNR (all white)")
    table.add_column("clip")
    for variant in VARIANTS:
        table.add_column(variant, justify="right")
    means = {variant: mean_of([rows[variant]["unseen"] for rows in results.values()]) for variant in VARIANTS}
    for name, unseen in [
        *((clip, {variant: rows[variant]["unseen"] for variant in VARIANTS}) for clip, rows in results.items()),
        ("mean", means),
    ]:
        cells = [
            f"{row['psnr_silhouette']:.2f} / {row['iou']:.3f} / {row['psnr']:.2f} ({row['psnr_white']:.2f})"
            for row in unseen.values()
        ]
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    tyro.cli(Ablation).run()
