"""When things happen in a run: everything is a fraction of the run's total length. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Phase(IntEnum):
    """The three phases of a run."""

    CANONICAL = 0
    """One frame: the canonical Gaussians."""
    BONES = 1
    """Frames enter outward from the canonical one; geometry is nearly frozen."""
    JOINT = 2
    """Everything, at all times."""


@dataclass
class Ramp:
    """A value that moves linearly from one to the other between two fractions of the run, and stays before and after."""

    start: float = 0.0
    """Fraction of the run at which it begins to move."""
    end: float = 0.0
    """Fraction of the run at which it has arrived; equal to `start`: a step."""
    value_start: float = 1.0
    """Value up to `start`."""
    value_end: float = 1.0
    """Value from `end` on."""

    def at(self, progress: float) -> float:
        """The value when `progress` (in [0, 1]) of the run is done."""
        if progress >= self.end:
            return self.value_end
        if progress <= self.start:
            return self.value_start
        fraction = (progress - self.start) / (self.end - self.start)
        return self.value_start + fraction * (self.value_end - self.value_start)


NEWEST_FRAMES = 2
"""Frames at each end of the growing window that get half of the attention."""


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

    def window(self, progress: float, canonical_index: int, num_frames: int) -> FrameWindow:
        """The frames to train on: the canonical one in the warm-up, then a window that grows outward to the whole clip."""
        if progress < self.canonical_end:
            return FrameWindow(range(canonical_index, canonical_index + 1), ())
        longest = max(canonical_index, num_frames - 1 - canonical_index)
        grown = (progress - self.canonical_end) / max(self.window_end - self.canonical_end, 1e-9)
        reach = min(longest, 1 + int(grown * longest))
        active = range(max(0, canonical_index - reach), min(num_frames, canonical_index + reach + 1))
        if progress >= self.window_end:
            return FrameWindow(active, ())
        newest = (frame for frame in active if abs(frame - canonical_index) > reach - NEWEST_FRAMES)
        return FrameWindow(active, tuple(newest))
