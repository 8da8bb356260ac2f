"""Laws of the diffusion: what v means, and that sampling with a network that knows the answer gives the answer."""

from __future__ import annotations

import pytest
import torch

from bags_ns.priors.diffusion import (
    NUM_TIMESTEPS,
    add_noise,
    cosine_alpha_bars,
    ddim_sample,
    guide,
    noise_from_v,
    random_timesteps,
    v_from_x0,
    x0_from_v,
)

ALPHA_BARS = {
    "cosine": cosine_alpha_bars(),
    "scaled linear": torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0),
}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_alpha_bars_fall_from_one_to_almost_nothing():
    alpha_bars = cosine_alpha_bars()
    assert alpha_bars.dtype == torch.float64 and len(alpha_bars) == NUM_TIMESTEPS
    assert (alpha_bars.diff() < 0).all()
    assert alpha_bars[0] > 0.999 and 0 < alpha_bars[-1] < 1e-6


@pytest.mark.parametrize("timestep", [0, 1, 300, 900, NUM_TIMESTEPS - 1])
def test_v_gives_back_picture_and_noise(timestep: int, generator: torch.Generator):
    x0, noise = torch.randn(2, 3, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    alpha_bar = cosine_alpha_bars()[timestep].expand(3)
    x_t, v = add_noise(x0, noise, alpha_bar), v_from_x0(x0, noise, alpha_bar)
    torch.testing.assert_close(x0_from_v(x_t, v, alpha_bar), x0)
    torch.testing.assert_close(noise_from_v(x_t, v, alpha_bar), noise)


@pytest.mark.parametrize("schedule", ["cosine", "scaled linear"])
@pytest.mark.parametrize("num_steps", [1, 7, 40])
def test_ddim_with_a_perfect_network_gives_the_picture(num_steps: int, schedule: str, generator: torch.Generator):
    picture = torch.rand(2, 1, 3, 4, 4, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(picture.shape, generator=generator, dtype=torch.float64)
    alpha_bars = ALPHA_BARS[schedule]

    def knows_the_picture(x_t: torch.Tensor, t: int) -> torch.Tensor:
        return (x_t - alpha_bars[t].sqrt() * picture) / (1 - alpha_bars[t]).sqrt()

    sampled = ddim_sample(knows_the_picture, alpha_bars, noise, NUM_TIMESTEPS - 1, num_steps)
    torch.testing.assert_close(sampled, picture, atol=1e-6, rtol=0)
    sampled = ddim_sample(knows_the_picture, alpha_bars, noise, NUM_TIMESTEPS - 1, num_steps, limit=0.5)
    torch.testing.assert_close(sampled, picture.clamp(-0.5, 0.5), atol=1e-6, rtol=0)


def test_ddim_leaves_what_the_network_takes_for_clean(generator: torch.Generator):
    """A network that names the noise that was added gives back the picture, from any step."""
    picture, noise = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    for t in (20, 500, 960):
        noisy = add_noise(picture, noise, cosine_alpha_bars()[t].expand(3))
        torch.testing.assert_close(ddim_sample(lambda *_: noise, cosine_alpha_bars(), noisy, t, 5), picture)


def test_guidance_is_linear_between_without_and_with_references(generator: torch.Generator):
    conditional, unconditional = torch.randn(2, 5, generator=generator)
    torch.testing.assert_close(guide(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(guide(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guide(conditional, unconditional, 3.0), conditional + 2 * (conditional - unconditional))


def test_timesteps_dwell_on_high_noise(generator: torch.Generator):
    timesteps = random_timesteps(20_000, generator)
    assert 0 <= timesteps.min() and timesteps.max() < NUM_TIMESTEPS
    assert 600 < timesteps.float().mean() < 650
