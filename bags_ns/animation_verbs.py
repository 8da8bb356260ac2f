"""The verbs of `bags` that move an animal or take it into other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Animate:
    """Plays a keyframe track, or the motion of another run, on a trained animal: an mp4 and a PNG contact sheet."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    track: Path | None = None
    """JSON file of a pose track made for this run."""
    motion_from: Path | None = None
    """Another run, whose video's motion is taken over (instead of a track)."""
    output_dir: Path = Path("renders")
    """Folder for the video and the sheet."""
    save_track: Path | None = None
    """JSON file to keep the track in: the motion from the other run, as keyframes for this one."""
    size: int = 512
    """Side of the square picture, in pixels."""
    azimuth_deg: float | None = None
    """Direction from which the camera looks; broadside unless given."""

    def run(self) -> None:
        """Does it."""
        import math

        if (self.track is None) == (self.motion_from is None):
            raise ValueError("give either --track FILE or --motion-from RUN")
        from bags_ns.animating import side_azimuth, write_animation
        from bags_ns.animation.pose_track import load_track
        from bags_ns.rigged import body_of, retargeted_track
        from bags_ns.runs import open_run

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
