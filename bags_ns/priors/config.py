"""Which prior is used, and how strongly: the part of the pipeline's config that is about priors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bags_ns.priors.base import DiffusionPrior
from bags_ns.priors.sds import SDSConfig


@dataclass
class PriorConfig:
    """The diffusion prior that fills in the sides that the video does not show."""

    name: Literal["none", "small"] = "none"
    """none: no prior; small: the one that ships with the package."""
    source: str = ""
    """Weights: a file of `bags train-prior` (small); the bundled ones unless given."""
    device: str = ""
    """Device that the prior sits on, such as cuda:1; the fastest one there is unless given."""
    guidance: float = 2.0
    """Strength of classifier-free guidance."""
    loss_mult: float = 1.0
    """Weight of the prior's loss against the losses of the model; 0 leaves the prior out."""
    num_views: int = 4
    """Novel views that a step shows it."""
    every: int = 1
    """It is asked at every so-manieth step."""
    start: float = 0.0
    """Fraction of the run at which it begins."""
    end: float = 1.0
    """Fraction of the run at which it ends."""
    sds: SDSConfig = field(default_factory=SDSConfig)
    """How its opinion becomes a loss."""

    def at_work(self, step: int, progress: float) -> bool:
        """Whether the prior is asked at this step of the run."""
        switched_on = self.name != "none" and self.loss_mult > 0
        return switched_on and step % self.every == 0 and self.start <= progress <= self.end

    def setup(self) -> DiffusionPrior | None:
        """The prior, or None where it is switched off. Heavy packages are imported here and not before."""
        if self.name == "none" or self.loss_mult == 0:
            return None
        from bags_ns.priors.small import SmallPrior

        weights = Path(self.source).expanduser() if self.source else None
        return SmallPrior(weights, self.device or None, guidance=self.guidance)
