"""The most likely turn is the true one, when the likelihood is that of the true azimuths."""

import math

import pytest
import torch

from bags_ns.cameras import intrinsics_from_fov, look_at, viewmats_from_camera_to_worlds
from bags_ns.gaussians import Gaussians
from bags_ns.priors.base import PriorCamera
from bags_ns.priors.turning import (
    KeyView,
    azimuth_track,
    key_views,
    keyframe_indices,
    most_likely_track,
    pair_errors,
    round_the_circle,
)
from bags_ns.rendering import render

TIMES = torch.linspace(0, 1, 5)


class KnowingPrior:
    """Errs by how far a view is from its true azimuth. A picture's grey value names its frame."""

    num_views, image_size = 1, 8
    camera = PriorCamera(fov_deg=40.0, radius_range=(1.6, 2.7), elevation_range_deg=(0.0, 0.0))
    alphas_cumprod = torch.linspace(0.999, 0.01, 100)

    def __init__(self, azimuths):
        self.azimuths = azimuths

    def frame_of(self, picture):
        return round(float(picture.mean()) * 10)

    def condition(self, images, camera_to_worlds, fovs_deg):
        return self.frame_of(images[0])

    def encode(self, renders):
        self.judged = renders.permute(0, 3, 1, 2)
        return self.judged

    def noise_predictor(self, camera_to_worlds, conditioning):
        x, y = camera_to_worlds[0, :2, 3]
        ahead = self.azimuths[self.frame_of(self.judged)] - self.azimuths[conditioning]
        wrong = 1 - torch.cos(torch.atan2(y, x) - ahead)

        def predict(x_t, t):
            alpha_bar = self.alphas_cumprod[t]
            return (x_t - alpha_bar.sqrt() * self.judged) / (1 - alpha_bar).sqrt() + wrong * alpha_bar.sqrt()

        return predict


@pytest.mark.parametrize("turn_deg", [0.0, 60.0, -60.0, 150.0, -175.0])
@pytest.mark.parametrize("bow_deg", [0.0, 20.0])
def test_the_track_of_a_knowing_prior_is_found_with_its_sign(turn_deg, bow_deg):
    turn, bow = math.radians(turn_deg), math.radians(bow_deg)
    prior = KnowingPrior(azimuth_track(turn, bow, TIMES))
    views = [KeyView(torch.full((8, 8, 3), 0.1 * k), 0.1) for k in range(5)]
    pairs = []
    errors = pair_errors(prior, views, lambda: pairs.append(1))
    assert len(pairs) == 20 and not errors.diagonal().any()
    found = most_likely_track(errors, TIMES)
    assert found == pytest.approx((turn, bow), abs=math.radians(2.6))


def test_errors_round_the_circle_pass_through_smooth_samples():
    samples = 2 * math.pi * torch.arange(12) / 12
    angles = torch.tensor([0.3, -1.0, 4.0])

    def smooth(a):
        return 2 + torch.cos(a) - 0.3 * torch.sin(3 * a)

    assert torch.allclose(round_the_circle(smooth(samples), angles), smooth(angles), atol=1e-5)
    shifted = round_the_circle(smooth(samples), samples + 2 * math.pi)
    assert torch.allclose(shifted, smooth(samples), atol=1e-4)


def test_keyframes_span_the_clip():
    assert keyframe_indices(60) == [0, 15, 30, 44, 59]
    assert keyframe_indices(2) == [0, 1]


def test_frames_are_shown_at_one_scale_wherever_the_animal_is():
    g = torch.Generator().manual_seed(0)
    offsets = torch.randn(60, 3, generator=g) * torch.tensor([0.05, 0.25, 0.1])
    pose = look_at(torch.tensor([4.0, 0.0, 0.0]), torch.zeros(3))
    K = intrinsics_from_fov(40.0, 256, 256)
    positions = torch.tensor([[0.0, 0.0, 0.0], [1.2, 0.1, 0.2]])
    frames = []
    for position in positions:
        covars = (0.05**2 * torch.eye(3)).repeat(60, 1, 1)
        blob = Gaussians(position + offsets, covars, torch.full((60,), 0.99), torch.zeros(60, 3))
        output = render(blob, viewmats_from_camera_to_worlds(pose[None]), K[None], 256, 256)
        frames.append(torch.cat([output.rgb[0], output.alpha[0]], dim=-1))
    far, near = key_views(frames, pose[None].expand(2, 4, 4), K.expand(2, 3, 3), positions, 64)
    dark = [(view.picture[..., 0] < 0.5).sum() for view in (far, near)]
    assert dark[1] / dark[0] == pytest.approx(1.0, abs=0.08)
    assert far.elevation == pytest.approx(0.0, abs=0.02) and near.elevation < 0  # it stands above the camera's height
