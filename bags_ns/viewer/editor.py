"""What a person works on in the viewer: a pose, and the keyframes made of poses. It knows no window.

What is shown at a time is a pure function of the person's work: the video's motion, the keyframes, or a pose that no
keyframe holds yet; `video_share` blends the video's motion in. Every action takes what is shown as its start, so that
nothing jumps when a person takes hold of a joint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animation.interpolation import Interpolation
from bags_ns.animation.joint_rotations import blend_poses, pose_from_rotations
from bags_ns.animation.mirroring import SymmetryPlane, mirror_rotations, pair_bones
from bags_ns.animation.pose_track import PoseTrack, keyframe_from_rotations, load_track, root_pose
from bags_ns.rig.motion import Pose
from bags_ns.rig.skeleton import Skeleton

SAME_TIME = 1e-5
"""Times closer than this are one: cameras carry theirs in single precision."""
SAME_KEYFRAME = 5e-4
"""Seconds. Keyframes closer than this are one: the page tells whole milliseconds apart."""
UNDO_STEPS = 100
SLIDER_RESTS = 1.0
"""Seconds. A slider that has rested longer has been let go: the page does not say when."""


@dataclass(frozen=True)
class JointPose:
    """A pose as a person makes it, by turning joints."""

    rotations: Float[Tensor, "B 3 3"]
    """Local rotations."""
    T_world_object: Float[Tensor, "4 4"]
    """Where the animal stands."""
    time: float
    """In [0, 1]."""


@dataclass(frozen=True)
class Work:
    """All that a person has made. Actions replace it as a whole, so a render never sees half of one."""

    duration: float
    """Seconds from time 0 to time 1."""
    held: JointPose | None = None
    """A pose that no keyframe holds yet. Where there are keyframes it is shown at its own time only."""
    track: PoseTrack | None = None
    """The keyframes."""
    video_share: float = 1.0
    """Of the video's motion in what is shown: 0 is the person's pose alone, 1 the video's alone."""
    interpolation: Interpolation = "slerp"
    """Between keyframes."""


