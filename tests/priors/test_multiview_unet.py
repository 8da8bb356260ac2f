"""MultiViewUNet: the published names, golden outputs where they are at hand, and the laws of joint denoising."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from bags_ns.priors.multiview_unet import MultiViewUNet

DATA = Path(__file__).parent / "data"
GOLDEN = Path(os.environ.get("BAGS_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
TINY = {"model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_resolutions": [2, 1]}
TINY |= {"num_head_channels": 16, "context_dim": 24, "camera_dim": 16}
NUM_FRAMES = 3


def make_unet(**changes) -> MultiViewUNet:
    torch.manual_seed(0)
    return MultiViewUNet(**(TINY | changes)).eval()


def make_inputs(samples: int = 2, height: int = 8, width: int = 8, context_dim: int = 24) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = samples * NUM_FRAMES
    return {
        "x": torch.randn(frames, 4, height, width, generator=generator),
        "timesteps": torch.tensor([17, 803]).repeat_interleave(NUM_FRAMES)[:frames],
        "context": torch.randn(frames, 7, context_dim, generator=generator),
        "camera": torch.randn(frames, 16, generator=generator),
    }


def make_image(samples: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "ip": torch.randn(samples * NUM_FRAMES, 9, 1280, generator=generator),
        "ip_img": torch.randn(samples, 4, 8, 8, generator=generator),
    }


def test_state_dict_has_the_published_names_and_shapes():
    published = json.loads((DATA / "imagedream_ipmv_unet_state_dict.json").read_text())
    with torch.device("meta"):
        unet = MultiViewUNet(**published["config"])
        tensors = {name: torch.empty(shape) for name, shape in published["state_dict"].items()}
    unet.load_state_dict(tensors, strict=True, assign=True)
    assert len(tensors) == 773
    assert sum(tensor.numel() for tensor in tensors.values()) == 941_672_900


@pytest.mark.parametrize("name", ["imagedream_tiny", "mvdream_tiny"])
def test_golden_output(name):
    path = GOLDEN / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"golden values are not at {path}; set BAGS_GOLDEN to their folder")
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    part = lambda prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
    unet = MultiViewUNet(**json.loads(metadata["config"])).eval()
    unet.load_state_dict(part("weights."), strict=True)
    with torch.no_grad():
        output = unet(num_frames=int(metadata["num_frames"]), **part("input."))
    assert (output - tensors["output"]).norm() / tensors["output"].norm() < 1e-5


@torch.no_grad()
def test_permuting_frames_with_their_cameras_permutes_the_output():
    unet, inputs = make_unet(), make_inputs()
    order = torch.tensor([2, 0, 1, 3, 5, 4])
    expected = unet(**inputs, num_frames=NUM_FRAMES)[order]
    permuted = unet(**{key: value[order] for key, value in inputs.items()}, num_frames=NUM_FRAMES)
    torch.testing.assert_close(permuted, expected, rtol=1e-4, atol=1e-5)
    without_cameras = {key: value if key == "camera" else value[order] for key, value in inputs.items()}
    assert not torch.allclose(unet(**without_cameras, num_frames=NUM_FRAMES), expected, atol=1e-3)


@torch.no_grad()
def test_samples_are_independent_and_frames_of_a_sample_are_not():
    unet, inputs = make_unet(ip_dim=4), make_inputs() | make_image()
    before = unet(**inputs, num_frames=NUM_FRAMES)
    inputs["x"] = inputs["x"].clone()
    inputs["x"][0] += 1.0
    change = (unet(**inputs, num_frames=NUM_FRAMES) - before).flatten(1).norm(dim=1)
    assert (change[:NUM_FRAMES] > 1e-3).all()
    assert (change[NUM_FRAMES:] == 0).all()


@torch.no_grad()
def test_ip_img_replaces_the_last_frame():
    unet, inputs, image = make_unet(ip_dim=4), make_inputs(), make_image()
    by_argument = unet(**inputs, **image, num_frames=NUM_FRAMES)
    inputs["x"] = inputs["x"].clone()
    original = inputs["x"].clone()
    inputs["x"][NUM_FRAMES - 1 :: NUM_FRAMES] = image["ip_img"]
    by_hand = unet(**inputs, ip=image["ip"], num_frames=NUM_FRAMES)
    torch.testing.assert_close(by_argument, by_hand)
    unet(**(inputs | {"x": original}), **image, num_frames=NUM_FRAMES)
    torch.testing.assert_close(original, make_inputs()["x"])  # the caller's latents are left alone


@torch.no_grad()
def test_without_an_image_the_text_is_attended_to_in_full():
    unet, inputs, image = make_unet(ip_dim=4), make_inputs(), make_image()
    text_only = make_unet()
    text_only.load_state_dict({k: v for k, v in unet.state_dict().items() if k in text_only.state_dict()}, strict=True)
    expected = text_only(**inputs, num_frames=NUM_FRAMES)
    torch.testing.assert_close(unet(**inputs, num_frames=NUM_FRAMES), expected)
    with_image = unet(**inputs, ip=image["ip"], num_frames=NUM_FRAMES)
    assert not torch.allclose(with_image, expected, atol=1e-3)
    weightless = make_unet(ip_dim=4, ip_weight=0.0)
    weightless.load_state_dict(unet.state_dict())
    torch.testing.assert_close(weightless(**inputs, ip=image["ip"], num_frames=NUM_FRAMES), expected)


@torch.no_grad()
def test_without_a_camera_none_is_added():
    unet, blind, inputs = make_unet(), make_unet(camera_dim=None), make_inputs()
    blind.load_state_dict({k: v for k, v in unet.state_dict().items() if k in blind.state_dict()}, strict=True)
    expected = blind(**(inputs | {"camera": None}), num_frames=NUM_FRAMES)
    torch.testing.assert_close(unet(**(inputs | {"camera": None}), num_frames=NUM_FRAMES), expected)
    with pytest.raises(ValueError, match="takes no camera"):
        blind(**inputs, num_frames=NUM_FRAMES)


@torch.no_grad()
def test_zero_conditioning_gives_finite_noise():
    unet, inputs, image = make_unet(ip_dim=4), make_inputs(), make_image()
    zeros = {key: torch.zeros_like(value) for key, value in image.items()}
    assert unet(**inputs, **zeros, num_frames=NUM_FRAMES).isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
@torch.no_grad()
def test_half_precision_is_kept_and_near_float32(dtype, tolerance):
    unet, inputs = make_unet(ip_dim=4), make_inputs() | make_image()
    expected = unet(**inputs, num_frames=NUM_FRAMES)
    unet.to(dtype)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    output = unet(**inputs, num_frames=NUM_FRAMES)
    assert output.dtype == dtype
    assert (output.float() - expected).norm() / expected.norm() < tolerance


def test_gradient_reaches_every_frame_but_the_replaced_one():
    unet, inputs = make_unet(ip_dim=4), make_inputs() | make_image()
    inputs["x"].requires_grad_()
    unet(**inputs, num_frames=NUM_FRAMES).square().sum().backward()
    norms = inputs["x"].grad.flatten(1).norm(dim=1).view(-1, NUM_FRAMES)
    assert (norms[:, :-1] > 0).all() and (norms[:, -1] == 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_head_channels": -1, "num_heads": 4},
        {"num_head_channels": -1, "num_heads": 4, "num_heads_upsample": 2},
        {"channel_mult": [1, 1, 2], "num_res_blocks": [1, 2, 1], "transformer_depth": [1, 0, 2]},
        {"channel_mult": [2, 1], "transformer_depth_middle": 2, "num_attention_blocks": [1, 0]},
        {"conv_resample": False, "use_linear_in_transformer": False, "ip_dim": 3},
        {"resblock_updown": True, "use_scale_shift_norm": True, "dropout": 0.5},
        {"with_ip": True, "ip_dim": 4, "ip_mode": "local_resample", "use_checkpoint": True, "dims": 2},
        {"with_ip": False, "ip_dim": 4, "attention_resolutions": [2]},
    ],
)
@torch.no_grad()
def test_config_keys_are_honoured_on_a_wide_latent(changes):
    unet, inputs = make_unet(**changes), make_inputs(height=8, width=16)
    assert unet(**inputs, num_frames=NUM_FRAMES).shape == inputs["x"].shape
    assert hasattr(unet, "image_embed") == (changes.get("ip_dim", 0) > 0 and changes.get("with_ip", True))


@torch.no_grad()
def test_number_of_heads_matters_and_both_spellings_agree():
    inputs = make_inputs()
    by_channels = make_unet(channel_mult=[1, 1], num_head_channels=8)(**inputs, num_frames=NUM_FRAMES)
    by_count = make_unet(channel_mult=[1, 1], num_head_channels=-1, num_heads=4)(**inputs, num_frames=NUM_FRAMES)
    other = make_unet(channel_mult=[1, 1], num_head_channels=32)(**inputs, num_frames=NUM_FRAMES)
    torch.testing.assert_close(by_channels, by_count)
    assert not torch.allclose(by_channels, other, atol=1e-4)


@torch.no_grad()
def test_projections_as_convolutions_compute_the_same():
    linear, conv, inputs = make_unet(), make_unet(use_linear_in_transformer=False), make_inputs()
    shapes = {name: tensor.shape for name, tensor in conv.state_dict().items()}
    conv.load_state_dict(
        {name: tensor.reshape(shapes[name]) for name, tensor in linear.state_dict().items()}, strict=True
    )
    assert conv.state_dict()["middle_block.1.proj_in.weight"].ndim == 4
    torch.testing.assert_close(conv(**inputs, num_frames=NUM_FRAMES), linear(**inputs, num_frames=NUM_FRAMES))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flash": 1}, "unknown multi-view UNet config: flash; known keys are"),
        ({"dims": 3}, "dims=3 is not supported, only 2"),
        ({"num_head_channels": -1}, "either num_heads or num_head_channels"),
        ({"num_head_channels": 24}, "32 channels do not divide into heads"),
        ({"num_res_blocks": [1]}, "num_res_blocks has 1 entries, but channel_mult has 2 levels"),
        ({"with_ip": True}, "with_ip needs a positive ip_dim"),
        ({"ip_dim": 4, "ip_mode": "global"}, "ip_mode='global' is not supported"),
    ],
)
def test_wrong_config_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_unet(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(5, 4, 8, 8)}, "do not divide into samples of 3 frames"),
        ({"x": torch.zeros(6, 4, 8, 7)}, "must be multiples of 2"),
        ({"ip": torch.zeros(6, 9, 1280)}, "takes no ip"),
        ({"ip_img": torch.zeros(1, 4, 8, 8)}, "one image for each of 2 samples"),
    ],
)
def test_wrong_input_is_one_line(changes, message):
    inputs = make_inputs() | changes
    frames = len(inputs["x"])
    inputs |= {key: inputs[key][:frames] for key in ("timesteps", "context", "camera") if inputs[key] is not None}
    with pytest.raises(ValueError, match=message):
        make_unet()(**inputs, num_frames=NUM_FRAMES)
