"""From any input to nerfstudio's cameras, batches and metadata; prepared once, in bounded memory, without touching the input."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_clips import draw, orbit, walk, write_folder, write_image, write_orbit

from bags_ns.data import prepare as preparation
from bags_ns.data.datamanager import BagsDataManagerConfig
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.data.images import DataError, read_rgba
from bags_ns.data.video import write_video


def parse(data, cache_dir, **options):
    return AnimalVideoDataParserConfig(data=data, cache_dir=cache_dir, num_seed_points=300, **options).setup()


def snapshot(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.fixture
def no_more_building(monkeypatch):
    def start():
        def refuse(*_):
            raise AssertionError("prepared a second time")

        monkeypatch.setattr(preparation, "build_prepared", refuse)

    return start


def test_a_plain_clip_becomes_object_centric(folder_clip, tmp_path):
    parser = parse(folder_clip, tmp_path / "cache", crop_size=64, eval_every=5)
    train, evaluation = (parser.get_dataparser_outputs(split) for split in ("train", "test"))
    info = train.metadata["clip"]
    assert parser.includes_time
    assert info.object_centric
    assert (len(train.image_filenames), len(evaluation.image_filenames)) == (12, 3)
    assert evaluation.image_filenames == train.image_filenames[::5]
    assert train.cameras.times[:, 0].tolist() == pytest.approx(np.linspace(0, 1, 12))
    assert info.canonical_time == float(info.times[info.canonical_index])
    assert train.metadata["points3D_xyz"].shape == (300, 3)
    assert train.metadata["points3D_rgb"].dtype == torch.uint8
    assert train.alpha_color is None
    assert (info.source_size, info.fps, info.crop_boxes.shape) == ((160, 120), pytest.approx(24.0), (12, 3))
    assert read_rgba(train.image_filenames[0]).shape == (64, 64, 4)


def test_known_rgba_is_used_in_place(orbit_clip, tmp_path):
    parser = parse(orbit_clip, tmp_path / "cache")
    train, test = (parser.get_dataparser_outputs(split) for split in ("train", "val"))
    info = train.metadata["clip"]
    assert not info.object_centric
    assert info.root_translations is None
    assert {path.parent for path in train.image_filenames + test.image_filenames} == {orbit_clip / "images"}
    assert (len(train.image_filenames), len(test.image_filenames)) == (9, 4)
    assert np.allclose(test.cameras.camera_to_worlds[1], np.array(orbit(90))[:3], atol=1e-6)
    assert not list((tmp_path / "cache").rglob("*.png"))


@pytest.mark.parametrize(
    "part, expected_tests",
    [({}, [0, 1 / 3, 2 / 3, 1]), ({"end": 4 / 24}, [0, 2 / 3]), ({"start": 4 / 24}, [1 / 3, 1]), ({"fps": 12.0}, [0, 1 / 3, 2 / 3, 1])],
)  # fmt: skip
def test_the_part_of_a_timed_clip_that_is_used_is_a_clip_of_its_own(part, expected_tests, orbit_clip, tmp_path, capsys):
    """Its times run from 0 to 1 and its rate is the source's; test views of other times are left out."""
    parser = parse(orbit_clip, tmp_path / "cache", **part)
    train, test = (parser.get_dataparser_outputs(split) for split in ("train", "test"))
    info = train.metadata["clip"]
    assert torch.allclose(info.times, torch.linspace(0, 1, len(info.times)), atol=1e-6)
    assert torch.equal(train.cameras.times.flatten(), info.times)
    assert (len(info.times) - 1) / info.fps == pytest.approx((info.source_indices[-1] - info.source_indices[0]) / 24)
    assert test.cameras.times.flatten().tolist() == pytest.approx(expected_tests)
    said = capsys.readouterr()
    assert ("Left out 2 of 4 test views" in said.out + said.err) == (len(expected_tests) == 2)


def test_a_prepared_clip_without_its_first_frames_lasts_as_long_as_they_leave(tmp_path):
    frames = walk(9)
    for _, mask in frames[:2]:
        mask[:] = 0
    first = parse(write_folder(tmp_path / "in", frames), tmp_path / "cache").prepared_clip()
    again = parse(first.train[0].image.parents[1], tmp_path / "cache").prepared_clip()
    assert first.info.times[0] == pytest.approx(2 / 8) and (7 - 1) / first.info.fps == pytest.approx(8 / 24)
    assert torch.allclose(again.info.times, torch.linspace(0, 1, 7), atol=1e-6)
    assert (7 - 1) / again.info.fps == pytest.approx(6 / 24)


