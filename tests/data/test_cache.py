"""Derived data is found again wherever the input lies, and appears complete or not at all."""

import os
import signal
import time

import pytest

from bags_ns.data import cache
from bags_ns.data.cache import cached_folder, content_key


def key_of(root, settings=None):
    return content_key(root, sorted(path for path in root.rglob("*") if path.is_file()), settings or {})


def write_input(root, text="pixels"):
    (root / "images").mkdir(parents=True)
    (root / "images/0.png").write_text(text)
    return root


def test_the_key_depends_on_content_names_and_settings_alone(tmp_path):
    here, there = write_input(tmp_path / "here"), write_input(tmp_path / "there")
    os.utime(there / "images/0.png", (1, 1))
    assert key_of(here) == key_of(there)
    assert key_of(here) == key_of(here, {})
    assert key_of(here) != key_of(here, {"fps": 3})
    assert key_of(here) != key_of(write_input(tmp_path / "other", "pixelz"))
    (there / "images/0.png").rename(there / "images/1.png")
    assert key_of(here) != key_of(there)


def test_a_new_format_has_new_keys(tmp_path, monkeypatch):
    here = write_input(tmp_path / "here")
    before = key_of(here)
    monkeypatch.setattr(cache, "FORMAT_VERSION", cache.FORMAT_VERSION + 1)
    assert key_of(here) != before


def test_large_files_are_known_by_size_time_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "WHOLE_FILE_LIMIT", 10)
    monkeypatch.setattr(cache, "END_LENGTH", 4)
    keys = set()
    for index, text in enumerate(("abcd-middle-wxyz", "abcd-MIDDLE-wxyz", "abcd-middle-wxyZ")):
        root = write_input(tmp_path / str(index), text)
        os.utime(root / "images/0.png", (1, 1))
        keys.add(key_of(root))
    assert len(keys) == 2
    os.utime(root / "images/0.png", (2, 2))
    assert key_of(root) not in keys


def test_a_folder_is_built_once(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "a").write_text("done")

    for _ in range(2):
        folder = cached_folder(tmp_path / "cache", "key", build)
        assert (folder / "a").read_text() == "done"
    assert len(built) == 1


def test_a_failed_build_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "half").write_text("")
        raise ValueError("bad input")

    with pytest.raises(ValueError, match="bad input"):
        cached_folder(tmp_path, "key", build)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_builder_leaves_is_never_read(tmp_path):
    def die_half_way(folder):
        (folder / "a").write_text("ha")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        cached_folder(tmp_path, "key", die_half_way)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name[:9] for path in tmp_path.iterdir()] == [".building"]
    folder = cached_folder(tmp_path, "key", lambda building: (building / "a").write_text("whole"))
    assert (folder / "a").read_text() == "whole"


def test_a_second_builder_that_is_faster_is_tolerated(tmp_path):
    def slow(folder):
        (folder / "a").write_text("slow")
        cached_folder(tmp_path, "key", lambda other: (other / "a").write_text("fast"))

    assert (cached_folder(tmp_path, "key", slow) / "a").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_remains_of_killed_builders_are_removed(tmp_path):
    (tmp_path / ".building-old").mkdir()
    (tmp_path / ".building-young").mkdir()
    os.utime(tmp_path / ".building-old", (time.time() - 2 * cache.ABANDONED_AFTER,) * 2)
    cached_folder(tmp_path, "key", lambda folder: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".building-young", "key"]
