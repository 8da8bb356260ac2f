"""Does one animal's motion arrive on another? On two trained runs:

    python benchmarks/retarget.py SOURCE_RUN TARGET_RUN

Paws are the parts that are lowest on average over the clip, in four groups of Gaussians that move together: where they
stand at the canonical time, in mid-stride, does not tell a fore from a hind paw. By their mean places two belong to each
end of the animal (which of them is the head is not asked), one of them left and one right. The figure is the correlation
over the clip of a paw's fore-and-aft position, in the frame of the animal, between the source as its video moves it and
the target as the retargeted track does. A paw that hardly moves at the source is named and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans
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


def paws(model: BagsModel, motion: SampledMotion, forward: Float[Tensor, "3"]) -> dict[str, Int[Tensor, " members"]]:
    """The Gaussians of each paw of an animal that faces along `forward` (horizontal, of length 1)."""
    opaque = (model.canonical_opacities() > OPAQUE).nonzero()[:, 0]
    paths = positions(model, motion)[:, opaque]
    heights = paths[..., 2].mean(0)
    low = heights < heights.min() + PAW_HEIGHT * (heights.max() - heights.min())
    paths, members = paths[:, low], opaque[low]
    kmeans: Any = KMeans  # its stubs do not know a number as n_init
    labels = torch.from_numpy(kmeans(4, n_init=5, random_state=0).fit(paths.transpose(0, 1).flatten(1).numpy()).labels_)
    means = torch.stack([paths[:, labels == paw].mean((0, 1)) for paw in range(4)])
    sideways = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), forward)
    order = (means @ forward).argsort(descending=True)
    result = {}
    for end, pair in (("one end,", order[:2]), ("other end,", order[2:])):
        for side, paw in zip(("left", "right"), pair[(means[pair] @ sideways).argsort(descending=True)], strict=True):
            result[f"{end} {side}"] = members[labels == paw]
    return result


def positions(model: BagsModel, motion: SampledMotion) -> Float[Tensor, "K N 3"]:
    """Where the Gaussians are over a motion, without the root's."""
    here = torch.eye(4)
    return torch.stack([model.posed_gaussians(Pose(bones, here)).means for bones in motion.T_object_canonical])


def ways(
    model: BagsModel, motion: SampledMotion, members: dict[str, Int[Tensor, " members"]], forward: Float[Tensor, "3"]
) -> dict[str, Float[Tensor, " K"]]:
    """Fore-and-aft position of each paw over a motion."""
    moved = positions(model, motion)
    return {name: moved[:, paw].mean(1) @ forward for name, paw in members.items()}


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
        video = video_motion(source)
        theirs = ways(source, video, paws(source, video, forward), forward)
        ours = ways(target, motion, paws(target, video_motion(target), turn @ forward), turn @ forward)
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