def test_known_cameras_with_masks_are_merged_and_shrunk(tmp_path):
    entries = []
    for index, (rgb, mask) in enumerate(walk(3)):
        write_image(tmp_path / f"in/images/{index}.png", rgb)
        write_image(tmp_path / f"in/masks/{index}.png", mask)
        entries.append({"file_path": f"images/{index}.png", "transform_matrix": orbit(10.0 * index)})
    meta = {"fl_x": 200.0, "fl_y": 200.0, "cx": 80.0, "cy": 60.0, "w": 160, "h": 120, "frames": entries}
    (tmp_path / "in/transforms.json").write_text(json.dumps(meta))
    outputs = parse(tmp_path / "in", tmp_path / "cache", max_side=80).get_dataparser_outputs("train")
    assert read_rgba(outputs.image_filenames[0]).shape == (60, 80, 4)
    assert (float(outputs.cameras.fx[0]), float(outputs.cameras.cy[0])) == (100.0, 30.0)
    assert outputs.cameras.width[0] == 80


def test_lens_distortion_is_taken_out(tmp_path):
    write_orbit(tmp_path / "in", [0, 10], k1=2.0)
    outputs = parse(tmp_path / "in", tmp_path / "cache").get_dataparser_outputs("train")
    straight, bent = read_rgba(outputs.image_filenames[0]), read_rgba(tmp_path / "in/images/train_000.png")
    assert outputs.cameras.distortion_params is None
    assert (straight[..., 3] > 127).sum() < (bent[..., 3] > 127).sum()  # k1 > 0 moved the rim outward


@pytest.mark.parametrize("kind", ["folder", "orbit"])
def test_prepared_once_wherever_the_input_lies(kind, folder_clip, orbit_clip, tmp_path, no_more_building, monkeypatch):
    source = folder_clip if kind == "folder" else orbit_clip
    first = parse(source, tmp_path / "cache").get_dataparser_outputs("train")
    no_more_building()
    moved = tmp_path / "elsewhere" / "clip"
    shutil.copytree(source, moved)
    monkeypatch.chdir(moved.parent)
    again = parse(Path("clip"), tmp_path / "cache").get_dataparser_outputs("train")
    assert torch.equal(first.metadata["points3D_xyz"], again.metadata["points3D_xyz"])
    assert torch.equal(first.cameras.camera_to_worlds, again.cameras.camera_to_worlds)
    assert all(path.is_file() for path in again.image_filenames)
    if kind == "orbit":
        assert again.image_filenames[0].is_relative_to(moved)
    with pytest.raises(AssertionError, match="second time"):
        parse(Path("clip"), tmp_path / "cache", fps=12.0).get_dataparser_outputs("train")


def test_other_poses_are_another_clip(orbit_clip, tmp_path):
    poses = []
    for azimuth in (-20, -10):
        write_orbit(orbit_clip, list(np.linspace(azimuth, 20, 9)))
        outputs = parse(orbit_clip, tmp_path / "cache").get_dataparser_outputs("train")
        poses.append(outputs.cameras.camera_to_worlds)
    assert not torch.equal(*poses)


def test_the_input_is_never_written_to(folder_clip, orbit_clip, tmp_path):
    for source in (folder_clip, orbit_clip):
        for path in [source, *(path for path in source.rglob("*") if path.is_dir())]:
            path.chmod(0o555)
        before = snapshot(source)
        parse(source, tmp_path / "cache").get_dataparser_outputs("train")
        assert snapshot(source) == before
        for path in [source, *(path for path in source.rglob("*") if path.is_dir())]:
            path.chmod(0o755)


def test_frames_without_an_animal_are_left_out_and_an_empty_clip_is_refused(tmp_path):
    frames = walk(5)
    frames[2][1][:] = 0
    outputs = parse(write_folder(tmp_path / "in", frames), tmp_path / "cache").get_dataparser_outputs("train")
    info = outputs.metadata["clip"]
    assert info.source_indices.tolist() == [0, 1, 3, 4]
    assert info.times.tolist() == [0, 0.25, 0.75, 1]
    for _, mask in frames:
        mask[:] = 0
    with pytest.raises(DataError, match="masks of all 5 frames are empty"):
        parse(write_folder(tmp_path / "empty", frames), tmp_path / "cache").get_dataparser_outputs("train")


def test_the_canonical_frame_can_be_given_as_a_source_frame(folder_clip, tmp_path):
    parser = parse(folder_clip, tmp_path / "cache", fps=12.0, canonical_frame=8)
    info = parser.get_dataparser_outputs("train").metadata["clip"]
    assert info.source_indices[info.canonical_index] == 8
    assert info.canonical_index == 4


