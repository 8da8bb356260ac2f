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
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bags_ns.data.dataparser import AnimalVideoDataParserConfig, cameras_of
from bags_ns.data.frames import read_frame, tests_within
from bags_ns.data.images import DataError
from bags_ns.data.layouts import SourceFrame, find_clip
from bags_ns.data.seed_points import View, meeting_point, rays_of
from bags_ns.data.transforms import PosedImage, SourceCamera
from bags_ns.evaluation import angles_to_training, by_angle, evaluate_film
from bags_ns.gaussians import Gaussians
from bags_ns.metrics import image_metrics
from bags_ns.model import BagsModel
from bags_ns.pipeline import BagsPipeline
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
        means, covars = gaussians.means @ linear.T + self.translation, linear @ gaussians.covars @ linear.T
        return replace(gaussians, means=means, covars=covars)


def similarity_of_cameras(
    ours: Float[Tensor, "4 4"],
    our_point: Float[Tensor, " 3"],
    theirs: Float[Tensor, "4 4"],
    their_point: Float[Tensor, " 3"],
) -> Similarity:
    """The similarity that takes our OpenGL camera onto theirs, and our point to the depth of theirs before it."""
    scale = _depth(theirs, their_point) / _depth(ours, our_point)
    rotation = theirs[:3, :3] @ ours[:3, :3].T
    return Similarity(scale, rotation, theirs[:3, 3] - scale * rotation @ ours[:3, 3])


def _depth(camera_to_world: Float[Tensor, "4 4"], point: Float[Tensor, " 3"]) -> float:
    return float((camera_to_world[:3, 3] - point) @ camera_to_world[:3, 2])


def turns_deg(rotations: Float[Tensor, "T 3 3"]) -> Float[Tensor, " T"]:
    """How far an OpenGL camera has gone about the vertical axis (z) since the first frame, in degrees, whole turns counted."""
    azimuths = torch.atan2(rotations[:, 1, 2], rotations[:, 0, 2])
    steps = torch.remainder(azimuths.diff() + torch.pi, 2 * torch.pi) - torch.pi
    return torch.rad2deg(torch.cat([steps.new_zeros(1), steps.cumsum(0)]))


def motion_errors(ours: Float[Tensor, "T 4 4"], theirs: Float[Tensor, "T 4 4"]) -> dict[str, float]:
    """Recovered cameras against true ones, after the first has been laid onto the first.

    Returns:
        turn_deg and true_turn_deg from the first frame to the last, positive where the camera goes from x to y, and the
        largest errors over the frames: turn_error_deg, and rotation_error_deg about any axis.
    """
    aligned = theirs[0, :3, :3] @ ours[0, :3, :3].T @ ours[:, :3, :3]
    our_turns, true_turns = turns_deg(aligned), turns_deg(theirs[:, :3, :3])
    cosines = ((aligned * theirs[:, :3, :3]).sum((1, 2)) - 1) / 2
    return {
        "turn_deg": float(our_turns[-1]),
        "true_turn_deg": float(true_turns[-1]),
        "turn_error_deg": float((our_turns - true_turns).abs().max()),
        "rotation_error_deg": float(torch.rad2deg(cosines.clamp(-1, 1).acos()).max()),
    }


@dataclass(frozen=True, eq=False)
class TrueClip:
    """What the data know and the run was not told."""

    train: tuple[SourceFrame, ...]
    """The frames that were trained on."""
    test: tuple[SourceFrame, ...]
    """Test views."""

    @property
    def camera_to_worlds(self) -> Float[Tensor, "T 4 4"]:
        """OpenGL poses of the frames that were trained on."""
        poses = np.stack([_camera(frame).camera_to_world for frame in self.train])
        return torch.from_numpy(poses.astype(np.float32))

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
            reason = "the run was trained with its cameras" if clip.has_cameras else "it has no cameras"
            raise DataError(
                f"{config.data}: {reason}; --unposed is for runs of ns-train ... animal-video --known-cameras False."
            )
        numbers = info.source_indices.tolist()
        tests = tests_within(clip, numbers, info.times.tolist())
        return cls(tuple(clip.frames[number] for number in numbers), tuple(tests))


