"""Runs the scripts behind docs/RESULTS.md, one after the other, into one folder.

    python benchmarks/all.py --data DATA                      everything, in the full setting with CUDA, else the small one
    python benchmarks/all.py --list                           what there is, and what would be run
    python benchmarks/all.py --only demo feet rasterizer      some of it

DATA holds the clips fox_arc, fox_static, husky_arc, husky_static and camel. Those that are missing are left out, and
tables that need one of them are named at the end, as is each script that fails; the others are made all the same. What
a script prints is kept as NAME.txt. The small setting is for two CPU cores: it shows that everything works; figures to
be quoted come from the full one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

HERE = Path(__file__).parent
CLIPS = ("fox_arc", "fox_static", "husky_arc", "husky_static", "camel")


@dataclass(frozen=True)
class Job:
    """One script. In its words {out} is the folder of all results, and {clips} the clips of DATA that it takes."""

    table: str
    """What it makes, in the words of docs/RESULTS.md."""
    words: str
    """The script with what is said to it in both settings; `bags` is the package's own command."""
    small: str = ""
    """More words in the small setting."""
    full: str = ""
    """More words in the full setting."""
    clips: tuple[str, ...] = ()
    """The clips that it takes; it needs at least one."""


JOBS = {
    "demo": Job("First result", "bags demo --output-dir {out}/demo", small="--num-steps 300"),
    "feet": Job("Motion: feet", "feet.py {out}/demo --output {out}/feet.json"),
    "viewer_rate": Job(
        "Cost: viewer", "viewer_rate.py {out}/demo --output {out}/viewer_rate.json", small="--repeats 20"
    ),
    "exports": Job("Export", "exports.py --load-config {out}/demo --output {out}/exports.json"),
    "quality": Job(
        "Real video; fox and husky",
        "quality.py {clips} --output-dir {out}/quality",
        small="--method bags-tiny --num-steps 300",
        full="--method bags",
        clips=CLIPS,
    ),
    "retarget": Job(
        "Motion: from one animal to another",
        "retarget.py {out}/quality/fox_arc {out}/quality/husky_arc --output {out}/retarget.json",
    ),
    "baselines": Job(
        "Baselines, held-out times",
        "baselines.py {clips} {out}/demo/clip --hold-out-every 8 --output-dir {out}/baselines",
        small="--method bags-tiny --num-steps 300",
        full="--method bags",
        clips=CLIPS,
    ),
    "ablation": Job(
        "Ablation of rigidity and prior",
        "ablation.py {clips} --output-dir {out}/ablation",
        small="--creatures 1 --method bags-tiny --num-steps 200",
        full="--creatures 3 --method bags",
        clips=("fox_arc", "fox_static", "husky_arc", "husky_static"),
    ),
    "silhouettes": Job(
        "Silhouettes without weights", "silhouettes.py {clips} --output {out}/silhouettes.json", clips=("camel",)
    ),
    "turning": Job(
        "Turning without cameras",
        "turning.py {clips} --crop-size 128 --output-dir {out}/turning",
        small="--num-steps 200",
        full="--num-steps 700",
        clips=("fox_arc", "husky_arc"),
    ),
    "training_step": Job(
        "Cost: training step", "training_step.py --output {out}/training_step.json", full="--against-splatfacto"
    ),
    "rasterizer": Job("Cost: rasterizers", "rasterizer.py"),
    "animated_frame": Job(
        "Cost: animated frame",
        "animated_frame.py --output {out}/animated_frame.json",
        small="--bone-numbers 8 64 --repeats 20",
    ),
    "rigidity": Job("Cost: rigidity", "rigidity.py --output {out}/rigidity.json"),
    "scaling": Job(
        "Cost: growth with frames and Gaussians",
        "scaling.py --output {out}/scaling.json",
        small="--frames 10 30 --gaussians 1000 2000 4000 --repeats 5",
    ),
    "memory": Job("Cost: main memory", "memory.py --output {out}/memory.json", small="--num-frames 20"),
    "memory_training": Job(
        "Cost: main memory of training on full HD",
        "memory.py --num-steps 8 --output {out}/memory_training.json",
        small="--num-frames 20 --num-gaussians 2000",
        full="--num-frames 300",
    ),
    "startup": Job("Cost: start-up", "startup.py --output {out}/startup.json"),
    "prior_cost": Job("Priors: cost", "prior_cost.py --output {out}/prior_cost.json", small="--tiny"),
    "memory_growth": Job(
        "Runs that go wrong: growth", "memory_growth.py --output {out}/memory_growth.json", small="--num-steps 1000"
    ),
    "kill_resume": Job(
        "Runs that go wrong: kills",
        "kill_resume.py --output {out}/kill_resume.json --work-dir {out}/kill_resume",
        small="--training-kills 2 --preparation-kills 2 --num-steps 80",
    ),
}
"""In the order in which they are run: some take runs that others made."""


