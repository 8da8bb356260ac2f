"""Finds an ffmpeg program for the nerfstudio commands that call one by name (ns-render does, even for images)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def put_ffmpeg_on_path() -> None:
    """Where the system has no ffmpeg, lends the one of the pip package imageio-ffmpeg to this process and its children.

    The package names its program after platform and version, so a link called `ffmpeg` is kept in the user's cache
    folder. Does nothing when neither is there: ns-render then says that ffmpeg is missing.
    """
    if shutil.which("ffmpeg") is not None:
        return
    try:
        import imageio_ffmpeg

        program = Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return
    from platformdirs import user_cache_path

    folder = user_cache_path("bags_ns") / "bin"
    link = folder / ("ffmpeg.exe" if os.name == "nt" else "ffmpeg")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(program)
    except OSError:  # a read-only home: the commands that need ffmpeg say so themselves
        return
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
