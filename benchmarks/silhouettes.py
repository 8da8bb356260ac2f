"""How well silhouettes are made where none are given: IoU with the masks of a clip, which the segmenter does not see.

python benchmarks/silhouettes.py DATA/camel
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Bool
from rich.console import Console
from rich.table import Table

from bags_ns.data.images import FOREGROUND, read_mask
from bags_ns.data.layouts import find_clip
from bags_ns.data.segmentation import SegmenterName, SegmentSettings, with_silhouettes
from bags_ns.files import write_json

Mask = Bool[np.ndarray, "H W"]


@dataclass
class SilhouetteQuality:
    """Makes silhouettes twice, with and without a box around the animal in the first frame, and compares them."""

    data: tyro.conf.Positional[Path]
    """Folder with images/ and masks/."""
    segmenter: SegmenterName = "grabcut"
    """What makes them."""
    output: Path | None = None
    """JSON file for the figures."""

    def run(self) -> None:
        """Prints one table."""
        truth = [_mask(path) for path in sorted((self.data / "masks").iterdir())]
        rows, columns = np.nonzero(truth[0])
        box = (int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
        table, figures = Table("box in the first frame", "mean IoU", "worst frame", title=self.data.name), {}
        for name, given in (("given", box), ("none", (0, 0, 0, 0))):
            values = [_iou(*pair) for pair in zip(self.made(given), truth, strict=True)]
            figures[name] = {"mean": float(np.mean(values)), "worst": min(values)}
            table.add_row(name, f"{np.mean(values):.3f}", f"{min(values):.3f} ({int(np.argmin(values))})")
        Console().print(table)
        if self.output:
            write_json(self.output, figures)

    def made(self, box: tuple[int, int, int, int]) -> list[Mask]:
        """Silhouettes of all frames."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "clip"
            shutil.copytree(self.data / "images", folder / "images")
            clip = find_clip(folder)
            settings = SegmentSettings(segmenter=self.segmenter, box=box)
            made = with_silhouettes(clip, range(len(clip.frames)), settings, Path(scratch) / "cache")
            return [_mask(frame.mask) for frame in made.frames if frame.mask is not None]


def _mask(path: Path) -> Mask:
    return read_mask(path) >= FOREGROUND


def _iou(made: Mask, true: Mask) -> float:
    return float((made & true).sum() / max(1, (made | true).sum()))


if __name__ == "__main__":
    tyro.cli(SilhouetteQuality).run()
