"""Does one animal's motion arrive on another? On two trained runs:

    python benchmarks/retarget.py SOURCE_RUN TARGET_RUN

Paws are the lowest parts of the canonical animals, split by the animal's two ends (which of them is the head is not
asked) and by left and right. The figure is the correlation over the clip of a paw's fore-and-aft position, in the frame
of the animal, between the source as its video moves it and the target as the retargeted track does. A paw that hardly
moves at the source is named and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bags_ns.animal import OPAQUE
from bags_ns.animation.joint_rotations import SampledMotion
from bags_ns.animation.retarget import match_bones
from bags_ns.files import write_json
from bags_ns.model import BagsModel
from bags_ns.rig.motion import Pose
from bags_ns.rigged import body_of, retargeted_track, video_motion
from bags_ns.runs import open_run

PAW_HEIGHT = 0.15
"""Part of the animal's height that belongs to its paws."""
STILL = 0.005
"""Standard deviation of a paw's way, in animal lengths, below which it is not counted."""


def paws(model: BagsModel, forward: Float[Tensor, "3"]) -> dict[str, Bool[Tensor, " N"]]:
    """Which Gaussians belong to each paw of an animal that faces along `forward` (horizontal, of length 1)."""
    points = model.means
    opaque = model.canonical_opacities() > OPAQUE
    low, high = points[opaque, 2].min(), points[opaque, 2].max()
    foot = opaque & (points[:, 2] < low + PAW_HEIGHT * (high - low))
    sideways = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), forward)
    offsets = points - 0.5 * (points[foot].amin(0) + points[foot].amax(0))
    ahead, left = offsets @ forward > 0, offsets @ sideways > 0
    ends = {"one end,": ahead, "other end,": ~ahead}
    return {f"{e} {s}": foot & end & side for e, end in ends.items() for s, side in (("left", left), ("right", ~left))}


def ways(model: BagsModel, motion: SampledMotion, forward: Float[Tensor, "3"]) -> dict[str, Float[Tensor, " K"]]:
    """Fore-and-aft position of each paw over a motion, without the root's; paws without any Gaussian are absent."""
    members = {name: mask for name, mask in paws(model, forward).items() if bool(mask.any())}
    here = torch.eye(4)
    frames = [model.posed_gaussians(Pose(bones, here)).means for bones in motion.T_object_canonical]
    return {name: torch.stack([means[mask].mean(0) @ forward for means in frames]) for name, mask in members.items()}


@dataclass
class Retarget:
    """Correlates the paws of two animals."""

    source: tyro.conf.Positional[Path]
    """Folder or config.yml of the run whose motion is taken."""
    target: tyro.conf.Positional[Path]
    """Of the run that it is given to."""
    output: Path | None = None
    """JSON file for the figures."""

    @torch.no_grad()
    def measure(self) -> dict[str, float | None]:
        """Correlation of each paw; None where the source's hardly moves."""
        source, target = (open_run(run, test_mode="inference").model for run in (self.source, self.target))
        body = body_of(source)
        flat = body.points[:, :2] - body.points[:, :2].mean(0)
        along = torch.linalg.eigh(flat.T @ flat)[1][:, 1]
        forward = torch.tensor([float(along[0]), float(along[1]), 0.0])
        turn = match_bones(body, body_of(target)).turn
        motion = retargeted_track(source, target).sample(target.skeleton)
        theirs = ways(source, video_motion(source), forward)
        ours = ways(target, motion, turn @ forward)
        figures: dict[str, float | None] = {}
        for name in theirs.keys() & ours.keys():
            pair = torch.stack([theirs[name], ours[name][: len(theirs[name])]])
            figures[name] = float(torch.corrcoef(pair)[0, 1]) if float(pair[0].std()) > STILL else None
        return dict(sorted(figures.items()))


if __name__ == "__main__":
    arguments = tyro.cli(Retarget)
    result = arguments.measure()
    table = Table(title="correlation of fore-and-aft ways")
    table.add_column("paw")
    table.add_column("correlation", justify="right")
    for paw, value in result.items():
        table.add_row(paw, "stands still" if value is None else f"{value:.3f}")
    Console().print(table)
    if arguments.output:
        write_json(arguments.output, result)  # type: ignore[arg-type]
