"""Layers of the multi-view diffusion UNet: residual blocks, attention across views, and the resampler of image tokens.

Axes: `BF` = samples x frames (the frames of one sample stand together), `C H W` = features, `L D` = tokens, `E` = width
of the time embedding. Attribute names are those of the published checkpoints; the UNet that joins the layers is in
`multiview_unet`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu, interpolate, scaled_dot_product_attention

NORM_GROUPS = 32
IMAGE_TOKEN_DIM = 1280
"""Width of the hidden states of CLIP ViT-H, which every published checkpoint is conditioned on."""


def timestep_features(timesteps: Num[Tensor, " BF"], dim: int) -> Float[Tensor, "BF {dim}"]:
    """cos and sin of the timesteps at geometrically spaced frequencies, in float32 (half precision cannot hold t = 999.5)."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(10000.0) / half))
    angles = timesteps.float()[:, None] * frequencies
    features = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return nn.functional.pad(features, (0, dim % 2))


def attend(
    q: Float[Tensor, "batch L inner"],
    k: Float[Tensor, "batch K inner"],
    v: Float[Tensor, "batch K inner"],
    num_heads: int,
) -> Float[Tensor, "batch L inner"]:
    """Softmax attention with the channels divided among `num_heads`."""
    q, k, v = (tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2) for tokens in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Upsample(nn.Module):
    """Doubles height and width by repetition, then convolves (unless `with_conv` is off)."""

    def __init__(self, channels: int, with_conv: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if with_conv else nn.Identity()

    def forward(self, x: Float[Tensor, "BF C H W"]) -> Float[Tensor, "BF C H2 W2"]:
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """Halves height and width by a strided convolution, or by averaging if `with_conv` is off."""

    def __init__(self, channels: int, with_conv: bool = True) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if with_conv else nn.AvgPool2d(2)

    def forward(self, x: Float[Tensor, "BF C H W"]) -> Float[Tensor, "BF C H2 W2"]:
        return self.op(x)


class ResBlock(nn.Module):
    """Two convolutions with a residual, told the timestep by the embedding between them.

    Args:
        scale_shift_norm: The embedding scales and shifts the second normalization instead of being added before it.
        resample: "up" or "down" also resizes features and residual by two, before the first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int,
        dropout: float = 0.0,
        scale_shift_norm: bool = False,
        resample: str | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift_norm = scale_shift_norm
        self.resample = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embedding_dim, 2 * out_channels if scale_shift_norm else out_channels)
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same_width = in_channels == out_channels
        self.skip_connection = nn.Identity() if same_width else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "BF C H W"], emb: Float[Tensor, "BF E"]) -> Float[Tensor, "BF C2 H2 W2"]:
        norm, activation, conv = self.in_layers
        h = conv(self._resize(activation(norm(x))))
        h = self._second_half(h, self.emb_layers(emb)[:, :, None, None])
        return self.skip_connection(self._resize(x)) + h

    def _second_half(
        self, h: Float[Tensor, "BF C H W"], emb: Float[Tensor, "BF C_or_2C 1 1"]
    ) -> Float[Tensor, "BF C H W"]:
        if not self.scale_shift_norm:
            return self.out_layers(h + emb)
        scale, shift = emb.chunk(2, dim=1)
        return self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)

    def _resize(self, x: Float[Tensor, "BF C H W"]) -> Float[Tensor, "BF C H2 W2"]:
        if self.resample == "up":
            return interpolate(x, scale_factor=2.0, mode="nearest")
        return avg_pool2d(x, 2) if self.resample == "down" else x


class GatedProjection(nn.Module):
    """GEGLU: a linear map, half of which gates the other half (arXiv 2002.05202)."""

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner_dim)

    def forward(self, x: Float[Tensor, "batch L D"]) -> Float[Tensor, "batch L inner"]:
        values, gates = self.proj(x).chunk(2, dim=-1)
        return values * gelu(gates)


class FeedForward(nn.Module):
    """Gated two-layer perceptron on every token, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The names in the checkpoints count a dropout, whose probability is always zero.
        self.net = nn.Sequential(GatedProjection(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Float[Tensor, "batch L D"]) -> Float[Tensor, "batch L D"]:
        return self.net(x)


class Attention(nn.Module):
    """Multi-head attention to `context` and, where `with_image` is set, to image tokens by keys and values of their own.

    The second attention is IP-Adapter's (arXiv 2308.06721): same queries, added with the weight `image_weight`.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        num_heads: int,
        head_dim: int,
        with_image: bool = False,
        image_weight: float = 1.0,
    ) -> None:
        super().__init__()
        inner_dim = num_heads * head_dim
        self.num_heads = num_heads
        self.image_weight = image_weight
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_k = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(context_dim, inner_dim, bias=False)
        if with_image:
            self.to_k_ip = nn.Linear(context_dim, inner_dim, bias=False)
            self.to_v_ip = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner_dim, dim))

    def forward(
        self,
        x: Float[Tensor, "batch L D"],
        context: Float[Tensor, "batch K context_dim"],
        image_tokens: Float[Tensor, "batch T context_dim"] | None = None,
    ) -> Float[Tensor, "batch L D"]:
        q = self.to_q(x)
        out = attend(q, self.to_k(context), self.to_v(context), self.num_heads)
        if image_tokens is not None:
            attended = attend(q, self.to_k_ip(image_tokens), self.to_v_ip(image_tokens), self.num_heads)
            out = out + self.image_weight * attended
        return self.to_out(out)


class TransformerBlock(nn.Module):
    """Self-attention over all frames of a sample (MVDream, arXiv 2308.16512), cross-attention, feed-forward."""

    def __init__(
        self,
        dim: int,
        context_dim: int,
        num_heads: int,
        head_dim: int,
        with_image: bool = False,
        image_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.attn1 = Attention(dim, dim, num_heads, head_dim)
        self.attn2 = Attention(dim, context_dim, num_heads, head_dim, with_image, image_weight)
        self.ff = FeedForward(dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self,
        x: Float[Tensor, "BF L D"],
        context: Float[Tensor, "BF K context_dim"],
        image_tokens: Float[Tensor, "BF T context_dim"] | None,
        num_frames: int,
    ) -> Float[Tensor, "BF L D"]:
        all_views = self.norm1(x).unflatten(0, (-1, num_frames)).flatten(1, 2)
        x = x + self.attn1(all_views, all_views).reshape(x.shape)
        x = x + self.attn2(self.norm2(x), context, image_tokens)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks on the pixels of a feature map, with a residual around all of them.

    Args:
        linear_projection: Projects tokens by linear layers; off, the same maps are stored as 1x1 convolutions.
    """

    def __init__(
        self,
        channels: int,
        context_dim: int,
        num_heads: int,
        head_dim: int,
        depth: int = 1,
        linear_projection: bool = True,
        with_image: bool = False,
        image_weight: float = 1.0,
    ) -> None:
        super().__init__()
        inner_dim = num_heads * head_dim
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.proj_in = _projection(channels, inner_dim, linear_projection)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(inner_dim, context_dim, num_heads, head_dim, with_image, image_weight)
            for _ in range(depth)
        )
        self.proj_out = _projection(inner_dim, channels, linear_projection)

    def forward(
        self,
        x: Float[Tensor, "BF C H W"],
        context: Float[Tensor, "BF K context_dim"],
        image_tokens: Float[Tensor, "BF T context_dim"] | None,
        num_frames: int,
    ) -> Float[Tensor, "BF C H W"]:
        tokens = _project(self.proj_in, self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, context, image_tokens, num_frames)
        return x + _project(self.proj_out, tokens).transpose(1, 2).reshape(x.shape)


def _projection(in_dim: int, out_dim: int, linear: bool) -> nn.Linear | nn.Conv2d:
    return nn.Linear(in_dim, out_dim) if linear else nn.Conv2d(in_dim, out_dim, 1)


def _project(layer: nn.Module, tokens: Float[Tensor, "batch L D"]) -> Float[Tensor, "batch L D2"]:
    """Applies a `_projection` to tokens; a 1x1 convolution is a linear map with two idle axes in its weight."""
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    return nn.functional.linear(tokens, layer.weight.flatten(1), layer.bias)


class PerceiverAttention(nn.Module):
    """Attention of learned queries to image tokens and to themselves (Flamingo, arXiv 2204.14198)."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        inner_dim = num_heads * head_dim
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner_dim, bias=False)
        self.to_out = nn.Linear(inner_dim, dim, bias=False)

    def forward(
        self, tokens: Float[Tensor, "batch L D"], queries: Float[Tensor, "batch Q D"]
    ) -> Float[Tensor, "batch Q D"]:
        tokens, queries = self.norm1(tokens), self.norm2(queries)
        k, v = self.to_kv(torch.cat([tokens, queries], dim=1)).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(queries), k, v, self.num_heads))


class Resampler(nn.Module):
    """Condenses any number of CLIP image tokens into `num_queries` context tokens (IP-Adapter, arXiv 2308.06721)."""

    def __init__(
        self,
        dim: int,
        num_queries: int,
        token_dim: int = IMAGE_TOKEN_DIM,
        depth: int = 4,
        num_heads: int = 12,
        head_dim: int = 64,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(token_dim, dim)
        self.proj_out = nn.Linear(dim, dim)
        self.norm_out = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, num_heads, head_dim), _perceiver_feed_forward(dim)])
            for _ in range(depth)
        )

    def forward(self, tokens: Float[Tensor, "batch L token_dim"]) -> Float[Tensor, "batch Q D"]:
        queries = self.latents.expand(len(tokens), -1, -1)
        tokens = self.proj_in(tokens)
        for attention, feed_forward in self.layers:  # pyright: ignore[reportGeneralTypeIssues]  (ModuleList of pairs)
            queries = queries + attention(tokens, queries)
            queries = queries + feed_forward(queries)
        return self.norm_out(self.proj_out(queries))


def _perceiver_feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
    )
