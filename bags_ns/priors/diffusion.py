"""Diffusion without networks: noise, guidance and sampling of every prior, and how the small one was trained.

The small prior has a cosine schedule and predicts v. Its `alpha_bars` are kept in float64, since they fall to 1e-9 at the
last timestep; v needs no division by them.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.priors.base import NoisePredictor

NUM_TIMESTEPS = 1000


def cosine_alpha_bars(device: torch.device | None = None) -> Float[Tensor, " timesteps"]:
    """Share of signal variance at each timestep, in float64 (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17)."""
    times = torch.linspace(0, 1, NUM_TIMESTEPS + 1, dtype=torch.float64)
    curve = torch.cos((times + 0.008) / 1.008 * math.pi / 2).square()
    betas = (1 - curve[1:] / curve[:-1]).clamp_max(0.999)
    return torch.cumprod(1 - betas, dim=0).to(device)


def signal_and_noise(alpha_bar: Float[Tensor, " batch"], like: Float[Tensor, "batch *shape"]) -> tuple[Tensor, Tensor]:
    """Factors of picture and noise at the given noise levels, of the type of `like` and broadcasting against it."""
    shape = (-1,) + (1,) * (like.ndim - 1)
    return alpha_bar.sqrt().to(like.dtype).view(shape), (1 - alpha_bar).sqrt().to(like.dtype).view(shape)


def add_noise(
    x0: Float[Tensor, "batch *shape"], noise: Float[Tensor, "batch *shape"], alpha_bar: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *shape"]:
    """Noisy pictures x_t."""
    signal, sigma = signal_and_noise(alpha_bar, x0)
    return signal * x0 + sigma * noise


def v_from_x0(
    x0: Float[Tensor, "batch *shape"], noise: Float[Tensor, "batch *shape"], alpha_bar: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *shape"]:
    """What the network is trained to say (Salimans and Ho 2022, arXiv 2202.00512)."""
    signal, sigma = signal_and_noise(alpha_bar, x0)
    return signal * noise - sigma * x0


def noise_from_v(
    x_t: Float[Tensor, "batch *shape"], v: Float[Tensor, "batch *shape"], alpha_bar: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *shape"]:
    """The noise in x_t."""
    signal, sigma = signal_and_noise(alpha_bar, x_t)
    return sigma * x_t + signal * v


def x0_from_v(
    x_t: Float[Tensor, "batch *shape"], v: Float[Tensor, "batch *shape"], alpha_bar: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *shape"]:
    """The picture in x_t."""
    signal, sigma = signal_and_noise(alpha_bar, x_t)
    return signal * x_t - sigma * v


def guide(
    conditional: Float[Tensor, "*shape"], unconditional: Float[Tensor, "*shape"], guidance: float
) -> Float[Tensor, "*shape"]:
    """Classifier-free guidance: 0 is unconditional, 1 conditional, more exaggerates what the references say."""
    return unconditional + guidance * (conditional - unconditional)


def random_timesteps(batch: int, generator: torch.Generator) -> Int[Tensor, " batch"]:
    """Timesteps that dwell on high noise, where views have to be made up: 1000 sigmoid(N(0.6, 1.1))."""
    normal = torch.randn(batch, generator=generator, device=generator.device)
    return (torch.sigmoid(1.1 * normal + 0.6) * NUM_TIMESTEPS).long().clamp(0, NUM_TIMESTEPS - 1)


@torch.no_grad()
def ddim_sample(
    predict_noise: NoisePredictor,
    alphas_cumprod: Float[Tensor, " steps"],
    x_t: Float[Tensor, "batch *shape"],
    t: int,
    num_steps: int = 40,
    limit: float = math.inf,
) -> Float[Tensor, "batch *shape"]:
    """Clean pictures of noisy ones, deterministically, in `num_steps` even steps (Song et al. 2021, arXiv 2010.02502).

    Args:
        predict_noise: the guided network of any prior.
        alphas_cumprod: share of signal variance at each step of its diffusion.
        x_t: pictures with the noise of step `t`; pure noise where that is the last step.
        t: step of the diffusion to begin at.
        num_steps: calls of the network.
        limit: largest magnitude of a clean picture in this space; every guess is clamped to it.
    """
    alpha_bars = alphas_cumprod.to(x_t.device, torch.float64)
    steps = torch.linspace(t, 0, num_steps + 1).long().tolist()
    x0 = x_t
    for now, after in zip(steps[:-1], steps[1:], strict=True):
        alpha_bar, next_alpha_bar = alpha_bars[now].expand(len(x_t)), alpha_bars[after].expand(len(x_t))
        signal, sigma = signal_and_noise(alpha_bar, x_t)
        x0 = ((x_t - sigma * predict_noise(x_t, now).to(x_t)) / signal).clamp(-limit, limit)
        x_t = add_noise(x0, (x_t - signal * x0) / sigma, next_alpha_bar)
    return x0
