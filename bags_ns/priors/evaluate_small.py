"""How well the small prior makes up views: fixed pairs of pictures, and animals of its own kind that it never saw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bags_ns.cameras import orbit_camera
from bags_ns.files import whole_file
from bags_ns.priors.creature_views import NUM_NOW, CreatureStudio
from bags_ns.priors.diffusion import (
    NUM_TIMESTEPS,
    add_noise,
    cosine_alpha_bars,
    ddim_sample,
    guide,
    noise_from_v,
    x0_from_v,
)
from bags_ns.priors.rays import view_rays
from bags_ns.priors.view_unet import ReferenceCache, ViewUNet

HELD_OUT_SEED = 999_983
"""Seed of the held-out animals; training seeds are other numbers."""


@dataclass(frozen=True)
class ViewTask:
    """Pictures in [-1, 1] on white: what is shown, and what is to be made up."""

    references: Float[Tensor, "batch references 3 size size"]
    reference_rays: Float[Tensor, "batch references patches 6"]
    targets: Float[Tensor, "batch views 3 size size"]
    target_rays: Float[Tensor, "batch views patches 6"]
    inside: Bool[Tensor, "batch views size size"]
    """Silhouettes of the targets: alpha of at least one half."""

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> ViewTask:
        """The same on `device`."""
        return ViewTask(**{name: part.to(device) for name, part in vars(self).items()})


def load_pairs(path: Path, grid: int, device: torch.device) -> ViewTask:
    """Pairs of an .npz file: `reference`, `target` uint8 [N 3 S S] on white, `target_alpha`, `*_camera` [N 3] (azimuth,
    elevation in radians, radius) and `fov_deg`."""
    data = np.load(path)
    angles = torch.from_numpy(np.stack([data["reference_camera"], data["target_camera"]], axis=1)).float()
    azimuths, elevations, radii = angles.unbind(-1)
    cameras = orbit_camera(azimuths, elevations, radii)
    rays = view_rays(cameras, torch.full(cameras.shape[:2], float(data["fov_deg"])), grid)
    reference, target = (torch.from_numpy(data[name]).float()[:, None] / 127.5 - 1 for name in ("reference", "target"))
    inside = torch.from_numpy(data["target_alpha"]) >= 127.5
    return ViewTask(reference, rays[:, :1], target, rays[:, 1:], inside).to(device)


def held_out_task(num_animals: int, num_references: int, size: int, grid: int, device: torch.device) -> ViewTask:
    """Four targets of each of some animals of the training's kind, a few at a time."""
    studio = CreatureStudio(size, torch.Generator(device).manual_seed(HELD_OUT_SEED))
    views = studio.fill(num_animals, chunk=min(16, num_animals))
    shown = [0, NUM_NOW, NUM_NOW + 1][:num_references]
    first = views.camera_to_worlds[:, 0]
    rays = view_rays(views.camera_to_worlds, views.fovs_deg, grid, first)
    pictures, now = views.on_white(), slice(1, NUM_NOW)
    return ViewTask(pictures[:, shown], rays[:, shown], pictures[:, now], rays[:, now], views.images[:, now, 3] >= 128)


def predict_guided(
    network: ViewUNet,
    noisy: Float[Tensor, "batch views 3 size size"],
    timesteps: Tensor,
    rays: Float[Tensor, "batch views patches 6"],
    references: ReferenceCache,
    guidance: float,
) -> Float[Tensor, "batch views 3 size size"]:
    """v with classifier-free guidance, both halves in one batch (guidance 1 needs only one)."""
    if guidance == 1:
        return network(noisy, timesteps, rays, references)
    both = network(torch.cat([noisy, noisy]), timesteps.repeat(2), torch.cat([rays, rays]), references)
    conditional, unconditional = both.chunk(2)
    return guide(conditional, unconditional, guidance)


