"""Keyframe tracks: what a person made, as JSON that names joints, and as poses in between.

A keyframe gives joints rotations (wxyz, about the joint in canonical axes); a joint that it leaves out is not turned.
Times are seconds. Where a track has no root, the animal stays where it is given to stand.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animation.interpolation import Interpolation, position_at, rotation_at
from bags_ns.animation.joint_rotations import blend_poses, pose_from_rotations
from bags_ns.animation.track_json import track_fields, track_json
from bags_ns.files import whole_file
from bags_ns.rig.motion import Pose
from bags_ns.rig.skeleton import Skeleton
from bags_ns.rig.transforms import quat_from_rotation, quat_to_rotation, rigid

Quat = tuple[float, float, float, float]
"""wxyz, of length 1."""
UNTURNED: Quat = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class RootPose:
    """T_world_object: a turn about the object frame's origin, then a move, in world units."""

    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: Quat = UNTURNED


@dataclass(frozen=True)
class Keyframe:
    """A pose at a time."""

    time: float
    """Seconds."""
    rotations: Mapping[str, Quat]
    """Local rotation of each joint that is turned, by name."""
    root: RootPose | None = None
    """Where the animal stands."""


@dataclass(frozen=True)
class PoseTrack:
    """Keyframes for one skeleton. Raises ValueError, in one line, for what makes no track."""

    joint_names: tuple[str, ...]
    """Of the model it was made for, in its order: with `parents`, how a track knows its model."""
    parents: tuple[int, ...]
    """Of those joints, -1 for the root."""
    keyframes: tuple[Keyframe, ...]
    """At least one, in ascending order of time."""
    duration: float
    """Seconds; not before the last keyframe."""
    fps: float = 24.0
    """Frames a second, when it is played or sampled."""
    interpolation: Interpolation = "slerp"
    """Between keyframes."""
    video_share: float = 0.0
    """How much of the video's own pose is blended in: 0 is the track alone, 1 the video alone."""

    def __post_init__(self) -> None:
        times = [keyframe.time for keyframe in self.keyframes]
        if not times:
            raise ValueError("a pose track needs at least one keyframe")
        for before, after in zip([-1e-12, *times], times, strict=False):
            if not after > before:
                raise ValueError(f"keyframe times must ascend from 0 s on: {after:g} s follows {max(before, 0):g} s")
        if self.duration < times[-1]:
            raise ValueError(f"the track lasts {self.duration:g} s, but has a keyframe at {times[-1]:g} s")
        if not self.fps > 0:
            raise ValueError(f"fps must be above 0, got {self.fps:g}")
        if not 0 <= self.video_share <= 1:
            raise ValueError(f"video_share must lie in [0, 1], got {self.video_share:g}")
        self._check_keyframes()

    def _check_keyframes(self) -> None:
        known = set(self.joint_names)
        for keyframe in self.keyframes:
            if unknown := sorted(set(keyframe.rotations) - known):
                names = f"{self.joint_names[0]} to {self.joint_names[-1]}" if self.joint_names else "none"
                raise ValueError(f"keyframe at {keyframe.time:g} s: unknown joint '{unknown[0]}' (known: {names})")
            quats = [*keyframe.rotations.items(), *([("the root", keyframe.root.rotation)] if keyframe.root else [])]
            for name, quat in quats:
                if abs(sum(x * x for x in quat) - 1) > 1e-2:
                    raise ValueError(f"keyframe at {keyframe.time:g} s: the quaternion of {name} is not of length 1")
        rooted = [keyframe.root is not None for keyframe in self.keyframes]
        if any(rooted) and not all(rooted):
            raise ValueError(f"keyframe at {self.keyframes[rooted.index(False)].time:g} s has no root, others have one")

    def check_model(self, skeleton: Skeleton) -> None:
        """Raises ValueError if the track was made for another model than the one with this skeleton."""
        ours = tuple(skeleton.names)
        if self.joint_names != ours:
            unlike = sorted(set(self.joint_names) ^ set(ours))
            what = f"{len(self.joint_names)} joints, this one has {len(ours)}" + (f": '{unlike[0]}'" if unlike else "")
            raise ValueError(f"the track was made for another model ({what})")
        if self.parents != tuple(skeleton.parents.tolist()):
            raise ValueError(
                "the track was made for another model, or for this one before its training ended"
                " (its joints hang together in another way)"
            )

    # --- poses -------------------------------------------------------------------------------------------------------

    @cached_property
    def _times(self) -> Float[Tensor, " K"]:
        return torch.tensor([keyframe.time for keyframe in self.keyframes])

    @cached_property
    def _rotations(self) -> Float[Tensor, "K B 3 3"]:
        quats = [[k.rotations.get(name, UNTURNED) for name in self.joint_names] for k in self.keyframes]
        return quat_to_rotation(torch.tensor(quats, dtype=torch.float32))

    @cached_property
    def _roots(self) -> Float[Tensor, "K 4 4"] | None:
        roots = [keyframe.root for keyframe in self.keyframes if keyframe.root is not None]
        if not roots:
            return None
        rotations = quat_to_rotation(torch.tensor([root.rotation for root in roots]))
        return rigid(rotations, torch.tensor([root.translation for root in roots]))

    def rotations_at(self, time: float) -> Float[Tensor, "B 3 3"]:
        """Local rotations at `time` seconds."""
        return rotation_at(self._times, self._rotations, time, self.interpolation)

    def root_at(self, time: float) -> Float[Tensor, "4 4"] | None:
        """T_world_object at `time` seconds, where the track has one."""
        roots = self._roots
        if roots is None:
            return None
        turn = rotation_at(self._times, roots[:, :3, :3], time, self.interpolation)
        return rigid(turn, position_at(self._times, roots[:, :3, 3], time, self.interpolation))

    def pose_at(self, time: float, skeleton: Skeleton, video: Pose | None = None) -> Pose:
        """The pose at `time` seconds; `video` is the pose that is blended in, and whose root stands in for a missing one."""
        root = self.root_at(time)
        if root is None and video is not None:
            root = video.T_world_object
        pose = pose_from_rotations(self.rotations_at(time), skeleton, root)
        if video is None or self.video_share == 0:
            return pose
        return blend_poses(pose, video, self.video_share, skeleton.joints)

    def frame_times(self) -> Float[Tensor, " K"]:
        """Times of its frames in seconds, from 0 to the end."""
        return torch.arange(1 + round(self.duration * self.fps)) / self.fps

    # --- editing -----------------------------------------------------------------------------------------------------

    def with_keyframe(self, keyframe: Keyframe) -> PoseTrack:
        """The track with one more keyframe, or one replaced at its time; it lasts longer if need be."""
        others = [other for other in self.keyframes if other.time != keyframe.time]
        keyframes = tuple(sorted([*others, keyframe], key=lambda k: k.time))
        return dataclasses.replace(self, keyframes=keyframes, duration=max(self.duration, keyframe.time))

    def save(self, path: Path) -> None:
        """Writes the track as JSON, whole or not at all."""
        with whole_file(path) as unfinished:
            unfinished.write_text(json.dumps(track_json(self), indent=1) + "\n")


