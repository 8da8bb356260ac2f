"""The SDS formula with a fake network, and its annealing."""

import pytest
import torch

from bags_ns.priors.sds import SDSConfig, sds_loss, shaded, timestep

ALPHAS = torch.linspace(0.999, 0.001, 1000)


def images_and_noise():
    g = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 8, 8, generator=g).requires_grad_(), torch.randn(3, 4, 8, 8, generator=g)


@pytest.mark.parametrize("t", [20, 500, 980])
def test_gradient_is_the_weighted_difference_of_the_noises(t):
    images, noise = images_and_noise()
    seen = {}

    def network(noisy, step):
        seen["noisy"], seen["t"] = noisy, step
        return 0.3 * noisy + 0.1

    (gradient,) = torch.autograd.grad(sds_loss(images, network, ALPHAS, t, "sds", noise), images)
    noisy = ALPHAS[t].sqrt() * images.detach() + (1 - ALPHAS[t]).sqrt() * noise
    expected = (1 - ALPHAS[t]) * (0.3 * noisy + 0.1 - noise) / len(images)
    assert seen["t"] == t and torch.allclose(seen["noisy"], noisy, atol=1e-6)
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_a_network_that_knows_the_noise_leaves_the_image_alone():
    images, noise = images_and_noise()
    images = images.detach().clamp(-1, 1).requires_grad_()
    for variant in ("sds", "x0"):
        (gradient,) = torch.autograd.grad(sds_loss(images, lambda *_: noise, ALPHAS, 400, variant, noise), images)
        assert gradient.abs().max() < 1e-5


def test_x0_pulls_towards_the_networks_image():
    images, noise = images_and_noise()
    goal, t = torch.full_like(images, 0.5), 300

    def network(noisy, _):
        return (noisy - ALPHAS[t].sqrt() * goal) / (1 - ALPHAS[t]).sqrt()

    (gradient,) = torch.autograd.grad(sds_loss(images, network, ALPHAS, t, "x0", noise), images)
    assert torch.allclose(gradient, (images - goal).detach() / len(images), atol=1e-4)


def test_the_network_gets_no_gradient():
    images, noise = images_and_noise()
    weight = torch.ones((), requires_grad=True)
    sds_loss(images, lambda noisy, _: weight * noisy, ALPHAS, 100, "sds", noise).backward()
    assert weight.grad is None


def test_noise_is_annealed_over_the_run():
    config = SDSConfig(t_start=0.96, t_end=0.02)
    assert [timestep(config, p, 1000) for p in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [960, 960, 490, 20, 20]
    assert timestep(SDSConfig(t_start=1.0), 0.0, 1000) == 999


def animal_on_white(size=16):
    """A brown box with a white half, in [-1, 1], and its coverage."""
    alpha = torch.zeros(2, 1, size, size)
    alpha[..., 4:12, 2:14] = 1
    coat = torch.tensor([0.5, 0.3, 0.1])[:, None, None].repeat(1, size, size)
    coat[..., size // 2 :] = 1
    return 2 * (alpha * coat + 1 - alpha) - 1, alpha


def test_a_pale_guess_gets_the_renders_shade_and_white_stays_white():
    render, alpha = animal_on_white()
    pale = 1 - 0.6 * (1 - render)
    assert torch.allclose(shaded(pale, render, alpha, 1.0), render, atol=1e-5)
    assert torch.allclose(shaded(pale, render, alpha, 0.0), pale, atol=1e-6)
    halfway = shaded(pale, render, alpha, 0.5)
    assert torch.allclose(1 - halfway, (0.6**0.5) * (1 - render), atol=1e-5)
    assert (shaded(torch.ones_like(render), render, alpha, 1.0) == 1).all()


def test_what_a_guess_takes_away_or_adds_does_not_change_its_shade():
    render, alpha = animal_on_white()
    smaller, larger = render.clone(), render.clone()
    smaller[..., 4:6, :] = 1
    larger[..., 12:15, :8] = render[..., 5:6, 4:5]
    for guess in (smaller, larger):
        assert torch.allclose(shaded(guess, render, alpha, 1.0), guess, atol=1e-5)
    thin = alpha * 0.6  # a render that is seen through is no paler animal
    seen_through = 1 - 0.6 * (1 - render)
    assert torch.allclose(shaded(render, seen_through, thin, 1.0), render, atol=1e-5)


def test_the_variant_x0_aims_at_the_adjusted_guess():
    images, noise = images_and_noise()
    (gradient,) = torch.autograd.grad(
        sds_loss(images, lambda *_: noise, ALPHAS, 300, "x0", noise, adjust=lambda guess: 0.5 * guess), images
    )
    assert torch.allclose(gradient, 0.5 * images.detach() / len(images), atol=1e-4)
