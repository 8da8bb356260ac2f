"""The small prior's network: a U-Net over each view whose lower levels attend across references and targets.

Convolutions make shapes hang together; attention carries what the references show to where the cameras say that it
belongs. Cameras come as rays: coarsely to every block (what is roughly seen from there), finely to every attention.
References see references only, so that their keys and values can be kept for all timesteps and targets; targets see the
references and all targets of their sample. Without references the same network is the unconditional one.
Axes: `batch` samples, `views` pictures of a sample, `pictures` = batch x views, `tokens` = views x places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bags_ns.priors.diffusion import NUM_TIMESTEPS
from bags_ns.priors.small_config import ViewUNetConfig


@dataclass(frozen=True)
class ReferenceCache:
    """What targets need to know of the references: keys and values of every attention."""

    keys: tuple[Float[Tensor, "batch _ _ channels"], ...]
    """[batch heads tokens channels] each; heads and tokens are the level's."""
    values: tuple[Float[Tensor, "batch _ _ channels"], ...]
    """Of the same shapes."""

    def __len__(self) -> int:
        return len(self.keys[0])

    def first(self, count: int) -> ReferenceCache:
        """That of the first samples."""
        return ReferenceCache(tuple(k[:count] for k in self.keys), tuple(v[:count] for v in self.values))