def test_a_prepared_folder_is_itself_an_input(folder_clip, tmp_path):
    first = parse(folder_clip, tmp_path / "cache", crop_size=64).get_dataparser_outputs("train")
    before = first.metadata["clip"]
    prepared = first.image_filenames[0].parents[1]
    second = parse(prepared, tmp_path / "cache2", canonical_frame=0).get_dataparser_outputs("train")
    after = second.metadata["clip"]
    assert after.object_centric
    assert second.image_filenames == first.image_filenames
    assert torch.equal(after.crop_boxes, before.crop_boxes)
    # Another canonical frame moves the world's origin: camera and path shift together.
    assert not after.root_translations[0].any()
    shift = second.cameras.camera_to_worlds[0, :, 3] - first.cameras.camera_to_worlds[0, :, 3]
    assert torch.allclose(after.root_translations - before.root_translations, shift.expand(12, 3), atol=1e-6)


def test_other_nerfstudio_methods_read_the_prepared_folder(folder_clip, tmp_path):
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    ours = parse(folder_clip, tmp_path / "cache", crop_size=64).get_dataparser_outputs("train")
    config = NerfstudioDataParserConfig(data=ours.image_filenames[0].parents[1], load_3D_points=False, eval_mode="all")
    theirs = config.setup().get_dataparser_outputs("train")
    assert theirs.image_filenames == ours.image_filenames
    assert torch.allclose(theirs.cameras.fx, ours.cameras.fx)
    assert torch.allclose(theirs.cameras.cx, ours.cameras.cx)


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_preparing_never_holds_the_whole_clip(tmp_path, kind):
    frames = [draw((150 + 4 * n, 120), (80, 50), (480, 320)) for n in range(24)]
    root = write_folder(tmp_path / "in", frames, masks="masks")
    if kind == "video":
        write_video(root / "dog.mp4", (rgb for rgb, _ in frames), fps=24.0)
        shutil.rmtree(root / "images")
    whole = sum(rgb.nbytes + mask.nbytes for rgb, mask in frames)
    del frames
    parse(root, tmp_path / "warm", max_frames=2).get_dataparser_outputs("train")  # imports are not what is measured
    tracemalloc.start()
    parse(root, tmp_path / "cache", crop_size=64).get_dataparser_outputs("train")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < whole / 2


def manager_of(data, cache_dir):
    config = BagsDataManagerConfig(
        dataparser=AnimalVideoDataParserConfig(data=data, cache_dir=cache_dir, num_seed_points=300, crop_size=32)
    )
    return config.setup(device="cpu")


def test_batches_are_uint8_rgba_drawn_from_the_window(folder_clip, tmp_path):
    manager = manager_of(folder_clip, tmp_path / "cache")
    camera, batch = manager.next_train(0)
    assert (batch["image"].dtype, batch["image"].shape) == (torch.uint8, (32, 32, 4))
    assert camera.times.shape == (1, 1)
    manager.set_active_frames(range(3, 6))
    assert manager.active_frames == (3, 4, 5)
    drawn = [manager.next_train(step)[1]["image_idx"] for step in range(1, 31)]
    for start in range(0, 30, 3):  # every pass shows each frame once
        assert sorted(drawn[start : start + 3]) == [3, 4, 5]
    manager.set_active_frames(None)
    assert sorted(manager.next_train(step)[1]["image_idx"] for step in range(12)) == list(range(12))


def test_half_of_the_draws_come_from_the_focus_and_the_seed_decides(folder_clip, tmp_path):
    def draw_indices(manager):
        manager.set_active_frames(range(8), focus=[6, 7])
        return [manager.next_train(step)[1]["image_idx"] for step in range(40)]

    first, second = (draw_indices(manager_of(folder_clip, tmp_path / "cache")) for _ in range(2))
    assert first == second
    assert sum(index in (6, 7) for index in first) == 20 and set(first) == set(range(8))


def test_the_canonical_frame_comes_more_often(folder_clip, tmp_path):
    manager = manager_of(folder_clip, tmp_path / "cache")
    manager.config.canonical_every = 4
    manager.set_active_frames(range(12))
    drawn = [manager.next_train(step)[1]["image_idx"] for step in range(14)]
    assert set(drawn) == set(range(12)) and drawn.count(manager.clip.canonical_index) == 3


def test_any_train_frame_can_be_looked_at(folder_clip, tmp_path):
    manager = manager_of(folder_clip, tmp_path / "cache")
    manager.set_active_frames([0])
    camera, image = manager.train_image(7)
    assert torch.equal(camera.times[0], manager.clip.times[7:8])
    assert np.array_equal(image.numpy(), read_rgba(manager.train_dataset.image_filenames[7]))
    with pytest.raises(ValueError, match=r"Active frames must be some of 0\.\.11"):
        manager.set_active_frames([12])


def test_the_parser_is_registered_under_its_name():
    from bags_ns.dataparser_configs import animal_video

    assert isinstance(animal_video.config, AnimalVideoDataParserConfig)


def test_relative_data_is_resolved(folder_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(folder_clip.parent)
    parser = parse(folder_clip.relative_to(folder_clip.parent), tmp_path / "cache")
    assert parser.config.data == folder_clip
    assert os.path.isabs(parser.get_dataparser_outputs("train").image_filenames[0])
