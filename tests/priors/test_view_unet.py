"""What the small prior's network may depend on, and where its rays come from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from bags_ns.cameras import look_at, orbit_camera
from bags_ns.priors.rays import patch_rays, view_rays
from bags_ns.priors.small_config import ViewUNetConfig
from bags_ns.priors.small_weights import load_network, save_network
from bags_ns.priors.view_unet import ViewUNet

TINY = ViewUNetConfig(
    image_size=16, widths=(16, 32, 32), attending_blocks=1, lowest_blocks=1, head_channels=16, embedding=32
)


@pytest.fixture
def network() -> ViewUNet:
    """A network whose zeros are replaced: at the start it ignores everything."""
    generator = torch.Generator().manual_seed(0)
    network = ViewUNet(TINY).eval()
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return network.requires_grad_(False)


def random_views(batch: int, views: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and rays."""
    generator = torch.Generator().manual_seed(seed)
    size, patches = TINY.image_size, TINY.grid**2
    return torch.randn(batch, views, 3, size, size, generator=generator), torch.rand(
        batch, views, patches, 6, generator=generator
    ) * 2 - 1


def test_default_network_fits_into_the_package(tmp_path: Path):
    network = ViewUNet()
    assert network.num_parameters <= 8_350_000
    save_network(tmp_path / "small.safetensors", network, {"step": 100_000, "data": "x" * 200})
    assert (tmp_path / "small.safetensors").stat().st_size <= 16 * 2**20


def test_new_network_says_zero():
    pictures, rays = random_views(2, 2, seed=1)
    network = ViewUNet(TINY)
    v = network(pictures, torch.tensor([3, 900]), rays, network.encode_references(pictures, rays))
    assert (v == 0).all()


def test_every_weight_learns_after_the_first_steps():
    pictures, rays = random_views(2, 2, seed=1)
    network = ViewUNet(TINY)
    optimizer = torch.optim.SGD(network.parameters(), 0.5)
    for _ in range(4):
        optimizer.zero_grad()
        v = network(pictures, torch.tensor([3, 900]), rays, network.encode_references(pictures[:1], rays[:1]))
        (v - pictures).square().mean().backward()
        optimizer.step()
    still = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not still


def test_targets_are_interchangeable(network: ViewUNet):
    pictures, rays = random_views(2, 4, seed=2)
    references = network.encode_references(*random_views(2, 3, seed=3))
    timesteps, order = torch.tensor([100, 800]), torch.tensor([2, 0, 3, 1])
    v = network(pictures, timesteps, rays, references)
    permuted = network(pictures[:, order], timesteps, rays[:, order], references)
    torch.testing.assert_close(permuted, v[:, order], atol=1e-4, rtol=1e-4)


def test_targets_see_each_other_and_the_references(network: ViewUNet):
    pictures, rays = random_views(1, 2, seed=2)
    references, timesteps = network.encode_references(*random_views(1, 1, seed=3)), torch.tensor([500])
    v = network(pictures, timesteps, rays, references)
    other = network.encode_references(*random_views(1, 1, seed=4))
    assert not torch.allclose(network(pictures, timesteps, rays, other), v, atol=1e-3)
    changed = torch.stack([pictures[:, 0], -pictures[:, 1]], dim=1)
    assert not torch.allclose(network(changed, timesteps, rays, references)[:, 0], v[:, 0], atol=1e-3)


