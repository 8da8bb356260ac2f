"""Growth of main memory over a long training run on a tiny clip: what leaks a little at every step shows here.

python benchmarks/memory_growth.py --num-steps 10000
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import tyro
from memory import resident_gib
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from rich.console import Console

from bags_ns import method_configs
from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.files import write_json
from bags_ns.model import BagsModelConfig

SETTLED = 0.2
"""Part of the run after which every kind of step has been made, and memory should stay as it is."""


@dataclass
class MemoryGrowth:
    """Trains bags-tiny in this process and reads its memory at intervals."""

    num_steps: int = 10_000
    """Steps of the run."""
    steps_per_reading: int = 50
    """Steps between two readings."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, Any]:
        """Resident memory at the start, when settled and at the end, in MiB, and its slope from then on by least squares."""
        readings: list[tuple[int, float, int]] = []
        with tempfile.TemporaryDirectory() as name:
            write_creature_clip(Path(name) / "clip", 5, ClipSettings(num_frames=12, size=64, num_test_times=1))
            config = copy.deepcopy(method_configs.bags_tiny.config)
            config.data = config.pipeline.datamanager.data = Path(name) / "clip"
            config.output_dir, config.vis, config.max_num_iterations = Path(name), "tensorboard", self.num_steps
            model = cast(BagsModelConfig, config.pipeline.model)
            model.num_random, model.max_gaussians, model.num_bones = 500, 1000, 8  # what leaks, leaks by the step
            config.set_timestamp()
            trainer = config.setup()
            trainer.setup()
            trainer.callbacks.append(
                TrainingCallback(
                    [TrainingCallbackLocation.AFTER_TRAIN_ITERATION],
                    lambda step: readings.append((step, 1024 * resident_gib("VmRSS"), trainer.model.num_points)),
                    update_every_num_iters=self.steps_per_reading,
                )
            )
            trainer.train()
        steps, mib, gaussians = np.array(readings).T
        settled = steps >= SETTLED * self.num_steps
        return {
            "steps": self.num_steps,
            "gaussians": int(gaussians[-1]),
            "start_mib": mib[0],
            "settled_mib": mib[settled][0],
            "end_mib": mib[-1],
            "kib_per_1000_steps": 1024 * 1000 * float(np.polyfit(steps[settled], mib[settled], 1)[0]),
            "readings": readings[:: max(1, len(readings) // 20)],
        }


if __name__ == "__main__":
    benchmark = tyro.cli(MemoryGrowth)
    result = benchmark.measure()
    Console().print(result)
    if benchmark.output:
        write_json(benchmark.output, result)
