"""Image metrics of one view, whole and inside the silhouette, both pictures on white (docs/RESULTS.md has the words)."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bags_ns.losses import SSIM_WINDOW, ssim_map


def psnr(image: Float[Tensor, "*pixels 3"], target: Float[Tensor, "*pixels 3"]) -> float:
    """Peak signal-to-noise ratio in dB of colours in [0, 1]; 100 for equal pictures."""
    return float(-10 * torch.log10((image - target).square().mean().clamp_min(1e-10)))


def straight_rgba(
    image: UInt8[Tensor, "*K H W C"] | Float[Tensor, "*K H W C"],
) -> Float[Tensor, "*K H W 4"]:
    """A frame as straight RGBA in [0, 1]; one without alpha is all animal."""
    image = image.float() / 255 if image.dtype == torch.uint8 else image
    return image if image.shape[-1] == 4 else torch.cat([image, torch.ones_like(image[..., :1])], dim=-1)


def on_white(target: Float[Tensor, "H W 4"]) -> Float[Tensor, "H W 3"]:
    """A frame of straight RGBA on white."""
    return target[..., 3:] * target[..., :3] + 1 - target[..., 3:]


def image_metrics(
    rgb: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W 1"], target: Float[Tensor, "H W 4"]
) -> dict[str, float]:
    """Metrics of a render on white against a frame of straight RGBA.

    Args:
        rgb: the render, composited on white.
        alpha: its coverage.
        target: the frame.

    Returns:
        psnr, ssim (whole image), psnr_silhouette, ssim_silhouette (pixels with true alpha >= .5), iou (of alpha >= .5)
        and psnr_white, what an all-white picture would score. In-silhouette values are absent for an empty silhouette.
    """
    wanted = on_white(target)
    inside, rendered = target[..., 3] >= 0.5, alpha[..., 0] >= 0.5
    similarity = ssim_map(rgb[None], wanted[None])[0]
    union = (inside | rendered).sum()
    result = {
        "psnr": psnr(rgb, wanted),
        "ssim": float(similarity.mean()),
        "iou": float((inside & rendered).sum() / union) if union else 1.0,
        "psnr_white": psnr(torch.ones_like(wanted), wanted),
    }
    if inside.any():
        half = SSIM_WINDOW // 2
        result["psnr_silhouette"] = psnr(rgb[inside], wanted[inside])
        fits = inside[half : inside.shape[0] - half, half : inside.shape[1] - half]
        if fits.any():
            result["ssim_silhouette"] = float(similarity[fits].mean())
    return result
