"""Clips that several tests of the input side start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_clips import walk, write_folder, write_orbit


@pytest.fixture
def folder_clip(tmp_path: Path) -> Path:
    """images/ + masks/ of twelve frames."""
    return write_folder(tmp_path / "clip", walk(12))


@pytest.fixture
def orbit_clip(tmp_path: Path) -> Path:
    """RGBA frames with known cameras over 40 degrees, and four test views."""
    root = tmp_path / "orbit"
    write_orbit(root, list(np.linspace(-20, 20, 9)))
    write_orbit(root, [0, 90, 180, 270], "transforms_test.json", "test")
    return root
