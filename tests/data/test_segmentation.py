"""Silhouettes are made where none are given: by colour and motion, by networks, for one animal, with every frame judged."""

import json
import sys
import types

import cv2
import numpy as np
import pytest
import torch
from drawn_clips import draw, orbit, write_image

from bags_ns.data import segmentation
from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.data.grabcut import grabcut_masks
from bags_ns.data.images import DataError
from bags_ns.data.instances import (
    Candidate,
    SegmenterMissing,
    follow_instance,
    rembg_network,
    torchvision_network,
    torchvision_weights,
    transformers_network,
)
from bags_ns.data.judgement import judge, summary, usable
from bags_ns.data.masks import carry, fill_holes, follow_component, optical_flow, overlap, smooth_masks
from bags_ns.data.segmentation import SegmentSettings, segment
from bags_ns.data.silhouettes import measure_silhouettes
from bags_ns.data.video import write_video

SIZE = (160, 120)
BIG = (320, 240)


def textured(count: int, pan: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    """A spotted brown ellipse walks over a green meadow while the camera pans."""
    rng = np.random.default_rng(0)
    meadow = cv2.GaussianBlur(rng.normal(0, 300, (240, 320 + pan * count)), (0, 0), 4)
    coat = cv2.GaussianBlur(rng.normal(0, 300, (240, 320)), (0, 0), 4)
    frames = []
    for index in range(count):
        ground = meadow[:, pan * index : pan * index + 320]
        rgb = np.clip(np.stack([60 + 0 * ground, 130 + ground, 60 + 0.5 * ground], axis=-1), 0, 255).astype(np.uint8)
        _, mask = draw((90 + 8 * index, 120), (60, 36), BIG)
        spots = np.roll(coat, 8 * index, axis=1)
        animal = np.clip(np.stack([160 + spots, 90 + spots, 50 + spots], axis=-1), 0, 255).astype(np.uint8)
        frames.append((np.where(mask[..., None] > 0, animal, rgb), mask))
    return frames


@pytest.fixture(scope="module")
def walking():
    return textured(16)


@pytest.mark.parametrize("box", [(30, 84, 120, 72), None])
def test_grabcut_finds_what_moves_or_what_is_in_the_box(walking, box):
    masks = grabcut_masks([rgb for rgb, _ in walking], box)
    overlaps = [overlap(mask, truth > 0) for mask, (_, truth) in zip(masks, walking, strict=True)]
    assert np.mean(overlaps) > 0.85 and min(overlaps) > 0.5


def test_an_animal_that_rests_needs_the_box():
    still = [textured(1)[0]] * 6
    frames = [rgb for rgb, _ in still]
    with pytest.raises(DataError, match="Nothing moves .* --box"):
        grabcut_masks(frames, None)
    masks = grabcut_masks(frames, (20, 76, 140, 88))
    assert min(overlap(mask, still[0][1] > 0) for mask in masks) > 0.8


def test_holes_parts_and_flow():
    _, mask = draw((80, 60), (40, 25), SIZE)
    inside = mask > 0
    pierced = inside.copy()
    pierced[60, 80] = False
    assert (fill_holes(pierced) == inside).all()
    legs = inside.copy()
    legs[50:70, 60:100] = False  # a large hole is not closed
    assert (fill_holes(legs) == legs).all()
    second = inside.copy()
    second[:8, :8] = True
    assert (follow_component(second) == inside).all()
    assert follow_component(second, draw((4, 4), (4, 4), SIZE)[1] > 0)[2, 2]
    (first, first_mask), (later, later_mask) = textured(2, pan=0)
    flow = optical_flow(*(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (later, first)))
    assert overlap(carry(first_mask > 0, flow) > 0.5, later_mask > 0) > 0.85


def test_smoothing_mends_one_bad_frame(walking):
    grays = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb, _ in walking[:5]]
    masks = [mask > 0 for _, mask in walking[:5]]
    truth = masks[2].copy()
    masks[2] = truth & (np.arange(320) < 116)
    assert overlap(masks[2], truth) < 0.75 < 0.9 < overlap(smooth_masks(masks, grays)[2], truth)


def two_animals(count: int):
    """A brown and a grey ellipse cross; the network sees both, in an order that changes."""
    frames, brown, candidates = [], [], {}
    rng = np.random.default_rng(1)
    for index in range(count):
        rgb, first = draw((30 + 8 * index, 45), (18, 12), SIZE)
        _, second = draw((130 - 8 * index, 80), (18, 12), SIZE)
        rgb[second > 0] = (150, 150, 160)
        frames.append(rgb)
        brown.append(first > 0)
        both = [Candidate(first > 0, 0.8), Candidate(second > 0, 0.9)]
        candidates[rgb.tobytes()] = both[:: rng.choice([-1, 1])]
    return frames, brown, lambda rgb: candidates[rgb.tobytes()]


