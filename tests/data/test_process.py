"""`bags process-video` writes a folder that everybody reads, or nothing; `bags doctor` sees what is there."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from drawn_clips import walk, write_folder

from bags_ns.cli import ProcessVideo
from bags_ns.commands.doctor import examine, report
from bags_ns.data import process
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.data.images import DataError
from bags_ns.data.prepare import PrepareSettings
from bags_ns.data.process import process_video

SETTINGS = PrepareSettings(crop_size=64, num_seed_points=200)


def test_the_folder_is_complete_and_taken_by_ours_and_nerfstudios_parser(folder_clip, tmp_path):
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    folder = process_video(folder_clip, tmp_path / "out" / "dog", SETTINGS, tmp_path / "cache")
    assert [path.name for path in folder.parent.iterdir()] == ["dog"]
    meta = json.loads((folder / "transforms.json").read_text())
    assert meta["frames"][3]["file_path"] == "images/frame_00003.png" and not meta["bags"]["in_place"]
    config = AnimalVideoDataParserConfig(data=folder, cache_dir=tmp_path / "other", num_seed_points=200)
    ours = config.setup().get_dataparser_outputs("train")
    theirs = NerfstudioDataParserConfig(data=folder, load_3D_points=False, eval_mode="all").setup()
    assert theirs.get_dataparser_outputs("train").image_filenames == ours.image_filenames
    assert len(ours.image_filenames) == 12 and ours.image_filenames[0].parent == folder / "images"


@pytest.mark.parametrize("elevation_deg", [None, 12.0])
def test_an_elevation_that_was_given_is_known_later(folder_clip, tmp_path, elevation_deg):
    settings = replace(SETTINGS, elevation_deg=elevation_deg)
    folder = process_video(folder_clip, tmp_path / "out", settings, tmp_path / "cache")
    config = AnimalVideoDataParserConfig(data=folder, cache_dir=tmp_path / "other", num_seed_points=200)
    assert config.setup().get_dataparser_outputs("train").metadata["clip"].elevation_deg == elevation_deg


def test_known_cameras_and_test_views_come_along(orbit_clip, tmp_path):
    folder = process_video(orbit_clip, tmp_path / "out", SETTINGS, tmp_path / "cache")
    config = AnimalVideoDataParserConfig(data=folder, cache_dir=tmp_path / "other", num_seed_points=200)
    before = AnimalVideoDataParserConfig(data=orbit_clip, cache_dir=tmp_path / "cache", num_seed_points=200)
    for split, count in (("train", 9), ("test", 4)):
        now, then = (item.setup().get_dataparser_outputs(split).cameras for item in (config, before))
        assert len(now) == count and torch.allclose(now.camera_to_worlds, then.camera_to_worlds)


def test_the_verb_has_the_options_that_the_errors_of_its_work_name(tmp_path):
    sources = [path for path in Path(process.__file__).parent.glob("*.py") if path.name != "held_out.py"]
    named = {name for path in sources for name in re.findall(r"--([a-z][a-z-]+)", path.read_text())}
    assert {"data", "sequence", "seed-radius"} <= named
    assert named <= {field.name.replace("_", "-") for field in fields(ProcessVideo)}
    for name in ("bear", "camel"):
        write_folder(tmp_path / "davis", walk(4), f"JPEGImages/480p/{name}", f"Annotations/480p/{name}")
    options = dict(crop_size=64, num_seed_points=200, cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match="2 sequences; choose with --sequence: bear, camel"):
        ProcessVideo(tmp_path / "davis", tmp_path / "out", **options).run()
    ProcessVideo(tmp_path / "davis", tmp_path / "out", sequence="bear", **options).run()
    assert len(list((tmp_path / "out" / "images").iterdir())) == 4


def test_nothing_is_overwritten_and_nothing_half_written(folder_clip, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="full is there already and not empty; give another --output-dir"):
        process_video(folder_clip, tmp_path / "full", SETTINGS, tmp_path / "cache")
    frames = walk(3)
    for _, mask in frames:
        mask[:] = 0
    with pytest.raises(DataError, match="masks of all 3 frames are empty"):
        process_video(write_folder(tmp_path / "in", frames), tmp_path / "out", SETTINGS, tmp_path / "cache")
    assert not (tmp_path / "out").exists() and not list((tmp_path / "cache").iterdir())


def test_the_doctor_names_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    findings = {item.name: item for item in examine(tmp_path / "cache")}
    assert {"python", "torch", "CUDA", "gsplat", "numba", "ffmpeg", "rembg", "transformers"} <= set(findings)
    assert "gltf" in findings["fast-simplification"].needed_for  # scikit-image comes with nerfstudio
    assert findings["Mask R-CNN weights"].state == "optional" and "maskrcnn" in findings["Mask R-CNN weights"].remedy
    assert all(item.remedy for item in findings.values() if item.state != "ok")
    assert report(list(findings.values())).row_count == len(findings)
    assert not list(tmp_path.iterdir())
