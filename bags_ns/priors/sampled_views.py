"""The third way to use a prior: views that it made up are fitted like photographs, until they are stale.

A set is sampled by DDIM from the renders themselves, with the noise that the annealing has reached by then: nearly pure
noise at the start of a run, touching up at its end. It costs more than a step of score distillation but is used many times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bags_ns.priors.base import DiffusionPrior
from bags_ns.priors.diffusion import add_noise, ddim_sample


@dataclass
class SampledViewsConfig:
    """How many views the prior makes up, how well, and for how long they are used (variant `views`)."""

    refresh: float = 0.2
    """Fraction of the run after which all are made anew."""
    num_sets: int = 8
    """Sets made and kept in that time, each of `num_views` views of a frame that is being trained on."""
    num_steps: int = 12
    """Calls of the network for a set."""


@dataclass(frozen=True, eq=False)
class ViewSet:
    """Views of the animal at the time of a frame, as a prior pictures them."""

    frame: int
    """Its place among the train frames."""
    camera_to_worlds: Float[Tensor, "V 4 4"]
    """OpenGL poses about the animal's middle."""
    pictures: UInt8[Tensor, "V S S 3"]
    """RGB on white."""

    def loss(self, renders: Float[Tensor, "V S S 3"]) -> Float[Tensor, ""]:
        """Half the mean squared distance of renders to the pictures, both in [-1, 1] as in `sds`."""
        return 2 * (renders - self.pictures.to(renders) / 255).square().mean()


class SampledViews:
    """The sets in use: at most `num_sets`, none older than `refresh` of the run. Draws from torch's global generators."""

    def __init__(self, config: SampledViewsConfig) -> None:
        self.config = config
        self.sets: list[ViewSet] = []
        self._period = -1

    def choose(self, progress: float) -> ViewSet | None:
        """One of the sets at random, or None where another one is due first."""
        period = int(progress / self.config.refresh)
        if period != self._period:
            self._period, self.sets = period, []
        if len(self.sets) < self.config.num_sets:
            return None
        return self.sets[int(torch.randint(len(self.sets), ()))]

    @torch.no_grad()
    def add(
        self,
        prior: DiffusionPrior,
        frame: int,
        renders: Float[Tensor, "V S S 3"],
        camera_to_worlds: Float[Tensor, "V 4 4"],
        conditioning: Any,
        t: int,
    ) -> ViewSet:
        """A new set: what the prior makes of `renders` with the noise of step `t` of its diffusion."""
        x = prior.encode(renders)
        alpha_bar = prior.alphas_cumprod[t].to(x.device).expand(len(x))
        noisy = add_noise(x, torch.randn_like(x), alpha_bar)
        predict = prior.noise_predictor(camera_to_worlds, conditioning)
        clean = ddim_sample(predict, prior.alphas_cumprod, noisy, t, self.config.num_steps, prior.limit)
        pictures = (255 * prior.decode(clean)).round().to(renders.device, torch.uint8)
        self.sets.append(ViewSet(frame, camera_to_worlds, pictures))
        return self.sets[-1]
