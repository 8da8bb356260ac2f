"""nerfstudio's door to every kind of input: one data parser that recognises the layout, prepares it and gives cameras."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox

from bags_ns.data.cache import default_cache_dir
from bags_ns.data.layouts import find_clip
from bags_ns.data.prepare import PrepareSettings, prepare
from bags_ns.data.prepared import PreparedClip
from bags_ns.data.segmentation import SegmenterName
from bags_ns.data.transforms import PosedImage
from bags_ns.data.world_frame import Orientation


@dataclass
class AnimalVideoDataParserConfig(DataParserConfig):
    """Options of the input: a video with masks, a folder of frames, or frames with cameras."""

    _target: type = field(default_factory=lambda: AnimalVideoDataParser)
    """target class to instantiate"""
    data: Path = Path("data")
    """A video, a transforms.json, or a folder (images/ + masks/, RGBA frames, DAVIS or BANMo layout, transforms*.json)."""
    sequence: str = ""
    """Name of the sequence in a DAVIS folder; needed only where there are several."""
    known_cameras: bool = True
    """False takes no more than the field of view from a camera file: the clip is then a plain video."""
    fov_deg: float = 49.1
    """Assumed field of view across the longer side of the picture, in degrees; used where cameras are unknown."""
    elevation_deg: float | None = None
    """How far the camera looks down on the animal, in degrees, where cameras are unknown; training looks for it unless given."""
    crop_size: int = 0
    """Side of the square crops in pixels, where cameras are unknown; 0 is 512 with CUDA and 256 without."""
    max_side: int = 0
    """Longest side of frames with known cameras, in pixels; larger ones are shrunk. 0 leaves them as they are."""
    fps: float = 0.0
    """Frames a second to thin the clip out to; 0 uses every frame."""
    start: float = 0.0
    """Seconds to leave out at the beginning (folders of frames count as 24 frames a second)."""
    end: float = 0.0
    """Time in seconds at which to stop; 0 goes on to the end."""
    max_frames: int = 0
    """Most frames to use, evenly spread over the clip; 0 sets no limit."""
    segmenter: SegmenterName = "auto"
    """What makes silhouettes where none are given: auto takes the best that this machine has (torchvision's Mask R-CNN,
    then rembg, then grabcut, which needs no weights); none makes it an error."""
    segmenter_model: str = ""
    """Hub id or local folder of the universal segmenter, for --segmenter transformers."""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, top, width and height of the animal in the first frame, in source pixels, to say which one is meant; all 0
    looks for it."""
    canonical_frame: int = -1
    """Number of the source frame in whose pose the canonical model stands; -1 chooses the clearest one."""
    orientation: Orientation = "auto"
    """How known cameras are brought into the model's frame (the animal 1 long at the origin, z up): auto leaves a scene that
    stands so already; cameras takes up from the cameras, z-up from the file's z; as-is uses every file as it is."""
    num_seed_points: int = 50_000
    """Points that the Gaussians start from."""
    seed_radius: float = 0.6
    """Radius of the ball in which they are looked for where cameras see all sides, in animal lengths (of the cameras' units, where these are used
    as they are)."""
    hold_out_every: int = 0
    """Keeps one of so many frames (never the first and the last) from training, for `bags evaluate` to see how the motion
    goes on where no frame was seen; 0 trains on all."""
    hold_out_block: tuple[float, float] = (0.0, 0.0)
    """Start and end of a block of frames to keep from training instead, in [0, 1] over the clip."""
    eval_every: int = 8
    """Without test views, every n-th train frame is shown as evaluation; they are train frames all the same."""
    cache_dir: Path | None = None
    """Folder for derived data; the user's cache folder unless given."""


@dataclass
class AnimalVideoDataParser(DataParser):
    """Gives RGBA images (alpha is the silhouette), cameras with times, seed points and a `ClipInfo` as metadata["clip"]."""

    config: AnimalVideoDataParserConfig
    includes_time: bool = True
    downscale_factor: int = 1

    def __init__(self, config: AnimalVideoDataParserConfig):
        super().__init__(config=config)
        # Relative paths would mean something else when the run's config is loaded from another folder.
        config.data = Path(os.path.abspath(Path(config.data).expanduser()))  # resolve() fails on loops
        self._prepared: PreparedClip | None = None

    def prepared_clip(self) -> PreparedClip:
        """The clip, prepared when it is first asked for and kept for the other split."""
        if self._prepared is None:
            clip = find_clip(self.config.data, self.config.sequence)
            self._prepared = prepare(clip, self._settings(), self.cache_dir)
        return self._prepared

    @property
    def cache_dir(self) -> Path:
        """Folder for derived data."""
        return Path(self.config.cache_dir or default_cache_dir()).expanduser().resolve()

    def _settings(self) -> PrepareSettings:
        chosen = {field.name: getattr(self.config, field.name) for field in fields(PrepareSettings)}
        chosen["crop_size"] = self.config.crop_size or (512 if torch.cuda.is_available() else 256)
        return PrepareSettings(**chosen)

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        clip = self.prepared_clip()
        if split == "train":
            frames = clip.train
        elif split == "held_out":
            frames = clip.held_out
        else:
            frames = clip.test or clip.train[:: max(1, self.config.eval_every)]
        T = clip.info.T_world_input[:3]
        scale = float(torch.linalg.det(T[:, :3])) ** (1 / 3)
        return DataparserOutputs(
            image_filenames=[frame.image for frame in frames],
            cameras=cameras_of(frames),
            alpha_color=None,  # the images keep their alpha, which is the silhouette
            scene_box=SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])),
            dataparser_transform=T / scale,
            dataparser_scale=scale,
            metadata={"points3D_xyz": clip.seed_xyz, "points3D_rgb": clip.seed_rgb, "clip": clip.info},
        )


def cameras_of(frames: Sequence[PosedImage]) -> Cameras:
    """nerfstudio's cameras, with times, of prepared frames."""
    cameras = [frame.camera for frame in frames]
    poses = np.stack([camera.camera_to_world[:3] for camera in cameras])
    return Cameras(
        camera_to_worlds=torch.from_numpy(poses.astype(np.float32)),
        fx=torch.tensor([camera.fx for camera in cameras], dtype=torch.float32),
        fy=torch.tensor([camera.fy for camera in cameras], dtype=torch.float32),
        cx=torch.tensor([camera.cx for camera in cameras], dtype=torch.float32),
        cy=torch.tensor([camera.cy for camera in cameras], dtype=torch.float32),
        width=torch.tensor([camera.width for camera in cameras]),
        height=torch.tensor([camera.height for camera in cameras]),
        times=torch.tensor([frame.time or 0.0 for frame in frames], dtype=torch.float32),
        camera_type=CameraType.PERSPECTIVE,
    )
