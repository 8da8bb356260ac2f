"""How an animal turns before a camera that is not known, by the likelihood that a diffusion prior gives to views.

The prior is shown frame i and judges frame j as a view from an azimuth a further round: its error in telling the picture
from noise is, up to a weight, the bound on -log p(frame j | frame i, a) that it was trained on (Ho et al. 2020, arXiv
2006.11239, eq. 12). One pair says little, for the animal also moves its legs; all pairs together say which turn is the
most likely one. Its sign comes from the prior alone: seen from far away, an animal that turns left looks like its
depth-reversed twin that turns right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.cameras import orbit_camera
from bags_ns.priors.base import DiffusionPrior
from bags_ns.priors.reference import MARGIN, recut
from bags_ns.progress import progress_bar

NUM_KEYFRAMES = 7
"""Frames, evenly over the clip, that are compared with each other: cost grows with the square."""
NUM_AZIMUTHS = 12
"""Azimuths at which each pair is judged, evenly round the circle; between them errors are interpolated."""
NUM_HARMONICS = 5
"""Highest harmonic of the errors round the circle that is kept: all that so many azimuths can tell."""
NOISE_LEVELS = (0.3, 0.4)
"""Parts of the diffusion's steps at which the prior is asked: below, texture speaks; above, the animal's build in general."""
TURN_EXCESS = 1.28
"""By so much turns come out too large, for legs move between two frames and the prior takes that for turning: mean of eight
searches on made-up animals (60 to 80 degrees; 1.02 to 1.50)."""
TURN_STEP_DEG = 2.5
"""Spacing of the turns that are compared, up to half a round either way."""
USUAL_ELEVATION_DEG = 10.0
"""At which turns are compared where none is known: compared at an elevation that is 10 degrees off, turns come out a fifth
too large or too small."""


def keyframe_indices(count: int) -> list[int]:
    """Frames that are compared, of `count`."""
    return sorted({round(k * (count - 1) / (NUM_KEYFRAMES - 1)) for k in range(NUM_KEYFRAMES)})


def key_pictures(
    frames: Sequence[Float[Tensor, "H W 4"]],
    camera_to_worlds: Float[Tensor, "K rows 4"],
    Ks: Float[Tensor, "K 3 3"],
    positions: Float[Tensor, "K 3"],
    size: int,
) -> Float[Tensor, "K size size 3"]:
    """Frames on white with the animal in the middle, all at the scale of the one in which it looks longest.

    Args:
        frames: straight RGBA in [0, 1].
        camera_to_worlds: their OpenGL poses.
        Ks: their intrinsics, in pixels.
        positions: of the animal at their times, in the world.
        size: side of the pictures to make, in pixels.
    """
    first = [recut(*view, size) for view in zip(frames, camera_to_worlds, Ks, strict=True)]
    depths = [float((x - cut.position) @ cut.direction) for cut, x in zip(first, positions, strict=True)]
    half = max(d * math.tan(math.radians(cut.fov_deg) / 2) for cut, d in zip(first, depths, strict=True))
    fovs_deg = [2 * math.degrees(math.atan(half / depth)) for depth in depths]
    views = zip(frames, camera_to_worlds, Ks, fovs_deg, strict=True)
    return torch.stack([recut(frame, pose, K, size, fov_deg).picture for frame, pose, K, fov_deg in views])


def find_turn(
    prior: DiffusionPrior, pictures: Float[Tensor, "K S S 3"], times: Float[Tensor, " K"], elevation: float | None
) -> float:
    """The turn of the camera round the animal from time 0 to 1, in radians.

    Args:
        prior: without guidance.
        pictures: see `key_pictures`.
        times: of them, in [0, 1].
        elevation: at which turns are compared, in radians; the usual one where it is not known.
    """
    judge, count = ViewJudge(prior, pictures), len(pictures)
    usual = math.radians(USUAL_ELEVATION_DEG)
    with progress_bar("Looking how the animal turns", count * (count - 1)) as advance:
        errors = pair_errors(judge, usual if elevation is None else elevation, partial(advance, None, None))
    return most_likely_turn(errors, times) / TURN_EXCESS


class ViewJudge:
    """Asks a prior how likely key pictures are as views from given sides. Each pair has noise of its own, the same for every view.

    Args:
        prior: judged one view at a time, so it must not need several.
        pictures: see `key_pictures`.
        seed: of the noise.
    """

    def __init__(self, prior: DiffusionPrior, pictures: Float[Tensor, "K S S 3"], seed: int = 0) -> None:
        self.prior, self.pictures = prior, pictures
        self.steps = [round(level * (len(prior.alphas_cumprod) - 1)) for level in NOISE_LEVELS]
        self.clean = [prior.encode(picture[None]) for picture in pictures]
        generator = torch.Generator().manual_seed(seed)
        shape = (len(pictures), len(pictures), len(self.steps), *self.clean[0].shape)
        self.noises = torch.randn(shape, generator=generator).to(self.clean[0])

    def shown(self, index: int, elevation: float) -> Any:
        """The prior's conditioning on a picture, taken from `elevation` (radians) at azimuth 0."""
        fov = torch.tensor([self.prior.camera.fov_deg])
        return self.prior.condition(self.pictures[index][None], self._camera(0.0, elevation), fov)

    def error(self, conditioning: Any, pair: tuple[int, int], azimuth: float, elevation: float) -> float:
        """Mean squared error of v (noise error over the share of signal) summed over the noise levels.

        Args:
            conditioning: `shown` of the pair's first picture.
            pair: pictures that are shown and judged.
            azimuth: of the judged one, ahead of the shown one's, in radians.
            elevation: of its camera, in radians.
        """
        predict = self.prior.noise_predictor(self._camera(azimuth, elevation), conditioning)
        total = 0.0
        for noise, t in zip(self.noises[pair], self.steps, strict=True):
            alpha_bar = float(self.prior.alphas_cumprod[t])
            noisy = math.sqrt(alpha_bar) * self.clean[pair[1]] + math.sqrt(1 - alpha_bar) * noise
            total += float((predict(noisy, t).to(noise) - noise).square().mean()) / alpha_bar
        return total

    def _camera(self, azimuth: float, elevation: float) -> Float[Tensor, "1 4 4"]:
        """The prior's camera where a picture that was cut by `recut` shows an animal of length 1."""
        camera = self.prior.camera
        radius = max(0.5 * MARGIN / math.tan(math.radians(camera.fov_deg) / 2), camera.radius_range[0])
        return orbit_camera(torch.tensor([azimuth]), torch.tensor([elevation]), torch.tensor([radius]))


