"""ImageDream: cameras, what the UNet is given, guidance, and loading a tiny pipeline in the published layout."""

import math

import pytest
import torch
from tiny_pipelines import IMAGE_SIZE, TOKEN_DIM, UNET_CONFIG, save_imagedream, write_json
from torch import nn

from bags_ns.priors.imagedream import ImageDreamConditioning, ImageDreamPrior, imagedream_cameras
from bags_ns.priors.latent_diffusion import ClipPixels

NUM_VIEWS = 4


class FakeUNet(nn.Module):
    """Records its inputs; predicts each frame's mean text token, plus its sample's mean image token."""

    def forward(self, x, timesteps, context, camera, num_frames, ip, ip_img):
        self.seen = {"x": x, "timesteps": timesteps, "context": context, "camera": camera, "ip": ip, "ip_img": ip_img}
        assert len(x) == len(ip_img) * num_frames
        return (context.mean(dim=(1, 2)) + ip.mean(dim=(1, 2)))[:, None, None, None].expand_as(x)


@pytest.fixture
def fake() -> ImageDreamPrior:
    pixels = ClipPixels(28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    shared = {"vae": nn.Linear(1, 1), "clip_pixels": pixels, "alphas_cumprod": torch.ones(1000)}
    return ImageDreamPrior(FakeUNet(), None, None, None, **shared)


def make_views(samples: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    azimuth = torch.arange(NUM_VIEWS) * (math.pi / 2)
    cameras = imagedream_cameras(azimuth, torch.full((NUM_VIEWS,), 0.2))
    return {
        "latents": torch.randn(samples, NUM_VIEWS, 4, 8, 8, generator=generator),
        "timesteps": torch.tensor([20, 700])[:samples],
        "cameras": cameras.expand(samples, -1, -1, -1),
    }


def make_conditioning(batch: int) -> ImageDreamConditioning:
    torch.manual_seed(2)
    text = torch.randn(2, batch, 7, 6)
    return ImageDreamConditioning(text[0], text[1], torch.randn(batch, 5, 10), torch.randn(batch, 4, 8, 8))


def test_cameras_are_those_of_the_training():
    camera = imagedream_cameras(torch.tensor([math.radians(30.0)]), torch.tensor([math.radians(15.0)]))[0]
    expected = torch.tensor(
        [[0.8660, -0.1294, 0.4830, 0.4830], [0.5, 0.2241, -0.8365, -0.8365], [0, 0.9659, 0.2588, 0.2588], [0, 0, 0, 1]]
    )
    torch.testing.assert_close(camera, expected, rtol=0, atol=1e-4)


def test_the_image_is_a_last_frame_and_the_unconditional_half_sees_zeros(fake):
    views, conditioning = make_views(), make_conditioning(batch=1)
    noise = fake.predict_noise(**views, conditioning=conditioning, guidance=5.0)
    assert noise.shape == views["latents"].shape
    seen = {key: value.unflatten(0, (2, 2, -1)) for key, value in fake.unet.seen.items()}
    for half in range(2):
        torch.testing.assert_close(seen["x"][half][:, :-1], views["latents"])
        torch.testing.assert_close(seen["camera"][half][:, :-1], views["cameras"].flatten(2))
        torch.testing.assert_close(seen["timesteps"][half], views["timesteps"][:, None].expand(2, NUM_VIEWS + 1))
    assert (seen["camera"][:, :, -1] == 0).all()
    assert (seen["ip"][0] == 0).all() and (seen["ip_img"][0] == 0).all()
    torch.testing.assert_close(seen["ip_img"][1, 0, 0], conditioning.image_latents[0])
    torch.testing.assert_close(seen["ip"][1, 1, 3], conditioning.image_tokens[0])
    torch.testing.assert_close(seen["context"][0, 1, 3], conditioning.negative_text[0])
    torch.testing.assert_close(seen["context"][1, 1, 3], conditioning.text[0])


@pytest.mark.parametrize("guidance", [0.0, 1.0, 5.0])
def test_guidance_algebra(fake, guidance):
    views, conditioning = make_views(), make_conditioning(batch=2)
    noise = fake.predict_noise(**views, conditioning=conditioning, guidance=guidance)
    unconditional = conditioning.negative_text.mean(dim=(1, 2))
    conditional = conditioning.text.mean(dim=(1, 2)) + conditioning.image_tokens.mean(dim=(1, 2))
    expected = unconditional + guidance * (conditional - unconditional)
    torch.testing.assert_close(noise, expected[:, None, None, None, None].expand_as(noise))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    pytest.importorskip("transformers", reason="the CLIP encoders of this prior need transformers")
    return save_imagedream(tmp_path_factory.mktemp("imagedream"))


def make_image() -> torch.Tensor:
    return torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))


