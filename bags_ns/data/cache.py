"""Derived data in the user's cache folder, keyed by what is in the input and how it is processed.

A folder appears in the cache complete or not at all, so that several processes can share it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import platformdirs

from bags_ns.data.images import DataError

FORMAT_VERSION = 8
"""To be raised whenever what is written to the cache changes its form or meaning."""
WHOLE_FILE_LIMIT = 64 * 2**20
"""Larger files are known by their size, time and both ends."""
END_LENGTH = 2**20
ABANDONED_AFTER = 24 * 3600
"""Seconds after which an unfinished folder is the remains of a process that was killed."""


UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Errors of the cache's disk, not of the input."""


def default_cache_dir() -> Path:
    """The folder for derived data that the system gives to this user."""
    return Path(platformdirs.user_cache_dir("bags_ns"))


def content_key(root: Path, files: Iterable[Path], settings: Mapping[str, object]) -> str:
    """A name for what `files` hold and `settings` say, whatever the folder `root` is called and wherever it is."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([FORMAT_VERSION, settings], sort_keys=True, default=str).encode())
    for path in files:
        digest.update(Path(os.path.relpath(path, root)).as_posix().encode())
        try:
            _add_file(digest, path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); restore it or allow reading it.") from error
    return digest.hexdigest()


def _add_file(digest: hashlib.blake2b, path: Path) -> None:
    status = path.stat()
    digest.update(b"%d" % status.st_size)
    with open(path, "rb") as file:
        if status.st_size < WHOLE_FILE_LIMIT:
            digest.update(file.read())
            return
        digest.update(b"%d" % status.st_mtime_ns)
        digest.update(file.read(END_LENGTH))
        file.seek(-END_LENGTH, os.SEEK_END)
        digest.update(file.read())


def cached_folder(cache_dir: Path, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `key` in the cache, built first if it is not there.

    Args:
        cache_dir: Made if it does not exist.
        key: From `content_key`.
        build: Fills the empty folder it is given; what it raises is passed on and leaves nothing behind.
    """
    folder = cache_dir / key
    if folder.is_dir():
        return folder
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cache_dir)
        building = Path(tempfile.mkdtemp(prefix=f".building-{key[:8]}-", dir=cache_dir))
    except OSError as error:
        raise _unwritable(cache_dir, error) from error
    try:
        build(building)
        building.chmod(0o755)  # mkdtemp makes folders for their owner alone
        building.rename(folder)
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise _unwritable(cache_dir, error) from error
        if not folder.is_dir():  # else another process was faster, and its result is the same
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _unwritable(cache_dir: Path, error: OSError) -> DataError:
    return DataError(f"{cache_dir} cannot be written ({error.strerror}); make room or choose another with --cache-dir.")


def _remove_abandoned(cache_dir: Path) -> None:
    for folder in cache_dir.glob(".building-*"):
        try:
            if time.time() - folder.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # removed by another process just now
            continue
