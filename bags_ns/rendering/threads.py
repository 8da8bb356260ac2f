"""Runs a numba kernel that has released the GIL on a pool of Python threads, each call doing its share of the work.

Numba's own `prange` is not used: its OpenMP layer aborts a forked child, and its workqueue layer refuses concurrent callers, which
a viewer beside a training loop is. (torch's own OpenMP loops do hang in a child of a process that has run some, whatever is done here.)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="bags-rasterizer")


# A forked child inherits the pool object but not its threads, and would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def run_in_threads(kernel: Callable[..., None], *arguments: object) -> None:
    """Calls `kernel(*arguments, share, num_shares)` for every share, on as many threads as torch uses (`torch.set_num_threads`)."""
    num_shares = torch.get_num_threads()
    others = [_pool().submit(kernel, *arguments, share, num_shares) for share in range(1, num_shares)]
    kernel(*arguments, 0, num_shares)
    for future in others:
        future.result()
