"""The form that every input ends in: RGBA frames and a camera file that other nerfstudio methods read too.

A prepared folder holds `images/frame_00000.png` ..., `transforms.json` (nerfstudio's convention, intrinsics and time for
each frame, and a section `bags` of what only this package needs), `seed_points.ply`, `transforms_test.json` with
`images_test/` where the input has test views, and `transforms_held_out.json` where frames are held out. Where the input
is RGBA with cameras already, the images stay where they are: file names are then relative to the input's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bags_ns.data.transforms import PosedImage, camera_entry, load_json, read_transforms
from bags_ns.data.world_frame import moved_camera

SEED_DTYPE = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


@dataclass(frozen=True, eq=False)
class ClipInfo:
    """What is known of the train frames as a clip; T is their number, and they are in the order of time."""

    canonical_index: int
    """The train frame in whose pose the canonical model stands."""
    times: Float[Tensor, " T"]
    """In [0, 1]."""
    object_centric: bool
    """True where the camera never moves and the animal's movement is its root translation."""
    root_translations: Float[Tensor, "T 3"] | None
    """World units, exactly zero in the canonical frame; None where cameras are known."""
    crop_boxes: Int[Tensor, "T 3"] | None
    """Left, top and side in source pixels of what each frame shows; None where frames are not crops."""
    source_indices: Int[Tensor, " T"]
    """Number of each frame in the source."""
    source_size: tuple[int, int]
    """Width and height of the source's frames."""
    fps: float
    """Frames a second."""
    elevation_deg: float | None = None
    """How far the camera looks down, where that was given and cameras are unknown."""
    T_world_input: Float[Tensor, "4 4"] = field(default_factory=lambda: torch.eye(4))
    """The similarity that brought the input's world into the model's frame; the identity where it was used as it is."""

    @property
    def canonical_time(self) -> float:
        """Time of the canonical frame, in [0, 1]."""
        return float(self.times[self.canonical_index])


@dataclass(frozen=True, eq=False)
class PreparedClip:
    """A clip that is ready to be trained on; every image is RGBA and every entry has a time."""

    info: ClipInfo
    train: tuple[PosedImage, ...]
    test: tuple[PosedImage, ...]
    """Empty where the input has no test views."""
    held_out: tuple[PosedImage, ...]
    """Frames of the clip, in the order of time, that nothing else here was made from."""
    seed_xyz: Float[Tensor, "N 3"]
    """Points to start the Gaussians from, in world units, posed as in the canonical frame."""
    seed_rgb: UInt8[Tensor, "N 3"]
    """Their colours."""


@dataclass(frozen=True, eq=False)
class Built:
    """A clip whose images are in their places; its seed points are still to be made."""

    info: ClipInfo
    train: list[PosedImage]
    test: list[PosedImage]
    held_out: list[PosedImage]
    in_place: bool
    """Whether the images stayed where the input has them."""

    def moved(self, T: Float[np.ndarray, "4 4"], info: ClipInfo) -> Built:
        """The clip in the world that the similarity T leads to, where `info` is what is known of it."""
        train, test, held_out = (
            [replace(frame, camera=moved_camera(T, frame.camera)) for frame in frames]
            for frames in (self.train, self.test, self.held_out)
        )
        return Built(info, train, test, held_out, self.in_place)


def write_prepared(folder: Path, built: Built, root: Path) -> None:
    """Writes the camera files; image names become relative to `root`."""
    info = built.info
    bags = {
        "canonical_index": info.canonical_index,
        "object_centric": info.object_centric,
        "root_translations": _listed(info.root_translations),
        "crop_boxes": _listed(info.crop_boxes),
        "source_indices": _listed(info.source_indices),
        "source_size": list(info.source_size),
        "fps": info.fps,
        "elevation_deg": info.elevation_deg,
        "T_world_input": info.T_world_input.tolist(),
        "in_place": built.in_place,
    }
    _write_transforms(folder / "transforms.json", built.train, root, {"ply_file_path": "seed_points.ply", "bags": bags})
    for name, frames in (("test", built.test), ("held_out", built.held_out)):
        if frames:
            _write_transforms(folder / f"transforms_{name}.json", frames, root, {})


