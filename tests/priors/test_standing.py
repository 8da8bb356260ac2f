"""How the body stands to the picture is found from made-up views, when those show the truth."""

import math

import pytest
import torch

from bags_ns.cameras import look_at, orbit_camera
from bags_ns.priors.base import PriorCamera
from bags_ns.priors.reference import Reference
from bags_ns.priors.standing import Shown, find_slope, ground_spread, ring_cameras, slope_of, spread_across

SIZE, FOV = 64, 40.0


def bar(camera_to_world, heading):
    """Picture of a black bar of length .8 and width .2 on the ground, along `heading` (radians), seen from far away."""
    right = torch.nn.functional.normalize(camera_to_world[:2, 0], dim=0)
    along = right @ torch.tensor([math.cos(heading), math.sin(heading)])
    half = 0.5 * torch.sqrt((0.8 * along) ** 2 + (0.2**2) * (1 - along**2))
    across = ((torch.arange(SIZE) + 0.5) / SIZE * 2 - 1) * math.tan(math.radians(FOV) / 2)
    column = (across * camera_to_world[:3, 3].norm()).abs() < half
    picture = torch.ones(SIZE, SIZE, 3)
    picture[24:40, column] = 0.0
    return picture


class KnowingPrior:
    """Makes up the bar as it is."""

    image_size = SIZE
    camera = PriorCamera(fov_deg=FOV, radius_range=(1.6, 2.4), elevation_range_deg=(-10.0, 30.0))
    alphas_cumprod = torch.linspace(0.999, 0.01, 100)
    limit = 1.0

    def __init__(self, heading):
        self.heading, self.guidance, self.asked_at = heading, 1.0, set()

    def condition(self, images, camera_to_worlds, fovs_deg):
        assert images.shape[0] == 1 and torch.allclose(
            camera_to_worlds[0, :3, 2] @ camera_to_worlds[0, :3, 3], torch.tensor(2.0)
        )

    def encode(self, renders):
        return 2 * renders.permute(0, 3, 1, 2) - 1

    def decode(self, x):
        return 0.5 * x.permute(0, 2, 3, 1) + 0.5

    def noise_predictor(self, camera_to_worlds, conditioning):
        clean = self.encode(torch.stack([bar(pose, self.heading) for pose in camera_to_worlds]))
        self.asked_at.add(self.guidance)

        def predict(x_t, t):
            alpha = self.alphas_cumprod[t]
            return (x_t - alpha.sqrt() * clean) / (1 - alpha).sqrt()

        return predict


def reference_of(prior):
    """The bar seen from azimuth 0: to the right is +y, away is -x."""
    pose = orbit_camera(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(2.0))
    return Reference(bar(pose, prior.heading), pose[:3, 3], -pose[:3, 2], FOV)


def shown(prior, count):
    return [Shown(reference_of(prior), torch.zeros(3))] * count


@pytest.mark.parametrize("angle_deg", [0.0, 20.0, 40.0, -35.0])
def test_the_slope_of_what_is_made_up_is_found_with_its_sign(angle_deg):
    prior, done = KnowingPrior(math.radians(90 + angle_deg)), []
    slope = find_slope(prior, shown(prior, 2), lambda: done.append(1))
    assert math.degrees(math.atan(slope)) == pytest.approx(angle_deg, abs=3.5)  # of pixels
    assert len(done) == 2 and prior.asked_at == {2.0} and prior.guidance == 1.0


def test_a_frame_that_is_misread_does_not_count(monkeypatch):
    slopes = iter([0.5, -3.0, 0.6, 0.4, 0.5])
    monkeypatch.setattr("bags_ns.priors.standing.slope_in", lambda *_: next(slopes))
    prior = KnowingPrior(0.0)
    assert find_slope(prior, shown(prior, 5)) == pytest.approx(0.5)


def test_a_body_seen_from_before_is_not_leaned_without_bounds():
    prior = KnowingPrior(math.radians(5))
    assert find_slope(prior, shown(prior, 1)) == pytest.approx(-1.5)


def test_nothing_made_up_leans_nothing():
    prior = KnowingPrior(0.0)
    prior.noise_predictor = lambda cameras, conditioning: (
        lambda x, t: (x - prior.alphas_cumprod[t].sqrt()) / (1 - prior.alphas_cumprod[t]).sqrt()
    )
    assert find_slope(prior, shown(prior, 1)) == 0.0


def test_variances_to_all_sides_give_the_covariance_on_the_ground():
    covariance = torch.tensor([[0.05, 0.02], [0.02, 0.09]])
    cameras = torch.cat([ring_cameras(torch.tensor([0.3]), 2.0, number) for number in range(2)])
    rights = cameras[:, :2, 0]
    spreads = torch.einsum("vi,ij,vj->v", rights, covariance, rights)
    assert torch.allclose(ground_spread(rights, spreads), covariance, atol=1e-6)
    azimuths = torch.atan2(cameras[:, 1, 3], cameras[:, 0, 3]) - 0.3
    assert torch.remainder(azimuths, math.pi / 4).sub(math.pi / 8).abs().max() < 1e-5
    assert len({round(float(torch.remainder(a, 2 * math.pi)), 3) for a in azimuths}) == 8


def test_the_long_axis_has_a_slope():
    axis = torch.nn.functional.normalize(torch.tensor([0.5, 1.0]), dim=0)
    covariance = torch.outer(axis, axis) + 0.1 * torch.eye(2)
    assert slope_of(covariance, torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])) == pytest.approx(0.5)
    assert slope_of(covariance, torch.tensor([-1.0, 0.0]), torch.tensor([0.0, 1.0])) == pytest.approx(-0.5)


def test_spread_is_that_of_a_bar_at_its_distance():
    pose = look_at(torch.tensor([2.0, 0.0, 0.0]), torch.zeros(3))
    found = spread_across(bar(pose, math.pi / 2)[None], FOV) * 4
    assert float(found) == pytest.approx(0.8**2 / 12, rel=0.05)
    assert not spread_across(torch.ones(1, 8, 8, 3), FOV)
