"""The gait: after what time an animal's motion repeats, read from its bones and its silhouettes together.

Silhouettes are exact, but look alike half a period later, when the legs of one side have taken the places of the other's.
Bones tell the sides apart and do not see the camera move, but follow each frame as well as they could.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bags_ns.rig.motion import BoneMotion, interpolation_weights

SAMPLES_A_FRAME = 4
"""Motion is compared with itself at so many times a frame."""
SHORTEST_FRAMES = 4
"""Periods below are no gait: frames that follow each other resemble each other anyway."""
LONGEST_PART = 0.68
"""Of the clip: only what is left can be compared."""
LEAST_REPETITION = 0.2
"""Motion that repeats less is not taken for a gait."""
ABOUT_AS_GOOD = 0.8
"""The shortest period that reaches this part of the best one's repetition is taken: its multiples are periods too."""
NEAR = 0.08
"""Part of a period by which the bones' own may differ from the one that silhouettes agreed to."""
PICTURE_SIZE = 48
"""Side of a normalised silhouette, in pixels."""
PICTURE_REACH = 5.8
"""From the middle of such a picture to its edge, in standard deviations of the silhouette's height."""


@torch.no_grad()
def gait_period(motion: BoneMotion, silhouettes: Iterable[Float[Tensor, "H W"]]) -> float | None:
    """The time after which a motion repeats, as a part of the clip; None if it does not.

    Args:
        motion: of all frames, as far as it is trained.
        silhouettes: alpha of the frames at the motion's knots.
    """
    times = torch.linspace(0, 1, SAMPLES_A_FRAME * (len(motion.knots) - 1) + 1, device=motion.knots.device)
    pictures = torch.stack([normalised_silhouette(alpha) for alpha in silhouettes])
    return find_period(motion(times)[..., 3:].flatten(1), interpolation_weights(motion.knots, times) @ pictures)


def find_period(bones: Float[Tensor, "S D"], silhouettes: Float[Tensor, "S E"]) -> float | None:
    """The time after which sampled motions repeat, as a part of the clip; None if they do not.

    Both choose among the periods that either could have; its exact length is the bones' alone, for which the camera stands
    still.

    Args:
        bones: paths of the bones at S times, evenly over the clip, `SAMPLES_A_FRAME` a frame.
        silhouettes: pictures of the animal's outline at the same times.
    """
    count = len(bones)
    shortest, longest = SHORTEST_FRAMES * SAMPLES_A_FRAME, int(LONGEST_PART * (count - 1))
    if longest < shortest + 2:
        return None
    of_bones = repetition(bones, longest)
    values = 0.5 * (of_bones + repetition(silhouettes, longest))
    is_peak = (values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:])
    peaks = [lag for lag in (1 + torch.nonzero(is_peak).flatten()).tolist() if lag >= shortest]
    best = max((float(values[lag]) for lag in peaks), default=0.0)
    if best < LEAST_REPETITION:
        return None
    lag = next(lag for lag in peaks if values[lag] >= ABOUT_AS_GOOD * best)
    near = slice(round((1 - NEAR) * lag), round((1 + NEAR) * lag) + 1)
    return (near.start + int(of_bones[near].argmax())) / (count - 1)


def repetition(motion: Float[Tensor, "S D"], longest: int) -> Float[Tensor, " L"]:
    """How well a motion repeats after 0, 1 .. `longest` samples: 1 exactly, 0 not at all.

    The autocorrelation that finds periods in videos (Cutler and Davis, "Robust real-time periodic motion detection",
    2000), of the change over a frame: any slow movement resembles itself half a clip later, its changes do not.
    """
    changes = (motion[SAMPLES_A_FRAME:] - motion[:-SAMPLES_A_FRAME]).double()
    changes = changes - changes.mean(0)  # a steady turn or drift is no gait
    squares = changes.square().sum(1)
    values = []
    for lag in range(longest + 1):
        earlier, later = slice(0, len(changes) - lag), slice(lag, None)
        product = (changes[earlier] * changes[later]).sum()
        usual = 2 * len(squares[later]) * squares.mean()  # so that rest does not count as the repetition of rest
        values.append(
            2 * product / torch.maximum(squares[earlier].sum() + squares[later].sum(), usual).clamp_min(1e-24)
        )
    return torch.stack(values)


def normalised_silhouette(alpha: Float[Tensor, "H W"]) -> Float[Tensor, " pixels"]:
    """A silhouette as a small picture, flat, in which its middle and its height are always the same."""
    rows, columns = (torch.arange(size, device=alpha.device, dtype=alpha.dtype) + 0.5 for size in alpha.shape)
    area = alpha.sum().clamp_min(1e-6)
    y, x = (alpha.sum(1) @ rows) / area, (alpha.sum(0) @ columns) / area
    reach = PICTURE_REACH * ((alpha.sum(1) @ (rows - y).square()) / area).sqrt().clamp_min(1.0)
    steps = torch.linspace(-1, 1, 2 * PICTURE_SIZE, device=alpha.device, dtype=alpha.dtype) * reach
    grid_x, grid_y = 2 * (x + steps) / alpha.shape[1] - 1, 2 * (y + steps) / alpha.shape[0] - 1
    grid = torch.stack(torch.meshgrid(grid_x, grid_y, indexing="xy"), dim=-1)
    picture = F.avg_pool2d(F.grid_sample(alpha[None, None], grid[None], align_corners=False), 2)
    return F.avg_pool2d(picture, 3, stride=1).flatten()