def test_one_and_the_same_animal_is_followed():
    frames, brown, network = two_animals(12)
    masks = follow_instance(frames, network, (12, 33, 36, 24))
    assert all((mask == truth).all() for mask, truth in zip(masks, brown, strict=True))
    blind = follow_instance(frames, lambda rgb: network(rgb) if rgb is not frames[5] else [], (12, 33, 36, 24))
    assert not blind[5].any() and (blind[11] == brown[11]).all()
    other = follow_instance(frames, network, None)  # the surer one
    assert not (other[0] & brown[0]).any()


def test_torchvisions_answers_are_read_with_a_tiny_random_network():
    from torchvision.models import resnet18
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    torch.manual_seed(0)
    layers = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}
    backbone = BackboneWithFPN(resnet18(weights=None), layers, [64, 128, 256, 512], 32)
    model = MaskRCNN(backbone, 3, min_size=64, max_size=80, box_score_thresh=0.0, box_detections_per_img=4)
    found = torchvision_network(model, ["nothing", "dog", "car"])(draw((80, 60), (40, 25), SIZE)[0])
    assert all(candidate.mask.shape == (120, 160) and 0 <= candidate.score <= 1 for candidate in found)

    class Sees(torch.nn.Module):
        def forward(self, pictures):
            masks = torch.zeros(2, 1, *pictures[0].shape[1:])
            masks[:, :, 10:20, 10:20] = 1
            return [{"masks": masks, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.99])}]

    (dog,) = torchvision_network(Sees(), ["nothing", "dog", "car"])(np.zeros((30, 40, 3), np.uint8))
    assert dog.mask.sum() == 100 and dog.score == pytest.approx(0.9)


def test_rembg_and_transformers_answers_are_read():
    (whole,) = rembg_network(lambda rgb: draw((80, 60), (40, 25), SIZE)[1])(np.zeros((120, 160, 3), np.uint8))
    assert whole.mask.sum() > 1000

    class Fake:
        class config:
            id2label = {0: "Dog", 1: "car"}

        def __call__(self, **kwargs):
            return self

        def post_process_instance_segmentation(self, outputs, target_sizes):
            labels = torch.zeros(target_sizes[0])
            labels[5:10] = 1
            parts = [{"id": 0, "label_id": 1, "score": 0.9}, {"id": 1, "label_id": 0, "score": 0.7}]
            return [{"segmentation": labels, "segments_info": parts}]

    class Processor(Fake):
        def __call__(self, images, return_tensors):
            return {"pixel_values": torch.zeros(1)}

    (dog,) = transformers_network("x", Fake(), Processor())(np.zeros((20, 30, 3), np.uint8))
    assert dog.mask.sum() == 150 and dog.score == pytest.approx(0.7)


def missing(*_):
    raise SegmenterMissing("its weights are not here; fetch them")


def test_what_is_missing_is_named_and_the_next_one_taken(walking, capsys):
    frames = np.stack([rgb for rgb, _ in walking[:6]])
    truth = walking[0][1] > 0
    sees = {"torchvision": missing, "rembg": lambda: lambda rgb: [Candidate(truth, 1.0)]}
    masks = segment(frames, SegmentSettings(), None, sees)
    assert overlap(masks[0], truth) > 0.95
    assert capsys.readouterr().err.count("torchvision is not used, its weights are not here; fetch them.") == 1
    masks = segment(
        frames,
        SegmentSettings("transformers"),
        (30, 84, 120, 72),
        dict.fromkeys(sees, missing) | {"transformers": missing},
    )
    assert overlap(masks[0], truth) > 0.7
    assert capsys.readouterr().err.count("is not used") == 3


def test_rembg_without_its_weights_or_a_network_is_passed_over(monkeypatch):
    def refuse():
        raise ConnectionError("Max retries exceeded")

    monkeypatch.setitem(sys.modules, "rembg", types.SimpleNamespace(new_session=refuse))
    with pytest.raises(SegmenterMissing, match=r"put u2net.onnx into ~/\.u2net"):
        rembg_network()


