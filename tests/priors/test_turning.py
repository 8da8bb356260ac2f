"""The most likely turn is the true one, when the likelihood is that of the true azimuths."""

import math

import pytest
import torch

from bags_ns.cameras import intrinsics_from_fov, look_at, viewmats_from_camera_to_worlds
from bags_ns.gaussians import Gaussians
from bags_ns.priors.base import PriorCamera
from bags_ns.priors.turning import (
    ViewJudge,
    key_pictures,
    keyframe_indices,
    most_likely_turn,
    pair_errors,
    round_the_circle,
)
from bags_ns.rendering import render

TIMES = torch.linspace(0, 1, 7)


class KnowingPrior:
    """Errs by how far a view is from the true one. A picture's grey value names its frame."""

    image_size = 8
    camera = PriorCamera(fov_deg=40.0, radius_range=(1.6, 2.7), elevation_range_deg=(-10.0, 30.0))
    alphas_cumprod = torch.linspace(0.999, 0.01, 100)
    limit, guidance = 1.0, 1.0

    def __init__(self, turn_deg, elevation_deg=0.0):
        self.azimuths = math.radians(turn_deg) * TIMES
        self.elevation = math.radians(elevation_deg)

    def frame_of(self, picture):
        return round(float(picture.mean()) * 10)

    def condition(self, images, camera_to_worlds, fovs_deg):
        return self.frame_of(images[0])

    def encode(self, renders):
        return renders.permute(0, 3, 1, 2)

    def decode(self, x):
        return x.permute(0, 2, 3, 1)

    def noise_predictor(self, camera_to_worlds, conditioning):
        place = camera_to_worlds[0, :3, 3] / camera_to_worlds[0, :3, 3].norm()

        def predict(x_t, t):
            alpha_bar = self.alphas_cumprod[t]
            # The picture's mean outshines the noise's: every frame is known by it.
            judged = min(range(7), key=lambda k: abs(float(x_t.mean()) - 0.1 * k * float(alpha_bar.sqrt())))
            ahead = self.azimuths[judged] - self.azimuths[conditioning]
            wrong = 1 - torch.cos(torch.atan2(place[1], place[0]) - ahead) + (place[2].asin() - self.elevation).square()
            wrong = wrong.sqrt()
            clean = torch.full_like(x_t, 0.1 * judged)
            return (x_t - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt() + wrong * alpha_bar.sqrt()

        return predict


def judge_of(prior):
    judge = ViewJudge(prior, torch.stack([torch.full((8, 8, 3), 0.1 * k) for k in range(7)]))
    # Noise without a mean leaves the grey values as they are.
    judge.noises -= judge.noises.mean((-1, -2, -3), keepdim=True)
    return judge


@pytest.mark.parametrize("turn_deg", [0.0, 60.0, -60.0, 150.0, -165.0])
def test_the_turn_of_a_knowing_prior_is_found_with_its_sign(turn_deg):
    pairs = []
    errors = pair_errors(judge_of(KnowingPrior(turn_deg)), 0.0, lambda: pairs.append(1))
    assert len(pairs) == 42 and not errors.diagonal().any()
    found = math.degrees(most_likely_turn(errors, TIMES))
    assert found == pytest.approx(turn_deg, abs=1.3)  # half a step


def test_errors_round_the_circle_pass_through_smooth_samples():
    samples = 2 * math.pi * torch.arange(12) / 12
    angles = torch.tensor([0.3, -1.0, 4.0])

    def smooth(a):
        return 2 + torch.cos(a) - 0.3 * torch.sin(3 * a)

    assert torch.allclose(round_the_circle(smooth(samples), angles), smooth(angles), atol=1e-5)
    shifted = round_the_circle(smooth(samples), samples + 2 * math.pi)
    assert torch.allclose(shifted, smooth(samples), atol=1e-4)


def test_keyframes_span_the_clip():
    assert keyframe_indices(60) == [0, 10, 20, 30, 39, 49, 59]
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
    far, near = key_pictures(frames, pose[None].expand(2, 4, 4), K.expand(2, 3, 3), positions, 64)
    assert (near[..., 0] < 0.5).sum() / (far[..., 0] < 0.5).sum() == pytest.approx(1.0, abs=0.08)
