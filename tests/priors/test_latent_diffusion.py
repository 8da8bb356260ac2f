"""Noise schedule and CLIP preprocessing, which the pretrained priors share."""

import json

import pytest
import torch

from bags_ns.priors.latent_diffusion import ClipPixels, load_alphas_cumprod

PIXELS = ClipPixels(size=28, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))


def test_noise_schedule_is_the_published_one(tmp_path):
    write_scheduler(tmp_path, {"prediction_type": "epsilon"})
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(load_alphas_cumprod(tmp_path, "Toy"), torch.cumprod(1 - betas, dim=0))


def test_other_predictions_are_refused(tmp_path):
    write_scheduler(tmp_path, {"prediction_type": "v_prediction"})
    with pytest.raises(ValueError, match="predicts 'v_prediction'; the Toy prior needs a model that predicts epsilon"):
        load_alphas_cumprod(tmp_path, "Toy")


def write_scheduler(folder, changes):
    config = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    config |= {"beta_start": 0.00085, "beta_end": 0.012} | changes
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("written", [224, {"height": 224, "width": 224}])
def test_sizes_are_read_in_both_forms(tmp_path, written):
    config = {"crop_size": written, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "feature_extractor").mkdir()
    (tmp_path / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(config))
    assert ClipPixels.load(tmp_path) == ClipPixels(224, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_pixels_are_normalized_and_differentiable():
    image = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    pixels = PIXELS(image)
    expected = (0.5 - torch.tensor(PIXELS.mean)) / torch.tensor(PIXELS.std)
    torch.testing.assert_close(pixels, expected[None, :, None, None].expand(1, 3, 28, 28))
    pixels.sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_pixels_agree_with_pillow():
    image_module = pytest.importorskip("PIL.Image")
    image = torch.randint(0, 256, (256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resized = image_module.fromarray(image.numpy()).resize((28, 28), image_module.Resampling.BICUBIC)
    expected = torch.tensor(list(resized.tobytes()), dtype=torch.float32).view(28, 28, 3).permute(2, 0, 1) / 255
    ours = ClipPixels(28, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(image.permute(2, 0, 1)[None] / 255)[0]
    assert (ours - expected).abs().max() < 1.5 / 255  # Pillow rounds twice to 8 bits


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="CLIP needs square images, got height 32 and width 48"):
        PIXELS(torch.zeros(1, 3, 32, 48))
