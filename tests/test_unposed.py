"""A clip whose cameras were left out, evaluated against them: exact where the motion is exact, and honest where not."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import trainer_on

from bags_ns.cameras import orbit_camera
from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.data.dataparser import cameras_of
from bags_ns.data.frames import read_frame
from bags_ns.data.images import DataError
from bags_ns.data.seed_points import lean
from bags_ns.data.transforms import PosedImage
from bags_ns.first_look import is_whole, start_turn, view_of
from bags_ns.metrics import image_metrics
from bags_ns.priors.base import PriorCamera
from bags_ns.rig.transforms import rigid, rigid_inverse, so3_exp, so3_log
from bags_ns.turned_outlines import Turning
from bags_ns.unposed import (
    Similarity,
    TrueClip,
    animal_in_place,
    evaluate_unposed,
    motion_errors,
    recovered_cameras,
    true_centre,
    turns_deg,
)

SETTINGS = ClipSettings(num_frames=4, size=48, num_test_times=2, num_test_azimuths=4, arc_deg=60.0)


def plain_trainer_on(clip, folder, **parser):
    """Of a run that knows no camera, with a prior that is not asked before it: it takes a minute."""
    return trainer_on(
        clip,
        folder,
        steps=40,
        parser={"known_cameras": False, "crop_size": 48, **parser},
        pipeline={"turn_from_outlines": False, "slope_from_prior": False},
        prior={"name": "small"},
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("turning") / "clip"
    write_creature_clip(folder, 5, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def unposed_trainer(clip, tmp_path_factory):
    return plain_trainer_on(clip, tmp_path_factory.mktemp("run"))


@pytest.fixture
def pipeline(unposed_trainer):
    """With a root at rest."""
    with torch.no_grad():
        unposed_trainer.pipeline.model.root_motion.table.zero_()
        unposed_trainer.pipeline.model.root_motion.turns.zero_()
    return unposed_trainer.pipeline


def orbit(azimuths_deg):
    azimuths = torch.deg2rad(torch.tensor(azimuths_deg))
    return orbit_camera(azimuths, torch.full_like(azimuths, 0.2), torch.full_like(azimuths, 2.0))


def test_turns_count_whole_rounds_and_have_a_sign():
    assert turns_deg(orbit([170.0, 190.0, 300.0, 400.0])[:, :3, :3])[-1] == pytest.approx(230.0, abs=1e-3)
    assert turns_deg(orbit([10.0, -20.0])[:, :3, :3])[-1] == pytest.approx(-30.0, abs=1e-3)


def test_a_motion_is_exact_in_any_world_and_wrong_by_what_it_lacks():
    theirs = orbit([-45.0, -30.0, 0.0, 15.0])
    world = rigid(so3_exp(torch.tensor([0.3, -0.2, 2.0])), torch.tensor([1.0, 2.0, -0.5]))
    exact = motion_errors(world @ theirs, theirs)
    assert exact["turn_deg"] == pytest.approx(60.0, abs=1e-2)
    assert exact["turn_error_deg"] < 0.01 and exact["rotation_error_deg"] < 0.1
    assert motion_errors(theirs[:1].expand(4, 4, 4), theirs)["turn_error_deg"] == pytest.approx(60.0, abs=1e-2)
    assert motion_errors(orbit([15.0, 0.0, -30.0, -45.0]), theirs)["turn_deg"] == pytest.approx(-60.0, abs=1e-2)


def test_a_plain_video_is_made_of_a_clip_with_cameras(pipeline):
    info = pipeline.datamanager.clip
    assert info.object_centric and pipeline.datamanager.test_dataset is None
    pose = pipeline.datamanager.train_dataset.cameras.camera_to_worlds
    assert torch.equal(pose, pose[:1].expand_as(pose))
    camera = pipeline.datamanager.train_dataset.cameras[0]
    side = info.crop_boxes[0, 2]  # the crop's field of view is its part of the file's
    whole = 2 * math.atan(0.5 * SETTINGS.size / (float(camera.fx) * side / 48))
    assert whole == pytest.approx(SETTINGS.fov, abs=1e-3)


@torch.no_grad()
def test_views_of_an_exact_motion_are_exact(pipeline):
    """With the true cameras as root motion, test views are those of the same Gaussians laid into the true world."""
    model = pipeline.model.eval()
    truth = TrueClip.of_run(pipeline)
    theirs, canonical = truth.camera_to_worlds, pipeline.datamanager.clip.canonical_index
    ours = pipeline.datamanager.train_dataset.cameras.camera_to_worlds[0]
    ours = torch.cat([ours, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
    T_ours_true = ours @ rigid_inverse(
        theirs[canonical]
    )  # both worlds agree in the canonical frame: the root is 1 there
    roots = ours @ rigid_inverse(T_ours_true @ theirs)
    table = torch.cat([so3_log(roots[:, :3, :3]), roots[:, :3, 3] - model.root_motion.path], dim=1)
    model.root_motion.table.copy_(table - table[canonical])
    report, summary = evaluate_unposed(pipeline, truth)
    assert report["true_turn_deg"] == pytest.approx(SETTINGS.arc_deg, abs=1e-2)
    assert report["turn_error_deg"] < 0.05 and report["rotation_error_deg"] < 0.1

    back = rigid_inverse(T_ours_true)
    laid = Similarity(1.0, back[:3, :3], back[:3, 3]).moved(animal_in_place(model, 0.0))
    pictures = [read_frame(frame) for frame in truth.test]
    first, depths = theirs[0, :3], [(theirs[0, :3, 3] - point) @ theirs[0, :3, 2] for point in (
        true_centre(truth, pictures), laid.centroid())]  # fmt: skip
    scale = float(depths[0] / depths[1])
    laid = Similarity(scale, torch.eye(3), (1 - scale) * first[:, 3]).moved(laid)  # the first camera sees the same
    cameras = cameras_of([PosedImage(frame.image, None, frame.time, frame.camera) for frame in truth.test])
    expected = []
    for index, picture in enumerate(pictures):
        output = model.render_gaussians(laid, cameras[index : index + 1], torch.ones(3), with_depth=False)
        expected.append(image_metrics(output.rgb[0].clamp(0, 1), output.alpha[0], torch.from_numpy(picture) / 255))
    for name in ("psnr", "iou", "psnr_silhouette"):
        assert summary["test"][name] == pytest.approx(sum(row[name] for row in expected) / len(expected), abs=2e-3)


class SilentPrior:
    """Finds every view as likely as any other."""

    image_size = 8
    camera = PriorCamera(fov_deg=40.0, radius_range=(1.6, 2.7), elevation_range_deg=(-10.0, 30.0))
    alphas_cumprod = torch.linspace(0.999, 0.01, 100)
    limit, guidance = 1.0, 3.0

    def __init__(self):
        self.asked_at: list[float] = []

    def condition(self, images, camera_to_worlds, fovs_deg):
        return None

    def encode(self, renders):
        return renders.permute(0, 3, 1, 2)

    def decode(self, x):
        return x.permute(0, 2, 3, 1)

    def noise_predictor(self, camera_to_worlds, conditioning):
        self.asked_at.append(self.guidance)
        return lambda x_t, t: torch.zeros_like(x_t)


def start_from(pipeline, monkeypatch, expected_deg):
    """The report of a start where the prior expects a turn."""
    monkeypatch.setattr("bags_ns.priors.turning.most_likely_turn", lambda errors, times: math.radians(expected_deg))
    monkeypatch.setattr("bags_ns.priors.turning.TURN_EXCESS", 1.0)
    prior = SilentPrior()
    monkeypatch.setattr(pipeline, "prior", prior)
    monkeypatch.setattr(pipeline.config, "turn_from_outlines", True)
    monkeypatch.setattr(pipeline.config, "slope_from_prior", False)
    cameras = pipeline.datamanager.train_dataset.cameras.camera_to_worlds
    pipeline.prepare_phase(0.0)
    assert prior.guidance == 3.0 and set(prior.asked_at) == {1.0}  # guidance would exaggerate
    asked = len(prior.asked_at)
    pipeline.prepare_phase(0.05)
    assert len(prior.asked_at) == asked
    with torch.no_grad():
        return motion_errors(recovered_cameras(pipeline.model, cameras[0]), TrueClip.of_run(pipeline).camera_to_worlds)


def test_the_root_starts_where_outlines_and_prior_say_and_only_once(pipeline, monkeypatch):
    """The clip's camera goes 60 degrees round at an elevation of 10; the prior expects too much."""
    report = start_from(pipeline, monkeypatch, expected_deg=84.0)
    assert report["turn_deg"] == pytest.approx(SETTINGS.arc_deg, abs=15)
    assert report["rotation_error_deg"] < 15
    root = pipeline.model.root_motion
    assert not root.change(root.knots).any() and torch.equal(root(root.canonical_time[None])[0], torch.eye(4))


