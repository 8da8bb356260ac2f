"""Before the first step: how the animal turns and stands before a camera that does not tell.

Its silhouettes say how far it turns, and the prior to which side (`turned_outlines.py`, `priors/turning.py`). Where it does
not turn enough for that, the prior says how its body stands to the picture (`priors/standing.py`).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bags_ns.data.datamanager import BagsDataManager
from bags_ns.data.images import FOREGROUND
from bags_ns.data.seed_points import ALIKE_SPREAD, View, lean
from bags_ns.model import BagsModel
from bags_ns.priors.base import DiffusionPrior, guided_by
from bags_ns.priors.reference import Reference, recut
from bags_ns.priors.standing import NUM_FRAMES, Shown, find_slope
from bags_ns.priors.turning import find_turn, key_pictures, keyframe_indices
from bags_ns.progress import progress_bar, say
from bags_ns.turned_outlines import TURNS_DEG, TurnedOutlines, find_turning

OUTLINES = 36
"""Frames, evenly over those that show all of it, whose outlines say how the animal turns."""
STANDS_ALIKE = math.radians(15)
"""The animal stands as in the canonical frame where it has turned by less than this."""


def start_turn(model: BagsModel, data: BagsDataManager, prior: DiffusionPrior | None) -> bool:
    """Starts root and seeds from the turning that outlines and prior find; whether the outlines also said how the body stands.

    Args:
        model: in whose world the camera does not move; its means are the seeds.
        data: the clip.
        prior: judges single views; None where outlines alone are to say it.
    """
    root = model.root_motion
    given = None if data.clip.elevation_deg is None else math.radians(data.clip.elevation_deg)
    expected = None if prior is None else _expected_turn(model, data, prior, given)
    times = root.knots.cpu()
    whole = _whole_frames(data) or list(range(len(times)))
    frames = sorted({whole[round(share * (len(whole) - 1))] for share in torch.linspace(0, 1, OUTLINES).tolist()})
    views = (view_of(data, frame) for frame in frames)
    seeds, moved = model.means.detach().cpu(), root.path.cpu()[frames]
    outlines = TurnedOutlines(seeds, views, moved, times[frames], float(root.canonical_time))
    with progress_bar("Looking how its outlines turn", len(TURNS_DEG)) as advance:
        turning = find_turning(outlines, expected, given, partial(advance, None, None))
    root.start_turns(turning.at(root.knots), outlines.axis(turning).to(root.knots))
    say(
        f"The animal turns by {math.degrees(turning.turn):+.0f} degrees over the clip (left is positive), and the camera looks "
        f"down by {math.degrees(turning.elevation):.0f}."
    )
    tells = max(turning.turns) - min(turning.turns) >= ALIKE_SPREAD
    if tells:
        _lean_seeds(model, data, turning.slope)
    return tells


def _whole_frames(data: BagsDataManager) -> list[int]:
    """Train frames that show all of the animal; none where frames are not crops."""
    clip = data.clip
    if clip.crop_boxes is None:
        return []
    insides = (data.train_image(frame)[1][..., 3] >= FOREGROUND for frame in range(len(clip.times)))
    boxes = zip(insides, clip.crop_boxes, strict=True)
    return [frame for frame, (inside, box) in enumerate(boxes) if is_whole(inside, box, clip.source_size)]


def is_whole(inside: Bool[Tensor, "S S"], crop_box: Int[Tensor, " 3"], source_size: tuple[int, int]) -> bool:
    """Whether the silhouette in a crop keeps clear of the edges of the source's picture.

    Args:
        inside: the silhouette.
        crop_box: left, top and side of the crop, in pixels of the source.
        source_size: width and height of the source.
    """
    rows, columns = inside.any(dim=1).nonzero(), inside.any(dim=0).nonzero()
    left, top, side = crop_box.tolist()
    scale, (width, height) = side / len(inside), source_size
    first = left + float(columns[0]) * scale, top + float(rows[0]) * scale
    last = left + float(columns[-1] + 1) * scale, top + float(rows[-1] + 1) * scale
    return min(first) >= 1 and last[0] <= width - 1 and last[1] <= height - 1


def _expected_turn(model: BagsModel, data: BagsDataManager, prior: DiffusionPrior, elevation: float | None) -> float:
    """Of the animal over the clip, in radians, by the prior."""
    frames = keyframe_indices(len(data.clip.times))
    cameras, images = zip(*(data.train_image(frame) for frame in frames), strict=True)
    poses = torch.cat([camera.camera_to_worlds for camera in cameras])
    Ks = torch.cat([camera.get_intrinsics_matrices() for camera in cameras]).to(model.device)
    rgba = [model.ground_truth(image) for image in images]
    pictures = key_pictures(rgba, poses, Ks, model.root_motion.path[frames], prior.image_size)
    # Errors are compared, so the network must say what it expects and not exaggerate it.
    with guided_by(prior, 1.0):
        return -find_turn(prior, pictures, data.clip.times[frames], elevation)


def start_slope(model: BagsModel, data: BagsDataManager, prior: DiffusionPrior) -> None:
    """Leans the seeds as the body stands to the canonical picture in views that the prior makes up."""
    root = model.root_motion
    alike = torch.nonzero(root.turns.norm(dim=-1) < STANDS_ALIKE).flatten().tolist()
    chosen = [alike[(2 * k + 1) * len(alike) // (2 * NUM_FRAMES)] for k in range(NUM_FRAMES)]
    middle, shown = model.means.detach().mean(dim=0), []
    for frame in sorted(set(chosen)):
        reference = reference_of(model, data, prior, frame)
        shown.append(Shown(reference, reference.target(middle + root.path[frame])))
    with progress_bar("Looking how the animal stands", len(shown)) as advance:
        slope = find_slope(prior, shown, partial(advance, None, None))
    _lean_seeds(model, data, slope)


def reference_of(model: BagsModel, data: BagsDataManager, prior: DiffusionPrior, frame: int) -> Reference:
    """A train frame as the prior is shown it."""
    camera, image = data.train_image(frame)
    K = camera.get_intrinsics_matrices()[0].to(model.device)  # nerfstudio makes them on the CPU
    return recut(model.ground_truth(image), camera.camera_to_worlds[0], K, prior.image_size)


def view_of(data: BagsDataManager, frame: int) -> View:
    """The silhouette and camera of a train frame."""
    camera, image = data.train_image(frame)
    pose = torch.nn.functional.pad(camera.camera_to_worlds[0].double().cpu(), (0, 0, 0, 1))
    pose[3, 3] = 1.0
    K = camera.get_intrinsics_matrices()[0].double().cpu()
    return View(image[..., 3].cpu().numpy(), K.numpy(), pose.numpy())


def _lean_seeds(model: BagsModel, data: BagsDataManager, slope: float) -> None:
    """Leans the seeds, which lie in the canonical picture's plane, and says so."""
    seeds = model.means.detach().double().cpu().numpy()
    model.means.data.copy_(torch.from_numpy(lean(seeds, view_of(data, data.clip.canonical_index), slope)))
    angle = math.degrees(math.atan(slope))
    say(f"The body stands {angle:+.0f} degrees out of the picture (right end away: positive).")