class ViewUNet(nn.Module):
    """Predicts v of noisy target views, jointly, from clean reference views."""

    def __init__(self, config: ViewUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ViewUNetConfig()
        widths, lowest = config.widths, len(config.widths) - 1
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.conditions = Conditions(config)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            incoming = widths[max(0, level - 1)]
            count = config.lowest_blocks if level == lowest else config.attending_blocks if level == lowest - 1 else 1
            stage = [Block(incoming if i == 0 else width, width, level >= lowest - 1, config) for i in range(count)]
            self.down.append(nn.ModuleList(stage))
        self.up = nn.ModuleList(
            [
                Block(widths[level + 1] + widths[level], widths[level], level == lowest - 1, config)
                for level in range(lowest)
            ]
        )
        self.activation = Activation()
        self.head = nn.Conv2d(widths[0], 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    @property
    def num_parameters(self) -> int:
        """Numbers in its weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def compile_parts(self) -> None:
        """Fuses the small kernels (`torch.compile`): seconds, where the whole network takes minutes."""
        for module in self.modules():
            if isinstance(module, Activation):
                module.compile(dynamic=True)

    def encode_references(
        self, images: Float[Tensor, "batch views 3 size size"], rays: Float[Tensor, "batch views places 6"]
    ) -> ReferenceCache:
        """Keys and values of clean reference pictures in [-1, 1]; the first shows the animal at the targets' time."""
        timesteps = torch.zeros(len(images), dtype=torch.long, device=images.device)
        run = Run(self.conditions(timesteps, rays, role=0), self._ray_levels(rays), images.shape[1])
        self._forward(images, run, upwards_to=len(self.config.widths) - 2)
        return ReferenceCache(tuple(keys for keys, _ in run.kept), tuple(values for _, values in run.kept))

    def forward(
        self,
        noisy: Float[Tensor, "batch views 3 size size"],
        timesteps: Int[Tensor, " batch"],
        rays: Float[Tensor, "batch views places 6"],
        references: ReferenceCache | None = None,
    ) -> Float[Tensor, "batch views 3 size size"]:
        """v of the noisy targets. The first `len(references)` samples see their references, the rest are unconditional."""
        run = Run(self.conditions(timesteps, rays, role=1), self._ray_levels(rays), noisy.shape[1], references)
        features = self._forward(noisy, run, upwards_to=0)
        return self.head(self.activation(features)).view(noisy.shape).float()

    def _forward(
        self, images: Float[Tensor, "batch views 3 size size"], run: Run, upwards_to: int
    ) -> Float[Tensor, "pictures channels height width"]:
        """Down to the lowest level and up again to level `upwards_to`."""
        pictures = images.flatten(0, 1).to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        features, skips = self.stem(pictures), []
        for level, stage in enumerate(self.down):
            features = F.avg_pool2d(features, 2) if level > 0 else features
            for block in stage:  # type: ignore[union-attr]
                features = run.through(block, features)
            skips.append(features)
        for level in reversed(range(upwards_to, len(self.up))):
            raised = F.interpolate(features, scale_factor=2, mode="nearest")
            features = run.through(self.up[level], torch.cat([raised, skips[level]], dim=1))
        return features

    def _ray_levels(self, rays: Float[Tensor, "batch views places 6"]) -> dict[int, Tensor]:
        """Fourier features of the rays [batch tokens features] for attention on grids of either side."""
        grid = self.config.grid
        fine, coarse = rays.flatten(0, 1), pooled_rays(rays, grid // 2)
        return {
            side: fourier_features(level, self.config.ray_octaves).reshape(len(rays), -1, self._num_ray_features)
            for side, level in ((grid, fine), (grid // 2, coarse))
        }

    @property
    def _num_ray_features(self) -> int:
        return 6 * (1 + 2 * self.config.ray_octaves)


class Run:
    """What the blocks need on one way through the network, and what the attentions leave behind for targets to come."""

    def __init__(
        self,
        conditions: Float[Tensor, "pictures embedding"],
        rays: dict[int, Float[Tensor, "batch tokens features"]],
        views: int,
        references: ReferenceCache | None = None,
    ) -> None:
        self.conditions, self.rays, self.views, self.references = conditions, rays, views, references
        self.kept: list[tuple[Tensor, Tensor]] = []
        """Keys and values of the attentions so far."""

    def through(self, block: nn.Module, features: Float[Tensor, "pictures channels height width"]) -> Tensor:
        """Features, one block on."""
        if not block.attends:
            return block(features, self.conditions)[0]
        index = len(self.kept)
        context = None if self.references is None else (self.references.keys[index], self.references.values[index])
        features, own = block(features, self.conditions, self.rays[features.shape[-1]], self.views, context)
        self.kept.append(own)
        return features


class Block(nn.Module):
    """Two convolutions, the second scaled and shifted by the conditions, then attention where wanted; nothing is added at the start."""

    def __init__(self, incoming: int, width: int, attends: bool, config: ViewUNetConfig) -> None:
        super().__init__()
        self.attends = attends
        self.activation = Activation()
        self.first = nn.Conv2d(incoming, width, 3, padding=1)
        self.modulation = nn.Linear(config.embedding, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Conv2d(incoming, width, 1, bias=False) if incoming != width else nn.Identity()
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]
        self.attention = Attention(width, config) if attends else None

    def forward(
        self,
        features: Float[Tensor, "pictures incoming height width"],
        conditions: Float[Tensor, "pictures embedding"],
        rays: Float[Tensor, "batch tokens features"] | None = None,
        views: int = 1,
        context: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "pictures channels height width"], tuple[Tensor, Tensor] | None]:
        """Features, one block on, and the attention's own keys and values. `context`: those of the references."""
        hidden = self.first(self.activation(features))
        scale, shift = self.modulation(conditions)[..., None, None].to(hidden.dtype).chunk(2, dim=1)
        hidden = self.second(self.activation(hidden, scale, shift))
        # One type all the way: under autocast the sum would else move the features to float32.
        features = (self.skip(features) + hidden).to(hidden.dtype)
        if self.attention is None or rays is None:
            return features, None
        return self.attention(features, rays, views, context)


class Attention(nn.Module):
    """Every place of every view looks at all places of all views of its sample, and at those of the references."""

    def __init__(self, width: int, config: ViewUNetConfig) -> None:
        super().__init__()
        self.num_heads = width // config.head_channels
        self.rays = nn.Linear(6 * (1 + 2 * config.ray_octaves), width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_scale = nn.Parameter(torch.ones(config.head_channels))
        self.key_scale = nn.Parameter(torch.ones(config.head_channels))
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(
        self,
        features: Float[Tensor, "pictures channels height width"],
        rays: Float[Tensor, "batch tokens features"],
        views: int,
        context: tuple[Tensor, Tensor] | None,
    ) -> tuple[Float[Tensor, "pictures channels height width"], tuple[Tensor, Tensor]]:
        """Features with what was seen added, and the keys and values of their own."""
        places = pixel_norm(features).permute(0, 2, 3, 1).reshape(len(rays), rays.shape[1], -1)
        tokens = places + self.rays(rays.to(self.rays.weight.dtype)).to(places.dtype)
        joined = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = joined.permute(2, 0, 3, 1, 4).unbind(0)
        queries = F.layer_norm(queries, queries.shape[-1:], self.query_scale).to(values.dtype)
        keys = F.layer_norm(keys, keys.shape[-1:], self.key_scale).to(values.dtype)
        seen = self.out(attend(queries, keys, values, context).transpose(1, 2).flatten(2))
        height, width = features.shape[-2:]
        picture = seen.reshape(len(features), height, width, -1).permute(0, 3, 1, 2)
        return features + picture.to(features.dtype), (keys, values)


class Activation(nn.Module):
    """Norm, scale and shift where given, nonlinearity. A module, so that it can be compiled alone: one kernel where else are
    ten, and one compilation for all shapes, where whole blocks need a minute or more."""

    def forward(
        self,
        features: Float[Tensor, "pictures channels height width"],
        scale: Float[Tensor, "pictures channels 1 1"] | None = None,
        shift: Float[Tensor, "pictures channels 1 1"] | None = None,
    ) -> Float[Tensor, "pictures channels height width"]:
        """The same shape."""
        normed = pixel_norm(features)
        return F.silu(normed if scale is None or shift is None else normed * (1 + scale) + shift)


class Conditions(nn.Module):
    """Noise level, role and rough camera of every picture, as one vector for all blocks."""

    def __init__(self, config: ViewUNetConfig) -> None:
        super().__init__()
        self.width, self.octaves = config.embedding, config.ray_octaves
        self.roles = nn.Parameter(0.02 * torch.randn(2, self.width))
        self.time = nn.Linear(self.width, self.width)
        self.camera = nn.Linear(4 * 6 * (1 + 2 * self.octaves), self.width)
        self.mix = nn.Linear(self.width, self.width)

    def forward(
        self, timesteps: Int[Tensor, " batch"], rays: Float[Tensor, "batch views places 6"], role: int
    ) -> Float[Tensor, "pictures embedding"]:
        """One vector a picture; `role` is 0 for references, 1 for targets."""
        dtype = self.time.weight.dtype
        half = self.width // 2
        rates = torch.exp(-math.log(10 * NUM_TIMESTEPS) / half * torch.arange(half, device=timesteps.device))
        angles = timesteps[:, None].float() * rates
        time = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype))
        corners = fourier_features(pooled_rays(rays, 2), self.octaves).flatten(1).to(dtype)
        joined = time.repeat_interleave(rays.shape[1], dim=0) + self.camera(corners) + self.roles[role]
        return F.silu(self.mix(F.silu(joined)))


def pixel_norm(features: Float[Tensor, "pictures channels height width"]) -> Tensor:
    """Features of length sqrt(channels) at every place, as in arXiv 2312.02696: no statistics over places, one kernel."""
    power = features.float().square().mean(dim=1, keepdim=True)
    return features * (power + 1e-6).rsqrt().to(features.dtype)


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


def pooled_rays(rays: Float[Tensor, "batch views places 6"], side: int) -> Float[Tensor, "pictures fewer 6"]:
    """Means of the rays on a coarser grid of `side` x `side` places."""
    grid = math.isqrt(rays.shape[2])
    pictures = rays.flatten(0, 1).transpose(1, 2).unflatten(-1, (grid, grid))
    return F.avg_pool2d(pictures, grid // side).flatten(2).transpose(1, 2)


def fourier_features(rays: Float[Tensor, "*batch 6"], octaves: int) -> Float[Tensor, "*batch features"]:
    """Rays and their sines and cosines; the lowest frequency has a period of 4 (directions and moments lie in [-1, 1])."""
    frequencies = (math.pi / 2) * 2.0 ** torch.arange(octaves, device=rays.device)
    angles = (rays[..., None] * frequencies).flatten(-2)
    return torch.cat([rays, angles.sin(), angles.cos()], dim=-1)
