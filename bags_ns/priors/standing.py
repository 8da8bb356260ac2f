"""How an animal stands before a camera that sees it from one side only, by the views that a diffusion prior makes up.

Silhouettes from one direction say nothing about depth: seeds lie in the picture's plane, and an animal that is seen from
30 degrees before its side gets a sheared body. A prior knows bodies. From some frames it makes up views all round; how far
the silhouettes reach from side to side in them tells the direction of the body's long axis. Now and then it misreads a
frame (a head that is turned, legs that cross), so the median over frames is taken.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bags_ns.cameras import look_at, orbit_camera, orbit_coordinates
from bags_ns.priors.base import DiffusionPrior, guided_by
from bags_ns.priors.diffusion import ddim_sample
from bags_ns.priors.reference import Reference

NUM_FRAMES = 6
"""Frames, evenly over the clip, from which views are made up."""
PER_RING = 4
"""Views of a frame, a quarter of the way round from each other, half way between those of the next frame."""
NUM_STEPS = 12
"""Calls of the network for them."""
LEAST_GUIDANCE = 2.0
"""Of views that are sampled in many steps."""
ELEVATION_DEG = 15.0
"""Of the made-up views."""
NOT_WHITE = 0.1
"""Part of the range by which a colour differs from white where the animal is."""
STEEPEST = 1.5
"""Largest slope: beyond, the animal is seen from before or behind, and the picture does not show its length."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame that the prior is shown."""

    reference: Reference
    """It, recut."""
    target: Float[Tensor, " 3"]
    """The animal's middle in the world, see `Reference.target`."""


def find_slope(
    prior: DiffusionPrior, frames: Sequence[Shown], advance: Callable[[], None] = lambda: None, seed: int = 0
) -> float:
    """Change of the body's depth for each unit of its way across the pictures, to the right.

    Args:
        prior: asked with its own guidance, or `LEAST_GUIDANCE` if that is less.
        frames: in which the animal stands alike.
        advance: called after each of them.
        seed: of the noise.
    """
    angles = []
    with guided_by(prior, max(prior.guidance, LEAST_GUIDANCE)):
        for number, frame in enumerate(frames):
            angles.append(math.atan(slope_in(prior, frame, number, seed + number)))
            advance()
    return math.tan(statistics.median(angles))


@torch.no_grad()
def slope_in(prior: DiffusionPrior, frame: Shown, number: int, seed: int) -> float:
    """The slope in one frame, by a ring of views whose azimuths its `number` decides; 0 where nothing is made up."""
    reference = frame.reference
    pose = look_at(reference.position - frame.target, torch.zeros_like(frame.target))[None]
    conditioning = prior.condition(reference.picture[None], pose, torch.tensor([reference.fov_deg]))
    azimuth, _, distance = orbit_coordinates(pose)
    cameras = ring_cameras(azimuth, sum(prior.camera.radius_range) / 2, number)
    pictures = _made_up(prior, cameras, conditioning, seed).to(frame.target)
    spreads = spread_across(pictures, prior.camera.fov_deg) * cameras[:, :3, 3].norm(dim=-1).square()
    own = spread_across(reference.picture[None], reference.fov_deg) * distance.square()
    rights, spreads = torch.cat([pose, cameras])[:, :2, 0], torch.cat([own, spreads])
    seen = spreads > 0
    if int(seen.sum()) < 3:
        return 0.0
    return slope_of(ground_spread(rights[seen], spreads[seen]), -pose[0, :2, 2], pose[0, :2, 0])


def ring_cameras(azimuth: Float[Tensor, "1"], radius: float, number: int) -> Float[Tensor, "V 4 4"]:
    """OpenGL poses evenly round the animal, as far from `azimuth` (radians) as can be; odd rings between even ones."""
    turns = (torch.arange(PER_RING).to(azimuth) + 0.25 + 0.5 * (number % 2)) / PER_RING
    elevations = torch.full_like(turns, math.radians(ELEVATION_DEG))
    return orbit_camera(azimuth + 2 * math.pi * turns, elevations, torch.full_like(turns, radius))


def _made_up(
    prior: DiffusionPrior, cameras: Float[Tensor, "V 4 4"], conditioning: Any, seed: int
) -> Float[Tensor, "V S S 3"]:
    """Views made from pure noise."""
    blank = prior.encode(torch.ones(len(cameras), prior.image_size, prior.image_size, 3, device=cameras.device))
    noise = torch.randn(blank.shape, generator=torch.Generator().manual_seed(seed)).to(blank)
    predict = prior.noise_predictor(cameras, conditioning)
    last = len(prior.alphas_cumprod) - 1
    return prior.decode(ddim_sample(predict, prior.alphas_cumprod, noise, last, NUM_STEPS, prior.limit))


def spread_across(pictures: Float[Tensor, "V S S 3"], fov_deg: float) -> Float[Tensor, " V"]:
    """Variance of the silhouettes' pixels from side to side, for a camera at distance 1; 0 for an empty picture."""
    weights = ((1 - pictures).abs().amax(dim=-1) > NOT_WHITE).to(pictures).sum(dim=1)
    size = pictures.shape[2]
    across = (torch.arange(size).to(pictures) + 0.5) / size * 2 - 1
    across = across * math.tan(math.radians(fov_deg) / 2)
    total = weights.sum(dim=1).clamp_min(1)
    mean = (weights * across).sum(dim=1) / total
    return (weights * (across - mean[:, None]).square()).sum(dim=1) / total


def ground_spread(rights: Float[Tensor, "V 2"], spreads: Float[Tensor, " V"]) -> Float[Tensor, "2 2"]:
    """The covariance on the ground that shows such variances to cameras with these axes to the right; by least squares."""
    x, y = F.normalize(rights, dim=-1).unbind(-1)
    rows = torch.stack([x.square(), 2 * x * y, y.square()], dim=1)
    xx, xy, yy = torch.linalg.lstsq(rows.double(), spreads.double()[:, None]).solution[:, 0]
    return torch.stack([torch.stack([xx, xy]), torch.stack([xy, yy])]).to(spreads)


def slope_of(covariance: Float[Tensor, "2 2"], forward: Float[Tensor, " 2"], right: Float[Tensor, " 2"]) -> float:
    """Way along `forward` (at any length) for each unit along `right` on the axis of the largest variance, within `STEEPEST`."""
    axis = torch.linalg.eigh(covariance.double()).eigenvectors[:, 1]
    along, across = (float(axis @ F.normalize(direction.double(), dim=0)) for direction in (forward, right))
    if abs(along) > STEEPEST * abs(across):
        return math.copysign(STEEPEST, along * across)
    return along / across