@pytest.mark.parametrize(("turn", "leans"), [(1.0, True), (0.2, False)])
def test_seeds_lean_as_outlines_have_it_where_the_animal_turns_enough(pipeline, monkeypatch, turn, leans):
    monkeypatch.setattr("bags_ns.first_look.find_turning", lambda *_: Turning.even(turn, 0.3, 0.5))
    model, data = pipeline.model, pipeline.datamanager
    seeds = model.means.detach().clone()
    assert start_turn(model, data, None) is leans
    turns = model.root_motion.turns
    assert (turns[-1] - turns[0]).tolist() == pytest.approx([turn * math.sin(0.3), 0.0, turn * math.cos(0.3)], abs=1e-5)
    view = view_of(data, data.clip.canonical_index)
    expected = torch.from_numpy(lean(seeds.double().numpy(), view, 0.5)).float() if leans else seeds
    assert torch.allclose(model.means, expected, atol=1e-6)
    model.means.data.copy_(seeds)


@pytest.mark.parametrize("elevation_deg", [None, 0.0, 12.0])
def test_an_elevation_is_looked_for_unless_it_is_given(clip, tmp_path, monkeypatch, elevation_deg):
    pipeline, asked = plain_trainer_on(clip, tmp_path, elevation_deg=elevation_deg).pipeline, []
    monkeypatch.setattr(
        "bags_ns.first_look.find_turning", lambda *args: asked.append(args[2]) or Turning.even(0.2, 0.3, 0.0)
    )
    start_turn(pipeline.model, pipeline.datamanager, None)
    assert asked == [None if elevation_deg is None else pytest.approx(math.radians(elevation_deg))]


