"""Does one animal's motion arrive on another? On two trained runs:

    python benchmarks/retarget.py SOURCE_RUN TARGET_RUN

The figures are correlations over the clip of each paw's way, in the frame of the animal, between the source as its video
moves it and the target as the retargeted track does: how well the paths that it is given are met. Each animal's paws are
found in its own video by `find_extremities`, as the retargeting finds them; which paw is the left one is what the
reconstruction says. A paw that hardly moves at the source is named and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from bags_ns.animation.extremities import NAMES, NUM_PAWS, find_extremities
from bags_ns.files import write_json
from bags_ns.rigged import body_of, retargeted_track
from bags_ns.runs import open_run

STILL = 0.005
"""Standard deviation of a paw's way, in canonical units, below which it is not counted."""


@dataclass
class Retarget:
    """Correlates the paws of two animals."""

    source: tyro.conf.Positional[Path]
    """Folder or config.yml of the run whose motion is taken."""
    target: tyro.conf.Positional[Path]
    """Of the run that it is given to."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, dict[str, float | None]]:
        """Correlation of each paw's way forward and up; None where the source's hardly moves."""
        source, target = (open_run(run, test_mode="inference").model for run in (self.source, self.target))
        theirs, ours = find_extremities(body_of(source)), find_extremities(body_of(target))
        track = retargeted_track(source, target)
        moved = ours.at(
            torch.stack([track.pose_at(k.time, target.skeleton).T_object_canonical for k in track.keyframes])
        )
        figures: dict[str, dict[str, float | None]] = {}
        for paw, name in enumerate(NAMES[:NUM_PAWS]):
            figures[name] = {}
            for axis, direction in ((0, "forward"), (2, "up")):
                pair = torch.stack([theirs.paths[:, paw] @ theirs.axes[axis], moved[:, paw] @ ours.axes[axis]])
                counts = float(pair[0].std()) > STILL
                figures[name][direction] = float(torch.corrcoef(pair)[0, 1]) if counts else None
        return figures


if __name__ == "__main__":
    arguments = tyro.cli(Retarget)
    result = arguments.measure()
    table = Table(title="correlation of paws' ways")
    for column in ("paw", "forward", "up"):
        table.add_column(column, justify="left" if column == "paw" else "right")
    for paw, values in result.items():
        table.add_row(paw, *("still" if value is None else f"{value:.3f}" for value in values.values()))
    Console().print(table)
    if arguments.output:
        write_json(arguments.output, result)