@torch.no_grad()
def pair_errors(
    judge: ViewJudge, elevation: float, advance: Callable[[], None] = lambda: None
) -> Float[Tensor, "K K A"]:
    """Errors of picture j, shown picture i, by how far j's azimuth is ahead of i's.

    Entry [i, j, a] is for 2 pi a / A; the diagonal is zero. `advance` is called after each pair.
    """
    count = len(judge.pictures)
    errors = torch.zeros(count, count, NUM_AZIMUTHS)
    for i in range(count):
        conditioning = judge.shown(i, elevation)
        for j in range(count):
            if i == j:
                continue
            for a in range(NUM_AZIMUTHS):
                errors[i, j, a] = judge.error(conditioning, (i, j), 2 * math.pi * a / NUM_AZIMUTHS, elevation)
            advance()
    return errors


def round_the_circle(
    errors: Float[Tensor, "*pairs A"], angles: Float[Tensor, "*#pairs N"]
) -> Float[Tensor, "*pairs N"]:
    """Errors at any angles (radians), by their Fourier series up to `NUM_HARMONICS`."""
    count = errors.shape[-1]
    series = torch.fft.rfft(errors) / count
    order = torch.arange(1, min(NUM_HARMONICS, (count - 1) // 2) + 1)
    waves = torch.exp(1j * angles[..., None] * order)
    return series[..., :1].real + 2 * (waves * series[..., None, order]).real.sum(-1)


def most_likely_turn(errors: Float[Tensor, "K K A"], times: Float[Tensor, " K"]) -> float:
    """How far the camera goes round the animal from time 0 to time 1 at an even rate, in radians.

    All turns are compared by their sum of errors over all pairs, so nothing depends on where a search begins.
    """
    count = round(180 / TURN_STEP_DEG)
    turns = torch.linspace(-math.pi, math.pi, 2 * count + 1)
    ahead = (times[None, :, None] - times[:, None, None]) * turns
    return float(turns[round_the_circle(errors, ahead).sum((0, 1)).argmin()])
