"""Evaluates a trained model on whole splits: by frame, by angle to the nearest training view, seen and unseen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from bags_ns.metrics import image_metrics
from bags_ns.model import BagsModel

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


@torch.no_grad()
def evaluate_split(
    model: BagsModel, dataset: Any, advance: Callable[[], None] = lambda: None
) -> list[dict[str, float]]:
    """Metrics of every frame of a nerfstudio dataset, `advance` called after each."""
    rows = []
    cameras: Cameras = dataset.cameras
    for index in range(len(dataset)):
        camera = cameras[index : index + 1]
        outputs = model.get_outputs_for_camera(camera)
        target = model.ground_truth(dataset.get_data(index, image_type="uint8")["image"])
        rows.append(image_metrics(outputs["rgb"], outputs["accumulation"], target))
        advance()
    return rows


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean over frames of every metric, and their number; a metric that is absent in a frame is left out there."""
    keys = sorted({key for row in rows for key in row})
    means = {key: sum(r[key] for r in rows if key in r) / sum(key in r for r in rows) for key in keys}
    return {"frames": float(len(rows)), **means}


def summarize(
    train_rows: list[dict[str, float]], test_rows: list[dict[str, float]], angles_deg: list[float]
) -> dict[str, dict[str, float]]:
    """Rows of the result: training views, test views, test views by angle bin, and the unseen ones."""
    summary = {"train": mean_of(train_rows)}
    if test_rows:
        summary["test"] = mean_of(test_rows)
        for low, high in ANGLE_BINS_DEG:
            members = [row for row, angle in zip(test_rows, angles_deg, strict=True) if low <= angle < high]
            if members:
                summary[f"test {low}-{math.floor(high)} deg"] = mean_of(members)
        unseen = [row for row, angle in zip(test_rows, angles_deg, strict=True) if angle > UNSEEN_DEG]
        if unseen:
            summary["unseen"] = mean_of(unseen)
    return summary


def evaluate_model(
    model: BagsModel, train_dataset: Any, test_dataset: Any | None, advance: Callable[[], None] = lambda: None
) -> dict[str, dict[str, float]]:
    """The summary of a model over its training frames and, where there are any, views it never trained on."""
    model.eval()
    train_rows = evaluate_split(model, train_dataset, advance)
    test_rows: list[dict[str, float]] = []
    angles: list[float] = []
    if test_dataset is not None:
        test_rows = evaluate_split(model, test_dataset, advance)
        poses = test_dataset.cameras.camera_to_worlds, train_dataset.cameras.camera_to_worlds
        angles = angles_to_training(*poses).tolist()
    return summarize(train_rows, test_rows, angles)
