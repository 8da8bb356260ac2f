"""The `bags` command: what nerfstudio has no verb for. Each verb is a dataclass, its fields are its flags.

Nothing heavy is imported before a verb runs, so that `bags --help` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bags_ns.commands.animation_verbs import Animate, Export
from bags_ns.priors.small_config import TrainSmallPriorConfig


@dataclass
class Demo:
    """Makes a clip of a made-up animal, trains on it and renders a turntable: a first result, on CPU or GPU."""

    output_dir: Path = Path("bags-demo")
    """Folder for the clip, the run and the pictures."""
    seed: int = 7
    """Which animal: every number is another one."""
    method: Literal["bags", "bags-tiny"] = "bags-tiny"
    """bags-tiny is made for two CPU cores, bags for a GPU."""
    num_steps: int | None = None
    """Training steps; the method's own number unless given."""

    def run(self) -> None:
        """Makes the clip, trains on it, films and measures the animal."""
        from bags_ns.commands.demo import run_demo

        run_demo(self.output_dir, self.seed, self.method, self.num_steps)


@dataclass
class Render:
    """Renders a trained animal into an mp4 and a PNG contact sheet."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    output_dir: Path = Path("renders")
    """Folder for the video and the sheet."""
    kind: Literal["turntable", "source", "bones"] = "turntable"
    """turntable: turning while the clip plays; source: beside the video; bones: in bone colours."""
    size: int = 512
    """Side of the turntable's square picture, in pixels (source keeps the video's size)."""
    num_frames: int | None = None
    """Frames of the turntable; twice the clip's or the track's unless given, so that it goes at half speed."""
    fps: float | None = None
    """Frames per second; those of the camera path, of the track or of the clip unless given."""
    camera_path: Path | None = None
    """JSON file of a camera path, as nerfstudio's viewer saves it (in its size), to film along instead of turning."""
    track: Path | None = None
    """JSON file of a pose track made for this run, to play instead of the video's motion."""
    slow_motion: float = 1.0
    """How many times as long everything lasts, with poses and cameras between the frames."""

    def run(self) -> None:
        """Writes the film and its contact sheet, and prints their paths."""
        from bags_ns.commands.render import render_run

        video, sheet = render_run(**vars(self))
        print(f"{video}\n{sheet}")


@dataclass
class Evaluate:
    """Measures a trained animal on its training frames and, where the data have them, on views it never saw."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (all of them are measured, and put into one table)."""
    output: Path | None = None
    """JSON file for the result; evaluation.json (evaluation_unposed.json) beside the config, or evaluations.json in the
    folder, unless given."""
    clip_model: str = "openai/clip-vit-base-patch32"
    """CLIP model in Hugging Face's cache, or a local folder. It, LPIPS and KID are left out where weights are not here."""
    unposed: bool = False
    """For one run without cameras on data that have them (animal-video --known-cameras False): compares its motion with
    the cameras, and shows it from the test views."""

    def run(self) -> None:
        """Measures, writes the result and prints it as a table."""
        if self.unposed:
            return self._compare_motion()
        from bags_ns.commands.evaluate import evaluate_runs
        from bags_ns.perceptual import load_perceptual
        from bags_ns.runs import find_configs

        find_configs(self.load_config)  # says what is wrong before networks are loaded
        evaluate_runs(self.load_config, self.output, load_perceptual(self.clip_model))

    def _compare_motion(self) -> None:
        from rich.console import Console

        from bags_ns.commands.evaluate import summary_table
        from bags_ns.evaluation import num_pictures
        from bags_ns.files import write_json
        from bags_ns.progress import progress_bar
        from bags_ns.runs import open_run
        from bags_ns.unposed import TrueClip, evaluate_unposed

        run = open_run(self.load_config)
        truth = TrueClip.of_run(run.pipeline)
        with progress_bar("Evaluating", num_pictures(run.pipeline.datamanager) + len(truth.test)) as advance:
            motion, summary = evaluate_unposed(run.pipeline, truth, lambda: advance(None, None))
        write_json(self.output or run.folder / "evaluation_unposed.json", {"motion": motion, **summary})
        Console().print(summary_table(summary))
        Console().print(
            "turn {turn_deg:.1f} degrees, truly {true_turn_deg:.1f}; largest error of turn {turn_error_deg:.1f}, of "
            "rotation {rotation_error_deg:.1f}".format(**motion)
        )


