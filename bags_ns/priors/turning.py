"""How far an animal turns before a camera that is not known, by the likelihood that a diffusion prior gives to views.

The prior is shown frame i and judges frame j as a view from an azimuth a away, for all a round the circle: its error in
telling the picture from noise is, up to a weight, the bound on -log p(frame j | frame i, a) that it was trained on (Ho et
al. 2020, arXiv 2006.11239, eq. 12). One pair says little, for the animal also moves its legs; all pairs together say
which smooth track of azimuths is the most likely one, its sign included, which silhouettes alone do not tell: seen from
far away, an animal that turns left looks like its depth-reversed twin that turns right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.cameras import orbit_camera
from bags_ns.priors.base import DiffusionPrior
from bags_ns.priors.reference import MARGIN, recut

NUM_KEYFRAMES = 5
"""Frames, evenly over the clip, that are compared with each other: cost grows with the square."""
NUM_AZIMUTHS = 12
"""Azimuths at which each pair is judged, evenly round the circle; between them errors are interpolated."""
NUM_HARMONICS = 4
"""Highest harmonic of the errors round the circle that is kept."""
NOISE_LEVELS = (0.5, 0.6, 0.7)
"""Parts of the diffusion's steps at which the prior is asked: below, legs and texture speak; above, hardly anything."""
TURN_STEP_DEG = 5.0
"""Spacing of the tracks that are compared, in degrees of turn (and of bow) over the clip."""
MAX_TURN_DEG = 180.0
"""Largest turn over the clip that is looked for."""
MAX_BOW_DEG = 30.0
"""Largest deviation from an even turn that is looked for."""


@dataclass(frozen=True, eq=False)
class KeyView:
    """A frame as a prior sees views: the animal in the middle, all frames at one scale."""

    picture: Float[Tensor, "S S 3"]
    """RGB in [0, 1] on white."""
    elevation: float
    """Of the camera above the animal's horizon, in radians."""


def key_views(
    frames: Sequence[Float[Tensor, "H W 4"]],
    camera_to_worlds: Float[Tensor, "K rows 4"],
    Ks: Float[Tensor, "K 3 3"],
    positions: Float[Tensor, "K 3"],
    size: int,
) -> list[KeyView]:
    """Frames recut about the animal so that its length, in whichever frame it looks longest, fits all of them.

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
    cuts = [recut(frame, pose, K, size, fov_deg) for frame, pose, K, fov_deg in views]
    return [KeyView(cut.picture, -math.asin(float(cut.direction[2]))) for cut in cuts]


def _orbit(azimuths: Float[Tensor, " V"], elevation: float, prior: DiffusionPrior) -> Float[Tensor, "V 4 4"]:
    """Cameras of the prior from where a picture cut by `recut` shows an animal of length 1."""
    radius = 0.5 * MARGIN / math.tan(math.radians(prior.camera.fov_deg) / 2)
    return orbit_camera(
        azimuths, torch.full_like(azimuths, elevation), torch.full_like(azimuths, max(radius, prior.camera.radius_range[0]))
    )


@torch.no_grad()
def pair_errors(
    prior: DiffusionPrior, views: Sequence[KeyView], advance: Callable[[], None] = lambda: None, seed: int = 0
) -> Float[Tensor, "K K A"]:
    """Mean squared error of the prior in denoising view j, shown view i, by how far j's azimuth is ahead of i's.

    Entry [i, j, a] is for 2 pi a / A; the diagonal is zero. Errors are those of v (noise error over the share of signal).
    Every azimuth of a pair gets the same noise. `advance` is called after each pair.
    """
    azimuths = 2 * math.pi * torch.arange(NUM_AZIMUTHS) / NUM_AZIMUTHS
    steps = [round(level * (len(prior.alphas_cumprod) - 1)) for level in NOISE_LEVELS]
    generator = torch.Generator().manual_seed(seed)
    errors = torch.zeros(len(views), len(views), NUM_AZIMUTHS)
    fov = torch.tensor([prior.camera.fov_deg])
    for i, shown in enumerate(views):
        conditioning = prior.condition(shown.picture[None], _orbit(torch.zeros(1), shown.elevation, prior), fov)
        for j, judged in enumerate(views):
            if i == j:
                continue
            x = prior.encode(judged.picture[None])
            noises = [torch.randn(x.shape, generator=generator).to(x) for _ in steps]
            for a, camera in enumerate(_orbit(azimuths, judged.elevation, prior)):
                predict = prior.noise_predictor(camera[None], conditioning)
                errors[i, j, a] = sum(
                    _v_error(predict(_noisy(x, noise, prior, t), t), noise, prior, t)
                    for noise, t in zip(noises, steps, strict=True)
                )
            advance()
    return errors


def _noisy(x: Tensor, noise: Tensor, prior: DiffusionPrior, t: int) -> Tensor:
    alpha_bar = float(prior.alphas_cumprod[t])
    return math.sqrt(alpha_bar) * x + math.sqrt(1 - alpha_bar) * noise


def _v_error(predicted: Tensor, noise: Tensor, prior: DiffusionPrior, t: int) -> float:
    return float((predicted.to(noise) - noise).square().mean()) / float(prior.alphas_cumprod[t])


def round_the_circle(errors: Float[Tensor, "*pairs A"], angles: Float[Tensor, "*#pairs N"]) -> Float[Tensor, "*pairs N"]:
    """Errors at any angles (radians), by their Fourier series up to `NUM_HARMONICS`."""
    count = errors.shape[-1]
    series = torch.fft.rfft(errors) / count
    order = torch.arange(1, min(NUM_HARMONICS, (count - 1) // 2) + 1)
    waves = torch.exp(1j * angles[..., None] * order)
    return series[..., :1].real + 2 * (waves * series[..., None, order]).real.sum(-1)


def most_likely_track(errors: Float[Tensor, "K K A"], times: Float[Tensor, " K"]) -> tuple[float, float]:
    """Turn and bow (radians) of the track `azimuth_track(turn, bow, times)` with the least sum of errors over all pairs.

    Every track is compared, so nothing depends on where a search begins.
    """
    turns = _grid(MAX_TURN_DEG)
    bows = _grid(MAX_BOW_DEG)
    turn, bow = (grid.flatten() for grid in torch.meshgrid(turns, bows, indexing="ij"))
    tracks = azimuth_track(turn[:, None], bow[:, None], times)
    ahead = (tracks[:, None, :] - tracks[:, :, None]).permute(1, 2, 0)
    cost = round_the_circle(errors, ahead).sum((0, 1))
    best = int(cost.argmin())
    return float(turn[best]), float(bow[best])


def _grid(largest_deg: float) -> Float[Tensor, " N"]:
    count = round(largest_deg / TURN_STEP_DEG)
    return torch.deg2rad(TURN_STEP_DEG * torch.arange(-count, count + 1))


def azimuth_track(
    turn: Float[Tensor, "*#batch 1"] | float, bow: Float[Tensor, "*#batch 1"] | float, times: Float[Tensor, " T"]
) -> Float[Tensor, "*batch T"]:
    """Azimuths at times in [0, 1]: an even turn, and a bow that is largest in the middle of the clip."""
    return turn * times + bow * 4 * times * (1 - times)


def keyframe_indices(count: int) -> list[int]:
    """Frames that are compared, of `count`."""
    return sorted({round(k * (count - 1) / (NUM_KEYFRAMES - 1)) for k in range(NUM_KEYFRAMES)})
