"""The multi-view diffusion UNet of MVDream (arXiv 2308.16512) and ImageDream (arXiv 2312.02201), written from the papers.

Several views of one object are denoised together: a Stable Diffusion UNet whose self-attention spans all views of a
sample, told each view's camera through the time embedding. ImageDream adds a picture of the object twice: as CLIP tokens
(IP-Adapter, arXiv 2308.06721) and as one more, noise-free frame. State-dict names and shapes are those of the published
diffusers-format checkpoints. Loading files is `loading`'s task, conditioning and guidance are `imagedream`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from bags_ns.priors.multiview_layers import (
    NORM_GROUPS,
    Downsample,
    Resampler,
    ResBlock,
    SpatialTransformer,
    Upsample,
    timestep_features,
)

_ONLY_VALUE = {
    "dims": 2,
    "num_classes": None,
    "adm_in_channels": None,
    "n_embed": None,
    "use_spatial_transformer": True,
    "disable_self_attentions": None,
    "disable_middle_self_attn": False,
}
"""Keys of the architecture family with the one value that this network is written for."""

_WITHOUT_EFFECT = ("use_checkpoint", "use_fp16", "use_bf16", "use_new_attention_order", "legacy")
"""Keys that say how the original was trained or run, never what it computes."""


@dataclass(frozen=True)
class MultiViewUNetConfig:
    """The keys of a published `unet/config.json`."""

    image_size: int = 32
    """Height and width of the latents in training; the network takes others too."""
    in_channels: int = 4
    """Channels of the noisy latents."""
    out_channels: int = 4
    """Channels of the predicted noise."""
    model_channels: int = 320
    """Channels of the first level; a multiple of 32, as is every level's width."""
    num_res_blocks: int | Sequence[int] = 2
    """Residual blocks in each level of the encoder (the decoder has one more)."""
    attention_resolutions: Sequence[int] = (4, 2, 1)
    """Downsampling factors whose levels attend."""
    channel_mult: Sequence[int] = (1, 2, 4, 4)
    """Width of each level, in multiples of `model_channels`."""
    num_heads: int = -1
    """Heads of every attention; used where `num_head_channels` is -1."""
    num_head_channels: int = -1
    """Channels of a head, which then sets the number of heads; -1 leaves it to `num_heads`."""
    num_heads_upsample: int = -1
    """Heads in the decoder, -1 for as many as in the encoder."""
    num_attention_blocks: Sequence[int] | None = None
    """How many of a level's residual blocks are followed by attention (all)."""
    transformer_depth: int | Sequence[int] = 1
    """Transformer blocks in each attention stage, for each level."""
    transformer_depth_middle: int | None = None
    """Transformer blocks at the bottom; as in the last level unless told."""
    context_dim: int = 1024
    """Width of the text tokens."""
    use_linear_in_transformer: bool = True
    """Linear projections around the transformer blocks; off, the weights are stored as 1x1 convolutions."""
    camera_dim: int | None = None
    """Numbers that describe a camera (16: a flattened 4x4 matrix); without it the network takes no camera."""
    with_ip: bool | None = None
    """Whether the network takes an image; by default, whether `ip_dim` is positive."""
    ip_dim: int = 0
    """Tokens that the image is condensed to."""
    ip_weight: float = 1.0
    """Weight of the attention to the image."""
    ip_mode: str = "local_resample"
    """How the image becomes tokens; only the resampler of local CLIP tokens is published."""
    conv_resample: bool = True
    """Resize by convolutions, not by averaging and repetition."""
    resblock_updown: bool = False
    """Resize inside residual blocks."""
    use_scale_shift_norm: bool = False
    """The time embedding scales and shifts normalizations, instead of being added."""
    dropout: float = 0.0
    """Dropout probability in residual blocks, in training mode."""

    @staticmethod
    def from_dict(config: Mapping[str, Any]) -> MultiViewUNetConfig:
        """Reads the keys of a config file; those it does not know, or that ask for another network, are a ValueError."""
        known = {field.name for field in fields(MultiViewUNetConfig)}
        if unknown := sorted(set(config) - known - set(_ONLY_VALUE) - set(_WITHOUT_EFFECT)):
            raise ValueError(
                f"unknown multi-view UNet config: {', '.join(unknown)}; known keys are {', '.join(sorted(known))}"
            )
        for key, only in _ONLY_VALUE.items():
            if config.get(key, only) != only:
                raise ValueError(f"multi-view UNet config {key}={config[key]!r} is not supported, only {only!r}")
        return MultiViewUNetConfig(**{key: value for key, value in config.items() if key in known})

    def __post_init__(self) -> None:
        levels = len(self.channel_mult)
        for key in ("num_res_blocks", "transformer_depth", "num_attention_blocks"):
            value = getattr(self, key)
            if isinstance(value, Sequence) and len(value) != levels:
                raise ValueError(f"{key} has {len(value)} entries, but channel_mult has {levels} levels")
        if self.num_heads == -1 and self.num_head_channels == -1:
            raise ValueError("either num_heads or num_head_channels must be given, both are -1")
        if self.with_ip and self.ip_dim <= 0:
            raise ValueError(f"with_ip needs a positive ip_dim, got {self.ip_dim}")
        if self.takes_image and self.ip_mode != "local_resample":
            raise ValueError(f"ip_mode={self.ip_mode!r} is not supported, only 'local_resample'")

    @property
    def takes_image(self) -> bool:
        """Whether there is a second cross-attention, to image tokens."""
        return self.ip_dim > 0 if self.with_ip is None else self.with_ip

    def res_blocks(self, level: int) -> int:
        """Residual blocks of the encoder at `level`."""
        return self.num_res_blocks if isinstance(self.num_res_blocks, int) else self.num_res_blocks[level]

    def depth(self, level: int) -> int:
        """Transformer blocks of an attention stage at `level`."""
        return self.transformer_depth if isinstance(self.transformer_depth, int) else self.transformer_depth[level]

    def attends(self, level: int, block: int) -> bool:
        """Whether residual block number `block` of `level` is followed by attention."""
        allowed = self.num_attention_blocks is None or block < self.num_attention_blocks[level]
        return allowed and 2**level in self.attention_resolutions

    def heads(self, channels: int, decoder: bool = False) -> tuple[int, int]:
        """(number of heads, channels of a head) for an attention over `channels`."""
        count = self.num_heads_upsample if decoder and self.num_heads_upsample != -1 else self.num_heads
        unit = count if self.num_head_channels == -1 else self.num_head_channels
        if channels % unit:
            raise ValueError(
                f"{channels} channels do not divide into heads: {self.num_heads=}, {self.num_head_channels=}"
            )
        return (unit, channels // unit) if self.num_head_channels == -1 else (channels // unit, unit)


@dataclass(frozen=True)
class _Conditions:
    """What every block may look at beside its features."""

    embedding: Float[Tensor, "BF E"]
    context: Float[Tensor, "BF L D"]
    image_tokens: Float[Tensor, "BF T D"] | None
    num_frames: int


class MultiViewUNet(nn.Module):
    """Predicts the noise in the latents of several views at once.

    Args:
        config: The keys of `MultiViewUNetConfig`, as a published `unet/config.json` has them.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = MultiViewUNetConfig.from_dict(config)
        c, width = self.config, self.config.model_channels
        self.embedding_dim = 4 * width
        if c.takes_image:
            self.image_embed = Resampler(dim=c.context_dim, num_queries=c.ip_dim)
        self.time_embed = _embedding_mlp(width, self.embedding_dim)
        if c.camera_dim is not None:
            self.camera_embed = _embedding_mlp(c.camera_dim, self.embedding_dim)
        self.input_blocks, skip_channels = self._make_encoder()
        bottom = skip_channels[-1]
        depth = c.depth(len(c.channel_mult) - 1) if c.transformer_depth_middle is None else c.transformer_depth_middle
        self.middle_block = nn.Sequential(
            self._res_block(bottom, bottom), self._transformer(bottom, depth), self._res_block(bottom, bottom)
        )
        self.output_blocks = self._make_decoder(skip_channels)
        out_width = width * c.channel_mult[0]
        self.out = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, out_width), nn.SiLU(), nn.Conv2d(out_width, c.out_channels, 3, padding=1)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which everything but the timestep features is computed."""
        return next(self.parameters()).dtype

    def forward(
        self,
        x: Float[Tensor, "BF C H W"],
        timesteps: Num[Tensor, " BF"],
        context: Float[Tensor, "BF L D"],
        camera: Float[Tensor, "BF P"] | None,
        num_frames: int,
        ip: Float[Tensor, "BF T I"] | None = None,
        ip_img: Float[Tensor, "B C H W"] | None = None,
    ) -> Float[Tensor, "BF C_out H W"]:
        """The predicted noise of all B x F frames, in the type of `x`.

        Args:
            x: Noisy latents; the `num_frames` frames of a sample stand together.
            timesteps: Noise level of each frame, 0 to 1000.
            context: Text tokens of each frame.
            camera: Flattened 4x4 camera-to-world matrix of each frame (zeros for an image frame), or None: MVDream was
                also trained on plain pictures without one.
            num_frames: Frames in a sample, F; H and W must be multiples of 2 ** (levels - 1).
            ip: CLIP image tokens [257 1280] of each frame, or None to attend to the text alone.
            ip_img: Clean latents of one image per sample; they take the place of its last frame.
        """
        self._check(x, camera, num_frames, ip, ip_img)
        dtype = self.dtype
        if ip_img is not None:
            frames = x.unflatten(0, (-1, num_frames))
            x = torch.cat([frames[:, :-1], ip_img[:, None].to(x.dtype)], dim=1).flatten(0, 1)
        embedding = self.time_embed(timestep_features(timesteps, self.config.model_channels).to(dtype))
        if camera is not None:
            embedding = embedding + self.camera_embed(camera.to(dtype))
        image_tokens = None if ip is None else self.image_embed(ip.to(dtype))
        conditions = _Conditions(embedding, context.to(dtype), image_tokens, num_frames)
        return self._denoise(x.to(dtype), conditions).to(x.dtype)

    def _denoise(self, h: Float[Tensor, "BF C H W"], conditions: _Conditions) -> Float[Tensor, "BF C_out H W"]:
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = _apply(block, h, conditions)
            skips.append(h)
        h = _apply(self.middle_block, h, conditions)
        for block in self.output_blocks:
            h = _apply(block, torch.cat([h, skips.pop()], dim=1), conditions)
        return self.out(h)

    def _check(
        self, x: Tensor, camera: Tensor | None, num_frames: int, ip: Tensor | None, ip_img: Tensor | None
    ) -> None:
        """Raises a one-line error for inputs that would fail deep inside, or be silently wrong."""
        factor = 2 ** (len(self.config.channel_mult) - 1)
        if x.shape[0] % num_frames:
            raise ValueError(f"{x.shape[0]} latents do not divide into samples of {num_frames} frames")
        if ip_img is not None and len(ip_img) * num_frames != len(x):
            raise ValueError(
                f"ip_img must have one image for each of {len(x) // num_frames} samples, got {len(ip_img)}"
            )
        if x.shape[2] % factor or x.shape[3] % factor:
            raise ValueError(f"height and width of the latents must be multiples of {factor}, got {tuple(x.shape[2:])}")
        if camera is not None and self.config.camera_dim is None:
            raise ValueError("this network has no camera branch (camera_dim is not set), so it takes no camera")
        if ip is not None and not self.config.takes_image:
            raise ValueError("this network has no image branch (ip_dim = 0), so it takes no ip")

    def _make_encoder(self) -> tuple[nn.ModuleList, list[int]]:
        """The input blocks, and the channels that each of them gives."""
        c = self.config
        channels = [c.model_channels]
        blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(c.in_channels, c.model_channels, 3, padding=1))])
        for level, mult in enumerate(c.channel_mult):
            width = mult * c.model_channels
            for i in range(c.res_blocks(level)):
                layers: list[nn.Module] = [self._res_block(channels[-1], width)]
                if c.attends(level, i):
                    layers.append(self._transformer(width, c.depth(level)))
                blocks.append(nn.Sequential(*layers))
                channels.append(width)
            if level < len(c.channel_mult) - 1:
                blocks.append(nn.Sequential(self._resize("down", width)))
                channels.append(width)
        return blocks, channels

    def _make_decoder(self, skip_channels: list[int]) -> nn.ModuleList:
        """The output blocks, each of which also takes the features of its mirror image in the encoder."""
        c = self.config
        blocks = nn.ModuleList()
        skips, current = list(skip_channels), skip_channels[-1]
        for level in reversed(range(len(c.channel_mult))):
            width = c.channel_mult[level] * c.model_channels
            for i in range(c.res_blocks(level) + 1):
                layers: list[nn.Module] = [self._res_block(current + skips.pop(), width)]
                if c.attends(level, i):
                    layers.append(self._transformer(width, c.depth(level), decoder=True))
                if level > 0 and i == c.res_blocks(level):
                    layers.append(self._resize("up", width))
                blocks.append(nn.Sequential(*layers))
                current = width
        return blocks

    def _res_block(self, in_channels: int, out_channels: int, resample: str | None = None) -> ResBlock:
        c = self.config
        return ResBlock(in_channels, out_channels, self.embedding_dim, c.dropout, c.use_scale_shift_norm, resample)

    def _resize(self, direction: str, channels: int) -> nn.Module:
        if self.config.resblock_updown:
            return self._res_block(channels, channels, direction)
        return (Upsample if direction == "up" else Downsample)(channels, self.config.conv_resample)

    def _transformer(self, channels: int, depth: int, decoder: bool = False) -> SpatialTransformer:
        c = self.config
        num_heads, head_dim = c.heads(channels, decoder)
        return SpatialTransformer(
            channels,
            c.context_dim,
            num_heads,
            head_dim,
            depth,
            linear_projection=c.use_linear_in_transformer,
            with_image=c.takes_image,
            image_weight=c.ip_weight,
        )


def _embedding_mlp(in_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, out_dim), nn.SiLU(), nn.Linear(out_dim, out_dim))


def _apply(block: nn.Module, h: Float[Tensor, "BF C H W"], conditions: _Conditions) -> Float[Tensor, "BF C2 H2 W2"]:
    """Runs a block's layers in turn, giving each what it takes."""
    for layer in block.children():
        if isinstance(layer, ResBlock):
            h = layer(h, conditions.embedding)
        elif isinstance(layer, SpatialTransformer):
            h = layer(h, conditions.context, conditions.image_tokens, conditions.num_frames)
        else:
            h = layer(h)
    return h