def test_only_the_first_samples_see_references(network: ViewUNet):
    pictures, rays = random_views(1, 2, seed=2)
    references, timesteps = network.encode_references(*random_views(1, 2, seed=3)), torch.tensor([500])
    both = network(pictures.repeat(2, 1, 1, 1, 1), timesteps.repeat(2), rays.repeat(2, 1, 1, 1), references)
    torch.testing.assert_close(both[:1], network(pictures, timesteps, rays, references), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[1:], network(pictures, timesteps, rays), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_reference_cache_is_complete_and_serves_any_targets(network: ViewUNet):
    """Keys and values are made from references alone; every layer has them."""
    references = network.encode_references(*random_views(2, 3, seed=3))
    assert len(references.keys) == len(references.values) == 3 and len(references) == 2
    fine, coarse = 3 * TINY.grid**2, 3 * (TINY.grid // 2) ** 2
    assert [keys.shape for keys in references.keys] == [(2, 2, tokens, 16) for tokens in (fine, coarse, fine)]
    before = [keys.clone() for keys in references.keys]
    for views, timestep in ((1, 0), (4, 999)):
        pictures, rays = random_views(2, views, seed=views)
        assert network(pictures, torch.full((2,), timestep), rays, references).isfinite().all()
    for keys, old in zip(references.keys, before, strict=True):
        assert torch.equal(keys, old)


def test_patch_rays_go_through_patch_centres():
    camera = orbit_camera(*torch.tensor([0.7, 0.3, 2.2]).unbind())
    rays = patch_rays(camera, torch.tensor(40.0), grid=4)
    directions, moments = rays[:, :3], rays[:, 3:]
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(16))
    torch.testing.assert_close((directions * moments).sum(dim=-1), torch.zeros(16), atol=1e-6, rtol=0)
    top_left = directions[0] @ camera[:3, :3]
    edge = 0.75 * math.tan(math.radians(20))
    torch.testing.assert_close(top_left / -top_left[2], torch.tensor([-edge, edge, -1.0]))
    # The moment's length is the ray's distance from the origin.
    along = directions @ -camera[:3, 3]
    distance = (camera[:3, 3] + along[:, None] * directions).norm(dim=-1)
    torch.testing.assert_close(moments.norm(dim=-1), distance)


@pytest.mark.parametrize("turn", [0.5, 2.0, -3.0])
def test_turning_the_world_about_z_leaves_rays_alone(turn: float):
    generator = torch.Generator().manual_seed(0)
    cameras = look_at(
        torch.randn(1, 4, 3, generator=generator) * 2 + 0.5, 0.1 * torch.randn(1, 4, 3, generator=generator)
    )
    fovs = torch.tensor([[30.0, 40.0, 50.0, 60.0]])
    cosine, sine = math.cos(turn), math.sin(turn)
    rotation = torch.eye(4)
    rotation[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]])
    torch.testing.assert_close(view_rays(rotation @ cameras, fovs, 4), view_rays(cameras, fovs, 4), atol=1e-5, rtol=0)


def test_first_reference_stands_at_azimuth_zero_with_its_own_elevation():
    azimuths, elevations = torch.tensor([[2.1, 2.6]]), torch.tensor([[0.3, -0.1]])
    cameras = orbit_camera(azimuths, elevations, torch.full((1, 2), 2.0))
    fovs = torch.full((1, 2), 40.0)
    expected = patch_rays(orbit_camera(azimuths - 2.1, elevations, torch.full((1, 2), 2.0)), fovs, 4)
    torch.testing.assert_close(view_rays(cameras, fovs, 4), expected, atol=1e-6, rtol=0)
    alone = view_rays(cameras[:, 1:], fovs[:, 1:], 4, first_camera=cameras[:, 0])
    torch.testing.assert_close(alone, expected[:, 1:], atol=1e-6, rtol=0)


def test_weights_survive_their_file(tmp_path: Path, network: ViewUNet):
    save_network(tmp_path / "w.safetensors", network, {"step": 7, "licence": "Apache-2.0"})
    loaded, facts = load_network(tmp_path / "w.safetensors")
    assert facts == {"step": 7, "licence": "Apache-2.0"} and loaded.config == TINY
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, network: ViewUNet, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "w.safetensors"
    save_network(path, network, {"step": 1})

    def fails_half_way(weights: dict, file: Path, metadata: dict) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("bags_ns.priors.small_weights.save_file", fails_half_way)
    with pytest.raises(OSError, match="disk full"):
        save_network(path, network, {"step": 2})
    assert load_network(path)[1] == {"step": 1}
