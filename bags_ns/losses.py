"""Training losses: pure functions of tensors that return unweighted scalars. Weights meet them in the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bags_ns.rig.transforms import nearest_rotation

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
COLOR_NEIGHBORS = 8
REACHED = 0.05
"""Pixels so near to a point of the animal, in square roots of the silhouette's area, are covered by it sooner or later."""


def rigidity(jacobians: Float[Tensor, "N 3 3"]) -> Float[Tensor, ""]:
    """Mean squared distance of the deformation's Jacobians to the nearest rotation.

    Equals the mean of sum (sigma - 1)^2 over the singular values where det > 0 (BAGS, arXiv 2403.11427), and also
    pulls reflections back. The nearest rotation R is stationary, so the gradient is exactly 2 (J - R) with R held fixed.
    """
    return (jacobians - nearest_rotation(jacobians)).square().sum((-1, -2)).mean()


def coarse_l1(difference: Float[Tensor, "K H W 3"], pixels: int) -> Float[Tensor, " K"]:
    """Mean absolute difference of images after averaging over squares of `pixels` (and those of half the size)."""
    half = F.avg_pool2d(difference.permute(0, 3, 1, 2), max(1, pixels // 2))
    return 0.5 * (half.abs().mean((1, 2, 3)) + F.avg_pool2d(half, 2).abs().mean((1, 2, 3)))


def per_animal_pixel(
    difference: Float[Tensor, "K H W 3"],
    alpha: Float[Tensor, "K H W 1"],
    true_alpha: Float[Tensor, "K H W 1"],
    coarse_pixels: int,
) -> dict[str, Float[Tensor, ""]]:
    """Differences of colours and of coverage, counted per pixel of the animal, however small it is in the frame."""
    weights = 1 / true_alpha.mean((1, 2, 3)).clamp_min(0.02)
    return {
        "l1": (difference.abs().mean((1, 2, 3)) * weights).mean(),
        "coarse": (coarse_l1(difference, coarse_pixels) * weights).mean(),
        "silhouette": ((alpha - true_alpha).square().mean((1, 2, 3)) * weights).mean(),
    }


def reach(
    points: Float[Tensor, "K S 2"],
    alpha: Float[Tensor, "K H W 1"],
    true_alpha: Float[Tensor, "K H W 1"],
    num_pixels: int,
) -> Float[Tensor, ""]:
    """How far the animal is from pixels of it that its render leaves empty: mean distance to the nearest of some of its points.

    Distances are in square roots of the silhouette's area, and count as much as the empty part of that is large; up to
    `REACHED` they cost nothing, for every outline has empty pixels, and the animal would grow. A render's gradient ends
    with its Gaussians; this one does not, so that two legs between the places of two find them.

    Args:
        points: some of the animal's, in pixels of K renders.
        alpha: rendered coverage, taken as it is.
        true_alpha: what should be covered.
        num_pixels: of each render, drawn from the empty ones.
    """
    empty = (true_alpha - alpha.detach()).clamp_min(0).flatten(1)
    drawn = torch.multinomial(empty + 1e-9, num_pixels, replacement=True)  # no row of zeros
    width = alpha.shape[2]
    pixels = torch.stack([drawn % width, drawn // width], dim=-1) + 0.5
    with torch.no_grad():
        nearest = torch.cdist(pixels, points).argmin(dim=2, keepdim=True)
    offsets = pixels - points.gather(1, nearest.expand(-1, -1, 2))
    area = true_alpha.sum((1, 2, 3)).clamp_min(1.0)
    distances = (offsets.square().sum(-1) + 1e-6).sqrt() / area.sqrt()[:, None]
    return (empty.sum(1) / area * (distances - REACHED).clamp_min(0).mean(1)).mean()


def flow(
    rendered: Float[Tensor, "H W 2"], alpha: Float[Tensor, "H W 1"], observed: Float[Tensor, "H W 2"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of motions in the picture, as a part of its longer side.

    It is taken where the motion was observed (is not NaN) and the animal is rendered (`alpha` above a half).
    """
    known = observed.isfinite().all(dim=-1) & (alpha[..., 0] > 0.5)
    difference = (rendered - observed.nan_to_num()).abs().sum(dim=-1) * known
    return difference.sum() / known.sum().clamp_min(1) / max(known.shape)


def bone_placement(centers: Float[Tensor, "B 3"], points: Float[Tensor, "N 3"]) -> Float[Tensor, ""]:
    """Symmetric chamfer distance (squared) between bone centres and points of the animal: bones stay inside and cover it."""
    squared = torch.cdist(centers, points).square()
    return squared.amin(dim=1).mean() + squared.amin(dim=0).mean()


def smoothness(triples: Float[Tensor, "3 *rest"]) -> Float[Tensor, ""]:
    """Mean squared acceleration: second difference of a quantity at three equidistant times."""
    return (triples[0] - 2 * triples[1] + triples[2]).square().mean()


def saturating(squares: Float[Tensor, " *any"], scale: float) -> Float[Tensor, ""]:
    """Mean of x^2 / (1 + x^2 / scale^2) (Geman and McClure 1987): small x cost their square, large ones hardly more."""
    return (squares / (1 + squares / scale**2)).mean()


def aspect(log_scales: Float[Tensor, "N 3"], max_ratio: float) -> Float[Tensor, ""]:
    """Mean excess over `max_ratio` of the longest to the middle axis (PhysGaussian, arXiv 2311.12198): discs are free, needles are not."""
    longest = log_scales.amax(dim=1)
    middle = log_scales.sum(dim=1) - longest - log_scales.amin(dim=1)
    return ((longest - middle).exp() - max_ratio).clamp_min(0).mean()


def color_spread(
    means: Float[Tensor, "N 3"], colors: Float[Tensor, "N 3"], opacities: Float[Tensor, " N"], sample: Int[Tensor, " S"]
) -> Float[Tensor, ""]:
    """Mean squared distance of some Gaussians' colours to the mean of their nearest neighbours', the opaque ones' first.

    Only the colours of the sample get a gradient: what is seen spreads over what is not.
    """
    with torch.no_grad():
        near = torch.cdist(means[sample], means).topk(COLOR_NEIGHBORS + 1, largest=False).indices[:, 1:]  # not itself
        weights = opacities[near][..., None] + 1e-4
        wanted = (weights * colors[near]).sum(1) / weights.sum(1)
    return (colors.index_select(0, sample) - wanted).square().sum(-1).mean()


def _blur(images: Float[Tensor, "K C H W"], stride: int) -> Float[Tensor, "K C h w"]:
    """Separable Gaussian window, valid part only, at every `stride`-th pixel."""
    offsets = torch.arange(SSIM_WINDOW, device=images.device, dtype=images.dtype) - SSIM_WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    channels = images.shape[1]
    across = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    rows = F.conv2d(images, across, stride=(1, stride), groups=channels)
    return F.conv2d(rows, across.transpose(2, 3), stride=(stride, 1), groups=channels)


def ssim_map(
    image: Float[Tensor, "K H W 3"], target: Float[Tensor, "K H W 3"], stride: int = 1
) -> Float[Tensor, "K h w 3"]:
    """Structural similarity of images in [0, 1] where the window fits, at every `stride`-th pixel (Wang et al. 2004).

    At stride 1, h = H - 10 and w = W - 10.
    """
    x, y = image.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2)
    moments = _blur(torch.cat([x, y, x * x + y * y, x * y], dim=1), stride)
    mean_x, mean_y, xx_yy, xy = moments.split(3, dim=1)
    c1, c2 = 0.01**2, 0.03**2
    means_squared, means_product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    luminance = (2 * means_product + c1) / (means_squared + c1)
    structure = (2 * (xy - means_product) + c2) / (xx_yy - means_squared + c2)
    return (luminance * structure).permute(0, 2, 3, 1)


def ssim(image: Float[Tensor, "K H W 3"], target: Float[Tensor, "K H W 3"], stride: int = 1) -> Float[Tensor, ""]:
    """Mean structural similarity; a stride above 1 samples its map, at a part of the cost and with the same mean."""
    return ssim_map(image, target, stride).mean()


def mask_box(mask: Bool[Tensor, "H W"], margin: int) -> tuple[slice, slice]:
    """Rows and columns of the box about a mask's pixels, `margin` pixels wider where the image allows.

    The box of an empty mask is the whole image. For SSIM in it the margin must be at least its window less a pixel.
    """
    sides = []
    for axis in (1, 0):
        hits = torch.nonzero(mask.any(dim=axis)).flatten()
        length = mask.shape[1 - axis]
        low, high = (int(hits[0]) - margin, int(hits[-1]) + 1 + margin) if len(hits) else (0, length)
        sides.append(slice(max(0, low), min(length, high)))
    return sides[0], sides[1]
