"""Do exports show what the model shows? On a trained run, read back as other programs read them:

    python benchmarks/exports.py --load-config bags-demo

Errors of places are parts of the animal's size (the longest side of its canonical box), over all frames of the video.
The page needs chromium and npm; without them its rows are left out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bags_ns.animation.export_gltf import RiggedAnimal, write_gltf
from bags_ns.animation.export_ply import read_ply, write_ply
from bags_ns.animation.export_spz import write_spz
from bags_ns.animation.export_web import write_web
from bags_ns.animation.joint_rotations import SampledMotion
from bags_ns.files import write_json
from bags_ns.gaussians import Gaussians
from bags_ns.metrics import image_metrics, psnr
from bags_ns.pipeline import BagsPipeline
from bags_ns.rig.deformation import apply_transforms, blend_transforms
from bags_ns.rigged import body_of, posed_splats, rigged_animal, video_motion
from bags_ns.runs import open_run
from bags_ns.visualize import orbit_view

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "animation"))
import page  # noqa: E402
from gltf_reader import Glb  # noqa: E402
from scenes import read_gaussians  # noqa: E402

PLY_TIMES, PLY_AZIMUTHS = 5, (0.0, 2.0, 4.0)
"""Poses that are written and read back, and directions (radians) that they are rendered from."""
EVERY_VIEW = 4
"""Of the training views, which four bones are compared with all in."""


@dataclass
class Exports:
    """Measures the files of `bags export`."""

    load_config: Path
    """config.yml of a run, or a folder that holds runs (the newest is taken)."""
    output: Path | None = None
    """JSON file for the figures."""

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The figures, by what they say."""
        pipeline = open_run(self.load_config).pipeline
        animal, motion = rigged_animal(pipeline.model), video_motion(pipeline.model)
        points = body_of(pipeline.model).points
        size = float((points.amax(0) - points.amin(0)).max())
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_gltf(folder / "proxy.glb", animal, {"video": motion})
            proxy = Glb(folder / "proxy.glb")
            figures = proxy_errors(proxy, animal, motion, size)
            figures |= page_figures(folder, proxy, animal, motion, size)
            figures |= gaussian_errors(folder, pipeline, animal, motion)
            figures |= splat_files(folder, pipeline)
            for kind in ("spz", "ply", "glb"):
                path = folder / ("proxy.glb" if kind == "glb" else f"canonical.{kind}")
                figures[f"{kind}_megabytes"] = path.stat().st_size / 1e6
        return figures


def proxy_errors(proxy: Glb, animal: RiggedAnimal, motion: SampledMotion, size: float) -> dict[str, float]:
    """How far the GLB puts the mesh's vertices from where our own deformation does."""
    vertices = torch.from_numpy(proxy.attributes("mesh")["POSITION"].copy()).to(animal.weights.device)
    weights = animal.skinning(vertices)
    errors = []
    for index, seconds in enumerate(motion.times.tolist()):
        ours = apply_transforms(blend_transforms(weights, motion.pose(index).T_world_canonical), vertices)
        errors.append(np.linalg.norm(proxy.moved("mesh", 0, seconds)[0] - ours.cpu().numpy(), axis=1) / size)
    return {"proxy_error_max": float(np.max(errors)), "proxy_error_mean": float(np.mean(errors))}


def page_figures(
    folder: Path, proxy: Glb, animal: RiggedAnimal, motion: SampledMotion, size: float
) -> dict[str, float]:
    """Whether a browser plays the page, how fast, and where three.js puts the mesh; nothing without a browser."""
    times = motion.times.tolist()
    try:
        chromium = page.find_chromium()
        write_web(folder, animal, {"video": motion}, packages="./node_modules")
        with page.served(folder) as url:
            seen = page.drive(chromium, folder, url, times)
    except LookupError as missing:
        Console(stderr=True).print(f"no page: {missing}")
        return {}
    theirs = np.stack([proxy.moved("mesh", 0, seconds)[0][::20] for seconds in times])
    return {
        "page_errors": len(seen["errors"]) + bool(seen["status"]),
        "page_fps": seen["framesPerSecond"],
        "three_js_error_max": float(np.linalg.norm(np.array(seen["vertices"]) - theirs, axis=-1).max() / size),
    }


def gaussian_errors(
    folder: Path, pipeline: BagsPipeline, animal: RiggedAnimal, motion: SampledMotion
) -> dict[str, float]:
    """How far the Gaussians of a GLB with all bones are from ours, and what four bones cost on the training views."""
    model = pipeline.model
    write_gltf(
        folder / "full.glb", animal, {"video": motion}, with_splats=True, influences=model.skeleton.parents.numel()
    )
    write_gltf(folder / "four.glb", animal, {"video": motion}, with_splats=True)
    full, four = Glb(folder / "full.glb"), Glb(folder / "four.glb")
    means, covars, scores = [], [], []
    white = torch.ones(3, device=model.device)
    for index, seconds in enumerate(motion.times.tolist()):
        ours, theirs = model.posed_gaussians(motion.pose(index)), read_gaussians(full, 0, seconds)
        means.append(float((theirs.means - ours.means.cpu()).abs().max()))
        covars.append(float((theirs.covars - ours.covars.cpu()).abs().max()))
        if index % EVERY_VIEW == 0:
            camera, image = pipeline.datamanager.train_image(index)
            target = model.ground_truth(image)
            for gaussians in (ours, on_device(read_gaussians(four, 0, seconds), model.device)):
                output = model.render_gaussians(gaussians, camera, white, with_depth=False)
                scores.append(image_metrics(output.rgb[0].clamp(0, 1), output.alpha[0], target)["psnr_silhouette"])
    return {
        "gaussian_error_means_max": max(means),
        "gaussian_error_covars_max": max(covars),
        "all_bones_psnr_silhouette": float(np.mean(scores[::2])),
        "four_bones_psnr_silhouette": float(np.mean(scores[1::2])),
    }


def on_device(gaussians: Gaussians, device: torch.device) -> Gaussians:
    """The Gaussians there."""
    return Gaussians(*(value.to(device) for value in vars(gaussians).values()))


def splat_files(folder: Path, pipeline: BagsPipeline) -> dict[str, float]:
    """Writes the canonical animal as SPZ and PLY; the worst PSNR between renders of poses and of what PLYs of them give."""
    model = pipeline.model
    write_spz(folder / "canonical.spz", posed_splats(model))
    write_ply(folder / "canonical.ply", posed_splats(model))

    def scores() -> Iterator[float]:
        white = torch.ones(3, device=model.device)
        for time in torch.linspace(0, 1, PLY_TIMES):
            pose = model.pose_at(time)
            ours = model.posed_gaussians(pose)
            write_ply(folder / "posed.ply", posed_splats(model, pose))
            theirs = on_device(read_ply(folder / "posed.ply").gaussians(), model.device)
            for azimuth in PLY_AZIMUTHS:
                camera = orbit_view(azimuth, 0.2, 2.0, ours.centroid(), 256)
                pictures: list[Float[Tensor, "H W 3"]] = [
                    model.render_gaussians(each, camera, white, with_depth=False).rgb[0] for each in (ours, theirs)
                ]
                yield psnr(*pictures)

    return {"ply_psnr_min": min(scores())}


if __name__ == "__main__":
    arguments = tyro.cli(Exports)
    result = arguments.measure()
    table = Table(title=f"exports of {arguments.load_config}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for figure, value in result.items():
        table.add_row(figure, f"{value:.4g}")
    Console().print(table)
    if arguments.output:
        write_json(arguments.output, result)
