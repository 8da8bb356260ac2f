"""The SDS formula with a fake network, and its annealing."""

import pytest
import torch

from bags_ns.priors.sds import SDSConfig, sds_loss, timestep

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
