"""Measures by trained networks: absent without their weights, and what their definitions say with (tiny, random) ones."""

import pytest
import torch

from bags_ns import perceptual
from bags_ns.perceptual import KID_SUBSET, Perceptual, cached_weights, kid, load_perceptual


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    return torch.rand(2, 64, 64, 3)


def test_without_weights_every_measure_is_absent_and_says_so(hub, pictures):
    found = load_perceptual(str(hub / "no clip"))
    assert found.of_picture(*pictures) == {} and found.features(*pictures) is None
    assert [line.split()[0] for line in found.missing] == ["lpips", "clip", "kid"]
    assert all("\n" not in line for line in found.missing) and str(hub) in found.missing[0]


def test_lpips_is_zero_for_equal_pictures_only(hub, pictures):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    torch.save(squeezenet1_1().state_dict(), cached_weights(SqueezeNet1_1_Weights.IMAGENET1K_V1.url))
    found = load_perceptual("", lpips_net="squeeze")
    one, other = pictures
    assert found.of_picture(one, one)["lpips"] == pytest.approx(0, abs=1e-7)
    assert found.of_picture(one, other)["lpips"] > 1e-4


def test_clip_is_the_cosine_of_two_embeddings(hub, pictures):
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = CLIPVisionConfig(**sizes, image_size=32, patch_size=16, projection_dim=8)
    CLIPVisionModelWithProjection(config).save_pretrained(hub / "clip")
    square = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square).save_pretrained(hub / "clip")
    found = load_perceptual(str(hub / "clip"))
    one, other = pictures
    assert found.of_picture(one, one)["clip"] == pytest.approx(1, abs=1e-5)
    assert -1 <= found.of_picture(one, other)["clip"] < 1 - 1e-5


def test_kid_tells_distributions_apart_and_takes_enough_pictures():
    torch.manual_seed(0)
    frames = torch.randn(60, 16, dtype=torch.float64)
    alike, other = torch.randn_like(frames), torch.randn_like(frames) + 1
    same, far = (kid(list(torch.stack([renders, frames], dim=1)))["kid"] for renders in (alike, other))
    assert abs(same) < 0.1 * far
    assert kid([torch.zeros(2, 16)] * (KID_SUBSET - 1)) == {}


def test_features_are_those_of_both_pictures(pictures, monkeypatch):
    class Mean(torch.nn.Module):
        def forward(self, images):
            assert images.dtype == torch.uint8
            return images.float().mean((2, 3))

    features = Perceptual(inception=Mean()).features(*pictures)
    assert torch.allclose(features / 255, pictures.mean((1, 2)).double(), atol=5e-3)
    assert perceptual.CLIP_NAME.endswith("patch32")  # the paper's
