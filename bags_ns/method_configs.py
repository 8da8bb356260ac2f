"""The methods that ns-train offers: `bags`, and `bags-tiny`, which is `bags` made smaller for a CPU."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.plugins.types import MethodSpecification

from bags_ns.data.datamanager import BagsDataManagerConfig
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.ffmpeg import put_ffmpeg_on_path
from bags_ns.model import BagsModelConfig
from bags_ns.pipeline import BagsPipelineConfig
from bags_ns.trainer import BagsTrainerConfig, FusedAdamConfig, PhasedSchedulerConfig

put_ffmpeg_on_path()  # ns-render looks for the program before it does anything else

PLACES = (0.3, 0.1, 0.5)
"""Phase factors of the Gaussians' means: what says least about how far away they are lets them go least from their seeds."""
GEOMETRY = (1.0, 0.1, 1.0)
"""Phase factors of what else they are: nearly frozen while the bones learn to move them."""
RIG = (0.0, 1.0, 1.0)
"""Phase factors of the rig: it begins with the bones' phase."""


def _group(lr: float, final_ratio: float, phase_factors: tuple[float, float, float]) -> dict[str, Any]:
    """Optimizer and scheduler of one parameter group."""
    return {
        "optimizer": FusedAdamConfig(lr=lr, eps=1e-15),
        "scheduler": PhasedSchedulerConfig(final_ratio=final_ratio, phase_factors=phase_factors),
    }


def _bags() -> BagsTrainerConfig:
    return BagsTrainerConfig(
        method_name="bags",
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        max_num_iterations=3000,
        steps_per_save=500,
        steps_per_eval_batch=0,
        steps_per_eval_image=500,
        steps_per_eval_all_images=100_000,
        mixed_precision=False,
        pipeline=BagsPipelineConfig(
            datamanager=BagsDataManagerConfig(dataparser=AnimalVideoDataParserConfig()), model=BagsModelConfig()
        ),
        optimizers={
            "means": _group(1e-3, 0.05, PLACES),
            "scales": _group(5e-3, 0.2, GEOMETRY),
            "quats": _group(5e-3, 0.2, GEOMETRY),
            "features_dc": _group(2e-2, 0.2, GEOMETRY),
            "features_rest": _group(1e-3, 1.0, GEOMETRY),
            "opacities": _group(3e-2, 0.5, GEOMETRY),
            "bones": _group(5e-4, 0.1, RIG),
            "skinning": _group(1e-3, 0.1, RIG),
            "bone_motion": _group(2e-3, 0.02, RIG),
            "bone_table": _group(4e-3, 0.02, RIG),
            "bone_stride": _group(4e-3, 0.02, RIG),
            "root_motion": _group(2e-3, 0.02, RIG),
            "mirror": _group(5e-3, 0.05, RIG),
            "field": _group(8e-4, 0.02, RIG),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15, websocket_host="127.0.0.1", max_num_display_images=20),
        vis="viewer",
    )


def _tiny(config: BagsTrainerConfig) -> BagsTrainerConfig:
    """`config` for two CPU cores: fewer and shorter steps, fewer Gaussians."""
    config = copy.deepcopy(config)
    config.method_name = "bags-tiny"
    config.max_num_iterations = 1500
    config.pipeline.frames_per_step = 4  # type: ignore[attr-defined]
    model = cast(BagsModelConfig, config.pipeline.model)
    model.max_gaussians = 6000
    model.rigidity_samples, model.color_samples = 512, 128
    model.reach_loss_mult = model.pose_dropout = 0.0  # not shown to help with so few frames a step
    model.field_hidden, model.field_layers = 64, 4
    return config


bags = MethodSpecification(
    config=_bags(), description="An animatable 3-D Gaussian animal from one casual video (bones, skinning, priors)."
)
bags_tiny = MethodSpecification(
    config=_tiny(_bags()), description="bags for two CPU cores: fewer and shorter steps, fewer Gaussians."
)
