"""Times of calls on any device, for the scripts beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

WARM_UP = 3
"""Untimed rounds before the timed ones."""


def median_ms(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of a call of each case, the cases taking turns.

    On CUDA by the clock, waiting for the device before and after; on one CPU thread in processor time, which other
    work on the machine does not add to.
    """
    on_cuda = torch.cuda.is_available()
    clock = time.perf_counter if on_cuda or torch.get_num_threads() > 1 else time.process_time
    times: dict[str, list[float]] = {name: [] for name in cases}
    for index in range(repeats + WARM_UP):
        for name, case in cases.items():
            if on_cuda:
                torch.cuda.synchronize()
            start = clock()
            case()
            if on_cuda:
                torch.cuda.synchronize()
            if index >= WARM_UP:
                times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def device_name() -> str:
    """The card, or the CPU with its number of threads."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"
