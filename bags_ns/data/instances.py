"""Silhouettes from segmentation networks, and following one and the same animal through what they find.

The networks are trained elsewhere and fetched by the user; how good their silhouettes are was not measured here. Each
is reduced to a callable from a picture to candidates, so that following can be tested without weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from bags_ns.data.masks import box_mask, carry, gray_of, optical_flow, overlap

ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
"""The animals among COCO's 80 classes."""
MASK_RCNN_FILE = "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"
MIN_SCORE = 0.5
MIN_MATCH = 0.3
"""Below this match (0 to 1) a candidate is another animal and the frame is left empty."""

Rgb = UInt8[np.ndarray, "H W 3"]
Mask = Bool[np.ndarray, "H W"]


class SegmenterMissing(RuntimeError):
    """A package or weights are not on this machine; the message is what is missing and how to get it."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One animal that a network sees in a frame."""

    mask: Mask
    score: float
    """Confidence, 0 to 1."""


Network = Callable[[Rgb], list[Candidate]]


def is_here(name: str, model: str = "") -> bool:
    """Whether a network can be had without fetching anything, by its files: nothing is loaded."""
    if name == "torchvision":
        return torchvision_weights().is_file()
    if name == "rembg":
        return find_spec("rembg") is not None and rembg_weights().is_file()
    if not model or find_spec("transformers") is None:
        return False
    from huggingface_hub.constants import HF_HUB_CACHE

    fetched = Path(HF_HUB_CACHE, f"models--{model.replace('/', '--')}", "snapshots")
    return Path(model).is_dir() or any(path.suffix in (".safetensors", ".bin") for path in fetched.glob("*/*"))


def follow_instance(
    frames: Sequence[Rgb],
    network: Network,
    box: tuple[int, int, int, int] | None,
    advance: Callable[[], None] = lambda: None,
) -> list[Mask]:
    """The silhouette of one animal in each frame, empty where the network does not see it.

    It is the one in `box` on the first frame; without a box, the largest and surest of the whole clip. From there it is
    followed both ways by overlap (along the optical flow) and colours.
    """
    seen = []
    for rgb in frames:
        seen.append([candidate for candidate in network(rgb) if candidate.score >= MIN_SCORE and candidate.mask.any()])
        advance()
    empty = np.zeros(frames[0].shape[:2], np.bool_)
    chosen = [empty] * len(frames)
    start, first = _first(seen, None if box is None else box_mask(box, empty.shape))
    if first is None:
        return chosen
    chosen[start] = first.mask
    colours = colour_histogram(frames[start], first.mask)
    for order in (range(start + 1, len(frames)), range(start - 1, -1, -1)):
        before, before_index = first.mask, start
        for index in order:
            flow = optical_flow(gray_of(frames[index]), gray_of(frames[before_index]))
            found = _best_match(frames[index], seen[index], carry(before, flow) > 0.5, colours)
            if found is not None:
                chosen[index] = before = found.mask
                before_index = index
    return chosen


def _first(seen: Sequence[list[Candidate]], inside: Mask | None) -> tuple[int, Candidate | None]:
    if inside is not None:
        ranked = [(overlap(candidate.mask, inside), 0, candidate) for candidate in seen[0]]
    else:
        ranked = [
            (candidate.score * float(np.sqrt(candidate.mask.mean())), index, candidate)
            for index, candidates in enumerate(seen)
            for candidate in candidates
        ]
    if not ranked:
        return 0, None
    _, index, candidate = max(ranked, key=lambda item: item[0])
    return index, candidate


def _best_match(
    rgb: Rgb, candidates: Sequence[Candidate], expected: Mask, colours: Float[np.ndarray, " bins"]
) -> Candidate | None:
    best, best_match = None, MIN_MATCH
    for candidate in candidates:
        alike = float(np.minimum(colour_histogram(rgb, candidate.mask), colours).sum())
        match = 0.6 * overlap(candidate.mask, expected) + 0.4 * alike
        if match > best_match and overlap(candidate.mask, expected) > 0.05:
            best, best_match = candidate, match
    return best


