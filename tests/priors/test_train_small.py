"""Training learns, goes on where it stopped, and is scored rightly."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from bags_ns.cameras import orbit_camera
from bags_ns.cli import TrainPrior
from bags_ns.data.creatures import rest_poses
from bags_ns.priors.creature_views import NUM_VIEWS, CreatureStudio, random_cameras, random_colors
from bags_ns.priors.evaluate_small import ViewTask, evaluate_task, load_pairs, trivial_scores
from bags_ns.priors.small_config import TrainSmallPriorConfig, ViewRanges, ViewUNetConfig
from bags_ns.priors.small_weights import load_network
from bags_ns.priors.train_small import SmallPriorTrainer, train_small_prior
from bags_ns.priors.view_unet import ViewUNet

TINY = ViewUNetConfig(
    image_size=16, widths=(16, 32, 32), attending_blocks=1, lowest_blocks=1, head_channels=16, embedding=32
)


def tiny_config(folder: Path, **changes: object) -> TrainSmallPriorConfig:
    """Thirty steps on eight animals."""
    settings = {"num_animals": 8, "chunk": 4, "batch_images": 16, "warmup_steps": 5, "refresh_every": 25}
    settings |= {"max_seconds": 600.0, "reserved_seconds": 1.0, "max_steps": 30, "held_out_animals": 0, "device": "cpu"}
    return TrainSmallPriorConfig(output_dir=folder, network=TINY, **(settings | changes))  # type: ignore[arg-type]


def test_thirty_steps_learn_and_a_second_command_goes_on(tmp_path: Path):
    losses: list[float] = []

    class Watched(SmallPriorTrainer):
        def _train_step(self, *args, **kwargs):
            losses.append(super()._train_step(*args, **kwargs).item())
            return torch.tensor(losses[-1])

    scores = Watched(tiny_config(tmp_path / "a", schedule_end=0.5)).train()
    assert scores["step"] == 30 and scores["progress"] == 0.5
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:3])
    for name in ("small.safetensors", "small_raw.safetensors"):
        network, facts = load_network(tmp_path / "a" / name)
        assert network.config == TINY and facts["step"] == 30 and facts["licence"] == "Apache-2.0"
    assert sorted(path.suffix for path in (tmp_path / "a").iterdir()) == [".json", ".safetensors", ".safetensors"]

    before = np.mean(losses[-8:])
    resumed = Watched(tiny_config(tmp_path / "b", resume=tmp_path / "a", max_steps=3))
    assert resumed.step == 30 and resumed.progress == 0.5
    assert resumed.train()["step"] == 33
    assert np.mean(losses[-3:]) < 1.3 * before
    assert [entry["step"] for entry in json.loads((tmp_path / "b" / "small.json").read_text())["history"]] == [30, 33]


def test_without_time_to_train_nothing_is_written_and_no_schedule_is_done(tmp_path: Path):
    with pytest.raises(ValueError, match="no time is left to train: take fewer --num-animals, or more --max-seconds"):
        SmallPriorTrainer(tiny_config(tmp_path / "a", max_steps=None, max_seconds=1.01)).train()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_verb_passes_on_what_it_is_given_and_keeps_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    seen: list[TrainSmallPriorConfig] = []
    monkeypatch.setattr("bags_ns.priors.train_small.train_small_prior", seen.append)
    TrainPrior().run()
    TrainPrior(tmp_path, num_animals=4, max_steps=7, device="cpu").run()
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "small.safetensors")
    TrainPrior(tmp_path, benchmark_images=(64,)).run()
    assert capsys.readouterr().out == "", "a benchmark writes no file"
    assert asdict(seen[0]) == asdict(TrainSmallPriorConfig())
    assert asdict(seen[1]) == asdict(TrainSmallPriorConfig(tmp_path, num_animals=4, max_steps=7, device="cpu"))


def test_a_finished_schedule_is_not_begun_again_unasked(tmp_path: Path):
    train_small_prior(tiny_config(tmp_path, max_steps=1))
    with pytest.raises(ValueError, match="--schedule-start"):
        train_small_prior(tiny_config(tmp_path, max_steps=1, resume=tmp_path))


def test_averaged_and_raw_weights_must_be_of_one_step(tmp_path: Path):
    train_small_prior(tiny_config(tmp_path / "a", max_steps=1))
    train_small_prior(tiny_config(tmp_path / "b", max_steps=2))
    (tmp_path / "b" / "small.safetensors").replace(tmp_path / "a" / "small.safetensors")
    with pytest.raises(ValueError, match="one step"):
        SmallPriorTrainer(tiny_config(tmp_path / "c", resume=tmp_path / "a"))


def test_batches_put_the_first_reference_at_azimuth_zero(tmp_path: Path):
    trainer = SmallPriorTrainer(tiny_config(tmp_path))
    pool = trainer._fill_pool()
    for views in trainer.config.view_counts:
        pictures, rays = trainer._draw_batch(pool, 6, views)
        count = views.references + views.targets
        assert pictures.shape == (6, count, 3, 16, 16) and rays.shape == (6, count, TINY.grid**2, 6)
        assert pictures.min() >= -1 and pictures.max() <= 1
        # Seen from azimuth 0 the middle of the picture is towards -x.
        middle = rays[:, 0, :, :3].mean(dim=1)
        assert (middle[:, 0] < -0.5).all() and (middle[:, 1].abs() < 0.12).all()


def test_cameras_look_at_the_animal_from_their_ranges():
    ranges = ViewRanges()
    cameras, fovs = random_cameras(400, ranges, torch.Generator().manual_seed(0))
    positions = cameras[..., :3, 3]
    elevations = torch.rad2deg(torch.asin(positions[..., 2] / positions.norm(dim=-1)))
    assert elevations[:, :5].min() >= -10.01 and elevations[:, :5].max() <= 40.01
    assert 0.4 < (fovs == ranges.usual_fov_deg).float().mean() < 0.6
    outward = (cameras[..., :3, 2] * torch.nn.functional.normalize(positions, dim=-1)).sum(dim=-1)
    assert outward.min() > math.cos(math.radians(6))
    azimuths = torch.atan2(positions[..., 1], positions[..., 0])
    apart = torch.remainder(azimuths[:, 5] - azimuths[:, 0] + math.pi, 2 * math.pi) - math.pi
    assert 0.75 < (apart.abs() <= math.radians(45.01)).float().mean() < 0.95


@pytest.mark.parametrize("plain_share", [0.0, 1.0])
def test_animals_are_in_the_middle_of_their_pictures(plain_share: float):
    studio = CreatureStudio(16, torch.Generator().manual_seed(0), plain_share=plain_share)
    views = studio.draw(3)
    assert views.images.shape == (3, NUM_VIEWS, 4, 16, 16)
    alpha = views.images[:, :, 3].float() / 255
    assert (alpha.amax(dim=(2, 3)) > 0.5).all()
    columns = (alpha.sum(dim=2) * torch.arange(16)).sum(dim=-1) / alpha.sum(dim=(2, 3))
    assert (columns - 7.5).abs().max() < 4


def test_varied_animals_are_narrower_and_as_long(monkeypatch: pytest.MonkeyPatch):
    """Half the width, radii as they were: from the front half as many pixels, from the side as many."""
    monkeypatch.setattr("bags_ns.priors.creature_views.VARIED_WIDTHS", (0.5, 0.5))
    monkeypatch.setattr("bags_ns.priors.creature_views.VARIED_RADII", 0.0)
    azimuths = torch.tensor([-90.0, 0.0, 180.0, 90.0, 0.0, 0.0, 0.0]).deg2rad()
    cameras = orbit_camera(azimuths, torch.zeros(NUM_VIEWS), torch.full((NUM_VIEWS,), 2.0))[None]
    still = (cameras, torch.full((1, NUM_VIEWS), 40.0))
    monkeypatch.setattr("bags_ns.priors.creature_views.random_cameras", lambda *_: still)
    monkeypatch.setattr("bags_ns.priors.creature_views.random_poses", lambda batch, *_: rest_poses(batch))
    areas = []
    for share in (0.0, 1.0):
        generator = torch.Generator().manual_seed(0)
        studio = CreatureStudio(64, generator, ViewRanges(off_center=0.0), plain_share=0.0, varied_share=share)
        areas.append(studio.draw(1).images[0, :4, 3].float().sum((1, 2)))
    narrower = areas[1] / areas[0]
    assert 0.45 < narrower[0] < 0.57 and 0.45 < narrower[3] < 0.57  # from before and from behind
    assert 0.95 < narrower[1] < 1.05 and 0.95 < narrower[2] < 1.05


def test_recoloring_keeps_white_white():
    studio = CreatureStudio(16, torch.Generator().manual_seed(0))
    views = studio.draw(2)
    recolored = views.on_white(random_colors(2, torch.Generator().manual_seed(1)))
    outside = (views.images[:, :, 3:] == 0).expand_as(recolored)
    assert (recolored[outside] == 1).all() and not torch.equal(recolored, views.on_white())


def test_scores_of_known_pictures(tmp_path: Path):
    gray = np.full((2, 3, 16, 16), 255, np.uint8)
    gray[:, :, :8] = 127
    alpha = np.zeros((2, 1, 16, 16), np.uint8)
    alpha[:, :, :8] = 255
    camera = np.tile(np.float32([0.3, 0.1, 2.0]), (2, 1))
    np.savez(
        tmp_path / "pairs.npz",
        reference=gray,
        target=gray,
        target_alpha=alpha,
        reference_camera=camera,
        target_camera=camera,
        fov_deg=40.0,
    )
    task = load_pairs(tmp_path / "pairs.npz", 4, torch.device("cpu"))
    scores = trivial_scores(task)
    assert scores["copy"] == scores["copy_inside"] == 100
    error = (128 / 255) ** 2
    assert scores["white_inside"] == pytest.approx(-10 * math.log10(error), abs=1e-3)
    assert scores["white"] == pytest.approx(-10 * math.log10(error / 2), abs=1e-3)
    torch.testing.assert_close(task.reference_rays, task.target_rays)


def test_evaluation_repeats_itself():
    generator = torch.Generator().manual_seed(0)
    pictures, rays = (
        torch.rand(2, 1, 3, 16, 16, generator=generator),
        torch.rand(2, 1, TINY.grid**2, 6, generator=generator),
    )
    task = ViewTask(pictures, rays, pictures, rays, pictures[:, :, 0] > 0.5)
    network = ViewUNet(TINY).eval()
    (first, _), (second, sampled) = (evaluate_task(network, task, num_steps=3, x0_at=(300,)) for _ in range(2))
    assert first == second and set(first) == {"sampled", "sampled_inside", "x0_300", "x0_300_inside"}
    assert sampled.shape == pictures.shape and sampled.abs().max() <= 1


def test_two_processes_train_one_network(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_train_small import tiny_config\n"
        "from bags_ns.priors.train_small import SmallPriorTrainer\n"
        "from bags_ns.priors.workers import Workers\n"
        "workers = Workers.join()\n"
        "trainer = SmallPriorTrainer(tiny_config(Path(sys.argv[2]), max_steps=2), workers)\n"
        "trainer.train()\n"
        "total = sum(parameter.double().sum() for parameter in trainer.network.parameters()).item()\n"
        "noise = trainer.generator.initial_seed()\n"
        "Path(sys.argv[2]).with_name(f'said_{workers.rank}').write_text(f'{trainer.step} {total!r} {noise}')\n"
        "workers.leave()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*command, str(Path(__file__).parent), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Not on the standard output that they share, where lines can run together.
    said = [(tmp_path / f"said_{rank}").read_text().split() for rank in (0, 1)]
    (steps, first, noise), (other_steps, second, other_noise) = said
    assert steps == other_steps == "2" and first == second and noise != other_noise
    assert done.stdout.count('"step"') == 1 and (tmp_path / "out" / "small.safetensors").exists()
