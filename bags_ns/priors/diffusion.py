"""The diffusion that the small prior was trained with: cosine schedule, v-prediction, DDIM. No network here.

Pictures are in [-1, 1]. `alpha_bars` are kept in float64, since they fall to 1e-9 at the last timestep; v-prediction
needs no division by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

NUM_TIMESTEPS = 1000

PredictV = Callable[[Tensor, Tensor], Tensor]
"""predict_v(noisy pictures, timesteps [batch]) -> v."""


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


def ddim_sample(
    predict_v: PredictV, noise: Float[Tensor, "batch *shape"], num_steps: int = 40
) -> Float[Tensor, "batch *shape"]:
    """Pictures from noise, deterministically (Song et al. 2021, arXiv 2010.02502), clamped to [-1, 1] at every step."""
    alpha_bars = cosine_alpha_bars(noise.device)
    timesteps = torch.linspace(NUM_TIMESTEPS - 1, 0, num_steps + 1, device=noise.device).long()
    x_t = x0 = noise
    for now, after in zip(timesteps[:-1], timesteps[1:], strict=True):
        batch_now = now.expand(len(noise))
        alpha_bar, next_alpha_bar = alpha_bars[batch_now], alpha_bars[after.expand(len(noise))]
        x0 = x0_from_v(x_t, predict_v(x_t, batch_now), alpha_bar).clamp(-1, 1)
        signal, sigma = signal_and_noise(alpha_bar, x_t)
        x_t = add_noise(x0, (x_t - signal * x0) / sigma, next_alpha_bar)
    return x0
