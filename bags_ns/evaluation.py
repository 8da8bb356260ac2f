"""Evaluates a trained model on whole splits: by frame, by angle to the nearest training view, and by time.

Two things may be unseen. Test views look from angles that were not filmed, most of them at times that were; held-out
frames are the film's own, at times that training did not see. Each has rows of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.models.base_model import Model
from torch import Tensor

from bags_ns.data.datamanager import BagsDataManager
from bags_ns.metrics import image_metrics, on_white, straight_rgba
from bags_ns.perceptual import Perceptual, kid

Summary = dict[str, dict[str, float]]
"""Rows of a result by their names: metrics by theirs."""

ANGLE_BINS_DEG = ((0, 40), (40, 85), (85, 130), (130, 180.001))
"""Angles of a view to the nearest training view's direction."""
UNSEEN_DEG = 62.0
"""A view farther than this from every training view shows an unseen side."""


def view_directions(camera_to_worlds: Float[Tensor, "C 3 4"]) -> Float[Tensor, "C 3"]:
    """Unit vectors along which cameras look."""
    return torch.nn.functional.normalize(-camera_to_worlds[:, :3, 2], dim=-1)


def angles_to_training(views: Float[Tensor, "C 3 4"], training: Float[Tensor, "T 3 4"]) -> Float[Tensor, " C"]:
    """Angle in degrees of each view's direction to the nearest training view's."""
    cosines = view_directions(views) @ view_directions(training).T
    return torch.rad2deg(cosines.amax(dim=1).clamp(-1, 1).acos())


def nearest_is_held_out(
    times: Float[Tensor, " V"], trained: Float[Tensor, " T"], held_out: Float[Tensor, " U"]
) -> Bool[Tensor, " V"]:
    """Whether the frame nearest in time is a held-out one."""
    gaps = [(times[:, None] - frames).abs().amin(dim=1) for frames in (held_out, trained)]
    return gaps[0] < gaps[1]


@dataclass(frozen=True)
class Split:
    """Metrics of a split."""

    rows: list[dict[str, float]]
    """Of every frame."""
    of_all: dict[str, float]
    """Of the frames together."""

    @property
    def mean(self) -> dict[str, float]:
        """The split as one row of a result."""
        return mean_of(self.rows) | self.of_all


@torch.no_grad()
def evaluate_split(
    model: Model, dataset: Any, advance: Callable[[], None], perceptual: Perceptual | None = None
) -> Split:
    """Metrics of every frame of a nerfstudio dataset, `advance` called after each."""
    rows, features = [], []
    cameras: Cameras = dataset.cameras
    for index in range(len(dataset)):
        camera = cameras[index : index + 1]
        outputs = model.get_outputs_for_camera(camera)
        target = straight_rgba(dataset.get_data(index, image_type="uint8")["image"].to(model.device))
        rows.append(image_metrics(outputs["rgb"], outputs["accumulation"], target))
        if perceptual is not None:
            pair = outputs["rgb"], on_white(target)
            rows[-1] |= perceptual.of_picture(*pair)
            features.append(perceptual.features(*pair))
        advance()
    known = [each for each in features if each is not None]
    return Split(rows, kid(known) if known else {})


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean over frames of every metric, and their number; a metric that is absent in a frame is left out there."""
    keys = sorted({key for row in rows for key in row})
    means = {key: sum(r[key] for r in rows if key in r) / sum(key in r for r in rows) for key in keys}
    return {"frames": float(len(rows)), **means}


def by_angle(rows: list[dict[str, float]], angles_deg: list[float]) -> dict[str, dict[str, float]]:
    """Rows of the result for test views: all, by angle bin, and the unseen ones; those without a view are left out."""
    groups = {"test": (-1.0, math.inf)}
    groups |= {f"test {low}-{math.floor(high)} deg": (low, high) for low, high in ANGLE_BINS_DEG}
    members = {
        name: [row for row, angle in zip(rows, angles_deg, strict=True) if low <= angle < high]
        for name, (low, high) in groups.items()
    }
    members["unseen"] = [row for row, angle in zip(rows, angles_deg, strict=True) if angle > UNSEEN_DEG]
    return {name: mean_of(group) for name, group in members.items() if group}


def by_time(rows: list[dict[str, float]], held_out: list[bool]) -> dict[str, dict[str, float]]:
    """Rows of the result for test views by whether their time was trained on; none without views of both kinds."""
    groups = {
        name: [row for row, held in zip(rows, held_out, strict=True) if held == wanted]
        for name, wanted in (("test, seen times", False), ("test, held-out times", True))
    }
    return {name: mean_of(group) for name, group in groups.items()} if all(groups.values()) else {}


def num_pictures(data: BagsDataManager) -> int:
    """How many pictures `evaluate` looks at."""
    held_out, tests = data.held_out_dataset, data.test_dataset
    return len(data.train_dataset) + (len(held_out) if held_out else 0) + (len(tests) if tests else 0)


def evaluate(
    model: Model,
    data: BagsDataManager,
    advance: Callable[[], None] = lambda: None,
    perceptual: Perceptual | None = None,
) -> Summary:
    """The summary of a model over its training frames and, where there are any, held-out frames and test views."""
    model.eval()
    train, tests = data.train_dataset, data.test_dataset
    summary = evaluate_film(model, data, advance, perceptual)
    if tests is None:
        return summary
    split = evaluate_split(model, tests, advance, perceptual)
    angles = angles_to_training(tests.cameras.camera_to_worlds, train.cameras.camera_to_worlds)
    summary |= by_angle(split.rows, angles.tolist())
    summary["test"] |= split.of_all
    if (held_out := data.held_out_dataset) is not None:
        times = [torch.as_tensor(split.cameras.times).flatten() for split in (tests, train, held_out)]
        summary |= by_time(split.rows, nearest_is_held_out(*times).tolist())
    return summary


def evaluate_film(
    model: Model, data: BagsDataManager, advance: Callable[[], None], perceptual: Perceptual | None = None
) -> Summary:
    """The rows of the film's own frames: trained ones, and held-out ones where there are any."""
    summary = {"train": evaluate_split(model, data.train_dataset, advance, perceptual).mean}
    if data.held_out_dataset is not None:
        summary["held-out times"] = evaluate_split(model, data.held_out_dataset, advance, perceptual).mean
    return summary