@dataclass
class ProcessVideo:
    """Prepares a video (frames, silhouettes, cameras) as a folder for ns-train bags and other nerfstudio methods."""

    data: Path
    """A video, a transforms.json, or a folder of frames."""
    output_dir: Path
    """Folder to write; it must not hold anything yet."""
    sequence: str = ""
    """Name of the sequence in a DAVIS folder; needed only where there are several."""
    known_cameras: bool = True
    """False takes no more than the field of view from a camera file: the clip is then a plain video."""
    fov_deg: float = 49.1
    """Assumed field of view across the longer side of the picture, in degrees; used where cameras are unknown."""
    elevation_deg: float | None = None
    """How far the camera looks down on the animal, in degrees, where cameras are unknown; training looks for it unless given."""
    crop_size: int = 512
    """Side of the square crops in pixels, where cameras are unknown."""
    max_side: int = 0
    """Longest side of frames with known cameras, in pixels; 0 leaves them as they are."""
    fps: float = 0.0
    """Frames a second to thin the clip out to; 0 uses every frame."""
    start: float = 0.0
    """Seconds to leave out at the beginning."""
    end: float = 0.0
    """Time in seconds at which to stop; 0 goes on to the end."""
    max_frames: int = 0
    """Most frames to use, evenly spread over the clip; 0 sets no limit."""
    canonical_frame: int = -1
    """Number of the source frame in whose pose the canonical model stands; -1 chooses the clearest one."""
    orientation: Literal["auto", "cameras", "z-up", "as-is"] = "auto"
    """How known cameras are brought into the model's frame: auto leaves a scene that stands there already."""
    num_seed_points: int = 50_000
    """Points of seed_points.ply, that Gaussians start from."""
    seed_radius: float = 0.6
    """Radius of the ball in which they are looked for where cameras see all sides, in animal lengths."""
    segmenter: Literal["auto", "grabcut", "torchvision", "rembg", "transformers", "none"] = "auto"
    """What makes silhouettes where none are given; auto takes the best that this machine has."""
    segmenter_model: str = ""
    """Hub id or local folder of the universal segmenter, for --segmenter transformers."""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, top, width and height of the animal in the first frame, in source pixels; all 0 looks for it."""
    cache_dir: Path | None = None
    """Folder for derived data; the user's cache folder unless given."""

    def run(self) -> None:
        """Writes the folder and prints its path."""
        from dataclasses import fields

        from bags_ns.data.prepare import PrepareSettings
        from bags_ns.data.process import process_video

        names = {item.name for item in fields(PrepareSettings)}
        settings = PrepareSettings(**{name: value for name, value in vars(self).items() if name in names})
        print(process_video(self.data, self.output_dir, settings, self.cache_dir, self.sequence))


@dataclass
class TrainPrior(TrainSmallPriorConfig):
    """Trains the small diffusion prior on made-up animals; the numbers suit one large GPU."""

    def run(self) -> None:
        """Trains, and prints the path of the weights."""
        from bags_ns.priors.train_small import train_small_prior

        train_small_prior(self)
        if not self.benchmark_images:  # which writes nothing
            print(self.output_dir / "small.safetensors")


@dataclass
class Doctor:
    """Says what this machine has, what each thing is needed for, and how to get what is missing."""

    def run(self) -> None:
        """Prints the report."""
        from rich.console import Console

        from bags_ns.commands.doctor import examine, report

        Console().print(report(examine()))


Verb = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Animate, tyro.conf.subcommand("animate")]
    | Annotated[Export, tyro.conf.subcommand("export"), tyro.conf.OmitArgPrefixes]
    | Annotated[ProcessVideo, tyro.conf.subcommand("process-video")]
    | Annotated[TrainPrior, tyro.conf.subcommand("train-prior")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main() -> None:
    """Entry point. Errors of the user are one line and exit code 1."""
    verb = tyro.cli(Verb, description="Animatable 3-D animals from one video.")  # type: ignore[call-overload]
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch's, about nerfstudio's own calls
    try:
        verb.run()
    except (ValueError, OSError, ImportError) as error:
        print(f"bags: {error}", file=sys.stderr)
        sys.exit(1)
