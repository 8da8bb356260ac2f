"""Progress for every wait that a person sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int | None, int | None], None]
"""Called as advance(done, total), or as advance(None, None) for one more of an unknown number."""


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


def say(message: str) -> None:
    """One line for the person at the terminal, beside whatever nerfstudio prints."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(message)
