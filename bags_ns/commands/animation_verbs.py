"""The verbs of `bags` that move an animal or take it into other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class Animate:
    """Plays a keyframe track, or the motion of another run, on a trained animal: an mp4 and a PNG contact sheet."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    track: Path | None = None
    """JSON file of a pose track made for this run."""
    motion_from: Path | None = None
    """Another run, whose video's motion is taken over (instead of a track): from and to animals that walk on four legs."""
    output_dir: Path = Path("renders")
    """Folder for the video and the sheet."""
    save_track: Path | None = None
    """JSON file to keep the track in: the motion from the other run, as keyframes for this one."""
    size: int = 512
    """Side of the square picture, in pixels."""
    azimuth_deg: float | None = None
    """Direction from which the camera looks; broadside unless given."""

    def run(self) -> None:
        """Writes the film and its contact sheet, and prints their paths."""
        import math

        if (self.track is None) == (self.motion_from is None):
            raise ValueError("give either --track FILE or --motion-from RUN")
        from bags_ns.animation.pose_track import load_track
        from bags_ns.commands.animate import side_azimuth, write_animation
        from bags_ns.rigged import body_of, retargeted_track
        from bags_ns.runs import open_run
        from bags_ns.visualize import check_size

        check_size(self.size)
        if self.track is not None:
            load_track(self.track)  # says what is wrong before the run is opened, which takes seconds
        model = open_run(self.load_config, test_mode="inference").model
        if self.track is not None:
            track = load_track(self.track, model.skeleton)
        else:
            assert self.motion_from is not None
            track = retargeted_track(open_run(self.motion_from, test_mode="inference").model, model)
        if self.save_track is not None:
            track.save(self.save_track)
        broadside = side_azimuth(body_of(model).points)
        azimuth = broadside if self.azimuth_deg is None else math.radians(self.azimuth_deg)
        video, sheet = write_animation(model, track, self.output_dir, size=self.size, azimuth=azimuth)
        print(f"{video}\n{sheet}")


@dataclass
class ExportPly:
    """PLY files of Gaussians in INRIA's layout, for splat viewers and editors."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    output_dir: Path = Path("exports")
    """Folder for the file or files."""
    time: float | None = None
    """Of the video's pose, from 0 (first frame) to 1 (last); the canonical animal unless given."""
    sequence: bool = False
    """All frames of the video, as frame_00000.ply and so on."""
    track: Path | None = None
    """All frames of this pose track (a JSON file) instead of the video's."""

    def run(self) -> None:
        """Writes the file or files, and prints where."""
        from bags_ns.commands.export import export_ply

        print(export_ply(self.load_config, self.output_dir, self.time, self.sequence, self.track))


@dataclass
class ExportGltf:
    """One GLB with skeleton, animation and a skinned mesh, for Blender, three.js and game engines."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    output: Path = Path("exports/animal.glb")
    """The file."""
    splats: bool = False
    """Adds the Gaussians themselves (KHR_gaussian_splatting), skinned like the mesh."""
    track: Path | None = None
    """A pose track (a JSON file) as the first animation, before the video's."""
    influences: int = 4
    """Bones that move a vertex at most; most programs read 4, some 8."""

    def run(self) -> None:
        """Writes the file and prints its path."""
        from bags_ns.commands.export import export_gltf

        print(export_gltf(self.load_config, self.output, self.splats, self.track, self.influences))


@dataclass
class ExportSpz:
    """A small SPZ file of the Gaussians in one pose, for splat viewers in the browser."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    output: Path = Path("exports/animal.spz")
    """The file."""
    time: float | None = None
    """Of the video's pose, from 0 (first frame) to 1 (last); the canonical animal unless given."""

    def run(self) -> None:
        """Writes the file and prints its path."""
        from bags_ns.commands.export import export_spz

        print(export_spz(self.load_config, self.output, self.time))


@dataclass
class ExportWeb:
    """A folder with a page that plays the animal in a browser: turn it, move through time, pose it; put it on any server."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    output_dir: Path = Path("exports/web")
    """Folder for index.html and animal.glb."""
    track: Path | None = None
    """A pose track (a JSON file) to play instead of the video's motion."""
    packages: str | None = None
    """Address of a node_modules folder with three and @sparkjsdev/spark, instead of the network."""

    def run(self) -> None:
        """Writes the page, and prints its path and how to open it."""
        from bags_ns.commands.export import export_web

        page = export_web(self.load_config, self.output_dir, self.track, self.packages)
        print(f"{page}\nTry it: python -m http.server --directory {page.parent}")


@dataclass
class Export:
    """Takes a trained animal into other programs."""

    to: (
        Annotated[ExportPly, tyro.conf.subcommand("ply", prefix_name=False)]
        | Annotated[ExportGltf, tyro.conf.subcommand("gltf", prefix_name=False)]
        | Annotated[ExportSpz, tyro.conf.subcommand("spz", prefix_name=False)]
        | Annotated[ExportWeb, tyro.conf.subcommand("web", prefix_name=False)]
    )
    """Into which format."""

    def run(self) -> None:
        """Writes what was chosen."""
        self.to.run()
