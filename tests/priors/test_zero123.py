"""Zero123: what the UNet is given, guidance, and loading a tiny pipeline in the published layout."""

import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from tiny_pipelines import IMAGE_SIZE, TOKEN_DIM, save_zero123
from torch import nn

from bags_ns.priors.latent_diffusion import ClipPixels
from bags_ns.priors.zero123 import Zero123Conditioning, Zero123Prior, camera_change


class FakeUNet:
    """Records its inputs; predicts the mean of the reference's latents plus that of the token."""

    def __call__(self, latents, timesteps, encoder_hidden_states):
        self.latents, self.timesteps, self.tokens = latents, timesteps, encoder_hidden_states
        prediction = latents[:, 4:] + encoder_hidden_states.mean(dim=(1, 2))[:, None, None, None]
        return SimpleNamespace(sample=prediction)


@pytest.fixture
def fake() -> Zero123Prior:
    torch.manual_seed(0)
    pixels = ClipPixels(28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    shared = {"vae": nn.Linear(1, 1), "clip_pixels": pixels, "alphas_cumprod": torch.ones(1000)}
    return Zero123Prior(FakeUNet(), None, nn.Linear(6 + 4, 6), **shared)


def make_views(count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "latents": torch.randn(count, 4, 8, 8, generator=generator),
        "timesteps": torch.arange(count) * 100 + 20,
        "cameras": torch.randn(count, 4, generator=generator),
    }


def test_camera_change_has_the_published_order():
    change = camera_change(torch.tensor([0.1]), torch.tensor([math.pi / 2]), torch.tensor([-0.3]))
    torch.testing.assert_close(change, torch.tensor([[0.1, 1.0, 0.0, -0.3]]))


def test_both_halves_go_through_one_call_and_the_unconditional_one_sees_zeros(fake):
    views = make_views()
    conditioning = Zero123Conditioning(torch.randn(1, 6), torch.randn(1, 4, 8, 8))
    fake.predict_noise(**views, conditioning=conditioning, guidance=5.0)
    unet = fake.unet
    assert unet.latents.shape == (6, 8, 8, 8) and unet.tokens.shape == (6, 1, 6)
    torch.testing.assert_close(unet.latents[:, :4], views["latents"].repeat(2, 1, 1, 1))
    torch.testing.assert_close(unet.latents[3:, 4:], conditioning.latents.expand(3, -1, -1, -1))
    assert (unet.latents[:3, 4:] == 0).all() and (unet.tokens[:3] == 0).all()
    torch.testing.assert_close(unet.timesteps, views["timesteps"].repeat(2))
    expected = fake.camera_projection(torch.cat([conditioning.embedding.expand(3, -1), views["cameras"]], dim=1))
    torch.testing.assert_close(unet.tokens[3:, 0], expected)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 5.0])
def test_guidance_scales_the_conditional_part(fake, guidance):
    views, conditioning = make_views(), Zero123Conditioning(torch.randn(3, 6), torch.randn(3, 4, 8, 8))
    noise = fake.predict_noise(**views, conditioning=conditioning, guidance=guidance)
    token = fake.camera_projection(torch.cat([conditioning.embedding, views["cameras"]], dim=1)).mean(dim=1)
    torch.testing.assert_close(noise, guidance * (conditioning.latents + token[:, None, None, None]))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    pytest.importorskip("transformers", reason="the CLIP encoders of this prior need transformers")
    return save_zero123(tmp_path_factory.mktemp("zero123"))


def test_a_pipeline_on_disk_loads_and_predicts(pipeline):
    prior = Zero123Prior.from_pretrained(str(pipeline))
    image = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    conditioning = prior.encode_image(image)
    assert conditioning.embedding.shape == (1, TOKEN_DIM) and conditioning.latents.shape == (1, 4, 8, 8)
    views = make_views()
    noise = prior.predict_noise(**views, conditioning=conditioning, guidance=5.0)
    assert noise.shape == (3, 4, 8, 8) and noise.isfinite().all()
    again = Zero123Prior.from_pretrained(str(pipeline))
    repeated = again.predict_noise(**views, conditioning=again.encode_image(image), guidance=5.0)
    torch.testing.assert_close(noise, repeated, rtol=0, atol=0)
    turned = prior.predict_noise(**(views | {"cameras": -views["cameras"]}), conditioning=conditioning, guidance=5.0)
    assert not torch.allclose(noise, turned)


def test_nothing_of_the_networks_is_trained_but_latents_are_differentiable(pipeline):
    prior = Zero123Prior.from_pretrained(str(pipeline))
    for network in (prior.unet, prior.vae, prior.image_encoder, prior.camera_projection):
        assert not network.training and not any(p.requires_grad for p in network.parameters())
    image = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, requires_grad=True)
    prior.encode_latents(image).sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_latents_are_scaled_for_the_unet_and_unscaled_for_the_reference(pipeline):
    prior = Zero123Prior.from_pretrained(str(pipeline))
    image = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    scaled = prior.encode_latents(image)
    torch.testing.assert_close(prior.encode_image(image).latents * prior.vae.config.scaling_factor, scaled)
    decoded = prior.decode_latents(scaled)
    assert decoded.shape == image.shape and decoded.min() >= 0 and decoded.max() <= 1


def test_half_precision_networks_take_and_give_float32(pipeline):
    prior = Zero123Prior.from_pretrained(str(pipeline), dtype=torch.bfloat16)
    conditioning = prior.encode_image(torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    assert prior.dtype == conditioning.embedding.dtype == conditioning.latents.dtype == torch.bfloat16
    views = make_views()
    assert prior.predict_noise(**views, conditioning=conditioning, guidance=5.0).dtype == torch.float32


def test_a_projection_of_another_width_is_one_line(tmp_path):
    pytest.importorskip("transformers", reason="the CLIP encoders of this prior need transformers")
    folder = save_zero123(tmp_path)
    wrong = {"proj.weight": torch.zeros(TOKEN_DIM, TOKEN_DIM), "proj.bias": torch.zeros(TOKEN_DIM)}
    save_file(wrong, str(folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors"))
    with pytest.raises(ValueError, match="clip_camera_projection does not fit its config: .* first weight"):
        Zero123Prior.from_pretrained(str(folder))


def test_a_pipeline_without_a_part_is_one_line(tmp_path):
    pytest.importorskip("transformers", reason="the CLIP encoders of this prior need transformers")
    folder = save_zero123(tmp_path)
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="is not a complete Zero123 pipeline, it lacks vae/config.json"):
        Zero123Prior.from_pretrained(str(folder))