def evaluate_task(
    network: ViewUNet,
    task: ViewTask,
    guidance: float = 2.0,
    num_steps: int = 40,
    seed: int = 0,
    x0_at: Iterable[int] = (),
) -> tuple[dict[str, float], Float[Tensor, "batch views 3 size size"]]:
    """Scores of sampled views (and of one-step guesses from targets noised to timesteps `x0_at`), and the views."""
    noise = torch.randn(task.targets.shape, generator=torch.Generator().manual_seed(seed)).to(task.targets.device)
    alpha_bars = cosine_alpha_bars(noise.device)
    with torch.inference_mode(), torch.autocast(noise.device.type, torch.bfloat16, enabled=noise.is_cuda):
        references = network.encode_references(task.references, task.reference_rays)

        def predict(noisy: Tensor, timesteps: Tensor, strength: float = guidance) -> Tensor:
            return predict_guided(network, noisy, timesteps, task.target_rays, references, strength)

        def predict_noise(noisy: Tensor, timestep: int) -> Tensor:
            timesteps = torch.full((len(task),), timestep, device=noise.device)
            return noise_from_v(noisy, predict(noisy, timesteps), alpha_bars[timesteps])

        sampled = ddim_sample(predict_noise, alpha_bars, noise, NUM_TIMESTEPS - 1, num_steps, limit=1.0)
        result = _scores("sampled", sampled, task)
        for timestep in x0_at:
            timesteps = torch.full((len(task),), timestep, device=noise.device)
            alpha_bar = alpha_bars[timesteps]
            noisy = add_noise(task.targets, noise, alpha_bar)
            guess = x0_from_v(noisy, predict(noisy, timesteps, 1.0), alpha_bar).clamp(-1, 1)
            result |= _scores(f"x0_{timestep}", guess, task)
    return result, sampled


def trivial_scores(task: ViewTask) -> dict[str, float]:
    """What copying the reference and an all-white picture score."""
    copied = task.references[:, :1].expand_as(task.targets)
    return _scores("copy", copied, task) | _scores("white", torch.ones_like(task.targets), task)


def evaluate_pairs(network: ViewUNet, pairs_path: Path, device: torch.device) -> dict[str, float]:
    """Scores on fixed pairs: 40 steps, guidance 2, seed 0; one-step guesses (guidance 1) at three noise levels."""
    task = load_pairs(pairs_path, network.config.grid, device)
    scores, _ = evaluate_task(network, task, x0_at=(300, 600, 900))
    return scores | trivial_scores(task)


def evaluate_held_out(network: ViewUNet, device: torch.device, num_animals: int = 64) -> dict[str, float]:
    """Scores on held-out animals, four targets at once, with one reference and with three."""
    config, result = network.config, {}
    for count in (1, 3):
        task = held_out_task(num_animals, count, config.image_size, config.grid, device)
        scores, _ = evaluate_task(network, task)
        result |= {f"{name}_{count}_references": value for name, value in scores.items()}
        if count == 1:
            result |= trivial_scores(task)
    return result


def write_sheet(path: Path, network: ViewUNet, device: torch.device, num_animals: int = 8) -> None:
    """PNG of held-out animals, a row each: the reference, four true views, the same four made up."""
    from PIL import Image

    config = network.config
    task = held_out_task(num_animals, 1, config.image_size, config.grid, device)
    _, sampled = evaluate_task(network, task)
    rows = torch.cat([task.references, task.targets, sampled], dim=1)
    pixels = (127.5 * (rows.clamp(-1, 1) + 1)).round().byte().permute(0, 3, 1, 4, 2)
    flat = pixels.reshape(num_animals * config.image_size, -1, 3).cpu().numpy()
    with whole_file(path) as unfinished:
        Image.fromarray(flat).save(unfinished)


def _scores(name: str, images: Float[Tensor, "batch views 3 size size"], task: ViewTask) -> dict[str, float]:
    """PSNR in dB of whole pictures and inside the true silhouettes, means over pictures."""
    errors = ((images.float() - task.targets) / 2).square().mean(dim=2)
    inside = (errors * task.inside).sum(dim=(2, 3)) / task.inside.sum(dim=(2, 3)).clamp_min(1)
    seen = task.inside.any(dim=3).any(dim=2)
    whole = errors.mean(dim=(2, 3))
    return {name: _decibels(whole), f"{name}_inside": _decibels(inside[seen])}


def _decibels(errors: Float[Tensor, "*pictures"]) -> float:
    """Mean PSNR of squared errors of pictures in [0, 1]."""
    return round(float(-10 * errors.clamp_min(1e-10).log10().mean()), 3)