def test_a_plain_video_trains_without_masks(walking, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(segmentation, "torchvision_network", missing)
    write_video(tmp_path / "in" / "my dog.mp4", (rgb for rgb, _ in walking), fps=10.0)
    options = dict(cache_dir=tmp_path / "cache", num_seed_points=200, crop_size=64, box=(30, 84, 120, 72))
    config = AnimalVideoDataParserConfig(data=tmp_path / "in" / "my dog.mp4", **options)
    outputs = config.setup().get_dataparser_outputs("train")
    assert len(outputs.image_filenames) >= 12
    folder = outputs.image_filenames[0].parents[1]
    verdicts = json.loads((folder / "frames.json").read_text())["frames"]
    assert len(verdicts) == 16 and sum(row["used"] for row in verdicts) == len(outputs.image_filenames)
    sheet = cv2.imread(str(folder / "silhouettes.png"))
    assert sheet.shape == (3 * 180, 6 * 240, 3)
    assert str(folder / "silhouettes.png") in capsys.readouterr().err
    monkeypatch.setattr(segmentation, "segment", missing)  # another crop needs no new silhouettes
    config = AnimalVideoDataParserConfig(data=tmp_path / "in" / "my dog.mp4", **{**options, "crop_size": 32})
    config.setup().get_dataparser_outputs("train")


def test_weights_that_came_later_are_used_and_what_they_made_is_kept(walking, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(sys.modules, "rembg", None)
    write_video(tmp_path / "in" / "dog.mp4", (rgb for rgb, _ in walking), fps=10.0)
    options = dict(cache_dir=tmp_path / "cache", num_seed_points=200, crop_size=64, box=(30, 84, 120, 72))

    def prepared():
        config = AnimalVideoDataParserConfig(data=tmp_path / "in" / "dog.mp4", **options)
        return config.setup().get_dataparser_outputs("train").image_filenames[0].parents[1]

    by_colour = prepared()
    assert prepared() == by_colour
    torchvision_weights().parent.mkdir(parents=True)
    torchvision_weights().touch()
    sees = [Candidate(walking[0][1] > 0, 1.0)]
    monkeypatch.setattr(segmentation, "torchvision_network", lambda: lambda rgb: sees)
    by_network = prepared()
    assert by_network != by_colour
    monkeypatch.setattr(segmentation, "torchvision_network", missing)
    monkeypatch.setattr(segmentation, "segment", missing)  # nothing is loaded, nothing made anew
    assert prepared() == by_network
    torchvision_weights().unlink()
    assert prepared() == by_colour


def test_jpg_frames_without_masks_and_none(walking, tmp_path):
    for index, (rgb, _) in enumerate(walking[:8]):
        write_image(tmp_path / f"in/images/{index:03d}.jpg", rgb)
    options = dict(data=tmp_path / "in", cache_dir=tmp_path / "cache", num_seed_points=200, crop_size=64)
    with pytest.raises(DataError, match="no silhouettes; add masks/"):
        AnimalVideoDataParserConfig(**options, segmenter="none").setup().get_dataparser_outputs("train")
    with pytest.raises(DataError, match=r"--box \(500, 0, 10, 10\) is not in the picture, 320x240"):
        AnimalVideoDataParserConfig(**options, box=(500, 0, 10, 10)).setup().get_dataparser_outputs("train")
    assert not list((tmp_path / "cache").iterdir())
    config = AnimalVideoDataParserConfig(**options, segmenter="grabcut")
    assert config.setup().get_dataparser_outputs("train").image_filenames


def test_frames_with_cameras_are_judged_too_where_their_silhouettes_are_made(walking, tmp_path, monkeypatch, capsys):
    masks = [mask > 0 for _, mask in walking[:10]]
    masks[3] = np.zeros_like(masks[3])
    masks[6] = draw((240, 60), (60, 36), BIG)[1] > 0
    monkeypatch.setattr(segmentation, "segment", lambda *_: masks)
    entries = []
    for index, (rgb, _) in enumerate(walking[:10]):
        write_image(tmp_path / f"in/images/{index:03d}.jpg", rgb)
        entries.append({"file_path": f"images/{index:03d}.jpg", "transform_matrix": orbit(0.0)})
    meta = {"fl_x": 400.0, "fl_y": 400.0, "w": 320, "h": 240, "cx": 160.0, "cy": 120.0, "frames": entries}
    (tmp_path / "in/transforms.json").write_text(json.dumps(meta))
    config = AnimalVideoDataParserConfig(data=tmp_path / "in", cache_dir=tmp_path / "cache", num_seed_points=200)
    outputs = config.setup().get_dataparser_outputs("train")
    info, folder = outputs.metadata["clip"], outputs.image_filenames[0].parents[1]
    assert info.source_indices.tolist() == [0, 1, 2, 4, 5, 7, 8, 9] and len(info.times) == 8
    assert outputs.cameras.times[:, 0].tolist() == pytest.approx([i / 9 for i in info.source_indices.tolist()])
    assert sorted((folder / "images").iterdir()) == outputs.image_filenames
    assert "2 jump" not in (said := capsys.readouterr().err) and "1 empty (3); 1 jump (6)" in said
    assert (folder / "silhouettes.png").is_file() and str(folder / "silhouettes.png") in said


def test_every_frame_is_judged():
    frames = [np.dstack(pair) for pair in textured(12)]
    frames[3][..., 3] = 0
    frames[6][..., 3] = draw((240, 60), (60, 36), BIG)[1]
    frames[8][..., :3] = 128
    frames[10][..., 3] |= draw((300, 120), (120, 20), BIG)[1]
    verdicts = judge(measure_silhouettes(frames))
    assert (verdicts[3], verdicts[6], verdicts[8]) == ("empty", "jump", "blurred")
    assert verdicts[10] in ("cut", "jump") and verdicts.count("good") == 8
    assert usable(verdicts, made=False).count(False) == 1
    used = usable(verdicts, made=True)
    assert used.count(True) == 8
    assert summary(range(12), verdicts, used).startswith("Left out of 12 frames: 1 empty (3)")
    assert usable(["cut", "cut", "cut", "jump"], made=True) == [True, True, True, False]
