"""Progress for every wait that a person sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int | None, int | None], None]
"""Called as advance(done, total), or as advance(None, None) for one more of an unknown number."""
LINE_SECONDS = 20
"""Between two lines of a log."""


@contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[Advance]:
    """A bar that goes away when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(title, total=total)

        def advance(done: int | None = None, all_: int | None = None) -> None:
            if done is None:
                bar.advance(task)
            else:
                bar.update(task, completed=done, total=all_)

        yield advance


@contextmanager
def timed_bar(title: str, console: Console) -> Iterator[Callable[[float], bool]]:
    """A bar; the function moves it to the part that is done, and says now and then that a line is due."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TimeRemainingColumn(),
    )
    last = time.monotonic()
    with Progress(*columns, transient=True, console=console) as bar:
        task = bar.add_task(title, total=1.0)

        def show(done: float) -> bool:
            nonlocal last
            bar.update(task, completed=done)
            due = time.monotonic() - last > LINE_SECONDS
            last = time.monotonic() if due else last
            return due

        yield show


def say(message: str) -> None:
    """One line for the person at the terminal, beside whatever nerfstudio prints."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(message)
