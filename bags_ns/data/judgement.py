"""Judges every frame of a clip by its silhouette, and draws a contact sheet of the outlines for a person to check."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8

from bags_ns.data.frames import FrameChoice
from bags_ns.data.images import FOREGROUND, DataError
from bags_ns.data.silhouettes import MIN_AREA, Silhouettes, measure_silhouettes
from bags_ns.progress import say

Verdict = Literal["good", "empty", "cut", "blurred", "jump"]

SHEET_NAME = "silhouettes.png"
NEIGHBOURS = 4
"""Frames to each side that a frame is compared with."""
BLURRED = 0.25
"""Sharpness, as a part of its neighbours', below which a frame is blurred."""
AREA_JUMP, PLACE_JUMP = 1.8, 0.4
"""A silhouette jumps if its area is so many times its neighbours', or it is so many of its own sizes away from them."""
THUMBNAIL, MAX_THUMBNAILS, COLUMNS = 240, 60, 6
COLOURS = {"good": (60, 220, 60), "empty": (230, 60, 60), "cut": (240, 160, 40), "blurred": (240, 160, 40)}


def judged_silhouettes(
    name: Path, frames: Iterator[UInt8[np.ndarray, "H W 4"]], choice: FrameChoice, folder: Path, made: bool
) -> tuple[FrameChoice, Silhouettes, Bool[np.ndarray, " T"]]:
    """Measures and judges every frame and leaves out the bad ones; writes down the verdicts, and a sheet if `made`.

    Args:
        name: The input, to be named in an error.
        frames: The chosen frames.
        choice: Which they are.
        folder: Where the verdicts go.
        made: True where a segmenter made the silhouettes; given ones were somebody's work already.

    Returns:
        The frames that are left, their silhouettes, and which of the chosen ones these are.

    Raises:
        DataError: No frame shows an animal.
    """
    sheet = ContactSheet(len(choice.numbers) if made else 0)
    silhouettes = measure_silhouettes(_shown(frames, sheet))
    verdicts = judge(silhouettes)
    used = usable(verdicts, made)
    if not any(used):
        remedy = (
            "give --box x y width height of the animal in the first frame" if made else "make them white on the animal"
        )
        raise DataError(f"{name}: the masks of all {len(used)} frames are empty; {remedy}.")
    sheet.write(folder / SHEET_NAME, choice.numbers, verdicts)
    write_judgement(folder / "frames.json", choice.numbers, verdicts, used)
    if left_out := summary(choice.numbers, verdicts, used):
        say(left_out)
    kept = np.array(used)
    return choice.where(kept), silhouettes.where(kept), kept


def _shown(frames: Iterator[UInt8[np.ndarray, "H W 4"]], sheet: ContactSheet) -> Iterator[UInt8[np.ndarray, "H W 4"]]:
    for index, rgba in enumerate(frames):
        sheet.add(index, rgba)
        yield rgba


def judge(silhouettes: Silhouettes) -> list[Verdict]:
    """A verdict on each frame."""
    present = silhouettes.areas >= MIN_AREA
    verdicts: list[Verdict] = []
    for index in range(len(silhouettes)):
        around = np.arange(max(0, index - NEIGHBOURS), min(len(silhouettes), index + NEIGHBOURS + 1))
        around = around[present[around] & (around != index)]
        if not present[index]:
            verdicts.append("empty")
        elif len(around) >= 3 and _jumps(silhouettes, index, around):
            verdicts.append("jump")
        elif silhouettes.touches_border[index]:
            verdicts.append("cut")
        elif len(around) >= 3 and silhouettes.sharpness[index] < BLURRED * np.median(silhouettes.sharpness[around]):
            verdicts.append("blurred")
        else:
            verdicts.append("good")
    return verdicts


def _jumps(silhouettes: Silhouettes, index: int, around: Int[np.ndarray, " n"]) -> bool:
    ratio = silhouettes.areas[index] / float(np.median(silhouettes.areas[around]))
    place = np.median(silhouettes.centroids[around], axis=0)
    away = float(np.linalg.norm(silhouettes.centroids[index] - place))
    # A walk moves the centroid steadily; the median over both sides takes that out.
    return not 1 / AREA_JUMP < ratio < AREA_JUMP or away > PLACE_JUMP * float(silhouettes.robust_sizes[index].max())


