"""Sampled views: kept within bounds, made anew in time, repeatable, and what a perfect prior says."""

import pytest
import torch

from bags_ns.priors.base import PriorCamera
from bags_ns.priors.diffusion import cosine_alpha_bars
from bags_ns.priors.sampled_views import SampledViews, SampledViewsConfig


class Dreamer:
    """Pictures everything in one colour, whatever it is shown."""

    image_size, limit, guidance = 8, 1.0, 1.0
    camera = PriorCamera(fov_deg=40.0, radius_range=(2.0, 2.0), elevation_range_deg=(0.0, 0.0))
    alphas_cumprod = cosine_alpha_bars()

    def __init__(self, color=(0.2, 0.4, 0.6)):
        self.color, self.calls = torch.tensor(color), []

    def condition(self, images, camera_to_worlds, fovs_deg):
        return None

    def encode(self, renders):
        return 2 * renders.permute(0, 3, 1, 2) - 1

    def decode(self, x):
        return (0.5 * x.permute(0, 2, 3, 1) + 0.5).clamp(0, 1)

    def noise_predictor(self, camera_to_worlds, conditioning):
        def predict(x_t, t):
            self.calls.append(t)
            alpha = self.alphas_cumprod[t].float()
            return (x_t - alpha.sqrt() * (2 * self.color - 1)[:, None, None]) / (1 - alpha).sqrt()

        return predict


def add(views: SampledViews, frame: int = 0, prior: Dreamer | None = None, t: int = 900):
    return views.add(prior or Dreamer(), frame, torch.rand(2, 8, 8, 3), torch.eye(4).expand(2, 4, 4), None, t)


@pytest.mark.parametrize("t", [20, 500, 960])
def test_pictures_are_what_the_prior_dreams_of(t):
    prior = Dreamer()
    made = add(SampledViews(SampledViewsConfig(num_steps=5)), prior=prior, t=t)
    assert made.pictures.dtype == torch.uint8
    assert (made.pictures.float() / 255 - prior.color).abs().max() < 0.01
    assert len(prior.calls) == 5 and prior.calls[0] == t and prior.calls == sorted(prior.calls, reverse=True)


def test_loss_pulls_renders_to_the_pictures_with_the_weight_of_x0():
    made = add(SampledViews(SampledViewsConfig(num_steps=2)))
    renders = torch.rand(2, 8, 8, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(made.loss(renders), renders)
    torch.testing.assert_close(gradient, 4 * (renders.detach() - made.pictures / 255) / renders.numel())
    assert made.loss(made.pictures / 255) == 0


def test_sets_are_few_and_never_stale():
    views = SampledViews(SampledViewsConfig(refresh=0.25, num_sets=3, num_steps=1))
    made = []
    for step in range(101):
        if views.choose(step / 100) is None:
            made.append(step)
            add(views, frame=step)
        assert len(views.sets) <= 3 and all(s.frame // 25 == step // 25 for s in views.sets)
    assert made == [0, 1, 2, 25, 26, 27, 50, 51, 52, 75, 76, 77, 100]


def test_it_repeats_itself_under_a_seed():
    class Noisy(Dreamer):
        def noise_predictor(self, camera_to_worlds, conditioning):
            return lambda x_t, t: x_t.flip(-1)

    def run():
        torch.manual_seed(3)
        views = SampledViews(SampledViewsConfig(num_sets=4, num_steps=3))
        for frame in range(4):
            assert views.choose(0.0) is None
            add(views, frame, Noisy())
        return [views.choose(0.0).frame for _ in range(9)], torch.stack([s.pictures for s in views.sets])

    (first, pictures), (second, again) = run(), run()
    assert first == second and torch.equal(pictures, again)
