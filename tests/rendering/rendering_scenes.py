"""Scenes for the rendering tests, and a dense compositing of them that shares no code with the package's rasterizers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from bags_ns.cameras import intrinsics_from_fov, orbit_camera, viewmats_from_camera_to_worlds
from bags_ns.gaussians import Gaussians
from bags_ns.rendering.projection import Projection

Kind = Literal["trained", "early", "opaque"]
FIELDS = ("means", "covars", "opacities", "colors")


def make_gaussians(count: int, kind: Kind = "trained", seed: int = 0, dtype: torch.dtype = torch.float32) -> Gaussians:
    """A textured shell of unit radius, a faint ball as training starts from, or a shell that saturates alpha."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, 9, generator=generator, dtype=torch.float64)
    uniform = torch.rand(count, 4, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(normal[:, :3], dim=-1)
    shell = kind != "early"
    means = directions * (0.85 + 0.15 * uniform[:, :1] if shell else uniform[:, :1] ** (1 / 3))
    spacing = math.sqrt(2 * math.pi / count)
    scales = (0.7 if shell else 1.4) * spacing * torch.exp(0.4 * normal[:, 3:6])
    rotations = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)).Q
    axes = rotations * scales[:, None]
    opacities = {"trained": torch.sigmoid(1.5 * normal[:, 6]), "early": torch.full_like(normal[:, 6], 0.1)}
    opacity = opacities.get(kind, torch.full_like(normal[:, 6], 0.9999))
    tensors = (means, axes @ axes.transpose(1, 2), opacity, uniform[:, 1:])
    return Gaussians(*(tensor.float().to(dtype).requires_grad_() for tensor in tensors))


def make_cameras(count: int, width: int, height: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Cameras round the scene from slightly above, as viewmats and Ks; the object fills about 40% of a square image."""
    azimuths = torch.arange(count) * 2.0 + 0.3
    poses = orbit_camera(azimuths, torch.full((count,), 0.2), torch.full((count,), 4.0))
    Ks = intrinsics_from_fov(42.0, width, height).expand(count, 3, 3)
    return viewmats_from_camera_to_worlds(poses).to(dtype), Ks.to(dtype)


def dense_composite(
    projection: Projection, view: int, gaussians: Gaussians, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours [H W 3], alphas and weighted depths [H W]: every Gaussian at every pixel, by the rules of gsplat 1.4's kernels."""
    order = torch.argsort(projection.depths[view], stable=True)
    means2d, conics, radii = (getattr(projection, name)[view, order] for name in ("means2d", "conics", "radii"))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
    dx, dy = (pixels + 0.5 - means2d).unbind(-1)
    sigmas = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    alphas = (gaussians.opacities[order] * torch.exp(-sigmas)).clamp(max=0.999)

    tile_radii = radii[:, None] / 16
    tiles, first, end = pixels // 16, (means2d / 16 - tile_radii).floor(), (means2d / 16 + tile_radii).ceil()
    touched = ((tiles >= first) & (tiles < end)).all(-1) & (radii > 0)
    alphas = torch.where(touched & (alphas >= 1 / 255) & (sigmas >= 0), alphas, 0.0)
    after = torch.cumprod(1 - alphas, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    weights = torch.where(after > 1e-4, alphas * before, 0.0)
    rgb = (weights @ gaussians.colors[order]).view(height, width, 3)
    depth = (weights @ projection.depths[view, order]).view(height, width)
    return rgb, weights.sum(-1).view(height, width), depth


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """||actual - expected|| / ||expected||."""
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


def random_loss(rgb: Tensor, alpha: Tensor) -> Tensor:
    """A fixed random linear function of images [C H W 3] and alphas [C H W 1]: it tells all pixels and channels apart."""
    generator = torch.Generator().manual_seed(7)
    rgb_weights = torch.randn(rgb.shape, generator=generator).to(rgb)
    alpha_weights = torch.randn(alpha.shape, generator=generator).to(alpha)
    return (rgb * rgb_weights).sum() + (alpha * alpha_weights).sum()


def gradients(loss: Tensor, gaussians: Gaussians) -> dict[str, Tensor]:
    """Of the loss by each of the Gaussians' tensors."""
    tensors = [getattr(gaussians, name) for name in FIELDS]
    return dict(zip(FIELDS, torch.autograd.grad(loss, tensors), strict=True))