def test_a_pipeline_on_disk_loads_and_predicts(pipeline):
    prior = ImageDreamPrior.from_pretrained(str(pipeline))
    conditioning = prior.encode_image(make_image(), "a dog")
    assert conditioning.text.shape == (1, 77, TOKEN_DIM)
    assert conditioning.image_tokens.shape == (1, 5, 1280) and conditioning.image_latents.shape == (1, 4, 8, 8)
    views = make_views()
    noise = prior.predict_noise(**views, conditioning=conditioning, guidance=5.0)
    assert noise.shape == views["latents"].shape and noise.isfinite().all()
    again = ImageDreamPrior.from_pretrained(str(pipeline))
    repeated = again.predict_noise(**views, conditioning=again.encode_image(make_image(), "a dog"), guidance=5.0)
    torch.testing.assert_close(noise, repeated, rtol=0, atol=0)


def test_image_tokens_are_the_second_last_hidden_state(pipeline):
    prior = ImageDreamPrior.from_pretrained(str(pipeline))
    pixels = prior.clip_pixels(make_image())
    embedded = prior.image_encoder(pixels, output_hidden_states=True).hidden_states
    assert len(embedded) == 3  # the embeddings and two layers
    torch.testing.assert_close(prior.encode_image(make_image()).image_tokens, embedded[1])


def test_prompt_and_image_both_matter(pipeline):
    prior = ImageDreamPrior.from_pretrained(str(pipeline))
    views = make_views(samples=1)
    predict = lambda *args: prior.predict_noise(  # noqa: E731
        **views, conditioning=prior.encode_image(*args), guidance=5.0
    )
    noise = predict(make_image(), "a dog")
    assert not torch.allclose(noise, predict(make_image(), "a camel"), atol=1e-5)
    assert not torch.allclose(noise, predict(1 - make_image(), "a dog"), atol=1e-5)


def test_nothing_of_the_networks_is_trained(pipeline):
    prior = ImageDreamPrior.from_pretrained(str(pipeline))
    for network in (prior.unet, prior.vae, prior.text_encoder, prior.image_encoder):
        assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_half_precision_networks_take_and_give_float32(pipeline):
    prior = ImageDreamPrior.from_pretrained(str(pipeline), dtype=torch.bfloat16)
    conditioning = prior.encode_image(make_image())
    assert prior.unet.dtype == prior.dtype == conditioning.image_tokens.dtype == torch.bfloat16
    noise = prior.predict_noise(**make_views(), conditioning=conditioning, guidance=5.0)
    assert noise.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ip_dim": 0}, "is not conditioned on an image"),
        ({"ip_dim": 5}, "unet does not fit its config: 1 tensors .* first image_embed.latents"),
        ({"novel_key": 1}, "unknown multi-view UNet config: novel_key"),
    ],
)
def test_another_unet_is_one_line(tmp_path, changes, message):
    pytest.importorskip("transformers", reason="the CLIP encoders of this prior need transformers")
    folder = save_imagedream(tmp_path)
    write_json(folder / "unet" / "config.json", UNET_CONFIG | changes)
    with pytest.raises(ValueError, match=message) as error:
        ImageDreamPrior.from_pretrained(str(folder))
    assert "\n" not in str(error.value)


def test_a_pipeline_without_a_part_is_one_line(tmp_path):
    pytest.importorskip("transformers", reason="the CLIP encoders of this prior need transformers")
    with pytest.raises(FileNotFoundError, match="is not a complete ImageDream pipeline, it lacks unet/config.json, "):
        ImageDreamPrior.from_pretrained(str(tmp_path))
