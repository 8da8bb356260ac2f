"""Which prior is used, and how strongly: the part of the pipeline's config that is about priors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

from safetensors import SafetensorError

from bags_ns.priors.base import DiffusionPrior, PriorError
from bags_ns.priors.sampled_views import SampledViewsConfig
from bags_ns.priors.sds import SDSConfig

LOADING_ERRORS = (ImportError, OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError)
"""What weights and packages that are missing, damaged, foreign or too large raise; torch's and diffusers' have many lines."""


@dataclass
class PriorConfig:
    """The diffusion prior that fills in the sides that the video does not show."""

    name: Literal["none", "small", "zero123", "imagedream"] = "small"
    """none: no prior; small: the one that ships with the package; zero123, imagedream: pretrained on many objects, 1.2 and 2 billion weights."""
    source: str = ""
    """Weights: a file of `bags train-prior` (small); a local folder or a Hugging Face id (zero123, imagedream); the bundled or published ones unless given."""
    device: str = ""
    """Device that the prior sits on, such as cuda:1; the fastest one there is unless given."""
    guidance: float | None = None
    """Strength of classifier-free guidance; the prior's own unless given (small: 1, zero123 and imagedream: 5)."""
    prompt: str = ""
    """What the animal is, such as "a brown dog" (imagedream)."""
    negative_prompt: str = "blurry, low quality, cropped, unnatural colors"
    """What pictures of it should not be (imagedream)."""
    loss_mult: float = 30.0
    """Weight of the prior's loss against the losses of the model; 0 leaves the prior out, also of what is looked for before training."""
    color_mult: float = 0.0
    """Part of its gradient that reaches the colours; 0: it shapes the animal, whose coat the video knows better."""
    num_views: int = 4
    """Novel views that a step shows it; a multiple of 4 for imagedream."""
    every: int = 3
    """It is asked at every n-th step."""
    start: float = 0.0
    """Fraction of the run at which it begins."""
    end: float = 1.0
    """Fraction of the run at which it ends."""
    sds: SDSConfig = field(default_factory=SDSConfig)
    """How its opinion becomes a loss."""
    views: SampledViewsConfig = field(default_factory=SampledViewsConfig)
    """The views that it makes up, for the variant `views`."""

    def at_work(self, step: int, progress: float) -> bool:
        """Whether the prior is asked at this step of the run."""
        switched_on = self.name != "none" and self.loss_mult > 0
        return switched_on and step % self.every == 0 and self.start <= progress <= self.end

    def part_done(self, progress: float) -> float:
        """Part of the prior's own work, from `start` to `end`, that is done at `progress` of the run."""
        return min(1.0, max(0.0, (progress - self.start) / max(self.end - self.start, 1e-9)))

    def setup(self) -> DiffusionPrior | None:
        """The prior, or None where it is switched off. Heavy packages are imported here and not before.

        Raises:
            PriorError: it cannot be had, whatever the reason; one line.
        """
        if self.name == "none" or self.loss_mult == 0:
            return None
        if self.every < 1 or self.views.refresh <= 0 or self.views.num_sets < 1 or self.views.num_steps < 1:
            raise PriorError(
                "--pipeline.prior.every, .views.num-sets and .views.num-steps are at least 1, .views.refresh is above 0"
            )
        try:
            prior = self._load()
        except LOADING_ERRORS as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise PriorError(f"the {self.name} prior cannot be used: {reason[0]}") from error
        together = prior.camera.views_per_ring
        if self.num_views < 1 or self.num_views % together:
            raise PriorError(
                f"--pipeline.prior.num-views is {self.num_views}; the {self.name} prior needs a multiple of {together}"
            )
        return prior

    def _load(self) -> DiffusionPrior:
        options: dict[str, Any] = {"device": self.device or None}
        if self.guidance is not None:
            options["guidance"] = self.guidance
        if self.name == "small":
            from bags_ns.priors.small import SmallPrior

            return SmallPrior(Path(self.source).expanduser() if self.source else None, **options)
        if self.source:
            options["source"] = self.source
        if self.name == "zero123":
            from bags_ns.priors.zero123 import Zero123Prior

            return Zero123Prior.from_pretrained(**options)
        if self.name == "imagedream":
            from bags_ns.priors.imagedream import ImageDreamPrior

            return ImageDreamPrior.from_pretrained(**options, prompt=self.prompt, negative_prompt=self.negative_prompt)
        raise ValueError(f"nothing in {__name__} makes it")