def usable(verdicts: Sequence[Verdict], made: bool) -> list[bool]:
    """Which frames to train on.

    Args:
        verdicts: From `judge`.
        made: True where the silhouettes were made by a segmenter; given ones are trusted, but for empty ones.
    """
    present = [verdict != "empty" for verdict in verdicts]
    if not made:
        return present
    good = [verdict == "good" for verdict in verdicts]
    if sum(good) >= 0.5 * sum(present):
        return good
    # An animal that is hardly ever whole in the picture is cut in most frames: better that than nothing.
    softer = [verdict in ("good", "cut") for verdict in verdicts]
    return softer if sum(softer) >= 2 else present


def summary(numbers: Sequence[int], verdicts: Sequence[Verdict], used: Sequence[bool]) -> str:
    """One line that names the frames left out, and why; empty if there are none."""
    parts = []
    for kind in ("empty", "cut", "blurred", "jump"):
        left = [
            number for number, verdict, use in zip(numbers, verdicts, used, strict=True) if verdict == kind and not use
        ]
        if left:
            shown = ", ".join(map(str, left[:12])) + (", ..." if len(left) > 12 else "")
            parts.append(f"{len(left)} {kind} ({shown})")
    return f"Left out of {len(numbers)} frames: {'; '.join(parts)}." if parts else ""


def write_judgement(path: Path, numbers: Sequence[int], verdicts: Sequence[Verdict], used: Sequence[bool]) -> None:
    """Lists the verdict on every frame as JSON."""
    rows = [
        {"frame": number, "verdict": verdict, "used": bool(use)}
        for number, verdict, use in zip(numbers, verdicts, used, strict=True)
    ]
    path.write_text(json.dumps({"frames": rows}, indent=1), encoding="utf-8")


class ContactSheet:
    """Collects thumbnails with outlines, one frame at a time, evenly spread over the clip."""

    def __init__(self, count: int):
        self._wanted = set(
            np.unique(np.linspace(0, count - 1, min(count, MAX_THUMBNAILS)).round().astype(int)).tolist()
        )
        self._thumbnails: list[tuple[int, UInt8[np.ndarray, "h w 4"]]] = []

    def add(self, index: int, rgba: UInt8[np.ndarray, "H W 4"]) -> None:
        """Takes the frame if the sheet has a place for it."""
        if index in self._wanted:
            factor = THUMBNAIL / max(rgba.shape[:2])
            size = (max(1, round(rgba.shape[1] * factor)), max(1, round(rgba.shape[0] * factor)))
            self._thumbnails.append((index, cv2.resize(rgba, size, interpolation=cv2.INTER_AREA)))

    def write(self, path: Path, numbers: Sequence[int], verdicts: Sequence[Verdict]) -> None:
        """Writes the sheet as a PNG; what is not good has its verdict on it."""
        tiles = [_tile(rgba, f"{numbers[index]}", verdicts[index]) for index, rgba in self._thumbnails]
        if not tiles:
            return
        height, width = np.max([tile.shape[:2] for tile in tiles], axis=0)
        sheet = np.zeros((math.ceil(len(tiles) / COLUMNS) * height, min(COLUMNS, len(tiles)) * width, 3), np.uint8)
        for place, tile in enumerate(tiles):
            top, left = place // COLUMNS * height, place % COLUMNS * width
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        encoded, buffer = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        assert encoded
        path.write_bytes(buffer.tobytes())


def _tile(rgba: UInt8[np.ndarray, "h w 4"], label: str, verdict: Verdict) -> UInt8[np.ndarray, "h w 3"]:
    tile = np.ascontiguousarray(rgba[..., :3])
    colour = COLOURS.get(verdict, (230, 60, 60))
    inside = (rgba[..., 3] >= FOREGROUND).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, outlines, -1, colour, 1)
    text = label if verdict == "good" else f"{label} {verdict}"
    for shade, thickness in (((0, 0, 0), 3), (colour, 1)):
        cv2.putText(tile, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, shade, thickness, cv2.LINE_AA)
    return tile
