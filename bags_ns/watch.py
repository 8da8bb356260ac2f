"""Watches the losses of a run without waiting for the device at every step: finds the first one that is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

LOOK_EVERY = 10
"""Steps between two looks: each one waits for the device."""
EXPLOSION = 1000.0
"""A term of the loss has exploded when it is so many times what it was at first, or so many times 1 where that is more."""


class LossWatch:
    """Keeps the loss terms of the last few steps on their device and looks at all of them at once."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, dict[str, Tensor]]] = []
        self._limits: dict[str, float] = {}
        self._problem: str | None = None

    def add(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Takes a step's weighted terms."""
        self._steps.append((step, {name: term.detach() for name, term in terms.items()}))

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next look."""
        return len(self._steps) >= LOOK_EVERY

    def problem(self) -> str | None:
        """The first term that was lost, and its step; None if all is well."""
        steps, self._steps = self._steps, []
        entries = [(step, name, term) for step, terms in steps for name, term in terms.items()]
        values = torch.stack([term for _, _, term in entries]).tolist() if entries else []
        for (step, name, _), value in zip(entries, values, strict=True):
            well = math.isfinite(value) and value <= self._limits.setdefault(name, EXPLOSION * max(1.0, value))
            if not well and self._problem is None:
                self._problem = f"the loss term {name!r} is {value:.3g} at step {step}"
        return self._problem

    def look_at(self, step: int, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Finds parameters that are no numbers any more, where the losses do not show it yet."""
        if self.problem() is not None:
            return
        for name, parameter in parameters:
            if self._problem is None and not bool(torch.isfinite(parameter).all()):
                self._problem = f"the parameters {name} are not finite at step {step}"
