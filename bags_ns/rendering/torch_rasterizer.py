"""Composites projected Gaussians in torch alone: the readable twin of the numba kernels, and the fallback where numba is missing.

Works in float32 and float64. A view is cut into 8 x 8 px tiles (they divide gsplat's 16 px tiles, which are part of the rules); the
log of alpha is a quadratic in the pixel, so a tile's alphas are one matrix product. Tiles with lists of similar length are batched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.rendering.projection import Projection

TILE = 8
"""Side of the tiles here, in pixels."""
RULE_TILE = 16
"""Side of gsplat's tiles: a Gaussian touches only those within its radius."""
MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE = 0.999, 1.0 / 255.0, 1e-4
MAX_ODDS = 998.5
"""alpha / (1 - alpha) of a clamped alpha, less float32's rounding."""
BATCH_ELEMENTS = 262144
"""Pairs of Gaussian and pixel in one batch: few enough to stay in the processor's cache (65k and 1M are slower)."""


def rasterize_torch(
    projection: Projection,
    opacities: Float[Tensor, " N"],
    colors: Float[Tensor, "N 3"],
    backgrounds: Float[Tensor, "C 3"],
    width: int,
    height: int,
    with_depth: bool,
) -> tuple[Float[Tensor, "C H W 3"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 1"] | None]:
    """Composited colours on the backgrounds, alphas, and the sums of weighted depths (these without gradient) if asked for."""
    views = []
    for i in range(len(backgrounds)):
        extra = [torch.ones_like(opacities)[:, None]] + ([projection.depths[i, :, None].detach()] if with_depth else [])
        lists = _tile_lists(projection, i, opacities.detach(), width, height)
        channels = torch.cat([colors, *extra], dim=-1)
        views.append(_composite_view(projection.means2d[i], projection.conics[i], opacities, channels, lists))
    image = torch.stack(views)[:, :height, :width]
    rgb, alpha = image[..., :3], image[..., 3:4]
    rgb = rgb + (1.0 - alpha) * backgrounds[:, None, None]
    return rgb, alpha, image[..., 4:5].detach() if with_depth else None


@dataclass(frozen=True)
class _TileLists:
    """Which Gaussians each tile composites, near to far."""

    ids: Int[Tensor, " pairs"]
    """Gaussians, tile after tile."""
    tiles: Int[Tensor, " pairs"]
    """The tile of each pair."""
    counts: Int[Tensor, " tiles"]
    """How many pairs a tile has."""
    tiles_x: int
    tiles_y: int

    def batches(self) -> list[tuple[Int[Tensor, " batch"], Int[Tensor, "batch longest"]]]:
        """Tiles of similar length and, for each, the rows of its pairs; filled up with row `pairs`, one past the last."""
        starts = torch.cumsum(self.counts, 0) - self.counts
        by_length = torch.argsort(self.counts, descending=True)
        lengths = self.counts[by_length].tolist()
        batches, first = [], 0
        while first < len(lengths) and lengths[first] > 0:
            longest = lengths[first]
            most = first + max(1, BATCH_ELEMENTS // (longest * TILE * TILE))
            end = first + 1
            while end < min(most, len(lengths)) and lengths[end] > 0.75 * longest:
                end += 1
            tiles, steps = by_length[first:end], torch.arange(longest, device=starts.device)
            rows = torch.where(steps < self.counts[tiles, None], starts[tiles, None] + steps, len(self.ids))
            batches.append((tiles, rows))
            first = end
        return batches


def _pixel_rects(
    projection: Projection, view: int, opacities: Float[Tensor, " N"], width: int, height: int
) -> tuple[Int[Tensor, "N 2"], Int[Tensor, "N 2"]]:
    """The pixels (x, y) each Gaussian can touch, from the first to before the second; empty for those that are not drawn.

    gsplat's tiles within the radius, cut to where alpha reaches MIN_ALPHA: half widths are sqrt(2 ln(opacity / MIN_ALPHA) cov).
    """
    centers, radii = projection.means2d[view].detach(), projection.radii[view, :, None]
    xx, xy, yy = projection.conics[view].detach().unbind(-1)
    drawn = (radii[:, 0] > 0) & (opacities >= MIN_ALPHA)
    reach = 2.0 * torch.log(opacities.clamp(min=MIN_ALPHA) / MIN_ALPHA) / torch.where(drawn, xx * yy - xy * xy, 1.0)
    # A little more than needed, against rounding.
    halves = torch.sqrt((reach[:, None] * torch.stack([yy, xx], -1)).clamp(min=0.0)) + 0.01
    low = torch.maximum(torch.ceil(centers - halves - 0.5), RULE_TILE * torch.floor((centers - radii) / RULE_TILE))
    high = torch.minimum(torch.floor(centers + halves + 0.5), RULE_TILE * torch.ceil((centers + radii) / RULE_TILE))
    size = centers.new_tensor([width, height])
    low, high = torch.minimum(low.clamp(min=0.0), size), torch.minimum(high.clamp(min=0.0), size)
    drawn = (drawn & (low < high).all(-1))[:, None]
    return torch.where(drawn, low, 0.0).long(), torch.where(drawn, high, 0.0).long()


@torch.no_grad()
def _tile_lists(
    projection: Projection, view: int, opacities: Float[Tensor, " N"], width: int, height: int
) -> _TileLists:
    low, high = _pixel_rects(projection, view, opacities, width, height)
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    order = torch.argsort(projection.depths[view], stable=True)
    order = order[high[order, 0] > low[order, 0]]
    first, end = low[order] // TILE, (high[order] - 1) // TILE + 1
    columns, rows = (end - first).unbind(-1)
    # Gaussian k of the order owns `columns * rows` pairs: number them within their Gaussian, then sort by tile.
    owners = torch.repeat_interleave(columns * rows)
    before = torch.cumsum(columns * rows, 0) - columns * rows
    number = torch.arange(len(owners), device=owners.device) - before[owners]
    tile_y = first[owners, 1] + number // columns[owners]
    tile_x = first[owners, 0] + number % columns[owners]
    tiles, by_tile = torch.sort(tile_y * tiles_x + tile_x, stable=True)
    counts = torch.bincount(tiles, minlength=tiles_x * tiles_y)
    return _TileLists(order[owners[by_tile]], tiles, counts, tiles_x, tiles_y)


def _composite_view(
    means2d: Float[Tensor, "N 2"],
    conics: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    channels: Float[Tensor, "N D"],
    lists: _TileLists,
) -> Float[Tensor, "padded_H padded_W D"]:
    """One view, filled up to whole tiles."""
    corners = torch.stack([lists.tiles % lists.tiles_x, lists.tiles // lists.tiles_x], -1) * TILE
    dx, dy = (corners + 0.5 * TILE - means2d[lists.ids]).unbind(-1)
    xx, xy, yy = conics[lists.ids].unbind(-1)
    # ln alpha = ln opacity - (xx x^2 + 2 xy x y + yy y^2) / 2, expanded about the tile's centre.
    constant = torch.log(opacities[lists.ids]) - 0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy
    quadratics = torch.stack([constant, -(xx * dx + xy * dy), -(yy * dy + xy * dx), -0.5 * xx, -xy, -0.5 * yy], -1)
    num_tiles = lists.tiles_x * lists.tiles_y
    tiles = _CompositeTiles.apply(quadratics, channels[lists.ids], lists.batches(), num_tiles)
    tiles = tiles.view(lists.tiles_y, lists.tiles_x, TILE, TILE, -1)
    return tiles.transpose(1, 2).reshape(lists.tiles_y * TILE, lists.tiles_x * TILE, -1)


def _monomials(like: Tensor) -> Float[Tensor, "6 pixels"]:
    """1, x, y, x^2, x y, y^2 at a tile's pixels, from its centre."""
    steps = torch.arange(TILE, dtype=like.dtype, device=like.device) - 0.5 * (TILE - 1)
    y, x = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])


class _CompositeTiles(torch.autograd.Function):
    """Compositing of whole tiles; the adjoint is written out, as autograd's would hold nine copies of all pairs.

    With odds = alpha / (1 - alpha) and rest = the light left behind a Gaussian, its weight alpha T is odds * rest.
    """

    @staticmethod
    def forward(
        ctx: Any,
        quadratics: Float[Tensor, "pairs 6"],
        channels: Float[Tensor, "pairs D"],
        batches: list[tuple[Tensor, Tensor]],
        num_tiles: int,
    ) -> Float[Tensor, "tiles pixels D"]:
        monomials = _monomials(quadratics)
        # The row past the last, which fills lists up, is invisible.
        quadratics = torch.cat([quadratics, quadratics.new_tensor([[-100.0, 0.0, 0.0, 0.0, 0.0, 0.0]])])
        channels = torch.cat([channels, channels.new_zeros(1, channels.shape[1])])
        image = channels.new_zeros(num_tiles, TILE * TILE, channels.shape[1])
        ctx.lights = []
        for tiles, rows in batches:
            odds, rest = _light(quadratics[rows], monomials)
            image[tiles] = (odds * rest).transpose(1, 2) @ channels[rows]
            if any(ctx.needs_input_grad):
                ctx.lights.append((odds, rest))
        ctx.batches = batches
        ctx.save_for_backward(channels, image, monomials)
        return image

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        channels, image, monomials = ctx.saved_tensors
        grad_image = grads[0].contiguous()
        grad_channels = torch.zeros_like(channels)
        grad_quadratics = channels.new_zeros(len(channels), len(monomials))
        for (tiles, rows), (odds, rest) in zip(ctx.batches, ctx.lights, strict=True):
            grad = grad_image[tiles]
            weights = odds * rest
            grad_channels[rows] = weights @ grad
            grad_weights = channels[rows] @ grad.transpose(1, 2)
            # The loss's share of all that lies behind a Gaussian: the pixel's total less what came up to it.
            behind = (image[tiles] * grad).sum(-1)[:, None] - torch.cumsum(weights.mul_(grad_weights), 1)
            grad_log_alphas = grad_weights.mul_(rest).sub_(behind).mul_(odds)
            grad_log_alphas.mul_((rest > 0) & (odds < MAX_ODDS))
            grad_quadratics[rows] = grad_log_alphas @ monomials.T
        return grad_quadratics[:-1], grad_channels[:-1], None, None


def _light(
    quadratics: Float[Tensor, "batch longest 6"], monomials: Float[Tensor, "6 pixels"]
) -> tuple[Float[Tensor, "batch longest pixels"], Float[Tensor, "batch longest pixels"]]:
    """Odds of alpha and the light left behind each Gaussian; 0 from where a pixel's light would be used up."""
    alphas = torch.exp_(quadratics @ monomials).clamp_(max=MAX_ALPHA)
    alphas = torch.threshold_(alphas, MIN_ALPHA, 0.0)
    through = 1.0 - alphas
    rest = torch.threshold_(torch.cumprod(through, 1), MIN_TRANSMITTANCE, 0.0)
    return alphas.div_(through), rest
