"""What of nerfstudio's splatfacto is left out: options that nothing reads here, and its LPIPS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.models.splatfacto import SplatfactoModelConfig
from tyro.conf import Suppress


@dataclass
class TrimmedSplatfactoConfig(SplatfactoModelConfig):
    """Splatfacto's options, without those of no effect in the help."""

    # What nerfstudio's rays or splatfacto's own renders and losses read.
    enable_collider: Suppress[bool] = False
    collider_params: Suppress[dict[str, float] | None] = None
    loss_coefficients: Suppress[dict[str, float]] = field(default_factory=dict)
    eval_num_rays_per_chunk: Suppress[int] = 4096
    prompt: Suppress[str | None] = None
    num_downscales: Suppress[int] = 0
    resolution_schedule: Suppress[int] = 3000
    sh_degree_interval: Suppress[int] = 1000
    ssim_lambda: Suppress[float] = 0.2
    use_scale_regularization: Suppress[bool] = False
    output_depth_during_training: Suppress[bool] = False
    rasterize_mode: Suppress[Literal["classic", "antialiased"]] = "classic"
    camera_optimizer: Suppress[CameraOptimizerConfig] = field(default_factory=lambda: CameraOptimizerConfig(mode="off"))
    grid_shape: Suppress[tuple[int, int, int]] = (16, 16, 8)
    color_corrected_metrics: Suppress[bool] = False
    use_absgrad: Suppress[bool] = False
    """Renders do not ask for absolute gradients, which exist in gsplat's CUDA kernels only."""
    # Counted in steps, which `DensifiedModel.set_run_length` sets, or at work only after a reset of opacities or by sizes on the screen.
    warmup_length: Suppress[int] = 500
    refine_every: Suppress[int] = 100
    reset_alpha_every: Suppress[int] = 30
    stop_split_at: Suppress[int] = 15_000
    stop_screen_size_at: Suppress[int] = 4000
    cull_scale_thresh: Suppress[float] = 0.5
    cull_screen_size: Suppress[float] = 0.15
    split_screen_size: Suppress[float] = 0.05
    n_split_samples: Suppress[int] = 2


@contextlib.contextmanager
def without_lpips() -> Iterator[None]:
    """Keeps splatfacto from building LPIPS, which downloads weights and would land in every checkpoint."""
    import torchmetrics.image.lpip as lpip

    original = lpip.LearnedPerceptualImagePatchSimilarity
    lpip.LearnedPerceptualImagePatchSimilarity = lambda **_: None  # type: ignore[assignment]
    try:
        yield
    finally:
        lpip.LearnedPerceptualImagePatchSimilarity = original
