"""Camera paths as nerfstudio's viewer saves them (its JSON), with the moment of the clip that each camera shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from bags_ns.animation.interpolation import rotation_at
from bags_ns.rig.timetable import interpolation_weights

VIEWS = ("perspective", "default")
"""Types of camera that are rendered."""


@dataclass(frozen=True)
class CameraPath:
    """A film's cameras."""

    cameras: Cameras
    """Of all frames."""
    times: Float[Tensor, " F"]
    """Moment that each frame shows, 0 to 1; where the file has none, the clip runs once along the path."""
    fps: float
    """Frames a second."""

    def __len__(self) -> int:
        return len(self.times)

    def slowed(self, factor: float) -> CameraPath:
        """The path with `factor` times as many steps between its first frame and its last."""
        count = 1 + round((len(self) - 1) * factor)
        frames, places = torch.arange(float(len(self))), torch.linspace(0, len(self) - 1, count)
        between = interpolation_weights(frames, places)
        poses = self.cameras.camera_to_worlds.float()
        turns = torch.stack([rotation_at(frames, poses[:, :, :3], float(place), "slerp") for place in places])
        cameras = Cameras(
            camera_to_worlds=torch.cat([turns, (between @ poses[:, :, 3])[..., None]], dim=-1),
            fx=between @ self.cameras.fx.float(),
            fy=between @ self.cameras.fy.float(),
            cx=self.cameras.cx[:1],
            cy=self.cameras.cy[:1],
            width=self.cameras.width[:1],
            height=self.cameras.height[:1],
        )
        return CameraPath(cameras, between @ self.times, self.fps)


def load_camera_path(path: Path) -> CameraPath:
    """Reads a camera path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no camera path, or one that cannot be rendered; in one line that names the file.
    """
    try:
        document = json.loads(path.read_text())
        if document.get("camera_type", "perspective").lower() not in VIEWS:
            raise ValueError(f"its cameras are {document['camera_type']}, only perspective ones are rendered")
        cameras, fps = get_path_from_json(document), float(document.get("fps", 24.0))
        count = len(cameras)
        times = torch.linspace(0, 1, count) if cameras.times is None else cameras.times.float().flatten()
        if not bool(((times >= 0) & (times <= 1)).all()):
            raise ValueError("render_time goes from 0 (first frame) to 1 (last)")
        if not cameras.camera_to_worlds.isfinite().all() or not 0 < float(cameras.fx.min()) < float("inf"):
            raise ValueError("a camera's matrix or field of view is no number")
        if not fps > 0:
            raise ValueError(f"fps must be above 0, got {fps:g}")
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON (line {error.lineno}: {error.msg})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file") from None
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:  # of code that takes the document on trust
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a camera path of nerfstudio's viewer ({reason})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return CameraPath(cameras, times, fps)
