"""The small prior's network: a transformer over patches of reference and target views, conditioned on cameras by rays.

Reference tokens see references only, so that their keys and values can be kept for all timesteps and targets; target
tokens see the references and all targets of their sample. Without references the same network is the unconditional one.
Axes: `batch` samples, `views` pictures of a sample, `patches` of a picture, `tokens` = views x patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bags_ns.priors.diffusion import NUM_TIMESTEPS


@dataclass(frozen=True)
class ViewTransformerConfig:
    """Size of the network. The defaults make 8.2 million parameters: 16 MiB of half-precision weights."""

    image_size: int = 64
    """Side of the square pictures, in pixels."""
    patch_size: int = 4
    """Side of a patch, in pixels; patches are read and written with a margin of half their size."""
    width: int = 256
    """Numbers a token."""
    num_layers: int = 10
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads."""
    hidden: int = 640
    """Width inside the feed-forward part of a block."""
    ray_octaves: int = 6
    """Frequencies at which each number of a ray is shown."""

    @property
    def grid(self) -> int:
        """Patches along each side of a picture."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class ReferenceCache:
    """What targets need to know of the references: keys and values of every layer."""

    keys: tuple[Float[Tensor, "batch heads tokens channels"], ...]
    values: tuple[Float[Tensor, "batch heads tokens channels"], ...]

    def __len__(self) -> int:
        return len(self.keys[0])

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer."""
        return self.keys[index], self.values[index]