@dataclass
class All:
    """Runs the scripts and says at the end which of them failed."""

    data: Path | None = None
    """Folder of the clips."""
    setting: Literal["auto", "small", "full"] = "auto"
    """How much: small is for two CPU cores, full for a GPU; auto goes by whether there is CUDA."""
    only: list[str] = field(default_factory=list)
    """Names of the tables to make; all unless given."""
    list_only: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Only shows the names and the commands."""
    output_dir: Path = Path("results")
    """Folder for everything."""

    def run(self) -> int:
        """Runs the tables' scripts; 1 if anything failed or was left out."""
        if unknown := set(self.only) - set(JOBS):
            raise SystemExit(f"all.py: no table is named {', '.join(sorted(unknown))}; there are {', '.join(JOBS)}")
        full = self.setting == "full" or (self.setting == "auto" and torch.cuda.is_available())
        console, problems = Console(highlight=False, soft_wrap=True), []
        for name in self.only or JOBS:
            command = self.command(JOBS[name], full)
            console.print(
                f"[bold]{name}[/bold] ({JOBS[name].table}): {' '.join(command) or 'no clip for it in --data'}"
            )
            if self.list_only:
                continue
            problem = self._run_one(name, command) if command else "no clip for it in --data"
            if problem:
                problems.append(f"{name}: {problem}")
                console.print(problem, style="red")
        for line in problems:
            console.print(line, style="red")
        return bool(problems)

    def command(self, job: Job, full: bool) -> list[str]:
        """The command of a job; empty where it takes clips and none of them is there."""
        clips = [str(self.data / clip) for clip in job.clips if self.data is not None and (self.data / clip).exists()]
        words = f"{job.words} {job.full if full else job.small}".split()
        if job.clips and not clips and "{out}/demo/clip" not in words:
            return []
        program, *rest = words
        filled = [
            each
            for word in rest
            for each in (clips if word == "{clips}" else [word.replace("{out}", str(self.output_dir))])
        ]
        start = (
            [str(Path(sys.executable).with_name("bags"))]
            if program == "bags"
            else [sys.executable, str(HERE / program)]
        )
        return [*start, *filled]

    def _run_one(self, name: str, command: list[str]) -> str:
        """Runs a command with its words in NAME.txt; what went wrong, if anything did."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        log, started = self.output_dir / f"{name}.txt", time.monotonic()
        with log.open("w") as file:
            done = subprocess.run(command, check=False, stdout=file, stderr=subprocess.STDOUT)
        if not done.returncode:
            Console().print(f"{time.monotonic() - started:.0f} s, {log}")
            return ""
        said = log.read_text(errors="replace").strip().splitlines() or ["nothing was said"]
        return f"exit code {done.returncode}, {said[-1]} (all of it: {log})"


if __name__ == "__main__":
    sys.exit(tyro.cli(All).run())