def load_track(path: Path, skeleton: Skeleton | None = None) -> PoseTrack:
    """Reads a track, for the model with `skeleton` where one is given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no track, a broken one, or one for another model; in one line that names the file.
    """
    try:
        fields: dict[str, Any] = track_fields(json.loads(path.read_text()))
        roots = [RootPose(*root) if root else None for _, _, root in fields["keyframes"]]
        keyframes = [Keyframe(k[0], k[1], root) for k, root in zip(fields["keyframes"], roots, strict=True)]
        track = PoseTrack(**{**fields, "keyframes": tuple(keyframes)})
        if skeleton is not None:
            track.check_model(skeleton)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON (line {error.lineno}: {error.msg})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return track


def keyframe_from_rotations(
    time: float,
    rotations: Float[Tensor, "B 3 3"],
    names: Sequence[str],
    T_world_object: Float[Tensor, "4 4"] | None = None,
) -> Keyframe:
    """A keyframe at `time` seconds with all joints' local rotations."""
    quats = {name: _quat(rotation) for name, rotation in zip(names, rotations, strict=True)}
    return Keyframe(time, quats, None if T_world_object is None else root_pose(T_world_object))


def root_pose(T_world_object: Float[Tensor, "4 4"]) -> RootPose:
    """The same as numbers."""
    x, y, z = T_world_object[:3, 3].tolist()
    return RootPose((x, y, z), _quat(T_world_object[:3, :3]))


def _quat(rotation: Float[Tensor, "3 3"]) -> Quat:
    w, x, y, z = quat_from_rotation(rotation).tolist()
    return w, x, y, z
