"""Files and folders that come into being whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to: renamed to `path` at the end, removed if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o644)  # mkstemp makes files that only their owner may read
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_sequence(folder: Path, pattern: str) -> Iterator[Path]:
    """A temporary folder to write files into: at the end they replace those of `folder` that match the glob `pattern`.

    If anything fails before the end, `folder` stays as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        yield unfinished
        new = sorted(unfinished.iterdir())
        for stale in set(folder.glob(pattern)) - {folder / file.name for file in new}:
            stale.unlink()
        for file in new:
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for programs and people."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=2) + "\n")