@pytest.mark.parametrize(("left", "top", "whole"), [(10, 10, True), (-4, 10, False), (10, 74, False), (10, 66, True)])
def test_silhouettes_that_the_picture_cuts_are_known(left, top, whole):
    """A crop of 40 source pixels in 20, of which the animal has the middle 16, in a picture of 120 x 103."""
    inside = torch.zeros(20, 20, dtype=torch.bool)
    inside[2:18, 2:18] = True
    assert is_whole(inside, torch.tensor([left, top, 40]), (120, 103)) is whole


def test_the_verb_writes_motion_and_views(unposed_trainer, pipeline):
    pipeline.model.root_motion.start_turns(torch.tensor([0.0, -0.1, -0.3, -0.4]), torch.tensor([0.0, 0.0, 1.0]))
    unposed_trainer.save_checkpoint(1)
    folder = unposed_trainer.base_dir
    verb = [Path(sys.executable).with_name("bags"), "evaluate", "--load-config", folder, "--unposed"]
    done = subprocess.run(verb, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "truly 60.0" in done.stdout, done.stderr[-2000:]
    result = json.loads((folder / "evaluation_unposed.json").read_text())
    assert result["motion"]["true_turn_deg"] == pytest.approx(60.0, abs=0.1)
    assert result["motion"]["turn_deg"] == pytest.approx(math.degrees(0.4), abs=0.5)  # the world leans by the elevation
    assert result["train"]["frames"] == 4 and result["test"]["frames"] == 8


def test_a_run_that_knew_its_cameras_has_nothing_to_recover(clip, tmp_path):
    known = trainer_on(clip, tmp_path).pipeline
    with pytest.raises(DataError, match="trained with its cameras"):
        TrueClip.of_run(known)
