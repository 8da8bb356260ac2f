"""Score distillation, once: how a diffusion model's opinion of a render becomes a loss. No network is built here.

With x the render (pixels in [-1, 1] or latents), x_t = sqrt(abar_t) x + sqrt(1 - abar_t) n and eps_hat the guided
noise prediction (classifier-free guidance, arXiv 2207.12598):

    sds    gradient w(t) (eps_hat - n), w(t) = 1 - abar_t            DreamFusion, arXiv 2209.14988
    x0     squared distance of x to the one-step reconstruction x0_hat(x_t), which is held fixed
    views  squared distance to views sampled in many steps, see `sampled_views`

All are annealed: t falls linearly over the prior's work from `t_start` to `t_end` of the diffusion's own steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.priors.base import DiffusionPrior, NoisePredictor

SHADE_GAINS = (0.5, 2.5)
"""A guess is made neither paler nor darker than by these factors."""


@dataclass
class SDSConfig:
    """How a prior's opinion is turned into a loss."""

    variant: Literal["sds", "x0", "views"] = "x0"
    """sds: the score's own gradient; x0: distance to the one-step reconstruction, smoother and lower in contrast; views: distance to views sampled now and then."""
    t_start: float = 0.96
    """Noise level at the start of the prior's work, as a fraction of its diffusion steps."""
    t_end: float = 0.02
    """Noise level at the end of the prior's work."""
    shade: float = 0.5
    """How far a one-step guess's shade is moved to that of the render (0: not, 1: all the way); for x0 and priors that work on pixels."""


def timestep(config: SDSConfig, progress: float, num_steps: int) -> int:
    """Diffusion step in [0, num_steps) at `progress` of the prior's work in [0, 1]."""
    fraction = config.t_start + (config.t_end - config.t_start) * min(1.0, max(0.0, progress))
    return min(num_steps - 1, max(0, round(fraction * num_steps)))


def shaded(
    guess: Float[Tensor, "V 3 H W"],
    render: Float[Tensor, "V 3 H W"],
    alpha: Float[Tensor, "V 1 H W"],
    strength: float,
) -> Float[Tensor, "V 3 H W"]:
    """A guess whose shade over the animal is moved to that of the render, as a geometric mean.

    A one-step reconstruction is a mean over all that could be there, the white background too, and so paler than each of
    them. Shade is the mean distance from white where the animal is rendered, in which every pixel counts as much as it is
    itself away from white: what the guess takes away from the animal does not make it paler.

    Args:
        guess: pictures on white in [-1, 1].
        render: what they are guesses of, in [-1, 1] on white.
        alpha: its coverage, in [0, 1].
        strength: 0 leaves the guess as it is, 1 gives it the render's shade, channel by channel.
    """

    def shade(darkness: Tensor) -> Float[Tensor, " 3"]:
        weights = (alpha > 0.5) * darkness.mean(dim=1, keepdim=True)
        return (weights * darkness).sum((0, 2, 3)) / weights.sum().clamp_min(1e-6)

    darkness = 0.5 - 0.5 * guess
    wanted = shade((0.5 - 0.5 * render) / alpha.clamp_min(0.5))
    gain = (wanted / shade(darkness).clamp_min(0.02)).clamp(*SHADE_GAINS) ** strength
    return 1 - 2 * (gain[:, None, None] * darkness).clamp(0, 1)


def _as_it_is(guess: Tensor) -> Tensor:
    return guess


def sds_loss(
    images: Float[Tensor, "V C H W"],
    predict_noise: NoisePredictor,
    alphas_cumprod: Float[Tensor, " steps"],
    t: int,
    variant: Literal["sds", "x0"],
    noise: Float[Tensor, "V C H W"],
    limit: float = math.inf,
    adjust: Callable[[Tensor], Tensor] = _as_it_is,
) -> Float[Tensor, ""]:
    """Loss whose gradient in `images` is the variant's, summed over a view's entries and averaged over the V views.

    Args:
        images: renders in the diffusion's own space and range, with gradient.
        predict_noise: the guided network.
        alphas_cumprod: abar over the diffusion's steps.
        t: diffusion step.
        variant: see the module docstring.
        noise: n, standard normal.
        limit: largest magnitude of a clean picture in this space.
        adjust: what is done to the one-step reconstructions of `x0` before they are aimed at.

    Returns:
        A scalar. For `sds` its value is that of a quadratic with the right gradient, not a likelihood.
    """
    alpha_bar = alphas_cumprod[t].to(images.device, torch.float64)
    signal, sigma = alpha_bar.sqrt().to(images.dtype), (1 - alpha_bar).sqrt().to(images.dtype)
    with torch.no_grad():
        noisy = signal * images + sigma * noise
        predicted = predict_noise(noisy, t).to(images.dtype)
        if variant == "sds":
            target = images - (1 - alpha_bar).to(images.dtype) * (predicted - noise)
        else:
            target = adjust(((noisy - sigma * predicted) / signal.clamp_min(1e-4)).clamp(-limit, limit))
    return 0.5 * (images - target).square().sum() / len(images)


def prior_loss(
    prior: DiffusionPrior,
    config: SDSConfig,
    renders: Float[Tensor, "V H W 3"],
    alphas: Float[Tensor, "V H W 1"],
    camera_to_worlds: Float[Tensor, "V 4 4"],
    conditioning: Any,
    progress: float,
) -> Float[Tensor, ""]:
    """What `prior` has to say of novel views on white, per entry of its space; `progress` of its work in [0, 1] anneals the noise.

    `renders` and their coverage `alphas` have the prior's own size.
    """
    assert config.variant != "views", "sampled views are fitted by the caller, see `SampledViews`"
    x = prior.encode(renders)
    t = timestep(config, progress, len(prior.alphas_cumprod))
    predict = prior.noise_predictor(camera_to_worlds, conditioning)
    adjust = _as_it_is
    if config.shade and math.isfinite(prior.limit):  # latents, which have no range, have no shade either
        coverage = alphas.detach().permute(0, 3, 1, 2).to(x)
        adjust = partial(shaded, render=x.detach(), alpha=coverage, strength=config.shade)
    loss = sds_loss(x, predict, prior.alphas_cumprod, t, config.variant, torch.randn_like(x), prior.limit, adjust)
    return (loss / x[0].numel()).to(renders.device)
