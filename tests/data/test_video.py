"""Videos survive the round trip, are read in part and upright, and their silhouettes are found beside them."""

import subprocess
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np
import pytest
from drawn_clips import walk, write_image

from bags_ns.data.frames import choose_frames, read_clip
from bags_ns.data.images import DataError
from bags_ns.data.layouts import find_clip
from bags_ns.data.video import probe_video, read_video, write_video


@pytest.fixture
def frames():
    return walk(10)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_round_trip(tmp_path, frames, suffix):
    path = tmp_path / f"dog{suffix}"
    write_video(path, (rgb for rgb, _ in frames), fps=12.5)
    info = probe_video(path)
    assert (info.width, info.height, len(info.times)) == (160, 120, 10)
    assert info.fps == pytest.approx(12.5, rel=1e-2)
    for read, (rgb, _) in zip(read_video(path), frames, strict=True):
        assert np.abs(read.astype(int) - rgb).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == [f"dog{suffix}"]


def test_only_the_wanted_frames_are_given_and_shrunk(tmp_path, frames):
    write_video(tmp_path / "dog.mp4", (rgb for rgb, _ in frames), fps=10.0)
    part = list(read_video(tmp_path / "dog.mp4", [3, 7], max_side=80))
    assert [image.shape for image in part] == [(60, 80, 3)] * 2
    for image, number in zip(part, (3, 7), strict=True):
        assert np.abs(image.astype(int) - frames[number][0][1::2, 1::2]).mean() < 8


def test_odd_sizes_are_padded_and_failures_leave_nothing(tmp_path):
    write_video(tmp_path / "odd.mp4", [np.zeros((33, 51, 3), np.uint8)] * 3, fps=5.0)
    info = probe_video(tmp_path / "odd.mp4")
    assert (info.width, info.height) == (52, 34)
    with pytest.raises(DataError, match="at least one frame"):
        write_video(tmp_path / "none.mp4", [], fps=5.0)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.mp4"]


def test_a_rotated_phone_video_is_read_upright(tmp_path, frames):
    turned, phone = tmp_path / "turned.mp4", tmp_path / "phone.mp4"
    write_video(turned, (np.rot90(rgb) for rgb, _ in frames), fps=10.0)  # lies on its side, a quarter anticlockwise
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-display_rotation", "-90", "-i", str(turned)]
    subprocess.run([*ffmpeg, "-c", "copy", str(phone)], check=True)
    assert (probe_video(phone).width, probe_video(phone).height) == (160, 120)
    for read, (rgb, _) in zip(read_video(phone), frames, strict=True):
        assert np.abs(read.astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("folder", ["dog_masks", "masks"])
def test_video_with_a_folder_of_masks(tmp_path, frames, folder):
    write_video(tmp_path / "dog.mp4", (rgb for rgb, _ in frames), fps=10.0)
    for index, (_, mask) in enumerate(frames):
        write_image(tmp_path / folder / f"{index}.png", mask)
    clip = find_clip(tmp_path)  # the folder holds exactly one video
    choice = choose_frames(clip, fps=5.0)
    assert choice.numbers == (0, 2, 4, 6, 8)
    assert choice.times == pytest.approx((0, 0.25, 0.5, 0.75, 1))
    read = [rgba[..., 3] for rgba in read_clip(clip, choice.numbers)]
    assert all((alpha == frames[number][1]).all() for alpha, number in zip(read, choice.numbers, strict=True))
    (tmp_path / folder / "0.png").unlink()
    with pytest.raises(DataError, match="9 masks for 10 frames"):
        choose_frames(find_clip(tmp_path / "dog.mp4"))


def test_video_with_a_mask_video(tmp_path, frames):
    write_video(tmp_path / "dog.mp4", (rgb for rgb, _ in frames), fps=10.0)
    write_video(tmp_path / "dog_mask.mp4", (np.dstack([mask] * 3) for _, mask in frames), fps=10.0)
    for rgba, (_, mask) in zip(read_clip(find_clip(tmp_path / "dog.mp4"), range(10)), frames, strict=True):
        assert ((rgba[..., 3] >= 128) != (mask >= 128)).mean() < 0.01


def test_what_is_wrong_with_a_video_is_named(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"broken.mp4 cannot be opened as a video"):
        probe_video(tmp_path / "broken.mp4")


FORMATS = {
    "gif": ("dog.gif", "gif", "rgb8", {}),
    "webm": ("dog.webm", "libvpx-vp9", "yuv420p", {"crf": "20", "b": "0"}),
    "ten bit": ("dog.mkv", "libx265", "yuv420p10le", {"crf": "12", "x265-params": "log-level=none"}),
    "odd size": ("dog.mkv", "ffv1", "yuv444p", {}),
    "variable rate": ("dog.mkv", "libx264", "yuv420p", {"crf": "12"}),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_that_phones_and_the_web_have(tmp_path, frames, kind):
    name, codec, pixels, options = FORMATS[kind]
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no {codec}")
    times = [0, 1, 2, 5, 6, 10, 11, 12, 19, 20] if kind == "variable rate" else list(range(10))
    cut = 1 if kind == "odd size" else 0
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 160 - cut, 120 - cut, pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, 10)
        for (rgb, _), time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[cut:, cut:]), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())
    info = probe_video(tmp_path / name)
    assert (info.width, info.height) == (160 - cut, 120 - cut)
    assert info.times == pytest.approx([time / 10 for time in times], abs=0.011)
    for read, (rgb, _) in zip(read_video(tmp_path / name), frames, strict=True):
        assert read.dtype == np.uint8 and np.abs(read.astype(int) - rgb[cut:, cut:]).mean() < (
            25 if kind == "gif" else 14
        )  # dithered
