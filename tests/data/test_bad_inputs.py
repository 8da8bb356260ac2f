"""Whatever is wrong with an input is said in one line that names the file and a remedy, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from drawn_clips import orbit, walk, write_folder, write_image, write_orbit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bags_ns.data import prepare as preparation
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.data.images import DataError, read_mask, read_rgba
from bags_ns.data.transforms import read_transforms
from bags_ns.data.video import write_video


def clip(root: Path, count: int = 3) -> Path:
    return write_folder(root, walk(count))


def posed(root: Path, change) -> Path:
    """Three RGBA views with cameras, their camera file changed."""
    meta = write_orbit(root, [0, 10, 20])
    changed = change(meta)
    (root / "transforms_train.json").write_text(json.dumps(meta if changed is None else changed))
    return root


def frame_change(key, value):
    return lambda root: posed(root, lambda meta: meta["frames"][1].__setitem__(key, value))


def meta_change(key, value):
    return lambda root: posed(root, lambda meta: meta.__setitem__(key, value))


def written(name: str, content: bytes):
    def build(root: Path) -> Path:
        root.mkdir(parents=True)
        (root / name).write_bytes(content)
        return root / name

    return build


def spoiled(name: str, content: bytes | None, count: int = 3):
    """A good folder in which one file is replaced or removed."""

    def build(root: Path) -> Path:
        clip(root, count)
        if content is None:
            (root / name).unlink()
        else:
            (root / name).write_bytes(content)
        return root

    return build


def masked(value, size=(160, 120), which=None):
    """A good folder in which masks (all, or one) hold a constant."""

    def build(root: Path) -> Path:
        clip(root)
        for number in range(3) if which is None else [which]:
            write_image(root / f"masks/{number:05d}.png", np.full(size[::-1], value, np.uint8))
        return root

    return build


def huge_png() -> bytes:
    """A header that promises 60000 x 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def truncated_video(root: Path) -> Path:
    write_video(root / "dog.mp4", (rgb for rgb, _ in walk(20)), fps=10.0)
    content = (root / "dog.mp4").read_bytes()
    (root / "dog.mp4").write_bytes(content[: len(content) // 2])
    return root / "dog.mp4"


def video_with(count: int):
    def build(root: Path) -> Path:
        write_video(root / "dog.mp4", (rgb for rgb, _ in walk(6)), fps=10.0)
        for index, (_, mask) in enumerate(walk(count)):
            write_image(root / f"dog_masks/{index}.png", mask)
        return root / "dog.mp4"

    return build


def empty_folder(root: Path) -> Path:
    root.mkdir()
    return root


def symlink_loop(root: Path) -> Path:
    root.symlink_to(root)
    return root


def frame_loop(root: Path) -> Path:
    clip(root)
    (root / "images/00001.png").unlink()
    (root / "images/00001.png").symlink_to("00001.png")
    return root


def two_sizes(root: Path) -> Path:
    clip(root)
    write_image(root / "images/00001.png", np.zeros((40, 40, 3), np.uint8))
    write_image(root / "masks/00001.png", np.full((40, 40), 255, np.uint8))
    return root


def two_videos(root: Path) -> Path:
    for name in ("a.mp4", "b.mp4"):
        write_video(root / name, (rgb for rgb, _ in walk(3)), fps=10.0)
    return root


def no_alpha(root: Path) -> Path:
    clip(root)
    for path in (root / "masks").iterdir():
        path.unlink()
    (root / "masks").rmdir()
    return root


def mixed_alpha(root: Path) -> Path:
    for index, (rgb, mask) in enumerate(walk(3)):
        write_image(root / f"images/{index}.png", np.dstack([rgb, mask]) if index != 1 else rgb)
    return root


def first_mask_missing(root: Path) -> Path:
    """Frames with cameras, all but the first with masks."""
    for entry in write_orbit(root, [0, 10, 20], name="transforms.json")["frames"]:
        image = (root / entry["file_path"]).with_suffix(".png")
        rgba = read_rgba(image)
        write_image(image, rgba[..., :3])
        if entry["time"]:
            write_image(root / "masks" / image.name, rgba[..., 3])
    return root


SINGULAR = [[0.0] * 4] * 4
SCALED = (np.array(orbit(10)) * 3).tolist()
NAN = [[math.nan] * 4] * 4

TABLE = {
    "nothing there": (lambda root: root, "does not exist"),
    "empty folder": (empty_folder, "holds no frames"),
    "a text file": (written("notes.txt", b"hello"), "no video or camera file"),
    "an image alone": (written("dog.jpg", b"hello"), "no video or camera file"),
    "symlink loop": (symlink_loop, "does not exist"),
    "frame is a symlink loop": (frame_loop, "00001.png"),
    "empty video": (written("dog.mp4", b""), "dog.mp4 cannot be opened"),
    "text as video": (written("dog.mov", b"no video" * 100), "dog.mov cannot be opened"),
    "text as gif": (written("dog.gif", b"GIF89a"), "dog.gif"),
    "truncated mp4": (truncated_video, "dog.mp4"),
    "two videos": (two_videos, "holds 2 videos"),
    "more masks than frames": (video_with(7), "7 masks for 6 frames"),
    "fewer masks than frames": (video_with(4), "4 masks for 6 frames"),
    "one frame": (lambda root: clip(root, 1), "one frame"),
    "empty image": (spoiled("images/00001.png", b""), "00001.png cannot be read"),
    "damaged image": (spoiled("images/00001.png", b"\x89PNG\r\n\x1a\nxx"), "00001.png cannot be read"),
    "huge image header": (spoiled("images/00001.png", huge_png()), "00001.png"),
    "missing mask": (spoiled("masks/00001.png", None), "2 masks for 3 images"),
    "empty mask file": (spoiled("masks/00001.png", b""), "00001.png cannot be read as a mask"),
    "damaged mask": (spoiled("masks/00001.png", b"P5 banana"), "00001.png cannot be read as a mask"),
    "huge mask header": (spoiled("masks/00001.png", huge_png()), "00001.png"),
    "all masks empty": (masked(0), "masks of all 3 frames are empty"),
    "mask of another size": (masked(255, (80, 60), 1), "00001.png is 80x60, its image 160x120"),
    "frames of two sizes": (two_sizes, "several sizes"),
    "one frame without alpha": (mixed_alpha, "1.png has no silhouette, 2 of 3 frames have"),
    "first frame without mask": (first_mask_missing, "000.png has no silhouette, 2 of 3 frames have"),
    "no JSON": (written("transforms.json", b"{"), "is not valid JSON"),
    "JSON that is no text": (written("transforms.json", b"\xff\xfe\x00\x80"), "transforms.json"),
    "JSON list": (written("transforms.json", b"[1]"), "lists no frames"),
    "no frames": (meta_change("frames", []), "lists no frames"),
    "frames are words": (meta_change("frames", ["a", "b"]), "frame 0 "),
    "frames is a number": (meta_change("frames", 3), "lists no frames"),
    "no file_path": (lambda root: posed(root, lambda m: m["frames"][1].pop("file_path") and None), 'no "file_path"'),
    "file_path is a number": (frame_change("file_path", 7), "transforms_train.json"),
    "image not there": (frame_change("file_path", "images/none"), "none does not exist"),
    "path leaves the folder": (frame_change("file_path", "../../etc/passwd"), "leaves"),
    "absolute path": (frame_change("file_path", "/etc/passwd"), "leaves"),
    "mask path leaves the folder": (frame_change("mask_path", "../x.png"), "leaves"),
    "fisheye": (meta_change("camera_model", "OPENCV_FISHEYE"), "camera_model OPENCV_FISHEYE"),
    "no focal length": (meta_change("camera_angle_x", None), "no focal length"),
    "focal length is a word": (meta_change("fl_x", "wide"), "fl_x"),
    "focal length is negative": (meta_change("fl_x", -3.0), "fl_x"),
    "angle is NaN": (meta_change("camera_angle_x", math.nan), "camera_angle_x"),
    "width is a word": (lambda root: posed(root, lambda m: m.update(w="64px", h=64)), '"w"'),
    "width of another image": (lambda root: posed(root, lambda m: m.update(w=32, h=32)), "its camera 32x32"),
    "distortion is a word": (meta_change("k1", "much"), "k1"),
    "too few distortions": (meta_change("distortion_params", [0.1]), "1 distortion_params"),
    "no pose": (frame_change("transform_matrix", None), "needs a transform_matrix"),
    "NaN pose": (frame_change("transform_matrix", NAN), "needs a transform_matrix"),
    "singular pose": (frame_change("transform_matrix", SINGULAR), "not a rotation"),
    "scaled pose": (frame_change("transform_matrix", SCALED), "not a rotation"),
    "pose of words": (frame_change("transform_matrix", [["a"] * 4] * 4), "needs a transform_matrix"),
    "time is a word": (frame_change("time", "noon"), "time"),
    "time is NaN": (frame_change("time", math.nan), "time"),
    "one time missing": (frame_change("time", None), 'have no "time"'),
    "duplicate times": (frame_change("time", 0.0), "same time"),
    "bags section of another kind": (meta_change("bags", {"fps": 3}), 'section "bags"'),
    "held out everything": (
        lambda root: posed(root, lambda m: m.update(val_filenames=[f["file_path"] + ".png" for f in m["frames"]])),
        "val_filenames",
    ),
}


def fails(data: Path, cache: Path, **options) -> str:
    with pytest.raises((DataError, FileNotFoundError)) as caught:
        config = AnimalVideoDataParserConfig(data=data, cache_dir=cache, num_seed_points=100, crop_size=32, **options)
        config.setup().get_dataparser_outputs("train")
    assert not cache.exists() or not list(cache.iterdir()), "half-written"
    return str(caught.value)


@pytest.mark.parametrize("name", TABLE)
def test_one_line_that_names_file_and_remedy(name, tmp_path):
    build, words = TABLE[name]
    data = build(tmp_path / "my dög")
    message = fails(data, tmp_path / "cache")
    assert words in message and "\n" not in message and len(message) > len(words) + 20
    assert any(part in message for part in ("my dög", "--"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 100.0}, "has no frame between"),
        ({"segmenter": "none"}, "no silhouettes"),
        ({"max_frames": 1}, "one frame"),
    ],
)
def test_options_that_leave_nothing(options, words, tmp_path):
    data = no_alpha(tmp_path / "in") if "segmenter" in options else clip(tmp_path / "in")
    assert words in fails(data, tmp_path / "cache", **options)


