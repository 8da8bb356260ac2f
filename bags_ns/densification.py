"""How the animal's Gaussians multiply while it is trained: gsplat's default strategy, fed by all renders of a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animal import AnimalModel, AnimalModelConfig
from bags_ns.cameras import intrinsics_from_fov, viewmats_from_camera_to_worlds
from bags_ns.gaussians import Gaussians
from bags_ns.rendering import RenderOutput

SUMS = ("grad2d", "count")
"""What gsplat's strategy adds up for each Gaussian between two rounds."""


@dataclass
class DensifiedModelConfig(AnimalModelConfig):
    """When and where Gaussians are added and removed."""

    _target: type = field(default_factory=lambda: DensifiedModel)
    max_gaussians: int = 30_000
    """Densification stops above this number of Gaussians."""
    densify_start: float = 0.03
    """Fraction of the run at which densification begins."""
    densify_end: float = 0.8
    """Fraction of the run at which densification ends."""
    densify_rounds: int = 40
    """Rounds of densification between its begin and its end."""
    # Splatfacto's own fields, with values for short runs.
    densify_grad_thresh: float = 0.0008
    """Screen-space gradient (of the loss per animal pixel) above which a Gaussian is split or duplicated."""
    densify_size_thresh: float = 0.01
    """Gaussians below this size (the animal is about 1 long) are duplicated, larger ones split."""
    cull_alpha_thresh: float = 0.02
    """Gaussians below this opacity are removed at densification."""


class DensifiedModel(AnimalModel):
    """An animal whose Gaussians are duplicated, split and removed, at times that are fractions of the run."""

    config: DensifiedModelConfig
    densifying: bool = True
    """Set by the pipeline: off while geometry is held."""

    def populate_modules(self) -> None:
        """Builds the animal; the run's length is not known yet."""
        super().populate_modules()
        self.run_length = 0
        self.infos: list[dict[str, Any]] = []

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint knows of the run beside its tensors."""
        return {"run_length": self.run_length, "densification": {name: self.strategy_state[name] for name in SUMS}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self.run_length = state["run_length"]
        for name, values in state.get("densification", {}).items():
            self.strategy_state[name] = None if values is None else values.to(self.device)

    def update_to_step(self, step: int) -> None:
        """Remembers the step of a loaded checkpoint."""
        self.step = step

    def set_run_length(self, num_steps: int) -> None:
        """Tells the model how many steps the whole run has; the schedule of densification follows from it."""
        self.run_length = num_steps
        config, strategy = self.config, self.strategy
        strategy.refine_start_iter = int(config.densify_start * num_steps)
        strategy.refine_stop_iter = int(config.densify_end * num_steps)
        strategy.refine_every = max(
            1, (strategy.refine_stop_iter - strategy.refine_start_iter) // config.densify_rounds
        )
        strategy.reset_every = num_steps + 1  # opacities are never reset: runs are short
        strategy.pause_refine_after_reset = 0
        strategy.refine_scale2d_stop_iter = 0
        strategy.verbose = False

    @property
    def progress(self) -> float:
        """Fraction of the run that is done, in [0, 1]."""
        return min(1.0, self.step / max(1, self.run_length))

    def render_views(
        self, gaussians: Gaussians, camera_to_worlds: Float[Tensor, "V 4 4"], fov_deg: float, size: int
    ) -> RenderOutput:
        """Square novel views on white, in one call; in training their screen gradients feed densification too."""
        viewmats = viewmats_from_camera_to_worlds(camera_to_worlds)
        Ks = intrinsics_from_fov(fov_deg, size, size).to(self.device).expand(len(viewmats), 3, 3)
        white = torch.ones(3, device=self.device)
        output = self.render(gaussians, viewmats, Ks, size, size, background=white)
        if self.training:
            self.watch_gradients(output)
        return output

    def watch_gradients(self, output: RenderOutput) -> None:
        """Keeps what densification needs of a render."""
        if output.info["means2d"].requires_grad:
            output.info["means2d"].retain_grad()
            self.infos.append(output.info)

    def step_post_backward(self, step: int) -> None:
        """After each step: densification, from the gradients of all of the step's renders, up to `max_gaussians`."""
        infos, self.infos = self.infos, []
        if not infos or not self.densifying or step == 0:  # at step 0 the strategy would reset the opacities
            return
        threshold = self.config.densify_grad_thresh if self.num_points < self.config.max_gaussians else float("inf")
        self.strategy.grow_grad2d = threshold
        if step < self.strategy.refine_stop_iter:
            for info in infos[:-1]:  # the strategy's own step takes one render, its statistics take any number
                self.strategy._update_state(self.gauss_params, self.strategy_state, info)
        self.info = infos[-1]
        super().step_post_backward(step)
