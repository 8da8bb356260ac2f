"""Frames of the clip that are kept from training, to see how well its motion goes on where no frame was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from bags_ns.data.images import DataError


@dataclass(frozen=True)
class HoldOut:
    """Which frames are held out; with the defaults none is."""

    every: int = 0
    """One of so many frames, the middle one; never the first and the last of the clip."""
    block: tuple[float, float] = (0.0, 0.0)
    """All frames from one time to another, both in [0, 1] over the clip."""

    def frames(self, times: Sequence[float]) -> Bool[np.ndarray, " T"]:
        """True for each held-out frame of a clip.

        Args:
            times: of its frames, ascending, in [0, 1].

        Raises:
            DataError: options that make no sense, hold out nothing, or leave fewer than two frames to train on.
        """
        start, end = self.block
        has_block = self.block != (0.0, 0.0)
        if self.every and has_block:
            raise DataError("give --hold-out-every or --hold-out-block, not both.")
        if self.every < 0 or self.every == 1:
            raise DataError(f"--hold-out-every takes 2 or more (every second frame or fewer), got {self.every}.")
        if has_block and not 0 <= start < end <= 1:
            raise DataError(f"--hold-out-block takes a start and an end with 0 <= start < end <= 1, got {start} {end}.")
        held = np.zeros(len(times), bool)
        if self.every:
            held[self.every // 2 : -1 : self.every] = True
        elif has_block:
            held = (np.array(times) >= start) & (np.array(times) <= end)
        else:
            return held
        if not held.any() or (~held).sum() < 2:
            asked = f"--hold-out-every {self.every}" if self.every else f"--hold-out-block {start:g} {end:g}"
            raise DataError(
                f"{asked} holds out {held.sum()} of {len(held)} frames; at least one, and two to train on, must be left."
            )
        return held