def test_a_cache_that_cannot_be_written(folder_clip, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/cache cannot be written .* --cache-dir"):
        parser = AnimalVideoDataParserConfig(data=folder_clip, cache_dir=tmp_path / "file" / "cache").setup()
        parser.get_dataparser_outputs("train")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preparation, "write_rgba", full)
    assert "No space left" in fails(folder_clip, tmp_path / "cache")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**6), 10**6) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("file_path", "mask_path", "time", "transform_matrix", "fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "p2")
KEYS += ("camera_angle_x", "distortion_params", "camera_model")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(KEYS), json_values, min_size=1, max_size=3))
def test_any_camera_file_is_read_or_refused_in_a_line(tmp_path, changes):
    if not (tmp_path / "images").is_dir():
        write_orbit(tmp_path, [0, 10])
    meta = json.loads((tmp_path / "transforms_train.json").read_text())
    meta["frames"][0].update(changes)
    try:
        for frame in read_transforms(tmp_path / "transforms.json", meta):
            assert np.isfinite(frame.camera.intrinsics).all() and frame.camera.fx > 0
    except (DataError, FileNotFoundError) as error:
        assert "\n" not in str(error) and len(str(error)) < 600


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=4))
def test_any_mask_file_is_read_or_refused_in_a_line(tmp_path, cut, flips):
    write_image(tmp_path / "good.png", walk(1)[0][1])
    content = bytearray((tmp_path / "good.png").read_bytes())
    for place, value in flips:
        content[place % len(content)] = value
    (tmp_path / "bad.png").write_bytes(bytes(content[: cut or None]))
    try:
        mask = read_mask(tmp_path / "bad.png")
        assert mask.dtype == np.uint8 and mask.ndim == 2
    except DataError as error:
        assert "\n" not in str(error) and "bad.png" in str(error)


@pytest.mark.parametrize("name", ["empty folder", "NaN pose"])
def test_ns_train_says_it_in_one_line(name, tmp_path):
    data = TABLE[name][0](tmp_path / "my dog")
    root = str(Path(__file__).parents[2])
    command = [str(Path(sys.executable).parent / "ns-train"), "bags-tiny", "--data", str(data), "--vis", "tensorboard"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": root}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    result = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr + result.stdout
    assert TABLE[name][1] in result.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("config.yml")) and not list((tmp_path / "cache").rglob(".building*"))
