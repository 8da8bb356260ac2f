"""`bags process-video`: the preparation alone, written as a folder that ns-train and other nerfstudio methods take."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from bags_ns.data.cache import default_cache_dir
from bags_ns.data.images import DataError
from bags_ns.data.layouts import find_clip
from bags_ns.data.prepare import PrepareSettings, prepare
from bags_ns.data.prepared import Built, PreparedClip, write_prepared, write_seed_points
from bags_ns.data.transforms import PosedImage


def process_video(
    data: Path, output_dir: Path, settings: PrepareSettings, cache_dir: Path | None = None, sequence: str = ""
) -> Path:
    """Prepares `data` (of a DAVIS folder, its `sequence`) and writes the result to `output_dir`, which appears complete or not at all.

    Raises:
        DataError: `output_dir` is there already and holds something.
    """
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise DataError(f"{output_dir} is there already and not empty; give another --output-dir or remove it.")
    source = find_clip(data.expanduser().resolve(), sequence)
    cache = (cache_dir or default_cache_dir()).expanduser().resolve()
    clip = prepare(source, settings, cache)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=output_dir.parent))
    try:
        _copy(clip, building)
        building.chmod(0o755)  # mkdtemp makes folders for their owner alone
        os.replace(building, output_dir)  # an empty folder may be replaced
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return output_dir


def _copy(clip: PreparedClip, folder: Path) -> None:
    train = [_copied(frame, folder / "images", index) for index, frame in enumerate(clip.train)]
    test = [_copied(frame, folder / "images_test", index) for index, frame in enumerate(clip.test)]
    write_prepared(folder, Built(clip.info, train, test, [], in_place=False), folder)
    write_seed_points(folder / "seed_points.ply", clip.seed_xyz, clip.seed_rgb)
    prepared = clip.train[0].image.parents[1]
    for name in ("silhouettes.png", "frames.json"):
        if (prepared / name).is_file():
            shutil.copyfile(prepared / name, folder / name)


def _copied(frame: PosedImage, folder: Path, index: int) -> PosedImage:
    folder.mkdir(exist_ok=True)
    target = folder / f"frame_{index:05d}.png"
    shutil.copyfile(frame.image, target)
    return PosedImage(target, None, frame.time, frame.camera)
