"""Cost of a step of score distillation against its bare parts: network, VAE, renders. Random weights, nothing is downloaded.

python benchmarks/prior_cost.py            full published sizes; bfloat16 on CUDA, float32 on the CPU (minutes there)
python benchmarks/prior_cost.py --tiny     a dry run in seconds
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from timing import device_name, median_ms
from torch import nn

from bags_ns import method_configs
from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.files import write_json
from bags_ns.gaussians import Gaussians
from bags_ns.priors.base import DiffusionPrior
from bags_ns.priors.imagedream import ImageDreamConditioning, ImageDreamPrior, ImageDreamReference
from bags_ns.priors.latent_diffusion import LatentDiffusion
from bags_ns.priors.multiview_unet import MultiViewUNet
from bags_ns.priors.placement import choose_device, has_bfloat16
from bags_ns.priors.small import SmallPrior
from bags_ns.priors.small_config import ViewUNetConfig
from bags_ns.priors.small_weights import save_network
from bags_ns.priors.view_unet import ViewUNet
from bags_ns.priors.views import moved, random_views
from bags_ns.priors.zero123 import CAMERA_DIM, Zero123Conditioning, Zero123Prior, Zero123Reference
from bags_ns.trainer import BagsTrainer

PriorName = Literal["small", "zero123", "imagedream"]
BARS = {"small": 1.3, "zero123": 1.15, "imagedream": 1.15}
"""A step may cost this much of its bare parts."""

TINY_SMALL = {"image_size": 16, "widths": (16, 32, 32), "head_channels": 16, "embedding": 32}
VAE = {"latent_channels": 4, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 256}
VAE |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
TINY_VAE = {"latent_channels": 4, "block_out_channels": (32, 32)}
TINY_VAE |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
ZERO123 = {"in_channels": 8, "out_channels": 4, "cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 32}
TINY_ZERO123 = ZERO123 | {"cross_attention_dim": 24, "block_out_channels": (32, 64), "sample_size": 8}
TINY_ZERO123 |= {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "layers_per_block": 1}
TINY_ZERO123 |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
IMAGEDREAM = {"model_channels": 320, "channel_mult": (1, 2, 4, 4), "num_head_channels": 64, "image_size": 32}
IMAGEDREAM |= {"context_dim": 1024, "camera_dim": 16, "ip_dim": 16}
TINY_IMAGEDREAM = IMAGEDREAM | {"model_channels": 32, "channel_mult": (1, 2), "num_head_channels": 16, "image_size": 8}
TINY_IMAGEDREAM |= {"context_dim": 24, "ip_dim": 4, "attention_resolutions": (2, 1), "num_res_blocks": 1}
CLIP_TOKENS = {"text": 77, "image": 257}
CLIP_IMAGE_DIM = 1280


@dataclass
class PriorCost:
    """Times `BagsPipeline.prior_loss` and its backward pass against the same calls of networks and renderer alone."""

    priors: tuple[PriorName, ...] = ("small", "zero123", "imagedream")
    """Which of them."""
    tiny: bool = False
    """Tiny networks, to see that it runs."""
    num_views: int = 4
    """Views a step."""
    num_gaussians: int = 5000
    """About how many Gaussians."""
    repeats: int = 20
    """Steps and parts timed; the median counts."""
    threads: int = 1
    """CPU threads of torch."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, dict[str, float | int | str]]:
        """Milliseconds of a step and of its parts, their ratio, and memory, of each prior."""
        torch.set_num_threads(self.threads)
        with tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(Path(folder))
            return {name: self._measure(name, trainer, Path(folder)) for name in self.priors}

    def _trainer(self, folder: Path) -> BagsTrainer:
        size = 64 if self.tiny else 256
        write_creature_clip(folder / "clip", 7, ClipSettings(num_frames=4, size=size, num_test_times=1))
        config = copy.deepcopy(method_configs.bags_tiny.config)
        config.data = config.pipeline.datamanager.data = folder / "clip"
        config.output_dir, config.vis, config.max_num_iterations = folder, "tensorboard", 1000
        config.pipeline.model.num_random = self.num_gaussians  # type: ignore[attr-defined]
        config.pipeline.prior.num_views = self.num_views  # type: ignore[attr-defined]
        config.set_timestamp()
        trainer = BagsTrainer(config)  # type: ignore[arg-type]
        trainer.setup()
        trainer.pipeline.train()
        trainer.model.step_cb(trainer.optimizers, 500)
        trainer.pipeline.get_train_loss_dict(500)  # places the bones
        return trainer

    def _measure(self, name: PriorName, trainer: BagsTrainer, folder: Path) -> dict[str, float | int | str]:
        pipeline, model, on_cuda = trainer.pipeline, trainer.model, torch.cuda.is_available()
        prior = make_prior(name, self.tiny, folder)
        network: nn.Module = prior.network if isinstance(prior, SmallPrior) else prior.unet
        pipeline.prior = prior
        pipeline._references.clear()
        pipeline._conditionings.clear()
        frames = pipeline.datamanager.next_frames(1)

        def step(posed: bool = True) -> None:
            # As in training the frame is posed already; gradients go as far as its Gaussians.
            model.posed_frames = {frames.indices[0]: gaussians} if posed else {}
            pipeline.prior_loss(0.5).backward()
            model.infos.clear()

        gaussians = leaves(model.gaussians_at(frames.times[0]))
        call = remember_call(network, step)
        parts = {"network": bare_network(network, call), "renders": self._bare_renders(trainer, gaussians, prior)}
        if isinstance(prior, LatentDiffusion):
            parts["encoder"] = self._bare_encoder(prior)
        figures: dict[str, float | int | str] = {}
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
            step()
            figures["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
        cases = {"step": step, **parts, "step_with_posing": lambda: step(posed=False)}
        figures |= {f"{name}_ms": value for name, value in median_ms(cases, self.repeats).items()}
        figures["ratio"] = float(figures["step_ms"]) / sum(float(figures[f"{part}_ms"]) for part in parts)
        figures["bar"] = BARS[name]
        figures["weights_millions"] = sum(p.numel() for p in network.parameters()) / 1e6
        figures["dtype"] = str(prior.dtype).removeprefix("torch.")
        figures["device"] = device_name()
        return figures

    def _bare_renders(self, trainer: BagsTrainer, gaussians: Gaussians, prior: DiffusionPrior) -> Callable[[], None]:
        model = trainer.model
        views = random_views(self.num_views, prior.camera, model.device)
        views = moved(views, gaussians.centroid().detach())
        weight = torch.rand(self.num_views, prior.image_size, prior.image_size, 3, device=model.device)

        def run() -> None:
            output = model.render_views(gaussians, views, prior.camera.fov_deg, prior.image_size)
            (output.rgb * weight).sum().backward()
            model.infos.clear()

        return run

    def _bare_encoder(self, prior: LatentDiffusion) -> Callable[[], None]:
        shape = (self.num_views, 3, prior.image_size, prior.image_size)
        pictures = torch.rand(shape, device=prior.device, dtype=prior.dtype, requires_grad=True)
        return lambda: prior.vae.encode(pictures).latent_dist.mode().sum().backward()


def leaves(gaussians: Gaussians) -> Gaussians:
    """The same, cut off from the model."""
    tensors = (gaussians.means, gaussians.covars, gaussians.opacities, gaussians.colors)
    return Gaussians(*(tensor.detach().requires_grad_() for tensor in tensors))


def remember_call(network: nn.Module, step: Callable[[], None]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with which a step calls `network`."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = network.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    step()
    hook.remove()
    return seen[-1]


def bare_network(network: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[[], None]:
    """The very call of the step, both halves of the guidance."""

    @torch.no_grad()
    def run() -> None:
        network(*call[0], **call[1])

    return run


def make_prior(name: PriorName, tiny: bool, folder: Path) -> Any:
    """A prior of the published (or a tiny) size with random weights, whose conditioning is random too."""
    device = choose_device()
    if name == "small":
        config = ViewUNetConfig(**TINY_SMALL) if tiny else ViewUNetConfig()
        save_network(folder / "small.safetensors", ViewUNet(config), {})
        return SmallPrior(folder / "small.safetensors", device)
    dtype = torch.bfloat16 if device.type == "cuda" and has_bfloat16(device) else torch.float32
    return (make_zero123 if name == "zero123" else make_imagedream)(tiny, device, dtype)


def make_zero123(tiny: bool, device: torch.device, dtype: torch.dtype) -> Zero123Prior:
    """Zero123 without its image encoder, which a step does not call."""
    from diffusers import UNet2DConditionModel

    config = TINY_ZERO123 if tiny else ZERO123
    width, size = config["cross_attention_dim"], config["sample_size"]
    unet = made(lambda: UNet2DConditionModel(**config), device, dtype)
    projection = made(lambda: nn.Linear(width + CAMERA_DIM, width), device, dtype)
    prior = Zero123Prior(unet, None, projection, **shared_parts(tiny, size, device, dtype))
    random = {"device": device, "dtype": dtype}
    conditioning = Zero123Conditioning(torch.randn(1, width, **random), torch.randn(1, 4, size, size, **random))
    reference = Zero123Reference(conditioning, torch.tensor([0.0, 0.1, 1.8], device=device))
    prior.condition = lambda *_: reference
    return prior


def make_imagedream(tiny: bool, device: torch.device, dtype: torch.dtype) -> ImageDreamPrior:
    """ImageDream without its encoders of text and image, which a step does not call."""
    config = TINY_IMAGEDREAM if tiny else IMAGEDREAM
    size = config["image_size"]
    unet = made(lambda: MultiViewUNet(**config), device, dtype)
    prior = ImageDreamPrior(unet, None, None, None, **shared_parts(tiny, size, device, dtype))
    random = {"device": device, "dtype": dtype}
    conditioning = ImageDreamConditioning(
        text=torch.randn(1, CLIP_TOKENS["text"], config["context_dim"], **random),
        negative_text=torch.randn(1, CLIP_TOKENS["text"], config["context_dim"], **random),
        image_tokens=torch.randn(1, CLIP_TOKENS["image"], CLIP_IMAGE_DIM, **random),
        image_latents=torch.randn(1, 4, size, size, **random),
    )
    reference = ImageDreamReference(conditioning, torch.tensor(0.0, device=device))
    prior.condition = lambda *_: reference
    return prior


def shared_parts(tiny: bool, latent_size: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Autoencoder and noise schedule of Stable Diffusion."""
    from diffusers import AutoencoderKL

    config = TINY_VAE if tiny else VAE
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, device=device) ** 2
    return {
        "vae": made(lambda: AutoencoderKL(**config), device, dtype),
        "clip_pixels": None,
        "alphas_cumprod": torch.cumprod(1 - betas, dim=0),
        "image_size": latent_size * 2 ** (len(config["block_out_channels"]) - 1),
    }


def made(make: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> Any:
    """A network with random weights, made where it will sit."""
    with torch.device(device):
        return make().to(dtype).requires_grad_(False).eval()


def table(figures: dict[str, dict[str, float | int | str]]) -> Table:
    """One column a prior."""
    result = Table(title="A step of score distillation and its bare parts")
    rows = list(dict.fromkeys(key for column in figures.values() for key in column))
    for name in ("", *figures):
        result.add_column(name, justify="right")
    for row in rows:
        cells = (column.get(row, "-") for column in figures.values())
        result.add_row(row, *(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells))
    return result


if __name__ == "__main__":
    benchmark = tyro.cli(PriorCost)
    measured = benchmark.measure()
    Console().print(table(measured))
    if benchmark.output:
        write_json(benchmark.output, measured)