class PoseEditor:
    """Poses and keyframes for one rig. All tensors are on the CPU but the poses, which are where the skeleton is.

    Args:
        skeleton: tree and joints; read anew in every action, since training goes on.
        video: the video's pose at a time in [0, 1].
        fit: the local rotations and the root that come closest to a pose.
        duration: of the video, in seconds.
        fps: of the video.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        video: Callable[[float], Pose],
        fit: Callable[[Pose], tuple[Float[Tensor, "B 3 3"], Float[Tensor, "4 4"]]],
        duration: float,
        fps: float,
    ) -> None:
        self.skeleton, self.fps = skeleton, fps
        self._video, self._fit = video, fit
        self.time = 0.0
        self.work = Work(duration if duration > 0 else 1.0)
        self._undo: list[tuple[str | None, Work]] = []
        self._slid, self._slide = 0.0, 0
        """When a slider last moved, and how often one has been taken hold of."""

    # --- what is shown -----------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """The present time in seconds."""
        return self.time * self.work.duration

    def pose_at(self, time: float) -> Pose:
        """What is shown at `time` in [0, 1]."""
        work, video = self.work, self._video(time)
        if work.video_share == 1:
            return video
        own = self._posed(self._own(work, time, video))
        return blend_poses(own, video, work.video_share, self.skeleton.joints) if work.video_share else own

    def _own(self, work: Work, time: float, video: Pose) -> JointPose:
        """The person's pose at a time; the canonical one where there is none."""
        held, track = work.held, work.track
        if held is not None and (track is None or abs(held.time - time) < SAME_TIME):
            return held
        if track is None:
            return JointPose(torch.eye(3).repeat(len(self.skeleton.names), 1, 1), video.T_world_object.cpu(), time)
        root = track.root_at(time * work.duration)
        root = video.T_world_object.cpu() if root is None else root
        return JointPose(track.rotations_at(time * work.duration), root, time)

    def _posed(self, pose: JointPose) -> Pose:
        return pose_from_rotations(pose.rotations, self.skeleton, pose.T_world_object)

    # --- posing ------------------------------------------------------------------------------------------------------

    def _hold(self) -> JointPose:
        """What is shown now, as turns of joints."""
        if self.work.video_share == 0:
            return dataclasses.replace(self._own(self.work, self.time, self._video(self.time)), time=self.time)
        rotations, root = self._fit(self.pose_at(self.time))
        return JointPose(rotations.cpu(), root.cpu(), self.time)

    def _change(self, action: str | None, **fields: Any) -> None:
        """Replaces fields of the work. Repetitions of a named action, as while a handle is dragged, are undone together."""
        if action is None or not self._undo or self._undo[-1][0] != action:
            self._undo = [*self._undo[-UNDO_STEPS:], (action, self.work)]
        self.work = dataclasses.replace(self.work, **fields)

    def _slide_of(self, slider: str) -> str:
        """The action that a move of a slider belongs to: all on its way are undone together."""
        now = monotonic()
        self._slide += now - self._slid > SLIDER_RESTS
        self._slid = now
        return f"{slider} in {self._slide}"

    def _pose(self, action: str | None, held: JointPose, **fields: Any) -> None:
        self._change(action, held=dataclasses.replace(held, **fields), video_share=0.0)

    def turn(self, joint: int, rotation: Float[Tensor, "3 3"], drag: int = 0) -> None:
        """Turns a bone about its joint, with all that hangs on it, so that it stands as `rotation` in the world.

        Args:
            joint: index of the bone.
            rotation: T_world_canonical's linear part, as the bone is to have it.
            drag: which one it belongs to: all turns of a drag are undone together.
        """
        held = self._hold()
        parent = int(self.skeleton.parents[joint])
        above = held.T_world_object if parent < 0 else self._posed(held).T_world_canonical[parent].cpu()
        rotations = held.rotations.clone()
        rotations[joint] = above[:3, :3].T @ rotation
        self._pose(f"turn {joint} at {self.time} in {drag}", held, rotations=rotations)

    def move(self, shift: Float[Tensor, "3"], drag: int = 0) -> None:
        """Moves the whole animal by `shift`, in world units; all moves of a drag are undone together."""
        held = self._hold()
        root = held.T_world_object.clone()
        root[:3, 3] += shift
        self._pose(f"move at {self.time} in {drag}", held, T_world_object=root)

    def reset(self, joint: int | None = None) -> None:
        """Turns one joint back, or all of them: the canonical pose, where the animal stands."""
        held = self._hold()
        rotations = held.rotations.clone()
        rotations[slice(None) if joint is None else joint] = torch.eye(3)
        self._pose(None, held, rotations=rotations)

    def mirror(self, centers: Float[Tensor, "B 3"], plane: SymmetryPlane) -> None:
        """Exchanges left and right. `centers` are the bones', canonical; `plane` is the animal's plane of symmetry."""
        held = self._hold()
        rotations = mirror_rotations(held.rotations, pair_bones(centers.cpu(), plane), plane)
        self._pose(None, held, rotations=rotations)

    def set_video_share(self, share: float) -> None:
        """How much of the video's motion is shown: 0 is the person's pose alone, 1 the video's alone."""
        self._change(self._slide_of("video share"), video_share=min(1.0, max(0.0, share)))

    def undo(self) -> None:
        """Takes the last action back. Raises ValueError where there is none."""
        if not self._undo:
            raise ValueError("there is nothing to undo")
        self.work = self._undo.pop()[1]

    # --- keyframes ---------------------------------------------------------------------------------------------------

    @property
    def track(self) -> PoseTrack | None:
        """The keyframes as they are shown: with the share of the video's motion that is chosen now."""
        track = self.work.track
        return None if track is None else dataclasses.replace(track, video_share=self.work.video_share)

    @property
    def key_times(self) -> list[float]:
        """Of the keyframes, in seconds."""
        return [] if self.work.track is None else [keyframe.time for keyframe in self.work.track.keyframes]

    def _key_time(self) -> float:
        """Of a keyframe that is made now: that of one that lies here already, or else the nearest millisecond."""
        now, rounded = self.seconds, min(round(self.seconds, 3), self.work.duration)
        here = [time for time in self.key_times if min(abs(time - now), abs(time - rounded)) < SAME_KEYFRAME]
        return min(here, key=lambda time: abs(time - now), default=rounded)

    def add_keyframe(self) -> None:
        """Makes what is shown now a keyframe, in place of one at the same time.

        Where a track leaves the animal to stand as in the video, it does so until a keyframe has it stand elsewhere: from
        then on all of its keyframes say where.

        Raises ValueError where training has changed the skeleton since the others were made.
        """
        if self.work.track is not None:
            self.work.track.check_model(self.skeleton)
        held, work, track = self._hold(), self.work, self.work.track
        if track is not None and track.keyframes[0].root is None and not self._stands_as_in_video(held):
            track = self._with_roots(track)
        rooted = track is None or track.keyframes[0].root is not None
        names, root = tuple(self.skeleton.names), held.T_world_object if rooted else None
        keyframe = keyframe_from_rotations(self._key_time(), held.rotations, names, root)
        if track is None:
            parents = tuple(self.skeleton.parents.tolist())
            track = PoseTrack(names, parents, (keyframe,), work.duration, self.fps, work.interpolation)
        else:
            track = track.with_keyframe(keyframe)
        self._change(None, track=track, held=None, video_share=0.0)

    def _stands_as_in_video(self, pose: JointPose) -> bool:
        return torch.allclose(pose.T_world_object, self._video(pose.time).T_world_object.cpu(), atol=1e-5)

    def _with_roots(self, track: PoseTrack) -> PoseTrack:
        """A track without roots, with those that the video has at its keyframes."""
        roots = [root_pose(self._video(time / self.work.duration).T_world_object) for time in self.key_times]
        keyframes = [dataclasses.replace(k, root=root) for k, root in zip(track.keyframes, roots, strict=True)]
        return dataclasses.replace(track, keyframes=tuple(keyframes))

    def delete_keyframe(self, index: int) -> None:
        """Forgets one of the keyframes."""
        track = self._needed_track()
        others = tuple(k for i, k in enumerate(track.keyframes) if i != index)
        changed = dataclasses.replace(track, keyframes=others) if others else None
        self._change(None, track=changed, held=None)

    def move_keyframe(self, index: int) -> None:
        """Moves one of the keyframes to the present time. Raises ValueError where there is another one."""
        track, seconds = self._needed_track(), self._key_time()
        others = [keyframe for i, keyframe in enumerate(track.keyframes) if i != index]
        if any(keyframe.time == seconds for keyframe in others):
            raise ValueError(f"there is a keyframe at {seconds:g} s already: delete it first")
        moved = dataclasses.replace(track.keyframes[index], time=seconds)
        keyframes = tuple(sorted([*others, moved], key=lambda keyframe: keyframe.time))
        self._change(None, track=dataclasses.replace(track, keyframes=keyframes), held=None)

    def set_interpolation(self, interpolation: Interpolation) -> None:
        """How poses between keyframes come about."""
        track = self.work.track
        changed = None if track is None else dataclasses.replace(track, interpolation=interpolation)
        self._change(None, interpolation=interpolation, track=changed)

    def set_duration(self, seconds: float) -> None:
        """How long all of it lasts; the present time stays where it is in seconds. Raises ValueError if a keyframe lies beyond."""
        if not seconds > 0:
            raise ValueError(f"a track must last longer than 0 s, got {seconds:g}")
        track, now = self.work.track, self.seconds
        changed = None if track is None else dataclasses.replace(track, duration=seconds)
        self._change(self._slide_of("duration"), duration=seconds, track=changed)
        self.time = min(1.0, now / seconds)

    def save(self, path: Path) -> None:
        """Writes the keyframes as JSON.

        Raises:
            ValueError: there are none, or training has changed the skeleton since they were made.
            OSError: the file cannot be written.
        """
        track = self._needed_track()
        track.check_model(self.skeleton)
        track.save(path)

    def load(self, path: Path) -> None:
        """Takes keyframes from JSON. Raises ValueError or FileNotFoundError in one line that names the file."""
        track = load_track(path, self.skeleton)
        duration = track.duration or self.work.duration
        track = dataclasses.replace(track, duration=duration)
        share, interpolation = track.video_share, track.interpolation
        self._change(None, track=track, held=None, duration=duration, video_share=share, interpolation=interpolation)

    def _needed_track(self) -> PoseTrack:
        if (track := self.track) is None:
            raise ValueError("there are no keyframes yet: pose the animal and add one")
        return track
