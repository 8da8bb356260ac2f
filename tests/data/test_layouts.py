"""Every layout is recognised, and what is wrong with one is said in a line that names file and remedy."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from drawn_clips import WIDTH, draw, orbit, walk, write_folder, write_image, write_orbit
from PIL import Image

from bags_ns.data.frames import choose_frames, pick_times, read_clip
from bags_ns.data.images import DataError, read_mask, resize_rgba
from bags_ns.data.layouts import find_clip


def all_numbers(clip):
    return choose_frames(clip).numbers


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("imgs", "masks"), ("rgb", "mask")])
def test_folders_of_images_and_masks(tmp_path, images, masks):
    frames = walk(3)
    clip = find_clip(write_folder(tmp_path, frames, images, masks))
    assert not clip.has_cameras
    read = list(read_clip(clip, all_numbers(clip)))
    assert all((rgba == np.dstack(frame)).all() for rgba, frame in zip(read, frames, strict=True))


@pytest.mark.parametrize("folder", ["", "images"])
def test_rgba_frames(tmp_path, folder):
    frames = [np.dstack(frame) for frame in walk(3)]
    for index, rgba in enumerate(frames):
        write_image(tmp_path / folder / f"f{index}.png", rgba)
    clip = find_clip(tmp_path)
    assert all(frame.mask is None for frame in clip.frames)
    assert all((a == b).all() for a, b in zip(read_clip(clip, [0, 1, 2]), frames, strict=True))


def test_davis_needs_a_sequence_only_if_there_are_several(tmp_path):
    rgb, mask = draw((60, 60), (30, 20))
    write_image(tmp_path / "JPEGImages/480p/goat/00000.jpg", rgb)
    labels = Image.fromarray((mask // 255).astype(np.uint8), "P")
    labels.putpalette([0, 0, 0, 128, 0, 0])  # DAVIS: label 1 is dark red
    (tmp_path / "Annotations/480p/goat").mkdir(parents=True)
    labels.save(tmp_path / "Annotations/480p/goat/00000.png")
    clip = find_clip(tmp_path)
    assert len(clip.frames) == 1
    assert (next(read_clip(clip, [0]))[..., 3] == mask).all()
    write_image(tmp_path / "JPEGImages/480p/swan/00000.jpg", rgb)
    with pytest.raises(DataError, match="--sequence: goat, swan"):
        find_clip(tmp_path)
    assert find_clip(tmp_path, "goat").frames[0].image.parent.name == "goat"


def test_dnerf_convention(orbit_clip):
    clip = find_clip(orbit_clip)
    assert clip.has_cameras
    assert (len(clip.frames), len(clip.test_frames)) == (9, 4)
    camera = clip.frames[0].camera
    assert camera.fx == pytest.approx(32 / np.tan(np.radians(20)))
    assert (camera.cx, camera.width) == (32, 64)
    assert [frame.time for frame in clip.frames] == pytest.approx(np.linspace(0, 1, 9))


def test_nerfstudio_convention_without_times_and_with_masks(tmp_path):
    entries = []
    for index, (rgb, mask) in enumerate(walk(3)):
        write_image(tmp_path / f"images/{index}.png", rgb)
        write_image(tmp_path / f"sil/{index}.png", mask)
        per_frame = {"fl_x": 100.0 + index, "fl_y": 90.0, "cx": 80, "cy": 60, "w": 160, "h": 120}
        paths = {"file_path": f"images/{index}.png", "mask_path": f"sil/{index}.png"}
        entries.append({**paths, "transform_matrix": orbit(0), **per_frame})
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": entries[::-1]}))
    clip = find_clip(tmp_path / "transforms.json")
    assert [frame.time for frame in clip.frames] == [0, 0.5, 1]
    assert [frame.camera.fx for frame in clip.frames] == [100, 101, 102]
    assert [frame.mask.stem for frame in clip.frames] == ["0", "1", "2"]


def test_times_in_seconds_are_rescaled_to_the_clip(tmp_path):
    meta = write_orbit(tmp_path, [0, 10, 20])
    for frame, time in zip(meta["frames"], (2.0, 5.0, 4.0), strict=True):
        frame["time"] = time
    (tmp_path / "transforms_train.json").write_text(json.dumps(meta))
    clip = find_clip(tmp_path)
    assert [frame.time for frame in clip.frames] == pytest.approx([0, 2 / 3, 1])
    assert [frame.image.stem[-1] for frame in clip.frames] == ["0", "2", "1"]


def test_held_out_filenames_are_test_frames(tmp_path):
    meta = write_orbit(tmp_path, [0, 10, 20])
    meta["test_filenames"] = ["images/train_001.png"]
    (tmp_path / "transforms_train.json").write_text(json.dumps(meta))
    clip = find_clip(tmp_path)
    assert [frame.time for frame in clip.frames] == [0, 1]
    assert [frame.time for frame in clip.test_frames] == [0.5]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [([[1, 0], [0, 1]], "4x4"), (None, "4x4"), ((2 * np.eye(4)).tolist(), "not a rotation"), ([["a"] * 4] * 4, "4x4")],
)
def test_wrong_matrices_are_named(tmp_path, matrix, message):
    meta = write_orbit(tmp_path, [0, 10])
    meta["frames"][1]["transform_matrix"] = matrix
    (tmp_path / "transforms_train.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=rf"transforms_train.json: frame 1 .*{message}"):
        find_clip(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no_such_dog.mp4 does not exist"):
        find_clip(tmp_path / "no_such_dog.mp4")
    with pytest.raises(DataError, match="holds no frames; put images in"):
        find_clip(tmp_path)
    write_folder(tmp_path, walk(3))
    (tmp_path / "masks/00002.png").unlink()
    with pytest.raises(DataError, match="masks holds 2 masks for 3 images; every image needs one, such as 00002.png"):
        find_clip(tmp_path)


def test_broken_frames_are_named(tmp_path):
    clip = find_clip(write_folder(tmp_path, walk(2)))
    (tmp_path / "images/00000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"00000.png cannot be read as an image"):
        list(read_clip(clip, [0]))
    write_image(tmp_path / "masks/00001.png", np.zeros((20, 20), np.uint8))
    with pytest.raises(DataError, match=r"00001.png is 20x20, its image 160x120"):
        list(read_clip(clip, [1]))


def test_images_without_alpha_or_masks_are_refused(tmp_path):
    write_image(tmp_path / "images/0.png", walk(1)[0][0])
    with pytest.raises(DataError, match="has no alpha channel; add masks"):
        list(read_clip(find_clip(tmp_path), [0]))


@pytest.mark.parametrize("scale", [255, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_masks_of_any_form(tmp_path, scale, channels):
    mask = draw((80, 60), (30, 20))[1]
    stored = (mask // 255 * scale).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "mask.png"), stored if channels == 1 else np.dstack([stored] * 3))
    assert (read_mask(tmp_path / "mask.png") == mask).all()


def test_pick_times():
    seconds = [n / 30 for n in range(60)]
    assert pick_times(seconds) == list(range(60))
    assert pick_times(seconds, fps=10.0) == list(range(0, 60, 3))
    assert pick_times(seconds, start=0.5, end=1.0) == list(range(15, 31))
    assert pick_times(seconds, max_frames=3)[::2] == [0, 59]
    uneven = [0.0, 0.05, 0.3, 0.31, 0.6]
    assert pick_times(uneven, fps=10 / 3) == [0, 2, 4]


def test_resizing_keeps_the_background_out_of_the_rim():
    rgba = np.dstack(draw((80, 60), (30, 20)))
    small = resize_rgba(rgba, WIDTH // 4, 30)
    rim = (small[..., 3] > 20) & (small[..., 3] < 235)
    assert rim.any()
    assert np.abs(small[rim][:, :3].astype(int) - (150, 100, 50)).max() <= 2


def test_cameras_can_be_left_out_of_one_lens(orbit_clip, folder_clip):
    clip = find_clip(orbit_clip)
    plain, fov_deg = clip.without_cameras()
    camera = clip.frames[0].camera
    assert not plain.has_cameras and not plain.test_frames and len(plain.frames) == len(clip.frames)
    assert [frame.time for frame in plain.frames] == [frame.time for frame in clip.frames]
    assert math.tan(math.radians(fov_deg) / 2) == pytest.approx(0.5 * max(camera.width, camera.height) / camera.fx)
    with pytest.raises(DataError, match="has no cameras to leave out"):
        find_clip(folder_clip).without_cameras()
    zoomed = replace(clip.frames[0], camera=replace(camera, fx=2 * camera.fx))
    with pytest.raises(DataError, match="several lenses"):
        replace(clip, frames=(zoomed, *clip.frames[1:])).without_cameras()
