"""Gaussians as PLY in the layout of INRIA's 3-D Gaussian splatting, which splat viewers and editors read.

float32: x y z, normals (zero), f_dc_0..2 (harmonics of degree 0), opacity (logit), scale_0..2 (log), rot_0..3 (wxyz).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from bags_ns.animation.splats import MIN_SCALE, SH_C0, Splats
from bags_ns.files import whole_file, whole_sequence

FIELDS = (
    "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()
)  # fmt: skip
LOGIT_EPS = 1e-6
"""Opacities are kept this far from 0 and 1, whose logits are infinite."""


def ply_rows(splats: Splats) -> np.ndarray:
    """One record a Gaussian."""
    columns = [
        splats.means,
        torch.zeros_like(splats.means),
        splats.harmonics(),
        torch.logit(splats.opacities, eps=LOGIT_EPS)[:, None],
        splats.scales.clamp_min(MIN_SCALE).log(),
        splats.quats,
    ]
    table = torch.cat(columns, dim=1).cpu().numpy().astype("<f4")
    return np.ascontiguousarray(table).view([(name, "<f4") for name in FIELDS])[:, 0]


def _write(path: Path, splats: Splats) -> None:
    from plyfile import PlyData, PlyElement

    if not len(splats):
        raise ValueError("there are no Gaussians to export")
    PlyData([PlyElement.describe(ply_rows(splats), "vertex")], byte_order="<").write(str(path))


def write_ply(path: Path, splats: Splats) -> None:
    """Writes one file, whole or not at all."""
    with whole_file(path) as unfinished:
        _write(unfinished, splats)


def write_ply_sequence(folder: Path, frames: Iterable[Splats], advance: Callable[[], None] = lambda: None) -> int:
    """Writes frame_00000.ply and so on, all or none, in place of an earlier sequence; returns their number."""
    count = 0
    with whole_sequence(folder, "frame_*.ply") as unfinished:
        for count, splats in enumerate(frames, start=1):
            _write(unfinished / f"frame_{count - 1:05d}.ply", splats)
            advance()
    return count


def read_ply(path: Path) -> Splats:
    """Reads such a file back; harmonics above degree 0 are left out.

    Raises:
        ValueError: no PLY file, or one without Gaussians.
    """
    from plyfile import PlyData, PlyParseError

    try:
        vertex = PlyData.read(str(path))["vertex"]
        columns = {name: torch.from_numpy(np.array(vertex[name], np.float32)) for name in FIELDS if name[0] != "n"}
    except (PlyParseError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a PLY file of Gaussians ({error})") from None

    def stack(*names: str) -> torch.Tensor:
        return torch.stack([columns[name] for name in names], dim=1)

    return Splats(
        stack("x", "y", "z"),
        torch.nn.functional.normalize(stack(*FIELDS[13:]), dim=1),
        stack(*FIELDS[10:13]).exp(),
        columns["opacity"].sigmoid(),
        stack(*FIELDS[6:9]) * SH_C0 + 0.5,
    )
