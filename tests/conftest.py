"""Skips what this machine cannot run, with the reason; and what tests that train share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device: torch.cuda.is_available() is False here")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="module")
def one_thread():
    """Small tensors are slower on several threads, and results depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 64 pixels of a made-up animal, and two test views."""
    from bags_ns.data.creatures import ClipSettings, write_creature_clip

    folder = tmp_path_factory.mktemp("made") / "clip"
    write_creature_clip(folder, 5, ClipSettings(num_frames=6, size=64, num_test_times=1, num_test_azimuths=2))
    return folder
