"""Do the model's feet swing as the true feet do? On a run over a clip that `bags demo` or `write_creature_clip` made.

    python benchmarks/feet.py RUN --seed 7 --body-plan fox

Gaussians belong to a foot if the true creature's surface nearest to them at the canonical time is that foot's. The
figure is the correlation over the clip of their mean fore-and-aft position (the creature faces -y) with the true toe's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from bags_ns.data.creatures import FOOT_NAMES, PART_NAMES, random_animated_creature
from bags_ns.files import write_json
from bags_ns.runs import open_run


@dataclass
class Feet:
    """Correlates foot swings with the truth."""

    run: tyro.conf.Positional[Path]
    """Folder or config.yml of a trained run."""
    seed: int = 7
    """Seed of the clip's creature."""
    body_plan: str = "fox"
    """Body plan of the clip's creature."""
    output: Path | None = None
    """JSON file for the figures."""

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Signed correlation of each foot; feet without any Gaussian are absent."""
        model = open_run(self.run).model
        truth = random_animated_creature(self.seed, [self.body_plan])
        t0, times = model.bone_motion.canonical_time, model.bone_motion.knots
        labels = truth.part_of_points(model.means, float(t0))
        path = truth.foot_positions(times)
        moved = torch.stack([model.gaussians_at(time).means for time in times])
        figures = {}
        for index, name in enumerate(FOOT_NAMES):
            members = labels == PART_NAMES.index(name)
            if members.any():
                swing = moved[:, members, 1].mean(dim=1)
                figures[name] = float(torch.corrcoef(torch.stack([swing, path[:, index, 1]]))[0, 1])
        return figures


if __name__ == "__main__":
    feet = tyro.cli(Feet)
    result = feet.measure()
    table = Table(title="correlation of fore-and-aft swing with the truth")
    table.add_column("foot")
    table.add_column("correlation", justify="right")
    for foot, value in result.items():
        table.add_row(foot, f"{value:.3f}")
    Console().print(table)
    if feet.output:
        write_json(feet.output, result)
