"""How the small prior is made: its network's size, the cameras that it is to know, and its training.

Nothing heavy is imported here, so that `bags --help` can show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ViewUNetConfig:
    """Size of the network. The defaults make 8.2 million parameters: 16 MiB of half-precision weights."""

    image_size: int = 64
    """Side of the square pictures, in pixels."""
    widths: tuple[int, ...] = (48, 96, 192, 240)
    """Channels at each level; every level has half the resolution of the one before."""
    attending_blocks: int = 2
    """Blocks on the way down at each level that attends: the last two. The way up, and the levels above, have one."""
    lowest_blocks: int = 3
    """Blocks at the lowest level."""
    head_channels: int = 48
    """Channels of an attention head."""
    embedding: int = 256
    """Numbers that tell every block of noise level, role and camera."""
    ray_octaves: int = 6
    """Frequencies at which each number of a ray is shown."""

    @property
    def grid(self) -> int:
        """Places along each side at which rays are wanted: those of the finer attending level."""
        return self.image_size >> (len(self.widths) - 2)


@dataclass(frozen=True)
class ViewRanges:
    """What cameras the prior is to know. Angles in degrees."""

    fov_deg: tuple[float, float] = (25.0, 60.0)
    """Field of view, drawn for references and targets apart; half of them have `usual_fov_deg`."""
    usual_fov_deg: float = 40.0
    """The field of view that users of the prior should prefer."""
    elevation_deg: tuple[float, float] = (-10.0, 40.0)
    """Elevation above the horizon."""
    fill: tuple[float, float] = (0.5, 0.9)
    """Length of the animal as a share of the picture's side."""
    other_azimuth_deg: float = 45.0
    """Further references lie within this of the first, four times in five (else anywhere)."""
    off_center: float = 0.04
    """Standard deviation of the centre from the box's, in lengths of the animal."""


@dataclass(frozen=True)
class ViewCount:
    """Pictures of one sample, and how often such samples are drawn."""

    references: int
    """Clean views, 1 or 3."""
    targets: int
    """Noisy views, 1 to 4."""
    share: float
    """Part of the steps."""


@dataclass
class TrainSmallPriorConfig:
    """How the small prior is trained. The defaults suit one H100."""

    output_dir: Path = Path("outputs/small-prior")
    """Folder for small.safetensors (what --pipeline.prior.source of ns-train takes), small_raw.safetensors (to resume), small.json (scores) and small.png (a sheet)."""
    resume: Path | None = None
    """Folder of an earlier command to go on from."""
    max_seconds: float = 560.0
    """This command stops by then, everything included."""
    max_steps: int | None = None
    """Steps of this command; the learning rate then follows steps, not the clock."""
    schedule_start: float | None = None
    """Part of the learning-rate schedule that is done when this command begins; that of the checkpoint unless told."""
    schedule_end: float = 1.0
    """The same when it ends: .5, then 1 with --resume, cuts a run into two commands."""
    pairs: Path | None = None
    """Fixed pairs of pictures (.npz) to score on; never trained on."""
    seed: int = 0
    """Of animals, noise and initial weights."""
    device: str | None = None
    """Where to train; CUDA if there is one."""
    num_animals: int = 61_440
    """Animals held at a time, 7 pictures of each (115 kB); a CPU needs a second or more an animal."""
    chunk: int = 512
    """Animals drawn at a time."""
    refresh_every: int = 32
    """Steps after which a chunk of the animals is replaced by new ones."""
    plain_share: float = 0.5
    """Share of plain creatures in free colours; the others are animal-like."""
    varied_share: float = 0.6
    """Part of the animal-like ones that are built narrower and of other cones than the table of body plans has it."""
    batch_images: int = 384
    """Pictures to make up in a step."""
    view_counts: tuple[ViewCount, ...] = (ViewCount(1, 1, 0.3), ViewCount(1, 4, 0.4), ViewCount(3, 4, 0.3))
    """Kinds of samples; a step has one kind."""
    learning_rate: float = 1e-3
    """Peak; the cosine ends at 2 % of it."""
    warmup_steps: int = 300
    """Steps of linear warm-up, also after --resume."""
    weight_decay: float = 0.01
    """AdamW's."""
    gradient_norm: float = 1.0
    """Gradients are clipped to it."""
    unconditional_share: float = 0.1
    """Samples that see no references."""
    averaging: float = 0.9995
    """Decay a step of the averaged weights, once it has ramped up."""
    evaluate_every_seconds: float = 150.0
    """Between checkpoints with scores and a sheet."""
    reserved_seconds: float = 35.0
    """Kept for the last checkpoint."""
    held_out_animals: int = 64
    """Animals to score on that are never trained on; 0 for none."""
    compile: bool = True
    """Compile small kernels and renderer (CUDA only)."""
    benchmark_images: tuple[int, ...] = ()
    """Only measure the speed with these numbers of target pictures a step, then stop."""
    network: ViewUNetConfig = field(default_factory=ViewUNetConfig)
    """Size of the network."""
    ranges: ViewRanges = field(default_factory=ViewRanges)
    """Cameras to know."""