def colour_histogram(rgb: Rgb, mask: Mask) -> Float[np.ndarray, " bins"]:
    """Shares of 8 x 8 x 8 colours inside a mask."""
    counts = cv2.calcHist([rgb], [0, 1, 2], mask.astype(np.uint8), [8, 8, 8], [0, 256] * 3).ravel()
    return counts / max(1.0, float(counts.sum()))


def torchvision_network(model: Any = None, categories: Sequence[str] | None = None) -> Network:
    """Mask R-CNN's animals; `model` and its `categories` replace the published network."""
    import torch

    if model is None:
        from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn

        path = torchvision_weights()
        if not path.is_file():
            fetch = "from torchvision.models.detection import *; maskrcnn_resnet50_fpn(weights='DEFAULT')"
            raise SegmenterMissing(f'torchvision\'s weights are not in {path}; fetch them by: python -c "{fetch}"')
        model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        categories = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    names = list(categories or ())

    @torch.no_grad()
    def network(rgb: Rgb) -> list[Candidate]:
        picture = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).to(device, torch.float32) / 255
        found = model([picture])[0]
        masks = (found["masks"][:, 0] > 0.5).cpu().numpy()
        labels, scores = found["labels"].tolist(), found["scores"].tolist()
        return [
            Candidate(mask, float(score))
            for mask, label, score in zip(masks, labels, scores, strict=True)
            if label < len(names) and names[label] in ANIMALS
        ]

    return network


def torchvision_weights() -> Path:
    """Where torch.hub keeps the weights of Mask R-CNN."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / MASK_RCNN_FILE


def rembg_weights() -> Path:
    """Where rembg keeps its weights."""
    usual = Path(os.environ.get("XDG_DATA_HOME", "~"), ".u2net")
    return Path(os.environ.get("U2NET_HOME", usual), "u2net.onnx").expanduser()


def rembg_network(remove: Callable[[Rgb], UInt8[np.ndarray, "H W"]] | None = None) -> Network:
    """rembg's foreground as the only candidate; `remove` replaces the package's function."""
    if remove is None:
        try:
            import rembg  # type: ignore[import-not-found]
        except ImportError as error:
            raise SegmenterMissing("the package rembg is not installed; pip install 'bags-ns[segment]'") from error
        try:
            session = rembg.new_session()
        except OSError as error:  # of the network, while it fetches its weights
            raise SegmenterMissing(
                "rembg cannot fetch its weights; put u2net.onnx into ~/.u2net or go online once"
            ) from error

        remove = lambda rgb: np.asarray(rembg.remove(rgb, session=session, only_mask=True))  # noqa: E731

    def network(rgb: Rgb) -> list[Candidate]:
        return [Candidate(np.asarray(remove(rgb)) >= 128, 1.0)]

    return network


def transformers_network(name: str, model: Any = None, processor: Any = None) -> Network:
    """A universal segmenter by hub id or local folder; `model` and `processor` replace what the name stands for."""
    if model is None or processor is None:
        if not name:
            raise SegmenterMissing("no model is named; give a hub id or a folder with --segmenter-model")
        try:
            from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation
        except ImportError as error:
            raise SegmenterMissing("the package transformers is not installed; pip install transformers") from error
        try:
            processor = AutoImageProcessor.from_pretrained(name)
            model = AutoModelForUniversalSegmentation.from_pretrained(name)
        except (OSError, ValueError) as error:
            first_line = str(error).splitlines()[0]
            raise SegmenterMissing(f"the model {name} cannot be had ({first_line}); give a local folder") from error
    import torch

    names = {int(key): str(value).lower() for key, value in model.config.id2label.items()}

    @torch.no_grad()
    def network(rgb: Rgb) -> list[Candidate]:
        outputs = model(**processor(images=rgb, return_tensors="pt"))
        (result,) = processor.post_process_instance_segmentation(outputs, target_sizes=[rgb.shape[:2]])
        labels = np.asarray(result["segmentation"])
        return [
            Candidate(labels == part["id"], float(part["score"]))
            for part in result["segments_info"]
            if names.get(part["label_id"], "") in ANIMALS
        ]

    return network
