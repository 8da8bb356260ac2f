"""An animal with random Gaussians and a rig in motion, for the scripts beside it: no clip and no training are needed."""

from __future__ import annotations

import math

import torch
from nerfstudio.data.scene_box import SceneBox

from bags_ns.data.prepared import ClipInfo
from bags_ns.model import BagsModel, BagsModelConfig

NUM_FRAMES = 90
"""Frames of the clip that it could have been trained on."""


def made_animal(num_gaussians: int, num_bones: int, seed: int = 0) -> BagsModel:
    """A shell about 1 long with bones placed in it; skinning's residual, bones' motion and the root's are random and not zero."""
    torch.manual_seed(seed)
    times = torch.linspace(0, 1, NUM_FRAMES)
    clip = ClipInfo(
        canonical_index=NUM_FRAMES // 2,
        times=times,
        object_centric=False,
        root_translations=None,
        crop_boxes=None,
        source_indices=torch.arange(NUM_FRAMES),
        source_size=(854, 480),
        fps=24.0,
    )
    points = torch.nn.functional.normalize(torch.randn(num_gaussians, 3), dim=-1) * torch.tensor([0.5, 0.2, 0.3])
    model = BagsModel(
        BagsModelConfig(num_random=num_gaussians, num_bones=num_bones),
        scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])),
        num_train_data=NUM_FRAMES,
        metadata={"clip": clip},
        seed_points=(points, torch.randint(256, (num_gaussians, 3), dtype=torch.uint8)),
    )
    with torch.no_grad():
        spacing = math.sqrt(1.0 / num_gaussians)  # the shell has an area of about 1
        model.gauss_params["scales"].copy_((0.7 * spacing * torch.exp(0.4 * torch.randn(num_gaussians, 3))).log())
        model.gauss_params["opacities"].copy_(1.5 * torch.randn(num_gaussians, 1))
        model.bones.place(points[:: max(1, num_gaussians // 5000)])
        model.skinning.output.weight.normal_(std=0.3)
        model.bone_motion.head.weight.normal_(std=0.02)
        model.bone_motion.table.normal_(std=0.05)
        model.root_motion.table.normal_(std=0.05)
    model.bones_placed = True
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
