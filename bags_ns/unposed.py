"""Evaluates a run that was trained without cameras on data that have them: how far did the animal turn, and how does it
look from the test views?

Without cameras only the movement of the animal relative to the camera can be known. Here it is read as that of a camera
about an animal that stays in place, as in the data's own world: the camera of frame t is inverse(root(t)) times the one
camera of the run. The two worlds are brought together by a similarity on the first frame alone: rotation and place of
its camera, and the distance of the animal from it. Everything that went wrong later in the clip shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.data.dataparser import AnimalVideoDataParserConfig, cameras_of
from bags_ns.data.frames import read_frame
from bags_ns.data.images import DataError
from bags_ns.data.layouts import SourceFrame, find_clip
from bags_ns.data.seed_points import View, nearest_to_rays
from bags_ns.data.transforms import PosedImage, SourceCamera
from bags_ns.evaluation import angles_to_training, evaluate_split, summarize
from bags_ns.gaussians import Gaussians
from bags_ns.metrics import image_metrics
from bags_ns.model import BagsModel
from bags_ns.pipeline import BagsPipeline
from bags_ns.rig.motion import Pose
from bags_ns.rig.transforms import rigid_inverse


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale R x + t."""

    scale: float
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, " 3"]

    def moved(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians in the other world."""
        linear = self.scale * self.rotation
        return replace(
            gaussians,
            means=gaussians.means @ linear.T + self.translation,
            covars=linear @ gaussians.covars @ linear.T,
        )


def similarity_of_cameras(
    ours: Float[Tensor, "4 4"], theirs: Float[Tensor, "4 4"], our_depth: float, their_depth: float
) -> Similarity:
    """The similarity that takes our OpenGL camera onto theirs, and our animal's depth before it to theirs."""
    scale = their_depth / our_depth
    rotation = theirs[:3, :3] @ ours[:3, :3].T
    return Similarity(scale, rotation, theirs[:3, 3] - scale * rotation @ ours[:3, 3])


def depth_before(camera_to_world: Float[Tensor, "4 4"], point: Float[Tensor, " 3"]) -> float:
    """Distance of a world point along the view of an OpenGL camera."""
    return float((camera_to_world[:3, 3] - point) @ camera_to_world[:3, 2])


def turns_deg(camera_to_worlds: Float[Tensor, "T 4 4"]) -> Float[Tensor, " T"]:
    """How far the camera has gone about the vertical axis (z) since the first frame, in degrees, whole turns counted."""
    backward = camera_to_worlds[:, :3, 2]
    azimuths = torch.atan2(backward[:, 1], backward[:, 0])
    steps = torch.remainder(azimuths[1:] - azimuths[:-1] + torch.pi, 2 * torch.pi) - torch.pi
    return torch.rad2deg(torch.cat([steps.new_zeros(1), steps.cumsum(0)]))


def angles_deg(one: Float[Tensor, "T 4 4"], other: Float[Tensor, "T 4 4"]) -> Float[Tensor, " T"]:
    """Angles of the rotations between two sets of cameras, in degrees."""
    traces = (one[:, :3, :3] * other[:, :3, :3]).sum((1, 2))
    return torch.rad2deg(((traces - 1) / 2).clamp(-1, 1).acos())


@dataclass(frozen=True, eq=False)
class TrueClip:
    """What the data know and the run was not told."""

    camera_to_worlds: Float[Tensor, "T 4 4"]
    """Of the frames that were trained on."""
    first: SourceFrame
    """The first of them."""
    test_frames: tuple[SourceFrame, ...]

    @classmethod
    def of_run(cls, pipeline: BagsPipeline) -> TrueClip:
        """Reads the camera file of a run's data again.

        Raises:
            DataError: the data have no cameras, or the run was trained with them.
        """
        config = cast(AnimalVideoDataParserConfig, pipeline.datamanager.config.dataparser)
        info = pipeline.datamanager.clip
        clip = find_clip(config.data, config.sequence)
        if not info.object_centric or not clip.has_cameras:
            known = "was trained with them" if clip.has_cameras else "has none"
            raise DataError(
                f"{config.data}: --unposed compares with cameras that the run was not told, and it {known}; "
                "train on data with cameras, with animal-video --known-cameras False."
            )
        frames = [clip.frames[int(number)] for number in info.source_indices]
        poses = np.stack([cast(SourceCamera, frame.camera).camera_to_world for frame in frames])
        return cls(torch.from_numpy(poses.astype(np.float32)), frames[0], clip.test_frames)


def recovered_cameras(model: BagsModel, camera_to_world: Float[Tensor, "4 4"]) -> Float[Tensor, "T 4 4"]:
    """The cameras about the animal in place that stand for its movement before the run's one camera."""
    roots = model.root_motion(model.root_motion.knots)
    return rigid_inverse(roots) @ camera_to_world


def evaluate_unposed(
    pipeline: BagsPipeline, advance: Callable[[], None] = lambda: None
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The turn over the clip beside the true one, and the summary of `evaluate_model` with test views in the true world.

    Returns:
        turn_deg and true_turn_deg (signed, from the first frame to the last), turn_error_deg and rotation_error_deg (the
        largest over the frames), and rows as `evaluation.summarize` gives them.

    Raises:
        DataError: there are no cameras to compare with.
    """
    model, data = pipeline.model.eval(), pipeline.datamanager
    truth = TrueClip.of_run(pipeline)
    rows = evaluate_split(model, data.train_dataset, advance)
    with torch.no_grad():
        pose = data.train_dataset.cameras.camera_to_worlds[0].to(model.device)
        ours = recovered_cameras(model, torch.cat([pose, pose.new_tensor([[0.0, 0.0, 0.0, 1.0]])]))
        theirs = truth.camera_to_worlds.to(model.device)
        turn = motion_errors(ours, theirs)
        test_rows, angles = _test_views(model, truth, ours[0], theirs, advance) if truth.test_frames else ([], [])
    return turn, summarize(rows, test_rows, angles)


def motion_errors(ours: Float[Tensor, "T 4 4"], theirs: Float[Tensor, "T 4 4"]) -> dict[str, float]:
    """Turn and rotation of recovered cameras against true ones, after the first has been laid onto the first."""
    aligned = ours.clone()
    aligned[:, :3, :3] = theirs[0, :3, :3] @ ours[0, :3, :3].T @ ours[:, :3, :3]
    our_turns, true_turns = turns_deg(aligned), turns_deg(theirs)
    return {
        "turn_deg": float(our_turns[-1]),
        "true_turn_deg": float(true_turns[-1]),
        "turn_error_deg": float((our_turns - true_turns).abs().max()),
        "rotation_error_deg": float(angles_deg(aligned, theirs).max()),
    }


def _test_views(
    model: BagsModel,
    truth: TrueClip,
    our_first: Float[Tensor, "4 4"],
    theirs: Float[Tensor, "T 4 4"],
    advance: Callable[[], None],
) -> tuple[list[dict[str, float]], list[float]]:
    """Metrics of the test views, and their angles to the nearest training view."""
    pictures = [read_frame(frame) for frame in truth.test_frames]
    posed = [_pinhole(frame) for frame in truth.test_frames]
    views = [View(rgba[..., 3], p.camera.intrinsics, p.camera.camera_to_world) for rgba, p in zip(pictures, posed)]
    first = View(read_frame(truth.first)[..., 3], *_matrices(truth.first))
    centre = torch.from_numpy(nearest_to_rays([first, *views]).astype(np.float32)).to(theirs)
    canonical = _in_place(model, float(model.root_motion.canonical_time))
    similarity = similarity_of_cameras(
        our_first,
        theirs[0],
        depth_before(our_first, canonical.centroid()),
        depth_before(theirs[0], centre),
    )
    cameras = cameras_of(posed).to(model.device)
    rows = []
    for index, picture in enumerate(pictures):
        gaussians = similarity.moved(_in_place(model, posed[index].time or 0.0))
        white = torch.ones(3, device=model.device)
        output = model.render_gaussians(gaussians, cameras[index : index + 1], white, with_depth=False)
        target = model.ground_truth(torch.from_numpy(picture))
        rows.append(image_metrics(output.rgb[0].clamp(0, 1), output.alpha[0], target))
        advance()
    return rows, angles_to_training(cameras.camera_to_worlds, theirs[:, :3]).tolist()


def _in_place(model: BagsModel, time: float) -> Gaussians:
    """The animal in its pose at `time`, its root's movement left out."""
    pose = model.pose_at(time)
    return model.posed_gaussians(Pose(pose.T_object_canonical, torch.eye(4, device=model.device)))


def _pinhole(frame: SourceFrame) -> PosedImage:
    """A frame as `read_frame` gives it: its lens distortion taken out."""
    camera = cast(SourceCamera, frame.camera)
    return PosedImage(frame.image, frame.mask, frame.time, camera.resized(camera.width, camera.height))


def _matrices(frame: SourceFrame) -> tuple[Any, Any]:
    camera = cast(SourceCamera, frame.camera)
    return camera.intrinsics, camera.camera_to_world
