"""Zero123 and ImageDream as the pipeline uses them: loaded by the config from tiny folders in the published layout."""

import math
import sys
from pathlib import Path

import pytest
import torch
from tiny_pipelines import IMAGE_SIZE, save_imagedream, save_zero123

from bags_ns.cameras import orbit_camera
from bags_ns.priors.base import DiffusionPrior, PriorError
from bags_ns.priors.config import PriorConfig
from bags_ns.priors.sampled_views import SampledViewsConfig
from bags_ns.priors.sds import SDSConfig, prior_loss
from bags_ns.priors.views import random_views

SAVE = {"zero123": save_zero123, "imagedream": save_imagedream}
REFERENCE_FOV = torch.tensor([30.0])


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("transformers", reason="the CLIP encoders of these priors need transformers")
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in SAVE.items()}


@pytest.fixture(params=sorted(SAVE))
def prior(request, sources) -> DiffusionPrior:
    loaded = PriorConfig(name=request.param, source=str(sources[request.param]), device="cpu", prompt="a dog").setup()
    assert loaded is not None
    return loaded


def reference(azimuth: float, elevation: float = 0.1, radius: float = 3.0) -> dict[str, torch.Tensor]:
    pose = orbit_camera(*torch.tensor([azimuth, elevation, radius]))
    image = torch.rand(1, 40, 40, 3, generator=torch.Generator().manual_seed(0))
    return {"images": image, "camera_to_worlds": pose[None], "fovs_deg": REFERENCE_FOV}


def ring(start: float, elevation: float = 0.2, radius: float = 1.6) -> torch.Tensor:
    return orbit_camera(start + torch.arange(4) * math.pi / 2, torch.full((4,), elevation), torch.full((4,), radius))


def test_it_is_a_prior_and_no_module(prior):
    assert isinstance(prior, DiffusionPrior) and not isinstance(prior, torch.nn.Module)
    assert prior.image_size == IMAGE_SIZE and prior.guidance == 5.0 and prior.limit == math.inf
    assert prior.dtype == torch.float32


def test_latents_go_there_and_back(prior):
    renders = torch.rand(4, 40, 40, 3).requires_grad_()
    x = prior.encode(renders)
    assert prior.decode(x.detach()).shape == (4, IMAGE_SIZE, IMAGE_SIZE, 3)
    x.square().sum().backward()
    assert renders.grad.isfinite().all() and (renders.grad.abs().amax((1, 2, 3)) > 0).all()


