"""From a trained model to what the animation rooms take: rigs, motions, Gaussians as plain tensors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animal import OPAQUE
from bags_ns.animation.export_gltf import RiggedAnimal
from bags_ns.animation.extremities import Body, find_extremities
from bags_ns.animation.joint_rotations import SampledMotion, fit_rotations, shifted_root
from bags_ns.animation.pose_track import PoseTrack, keyframe_from_rotations
from bags_ns.animation.retarget import reach, retarget_roots, retargeted_paths
from bags_ns.animation.splats import Splats, splats_from_gaussians
from bags_ns.model import BagsModel
from bags_ns.rig.motion import Pose
from bags_ns.rig.transforms import quat_to_rotation


def clip_fps(model: BagsModel) -> float:
    """Frames a second of the video that a model was trained on."""
    return float(model.kwargs["metadata"]["clip"].fps) or 24.0


def clip_duration(model: BagsModel) -> float:
    """Seconds from its first frame to its last."""
    return (len(model.bone_motion.knots) - 1) / clip_fps(model)


@torch.no_grad()
def body_of(model: BagsModel) -> Body:
    """The animal's rig, its opaque points and the video's motion of both."""
    model.check_bones()
    opaque = model.canonical_opacities() > OPAQUE
    chosen = opaque if bool(opaque.any()) else torch.ones_like(opaque)
    points, weights = model.means[chosen].detach(), model.skin_weights()[chosen].detach()
    motion = video_motion(model).T_object_canonical
    return Body(model.skeleton, model.bones.centers.detach(), points, weights, motion)


@torch.no_grad()
def video_motion(model: BagsModel, times: Float[Tensor, " K"] | None = None) -> SampledMotion:
    """The motion of the video at `times` in [0, 1], which are its frames unless given; exact, a transform for each bone."""
    model.check_bones()
    times = model.bone_motion.knots if times is None else times.to(model.device)
    return _sampled(times * clip_duration(model), [model.pose_at(time) for time in times])


def _sampled(times: Float[Tensor, " K"], poses: list[Pose]) -> SampledMotion:
    bones = torch.stack([pose.T_object_canonical for pose in poses])
    return SampledMotion(times, bones, torch.stack([pose.T_world_object for pose in poses]))


@torch.no_grad()
def joint_motion(model: BagsModel, motion: SampledMotion) -> tuple[Float[Tensor, "K B 3 3"], Float[Tensor, "K 4 4"]]:
    """A motion of the model's bones as local rotations and root transforms, in least squares (`fit_rotations`)."""
    model.check_bones()
    bones = model.bones
    factors = quat_to_rotation(bones.quats) * bones.scales[:, None, :]
    covars = factors @ factors.transpose(1, 2)
    rotations, shift = fit_rotations(motion.T_object_canonical, model.skeleton, bones.centers, covars)
    return rotations, shifted_root(motion.T_world_object, shift)


def track_of(
    model: BagsModel,
    times: Float[Tensor, " K"],
    rotations: Float[Tensor, "K B 3 3"],
    roots: Float[Tensor, "K 4 4"],
    fps: float,
) -> PoseTrack:
    """A track for `model` with a keyframe at each of `times` (seconds)."""
    names = tuple(model.skeleton.names)
    keyframes = tuple(
        keyframe_from_rotations(round(float(time), 6), turns, names, root)
        for time, turns, root in zip(times, rotations.cpu(), roots.cpu(), strict=True)
    )
    return PoseTrack(names, tuple(model.skeleton.parents.tolist()), keyframes, duration=keyframes[-1].time, fps=fps)


def video_track(model: BagsModel) -> PoseTrack:
    """The video's motion as a track that a person can go on from: what joints can do of it."""
    motion = video_motion(model)
    return track_of(model, motion.times, *joint_motion(model, motion), clip_fps(model))


@torch.no_grad()
def track_pose(model: BagsModel, track: PoseTrack, share: float) -> Pose:
    """The model's pose after a share (0 to 1) of the track; the video runs once while it lasts."""
    model.check_bones()
    return track.pose_at(share * track.duration, model.skeleton, model.pose_at(share))


def track_poses(model: BagsModel, track: PoseTrack) -> list[Pose]:
    """The model's pose at each frame of the track."""
    times = track.frame_times().tolist()
    return [track_pose(model, track, min(1.0, time / track.duration) if track.duration else 0.0) for time in times]


def track_motion(model: BagsModel, track: PoseTrack) -> SampledMotion:
    """The same poses as one motion."""
    return _sampled(track.frame_times(), track_poses(model, track))


def motions_by_name(model: BagsModel, track: PoseTrack | None, name: str = "track") -> dict[str, SampledMotion]:
    """The motions that go into a file, first what a page plays: the track's, which is never named as the video's, then that."""
    video = {"video": video_motion(model)}
    return video if track is None else {"track" if name in video else name: track_motion(model, track), **video}


def retargeted_track(source: BagsModel, target: BagsModel) -> PoseTrack:
    """The motion of the source's video as a track for `target`."""
    motion, body = video_motion(source), body_of(target)
    theirs, ours = find_extremities(body_of(source)), find_extremities(body)
    rotations = reach(retargeted_paths(theirs, ours), body, ours)
    base = int((source.bone_motion.knots - source.bone_motion.canonical_time).abs().argmin())
    roots = retarget_roots(motion.T_world_object, theirs, ours, base)
    return track_of(target, motion.times, rotations, roots, clip_fps(source))


@torch.no_grad()
def posed_splats(model: BagsModel, pose: Pose | None = None) -> Splats:
    """The Gaussians in `pose` (world frame), or the canonical ones."""
    if pose is not None:
        return splats_from_gaussians(model.posed_gaussians(pose))
    quats = torch.nn.functional.normalize(model.quats.detach(), dim=-1)
    colors = model.colors.detach().clamp(0, 1)
    return Splats(model.means.detach(), quats, model.scales.detach().exp(), model.canonical_opacities(), colors)


@torch.no_grad()
def rigged_animal(model: BagsModel) -> RiggedAnimal:
    """The whole animal for other programs."""
    model.eval()
    return RiggedAnimal(
        posed_splats(model), model.skin_weights(), lambda points: model.skinning(points, model.bones), model.skeleton
    )