class ViewTransformer(nn.Module):
    """Predicts v of noisy target views, jointly, from clean reference views."""

    def __init__(self, config: ViewTransformerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ViewTransformerConfig()
        window = 3 * (2 * config.patch_size) ** 2
        self.patches = nn.Linear(window, config.width)
        self.rays = nn.Linear(6 * (1 + 2 * config.ray_octaves), config.width)
        self.roles = nn.Parameter(0.02 * torch.randn(2, config.width))
        self.time = TimeModulation(config)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.head = nn.Linear(config.width, window)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.positions: Tensor
        self.register_buffer("positions", grid_positions(config.grid, config.width), persistent=False)

    @property
    def num_parameters(self) -> int:
        """Numbers in its weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def encode_references(
        self, images: Float[Tensor, "batch views 3 size size"], rays: Float[Tensor, "batch views patches 6"]
    ) -> ReferenceCache:
        """Keys and values of clean reference pictures in [-1, 1]; the first shows the animal at the targets' time."""
        tokens = self._embed(images, rays, role=0)
        modulation = self.time(torch.zeros(1, dtype=torch.long, device=images.device)).blocks
        kept: list[tuple[Tensor, Tensor]] = []
        for block in self.blocks[:-1]:
            tokens, context = block(tokens, modulation, None, True)
            kept.append(context)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        kept.append(last.project(tokens, modulation)[1:])
        return ReferenceCache(tuple(keys for keys, _ in kept), tuple(values for _, values in kept))

    def forward(
        self,
        noisy: Float[Tensor, "batch views 3 size size"],
        timesteps: Int[Tensor, " batch"],
        rays: Float[Tensor, "batch views patches 6"],
        references: ReferenceCache | None = None,
    ) -> Float[Tensor, "batch views 3 size size"]:
        """v of the noisy targets. The first `len(references)` samples see their references, the rest are unconditional."""
        tokens = self._embed(noisy, rays, role=1)
        modulation = self.time(timesteps)
        for index, block in enumerate(self.blocks):
            context = None if references is None else references.layer(index)
            tokens, _ = block(tokens, modulation.blocks, context, False)
        normed = modulate(tokens, modulation.head_shift, modulation.head_scale)
        windows = self.head(normed.to(self.head.weight.dtype)).float()
        pictures = self._windows_to_pictures(windows, noisy.shape)
        return pictures + modulation.skip[..., None, None].float() * noisy.float()

    def _embed(
        self, images: Float[Tensor, "batch views 3 size size"], rays: Float[Tensor, "batch views patches 6"], role: int
    ) -> Float[Tensor, "batch tokens width"]:
        """Tokens of pictures: their pixels, rays, places and role (0 reference, 1 target)."""
        dtype = self.patches.weight.dtype
        tokens = self.patches(self._pictures_to_windows(images).to(dtype))
        features = fourier_features(rays.flatten(1, 2), self.config.ray_octaves).to(dtype)
        places = (self.positions + self.roles[role]).repeat(images.shape[1], 1)
        # One type all the way: under autocast the sum would else move the residual stream to float32.
        return (tokens + self.rays(features) + places).to(tokens.dtype)

    def _pictures_to_windows(
        self, images: Float[Tensor, "batch views 3 size size"]
    ) -> Float[Tensor, "batch tokens window"]:
        """Each patch's pixels with its margin, channels first."""
        patch = self.config.patch_size
        padded = F.pad(images.flatten(0, 1), [patch // 2] * 4)
        windows = padded.unfold(2, 2 * patch, patch).unfold(3, 2 * patch, patch)
        return windows.permute(0, 2, 3, 1, 4, 5).reshape(len(images), -1, 3 * (2 * patch) ** 2)

    def _windows_to_pictures(
        self, windows: Float[Tensor, "batch tokens window"], shape: torch.Size
    ) -> Float[Tensor, "batch views 3 size size"]:
        """Sum of what the patches say of each pixel."""
        patch = self.config.patch_size
        columns = windows.unflatten(1, (shape[1], -1)).flatten(0, 1).transpose(1, 2)
        return F.fold(columns, shape[-2:], 2 * patch, padding=patch // 2, stride=patch).view(shape)


class Block(nn.Module):
    """Attention and feed-forward, both scaled by the time; the identity at the start (zero gates)."""

    def __init__(self, config: ViewTransformerConfig) -> None:
        super().__init__()
        width, self.num_heads = config.width, config.num_heads
        channels = width // self.num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_scale = nn.Parameter(torch.ones(channels))
        self.key_scale = nn.Parameter(torch.ones(channels))
        self.out = nn.Linear(width, width, bias=False)
        self.gate_and_value = nn.Linear(width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, width, bias=False)
        # Added to the modulation that all blocks share (PixArt-alpha, arXiv 2310.00426, section 2.3).
        self.offsets = nn.Parameter(torch.zeros(6, width))
        with torch.no_grad():
            self.offsets[[0, 1, 3, 4]] = 0.02 * torch.randn(4, width)

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        modulation: Float[Tensor, "#batch 6 width"],
        context: tuple[Tensor, Tensor] | None = None,
        keep_context: bool = False,
    ) -> tuple[Float[Tensor, "batch tokens width"], tuple[Tensor, Tensor] | None]:
        """Tokens, one block on, and on request their own keys and values. `context`: those of the references."""
        _, _, gate, shift, scale, feed_gate = self._parts(modulation)
        queries, keys, values = self.project(tokens, modulation)
        seen = attend(queries, keys, values, context).transpose(1, 2).flatten(2)
        tokens = tokens + (gate * self.out(seen)).to(tokens.dtype)
        opened, value = self.gate_and_value(modulate(tokens, shift, scale)).chunk(2, dim=-1)
        tokens = tokens + (feed_gate * self.down(F.silu(opened) * value)).to(tokens.dtype)
        return tokens, (keys, values) if keep_context else None

    def project(
        self, tokens: Float[Tensor, "batch tokens width"], modulation: Float[Tensor, "#batch 6 width"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [batch heads tokens channels] of the tokens; normed, so that attention stays calm."""
        shift, scale = self._parts(modulation)[:2]
        joined = self.qkv(modulate(tokens, shift, scale)).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = joined.permute(2, 0, 3, 1, 4).unbind(0)
        queries = F.layer_norm(queries, queries.shape[-1:], self.query_scale).to(values.dtype)
        keys = F.layer_norm(keys, keys.shape[-1:], self.key_scale).to(values.dtype)
        return queries, keys, values

    def _parts(self, modulation: Float[Tensor, "#batch 6 width"]) -> tuple[Tensor, ...]:
        """Shift, scale and gate of attention, then of feed-forward."""
        return (modulation + self.offsets)[:, :, None].unbind(1)


@dataclass(frozen=True)
class Modulation:
    """What the noise level says to the network."""

    blocks: Float[Tensor, "batch 6 width"]
    head_shift: Float[Tensor, "batch 1 width"]
    head_scale: Float[Tensor, "batch 1 width"]
    skip: Float[Tensor, "batch 1 1"]
    """How much of the noisy picture goes straight into v."""


class TimeModulation(nn.Module):
    """One small network of the timestep for all blocks."""

    def __init__(self, config: ViewTransformerConfig) -> None:
        super().__init__()
        self.width = config.width
        self.embed = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width), nn.SiLU()
        )
        self.spread = nn.Linear(config.width, 8 * config.width + 1)
        nn.init.zeros_(self.spread.weight)
        nn.init.zeros_(self.spread.bias)

    def forward(self, timesteps: Int[Tensor, " batch"]) -> Modulation:
        """Modulation at each timestep."""
        half = self.width // 2
        rates = torch.exp(-math.log(10 * NUM_TIMESTEPS) / half * torch.arange(half, device=timesteps.device))
        angles = timesteps[:, None].float() * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.spread.weight.dtype)
        spread = self.spread(self.embed(waves))
        parts = spread[:, :-1].unflatten(-1, (8, self.width))
        return Modulation(parts[:, :6], parts[:, 6:7], parts[:, 7:8], spread[:, -1:, None])


def modulate(
    tokens: Float[Tensor, "batch tokens width"],
    shift: Float[Tensor, "#batch 1 width"],
    scale: Float[Tensor, "#batch 1 width"],
) -> Float[Tensor, "batch tokens width"]:
    """Normed tokens, scaled and shifted."""
    return F.layer_norm(tokens, tokens.shape[-1:]) * (1 + scale) + shift


def attend(
    queries: Float[Tensor, "batch heads tokens channels"],
    keys: Float[Tensor, "batch heads tokens channels"],
    values: Float[Tensor, "batch heads tokens channels"],
    context: tuple[Tensor, Tensor] | None,
) -> Float[Tensor, "batch heads tokens channels"]:
    """Attention to the tokens themselves and, in the first samples, to their context. No masks, so flash kernels serve."""
    if context is None:
        return F.scaled_dot_product_attention(queries, keys, values)
    count = len(context[0])
    seen_keys = torch.cat([context[0], keys[:count]], dim=2)
    seen_values = torch.cat([context[1], values[:count]], dim=2)
    seen = F.scaled_dot_product_attention(queries[:count], seen_keys, seen_values)
    if count == len(queries):
        return seen
    alone = F.scaled_dot_product_attention(queries[count:], keys[count:], values[count:])
    return torch.cat([seen, alone])


def fourier_features(rays: Float[Tensor, "*batch 6"], octaves: int) -> Float[Tensor, "*batch features"]:
    """Rays and their sines and cosines; the lowest frequency has a period of 4 (directions and moments lie in [-1, 1])."""
    frequencies = (math.pi / 2) * 2.0 ** torch.arange(octaves, device=rays.device)
    angles = (rays[..., None] * frequencies).flatten(-2)
    return torch.cat([rays, angles.sin(), angles.cos()], dim=-1)


def grid_positions(grid: int, width: int) -> Float[Tensor, "patches width"]:
    """Sines and cosines of the places of patches, row by row."""
    quarter = width // 4
    rates = torch.exp(-math.log(100.0) / quarter * torch.arange(quarter))
    angles = torch.arange(grid)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], dim=-1)
    rows, columns = line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)
