"""Frames that are held out have no say in training, whatever they show, and evaluation reports them apart."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from data.drawn_clips import draw, walk, write_folder
from tiny_runs import run, trainer_on

from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.data.held_out import HoldOut
from bags_ns.data.images import DataError
from bags_ns.evaluation import evaluate, nearest_is_held_out, num_pictures

pytestmark = pytest.mark.usefixtures("one_thread")


def parse(data, cache_dir, **options):
    options = {"crop_size": 48, "num_seed_points": 300, **options}
    return AnimalVideoDataParserConfig(data=data, cache_dir=cache_dir, **options).setup()


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, []),
        ({"every": 4}, [2, 6]),
        ({"every": 2}, [1, 3, 5, 7]),  # not the last, whose number is odd too
        ({"block": (0.3, 0.7)}, [3, 4, 5, 6]),
        ({"block": (0.8, 1.0)}, [8, 9]),
    ],
)
def test_which_frames_are_held_out(options, expected):
    times = np.linspace(0, 1, 10).tolist()[: 9 if options.get("every") == 4 else 10]
    assert np.flatnonzero(HoldOut(**options).frames(times)).tolist() == expected


@pytest.mark.parametrize(
    "options, message",
    [
        ({"every": 2, "block": (0.2, 0.4)}, "not both"),
        ({"every": 1}, "2 or more"),
        ({"block": (0.6, 0.4)}, "start < end"),
        ({"block": (0.5, 0.5)}, "start < end"),
        ({"every": 40}, "holds out 0 of 10"),
        ({"block": (0.0, 1.0)}, "holds out 10 of 10"),
    ],
)
def test_what_cannot_be_held_out_is_one_line(options, message):
    with pytest.raises(DataError, match=message):
        HoldOut(**options).frames(np.linspace(0, 1, 10).tolist())


def plain(folder, held):
    """A plain clip; its held-out frames show something else than a walk where `held` is given."""
    frames = walk(12)
    for index in held:
        frames[index] = draw((30, 95), (12, 12))
    return write_folder(folder, frames)


def known(folder, held, clip):
    shutil.copytree(clip, folder)
    frames = json.loads((folder / "transforms_train.json").read_text())["frames"]
    for index in held:
        path = str(folder / f"{frames[index]['file_path']}.png")
        assert cv2.imwrite(path, cv2.imread(path, cv2.IMREAD_UNCHANGED)[::-1, ::-1])
    return folder


@pytest.mark.parametrize("kind", ["plain", "known"])
def test_what_held_out_frames_show_changes_nothing_of_training(kind, clip, tmp_path):
    make = plain if kind == "plain" else lambda folder, held: known(folder, held, clip)
    option, held = ({"hold_out_block": (0.4, 0.6)}, [5, 6]) if kind == "plain" else ({"hold_out_every": 3}, [1, 4])
    trainers = []
    for name, garbled in (("true", []), ("other", held)):
        torch.manual_seed(0)
        trainer = trainer_on(
            make(tmp_path / f"{name} clip", garbled),
            tmp_path / name,
            steps=15,
            parser={"crop_size": 48, **option},
            pipeline={"turn_from_prior": False, "slope_from_prior": False},  # the prior takes a minute
            prior={"name": "small"},
            flow_loss_mult=1.0,  # neighbours of a frame are trained ones too
        )
        run(trainer, range(15))
        trainers.append(trainer)
    one, other = (trainer.model.state_dict() for trainer in trainers)
    assert all(torch.equal(one[key], other[key]) for key in one if torch.is_tensor(one[key]))
    data = trainers[0].pipeline.datamanager
    sources = range(12 if kind == "plain" else 6)
    assert data.clip.source_indices.tolist() == [index for index in sources if index not in held]
    assert data.held_out_dataset is not None and len(data.held_out_dataset) == len(held)
    # They are told apart in the result, and what they show counts there.
    results = [evaluate(each.model, each.pipeline.datamanager) for each in trainers]
    assert results[0]["train"] == results[1]["train"]
    assert results[0]["held-out times"]["frames"] == len(held)
    assert results[0]["held-out times"]["psnr"] > results[1]["held-out times"]["psnr"] + 1


def test_held_out_frames_lie_where_and_when_they_were_filmed(clip, tmp_path):
    whole = parse(clip, tmp_path / "cache").get_dataparser_outputs("train")
    parser = parse(clip, tmp_path / "cache", hold_out_every=3)
    held, train = (parser.get_dataparser_outputs(split) for split in ("held_out", "train"))
    assert held.image_filenames == [whole.image_filenames[1], whole.image_filenames[4]]
    assert not set(held.image_filenames) & set(train.image_filenames)
    assert torch.equal(held.cameras.times, whole.cameras.times[[1, 4]])
    first, second = train.metadata["clip"], whole.metadata["clip"]
    assert (len(first.times) - 1) / first.fps == pytest.approx((len(second.times) - 1) / second.fps)


def test_test_views_are_told_apart_by_time(clip, tmp_path):
    trainer = trainer_on(clip, tmp_path, parser={"hold_out_block": (0.0, 0.3)})
    data = trainer.pipeline.datamanager
    seen = []
    summary = evaluate(trainer.model, data, lambda: seen.append(1))
    assert len(seen) == num_pictures(data) == 6 + len(data.test_dataset)
    assert {"train", "held-out times", "test"} <= set(summary)
    assert summary["train"]["frames"] == 4 and summary["held-out times"]["frames"] == 2
    times = torch.tensor([0.0, 0.19, 0.31, 0.5, 1.0])
    held = nearest_is_held_out(times, torch.tensor([0.4, 0.6, 1.0]), torch.tensor([0.0, 0.2]))
    assert held.tolist() == [True, True, False, False, False]