def evaluate_unposed(
    pipeline: BagsPipeline, truth: TrueClip, advance: Callable[[], None] = lambda: None
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """What `motion_errors` says of the run, and the summary of `evaluate` with test views in the true world.

    `advance` is called after each of the run's frames and the test views of `truth`.
    """
    model, data = pipeline.model.eval(), pipeline.datamanager
    summary = evaluate_film(model, data, advance)
    with torch.no_grad():
        ours = recovered_cameras(model, data.train_dataset.cameras.camera_to_worlds[0].to(model.device))
        theirs = truth.camera_to_worlds.to(model.device)
        if truth.test:
            summary |= by_angle(*_test_views(model, truth, ours[0], theirs, advance))
    return motion_errors(ours, theirs), summary


def recovered_cameras(model: BagsModel, camera_to_world: Float[Tensor, "3 4"]) -> Float[Tensor, "T 4 4"]:
    """The cameras about an animal in place that stand for its movement before the run's one camera."""
    pose = torch.cat([camera_to_world, camera_to_world.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
    return rigid_inverse(model.root_motion(model.root_motion.knots)) @ pose


def _test_views(
    model: BagsModel,
    truth: TrueClip,
    our_first: Float[Tensor, "4 4"],
    theirs: Float[Tensor, "T 4 4"],
    advance: Callable[[], None],
) -> tuple[list[dict[str, float]], list[float]]:
    """Metrics of the test views, and their angles to the nearest training view."""
    pictures = [read_frame(frame) for frame in truth.test]
    similarity = similarity_of_cameras(
        our_first,
        animal_in_place(model, float(model.root_motion.canonical_time)).centroid(),
        theirs[0],
        true_centre(truth, pictures).to(theirs),
    )
    cameras = cameras_of([_undistorted(frame) for frame in truth.test]).to(model.device)
    white = torch.ones(3, device=model.device)
    rows = []
    for index, (frame, picture) in enumerate(zip(truth.test, pictures, strict=True)):
        gaussians = similarity.moved(animal_in_place(model, frame.time or 0.0))
        output = model.render_gaussians(gaussians, cameras[index : index + 1], white, with_depth=False)
        target = model.ground_truth(torch.from_numpy(picture))
        rows.append(image_metrics(output.rgb[0].clamp(0, 1), output.alpha[0], target))
        advance()
    return rows, angles_to_training(cameras.camera_to_worlds, theirs[:, :3]).tolist()


def animal_in_place(model: BagsModel, time: float) -> Gaussians:
    """The animal in its pose at `time`, without its movement as a whole."""
    return model.posed_gaussians(replace(model.pose_at(time), T_world_object=torch.eye(4, device=model.device)))


def true_centre(truth: TrueClip, test_pictures: list[UInt8[np.ndarray, "H W 4"]]) -> Float[Tensor, " 3"]:
    """Where the test silhouettes say that the middle of the animal is."""
    cameras = [_camera(frame) for frame in truth.test]
    views = [
        View(rgba[..., 3], camera.intrinsics, camera.camera_to_world)
        for rgba, camera in zip(test_pictures, cameras, strict=True)
    ]
    return torch.from_numpy(meeting_point(*rays_of(views)).astype(np.float32))


def _camera(frame: SourceFrame) -> SourceCamera:
    return cast(SourceCamera, frame.camera)


def _undistorted(frame: SourceFrame) -> PosedImage:
    """A frame with the camera of the picture that `read_frame` gives."""
    camera = _camera(frame)
    return PosedImage(frame.image, frame.mask, frame.time, camera.resized(camera.width, camera.height))