def _listed(tensor: Tensor | None) -> list[Any] | None:
    return None if tensor is None else tensor.tolist()


def _write_transforms(path: Path, frames: Sequence[PosedImage], root: Path, more: dict[str, Any]) -> None:
    entries = [
        {"file_path": _relative(frame.image, root), "time": frame.time, **camera_entry(frame.camera)}
        for frame in frames
    ]
    path.write_text(json.dumps({"camera_model": "OPENCV", **more, "frames": entries}, indent=1), encoding="utf-8")


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def clip_info(bags: dict[str, Any], times: Sequence[float]) -> ClipInfo:
    """Reads the `bags` section of a camera file."""
    roots, boxes = bags.get("root_translations"), bags.get("crop_boxes")
    return ClipInfo(
        canonical_index=int(bags["canonical_index"]),
        times=torch.tensor(times, dtype=torch.float32),
        object_centric=bool(bags["object_centric"]),
        root_translations=None if roots is None else torch.tensor(roots, dtype=torch.float32),
        crop_boxes=None if boxes is None else torch.tensor(boxes, dtype=torch.int64),
        source_indices=torch.tensor(bags["source_indices"], dtype=torch.int64),
        source_size=(int(bags["source_size"][0]), int(bags["source_size"][1])),
        fps=float(bags["fps"]),
        elevation_deg=bags.get("elevation_deg"),
        T_world_input=torch.tensor(bags.get("T_world_input", torch.eye(4).tolist()), dtype=torch.float32),
    )


def recentred(built: Built) -> Built:
    """The same scene with the animal at the origin in the canonical frame, where another frame became canonical."""
    info = built.info
    assert info.root_translations is not None
    offset = info.root_translations[info.canonical_index].clone()
    T = np.eye(4)
    T[:3, 3] = -offset.numpy()
    return built.moved(T, replace(info, root_translations=info.root_translations - offset))


def load_prepared(folder: Path, source_root: Path) -> PreparedClip:
    """Reads a prepared folder.

    Args:
        folder: The folder.
        source_root: The input's folder, for images that stayed there.
    """
    meta = load_json(folder / "transforms.json")
    root = source_root if meta["bags"]["in_place"] else folder
    train = tuple(read_transforms(folder / "transforms.json", meta, root))
    more = (folder / f"transforms_{name}.json" for name in ("test", "held_out"))
    test, held_out = (tuple(read_transforms(path, root=root)) if path.is_file() else () for path in more)
    info = clip_info(meta["bags"], [frame.time or 0.0 for frame in train])
    return PreparedClip(info, train, test, held_out, *read_seed_points(folder / meta["ply_file_path"]))


def write_seed_points(path: Path, xyz: Float[Tensor, "N 3"], rgb: UInt8[Tensor, "N 3"]) -> None:
    """Writes coloured points as a binary PLY."""
    vertices = np.zeros(len(xyz), SEED_DTYPE)
    vertices["xyz"], vertices["rgb"] = xyz.numpy(), rgb.numpy()
    properties = [f"property float {axis}" for axis in "xyz"] + [
        f"property uchar {c}" for c in ("red", "green", "blue")
    ]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *properties, "end_header", ""]
    path.write_bytes("\n".join(header).encode() + vertices.tobytes())


def read_seed_points(path: Path) -> tuple[Float[Tensor, "N 3"], UInt8[Tensor, "N 3"]]:
    """Reads coloured points that `write_seed_points` wrote."""
    _, _, body = path.read_bytes().partition(b"end_header\n")
    vertices = np.frombuffer(body, SEED_DTYPE)
    return torch.from_numpy(vertices["xyz"].copy()), torch.from_numpy(vertices["rgb"].copy())
