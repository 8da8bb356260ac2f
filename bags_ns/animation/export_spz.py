"""Gaussians as SPZ, Niantic's compressed format for static splats, by gsply (about a tenth of the PLY's size)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bags_ns.animation.export_ply import LOGIT_EPS
from bags_ns.animation.splats import MIN_SCALE, Splats
from bags_ns.files import whole_file


def write_spz(path: Path, splats: Splats) -> None:
    """Writes one file, whole or not at all. Colours, opacities and rotations are kept in 8 to 10 bits.

    Raises:
        ImportError: gsply is not installed.
        ValueError: there are no Gaussians.
    """
    try:
        import gsply
    except ImportError:
        raise ImportError("SPZ files are written by gsply: pip install bags-ns[export]") from None
    if not len(splats):
        raise ValueError("there are no Gaussians to export")

    def array(tensor: Tensor) -> np.ndarray:
        return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)

    data = gsply.GSData(
        means=array(splats.means),
        scales=array(splats.scales.clamp_min(MIN_SCALE).log()),
        quats=array(splats.quats),
        opacities=array(torch.logit(splats.opacities, eps=LOGIT_EPS)),
        sh0=array(splats.harmonics()),
        shN=np.zeros((len(splats), 0, 3), np.float32),
    )
    with whole_file(path) as unfinished:
        gsply.write_spz(unfinished, data)
