"""Watches the losses of a run without waiting for the device at every step: finds the first one that is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

LOOK_EVERY = 10
"""Steps between two looks: each one waits for the device."""
EXPLOSION = 1000.0
"""A loss has exploded when it is so many times that of the session's first steps, or of 1 where that is more."""


class LossWatch:
    """Keeps the losses of the last few steps on their device and looks at all of them at once."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Tensor, dict[str, Tensor]]] = []
        self._limit = math.inf
        self._problem: str | None = None

    def add(self, step: int, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Takes a step's loss and its weighted terms."""
        self._steps.append((step, loss.detach(), {name: term.detach() for name, term in terms.items()}))

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next look."""
        return len(self._steps) >= LOOK_EVERY

    def problem(self) -> str | None:
        """What is wrong with the losses since the last look, by step and term; None if nothing is."""
        steps, self._steps = self._steps, []
        if steps:
            losses = torch.stack([loss for _, loss, _ in steps]).tolist()
            if self._limit == math.inf and all(map(math.isfinite, losses)):
                self._limit = EXPLOSION * max(1.0, sum(losses) / len(losses))
            lost = [index for index, loss in enumerate(losses) if not math.isfinite(loss) or loss > self._limit]
            if lost and self._problem is None:
                step, _, terms = steps[lost[0]]
                self._problem = _describe(step, losses[lost[0]], {name: float(term) for name, term in terms.items()})
        return self._problem

    def look_at(self, step: int, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Finds parameters that are no numbers any more, where the losses do not show it yet."""
        if self.problem() is not None:
            return
        for name, parameter in parameters:
            if self._problem is None and not bool(torch.isfinite(parameter).all()):
                self._problem = f"the parameters {name} are not finite at step {step}"


def _describe(step: int, loss: float, terms: Mapping[str, float]) -> str:
    """Names the term that is no number, or else the largest."""
    worst = max(terms, key=lambda name: (not math.isfinite(terms[name]), abs(terms[name])))
    return f"the loss is {loss:.3g} at step {step} because of its term {worst!r} ({terms[worst]:.3g})"
