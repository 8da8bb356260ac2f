"""When things happen in a run: everything is a fraction of the run's total length. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise
from statistics import median


class Phase(IntEnum):
    """The three phases of a run."""

    CANONICAL = 0
    """One frame: the canonical Gaussians."""
    BONES = 1
    """Frames enter outward from the canonical one; geometry is nearly frozen."""
    JOINT = 2
    """Everything, at all times."""


NEWEST_FRAMES = 2
"""Frames at each end of the growing window that get half of the attention."""


GAP = 3.5
"""Frames that lie farther apart than so many times the usual have a gap between them: three or more are missing."""


def takes_of_frames(times: Sequence[float]) -> list[int]:
    """The number of the take that each frame of a clip belongs to: a new one begins after every gap in the ascending `times`.

    Frames are taken to be evenly spaced but for the gaps.
    """
    steps = [later - earlier for earlier, later in pairwise(times)]
    longest = GAP * median(steps) if steps else 0.0
    return list(accumulate((int(step > longest) for step in steps), initial=0))


def entry_order(times: Sequence[float], canonical_index: int) -> list[int]:
    """How late each frame of a clip enters, the canonical one first: those of its take outward, then those beyond its gaps.

    So a whole take is known, and maybe its gait, before a gap is crossed.
    """
    take = takes_of_frames(times)
    gaps = [abs(each - take[canonical_index]) for each in take]
    distances = [0] * len(times)  # from where the window comes into each take
    for outward, frames in ((1, range(canonical_index + 1, len(times))), (-1, range(canonical_index - 1, -1, -1))):
        for frame in frames:
            distances[frame] = distances[frame - outward] + 1 if take[frame] == take[frame - outward] else 0
    lengths = [1 + max(d for d, g in zip(distances, gaps, strict=True) if g == level) for level in range(max(gaps) + 1)]
    starts = [0, *accumulate(lengths)]
    return [starts[g] + d for d, g in zip(distances, gaps, strict=True)]


MIRROR_TRIAL = 0.05
"""Fraction of the run for which the animal learns with a mirror before that is kept or dropped."""
MIRROR_TRIAL_STEPS = 100
"""The most steps of that: in the end an animal comes to suit a false mirror, too."""
MIRROR_LOOKS = 2
"""So often is it looked at on the way, evenly."""


@dataclass(frozen=True)
class FrameWindow:
    """Frames that are trained on at some time of the run."""

    active: range
    """All of them."""
    newest: tuple[int, ...]
    """Those that entered last, while the window grows."""


@dataclass
class PhaseSchedule:
    """Where the phases lie, in fractions of the run."""

    canonical_end: float = 0.1
    """End of the warm-up on the canonical frame, and start of the bones."""
    window_end: float = 0.55
    """By then the window of frames has grown over the whole clip."""
    bones_end: float = 0.6
    """End of the bones' own phase; from here on everything is trained together."""

    def phase(self, progress: float) -> Phase:
        """The phase in force when `progress` of the run is done."""
        if progress < self.canonical_end:
            return Phase.CANONICAL
        return Phase.BONES if progress < self.bones_end else Phase.JOINT

    def mirror_looks(self, run_length: int) -> list[float]:
        """Parts of the run that are done when a mirror is looked at; its trial begins with the joint phase and ends with the last."""
        trial = min(MIRROR_TRIAL, MIRROR_TRIAL_STEPS / max(1, run_length))
        return [self.bones_end + trial * (look + 1) / MIRROR_LOOKS for look in range(MIRROR_LOOKS)]

    def window(self, progress: float, order: Sequence[int]) -> FrameWindow:
        """The frames to train on: the canonical one in the warm-up, then a window that grows outward to the whole clip.

        Args:
            progress: part of the run that is done.
            order: how late each frame enters (`entry_order`).
        """
        latest = max(order)
        grown = (progress - self.canonical_end) / max(self.window_end - self.canonical_end, 1e-9)
        reach = 0 if progress < self.canonical_end else min(latest, 1 + int(grown * latest))
        inside = [frame for frame, rank in enumerate(order) if rank <= reach]
        growing = self.canonical_end <= progress < self.window_end
        newest = (frame for frame in inside if growing and order[frame] > reach - NEWEST_FRAMES)
        return FrameWindow(range(inside[0], inside[-1] + 1), tuple(newest))
