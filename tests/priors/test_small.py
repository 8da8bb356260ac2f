"""The bundled prior as the pipeline uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bags_ns.cameras import orbit_camera
from bags_ns.priors.evaluate_small import evaluate_task, held_out_task, trivial_scores
from bags_ns.priors.small import SmallPrior
from bags_ns.priors.small_config import ViewUNetConfig
from bags_ns.priors.small_weights import save_network
from bags_ns.priors.view_unet import ViewUNet

TINY = ViewUNetConfig(
    image_size=16, widths=(16, 32, 32), attending_blocks=1, lowest_blocks=1, head_channels=16, embedding=32
)


@pytest.fixture
def prior(tmp_path: Path) -> SmallPrior:
    generator = torch.Generator().manual_seed(0)
    network = ViewUNet(TINY)
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    save_network(tmp_path / "small.safetensors", network, {})
    return SmallPrior(tmp_path / "small.safetensors", device="cpu", dtype=torch.float32)


def views_at(*azimuths: float) -> torch.Tensor:
    """Views on one ring."""
    angles = torch.tensor(azimuths)
    return orbit_camera(angles, torch.full_like(angles, 0.2), torch.full_like(angles, 2.2))


def test_it_is_no_module(prior: SmallPrior):
    assert not isinstance(prior, torch.nn.Module)
    assert not any(parameter.requires_grad for parameter in prior.network.parameters())


def test_only_azimuths_relative_to_the_reference_matter(prior: SmallPrior):
    image, x_t = torch.rand(40, 40, 3), torch.randn(2, 3, 16, 16)
    here = prior.predict_noise(
        x_t, 500, views_at(1.0, 3.0), prior.condition(image[None], views_at(0.0), torch.tensor([40.0]))
    )
    turned = prior.predict_noise(
        x_t, 500, views_at(1.7, 3.7), prior.condition(image[None], views_at(0.7), torch.tensor([40.0]))
    )
    assert here.shape == x_t.shape
    torch.testing.assert_close(here, turned, atol=1e-4, rtol=1e-4)


def test_guidance_goes_on_from_the_conditional(prior: SmallPrior):
    x_t, views, known = (
        torch.randn(3, 3, 16, 16),
        views_at(0.5, 2.0, 4.0),
        prior.condition(torch.rand(16, 16, 3)[None], views_at(0.0), torch.tensor([40.0])),
    )
    v0, v1, v3 = (prior.predict_v(x_t, 700, views, known, guidance) for guidance in (0.0, 1.0, 3.0))
    assert not torch.allclose(v0, v1, atol=1e-3)
    torch.testing.assert_close(v3, v0 + 3 * (v1 - v0), atol=1e-4, rtol=1e-4)


def test_more_views_than_it_judges_together_are_judged_in_groups(prior: SmallPrior):
    x_t, views = torch.randn(6, 3, 16, 16), views_at(0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    known = prior.condition(torch.rand(16, 16, 3)[None], views_at(0.0), torch.tensor([40.0]))
    together = prior.noise_predictor(views, known)(x_t, 500)
    for group in (slice(0, 4), slice(4, 6)):
        torch.testing.assert_close(together[group], prior.predict_noise(x_t[group], 500, views[group], known))


def test_what_is_encoded_can_be_decoded(prior: SmallPrior):
    renders = torch.rand(2, 16, 16, 3)
    torch.testing.assert_close(prior.decode(prior.encode(renders)), renders)


def test_noise_and_picture_fit_the_noisy_view(prior: SmallPrior):
    x_t, views, known = (
        torch.randn(1, 3, 16, 16),
        views_at(0.5),
        prior.condition(torch.rand(16, 16, 3)[None], views_at(0.0), torch.tensor([40.0])),
    )
    alpha_bar = prior.alphas_cumprod[300].float()
    v, noise = prior.predict_v(x_t, 300, views, known), prior.predict_noise(x_t, torch.tensor(300), views, known)
    x0 = alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * v
    torch.testing.assert_close(alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise, x_t, atol=1e-4, rtol=1e-4)


def test_missing_weights_name_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bags_ns.priors.small.WEIGHTS", "weights/nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="bags train-prior"):
        SmallPrior(device="cpu")


def test_foreign_weights_are_refused(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no weights of the small prior"):
        SmallPrior(tmp_path / "other.safetensors", device="cpu")


def test_the_bundled_weights_know_other_sides_of_animals_that_they_never_saw():
    network = SmallPrior(device="cpu", dtype=torch.float32).network
    task = held_out_task(4, 1, network.config.image_size, network.config.grid, torch.device("cpu"))
    scores, _ = evaluate_task(network, task, num_steps=8)
    assert scores["sampled_inside"] > trivial_scores(task)["copy_inside"] + 2