def test_only_azimuths_relative_to_the_reference_matter(prior):
    x_t = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    predict = lambda views, first: prior.noise_predictor(ring(views), prior.condition(**reference(first)))(x_t, 500)  # noqa: E731
    here = predict(1.0, 0.3)
    assert here.shape == x_t.shape and here.isfinite().all()
    torch.testing.assert_close(predict(1.7, 1.0), here, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(predict(1.0, 1.0), here, atol=1e-3)


@pytest.mark.parametrize("variant", ["sds", "x0"])
def test_its_loss_reaches_the_renders(prior, variant):
    renders = torch.rand(4, IMAGE_SIZE, IMAGE_SIZE, 3).requires_grad_()
    views = random_views(4, prior.camera, torch.device("cpu"))
    alphas, told = torch.ones_like(renders[..., :1]), prior.condition(**reference(0.0))
    loss = prior_loss(prior, SDSConfig(variant=variant), renders, alphas, views, told, 0.5)
    loss.backward()
    assert loss.isfinite() and renders.grad.isfinite().all() and (renders.grad.abs().amax((1, 2, 3)) > 0).all()


def test_zero123_is_told_the_change_of_the_camera(sources):
    prior = PriorConfig(name="zero123", source=str(sources["zero123"]), device="cpu").setup()
    seen = {}

    def predict_noise(latents, timesteps, cameras, conditioning, guidance):
        seen.update(cameras=cameras)
        return latents

    prior.predict_noise = predict_noise
    # With a field of view of 30 degrees from 3 away, the animal is as large as 1.76 away with Zero123's own.
    equivalent = 3.0 * math.tan(math.radians(15)) / math.tan(math.radians(prior.camera.fov_deg / 2))
    views = orbit_camera(torch.tensor([0.5, 2.5]), torch.tensor([0.4, -0.1]), torch.tensor([1.5, 2.0]))
    prior.noise_predictor(views, prior.condition(**reference(0.5, elevation=0.1)))(torch.zeros(2, 4, 8, 8), 10)
    expected = [[-0.3, 0.0, 1.0, 1.5 - equivalent], [0.2, math.sin(2.0), math.cos(2.0), 2.0 - equivalent]]
    torch.testing.assert_close(seen["cameras"], torch.tensor(expected), atol=1e-5, rtol=0)


def test_imagedream_judges_rings_of_four_from_the_references_front(sources):
    prior = PriorConfig(name="imagedream", source=str(sources["imagedream"]), device="cpu").setup()
    views = random_views(8, prior.camera, torch.device("cpu"))
    heights = views[:, 2, 3].unflatten(0, (2, 4))
    torch.testing.assert_close(heights, heights[:, :1].expand(-1, 4))
    seen = {}

    def predict_noise(latents, timesteps, cameras, conditioning, guidance):
        seen.update(cameras=cameras)
        return latents

    prior.predict_noise = predict_noise
    x_t = torch.randn(8, 4, 8, 8)
    unchanged = prior.noise_predictor(views, prior.condition(**reference(0.7)))(x_t, 10)
    assert torch.equal(unchanged, x_t) and seen["cameras"].shape == (2, 4, 4, 4)
    front = prior.noise_predictor(ring(0.7), prior.condition(**reference(0.7)))
    front(x_t[:4], 10)
    direction = torch.tensor([0.0, -math.cos(0.2), math.sin(0.2)])  # its world looks at the front from -y
    torch.testing.assert_close(seen["cameras"][0, 0, :3, 3], direction, atol=1e-5, rtol=0)


def test_the_prompt_is_heard(sources):
    dog, camel = (
        PriorConfig(name="imagedream", source=str(sources["imagedream"]), device="cpu", prompt=prompt).setup()
        for prompt in ("a dog", "a camel")
    )
    first, second = (prior.condition(**reference(0.0)).conditioning for prior in (dog, camel))
    assert not torch.allclose(first.text, second.text) and torch.equal(first.negative_text, second.negative_text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "zero123", "source": "/no/such/folder"},
            "no folder /no/such/folder: give an existing folder or a hub id",
        ),
        ({"name": "imagedream", "source": "/"}, "/ is not a complete ImageDream pipeline, it lacks unet/config.json"),
        (
            {"name": "small", "source": "/no/such/file"},
            "no file /no/such/file: give weights that `bags train-prior` made",
        ),
        (
            {"name": "imagedream", "num_views": 6},
            "--pipeline.prior.num-views is 6; the imagedream prior needs a multiple of 4",
        ),
        ({"name": "zero123", "device": "cuda:77"}, "the zero123 prior cannot be used: "),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(sources, changes, message):
    settings = {"source": str(sources[changes["name"]])} if changes["name"] in sources else {}
    with pytest.raises(PriorError) as error:
        PriorConfig(**(settings | changes)).setup()
    assert message in str(error.value) and changes["name"] in str(error.value) and "\n" not in str(error.value)


def test_a_name_that_nothing_is_made_for_is_no_other_prior():
    config = PriorConfig()
    setattr(config, "name", "own")  # noqa: B010  as where a prior of one's own is named but not made
    with pytest.raises(
        PriorError, match=r"^the own prior cannot be used: nothing in bags_ns\.priors\.config makes it$"
    ):
        config.setup()


@pytest.mark.parametrize("damage", ["weights", "config"])
def test_a_damaged_download_is_one_line(tmp_path, damage):
    pytest.importorskip("transformers", reason="the CLIP encoders of this prior need transformers")
    folder = save_zero123(tmp_path)
    name = "diffusion_pytorch_model.safetensors" if damage == "weights" else "config.json"
    (folder / "vae" / name).write_bytes(b"cut short")
    with pytest.raises(PriorError, match="the zero123 prior cannot be used: ") as error:
        PriorConfig(name="zero123", source=str(folder), device="cpu").setup()
    assert "\n" not in str(error.value)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PriorError, match=r"pip install 'bags-ns\[priors\]'"):
        PriorConfig(name="imagedream").setup()


def test_settings_without_sense_are_one_line():
    with pytest.raises(PriorError, match="every"):
        PriorConfig(name="small", every=0).setup()
    with pytest.raises(PriorError, match="refresh"):
        PriorConfig(name="small", views=SampledViewsConfig(refresh=0.0)).setup()


def test_no_weights_are_read_where_the_prior_is_off():
    assert PriorConfig(name="none").setup() is None and PriorConfig(name="zero123", loss_mult=0.0).setup() is None
