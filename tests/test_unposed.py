"""A clip whose cameras were left out, evaluated against them: exact where the motion is exact, and honest where not."""

import copy
import dataclasses
import math

import pytest
import torch

from bags_ns import method_configs
from bags_ns.cameras import orbit_camera
from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.data.images import DataError
from bags_ns.metrics import image_metrics
from bags_ns.priors.config import PriorConfig
from bags_ns.rig.motion import RootMotion
from bags_ns.rig.transforms import rigid, rigid_inverse, so3_exp, so3_log
from bags_ns.trainer import BagsTrainer
from bags_ns.unposed import Similarity, TrueClip, evaluate_unposed, motion_errors, turns_deg

SETTINGS = ClipSettings(num_frames=4, size=48, num_test_times=2, num_test_azimuths=4, arc_deg=60.0)


def trainer_on(clip, tmp_path, known_cameras):
    config = copy.deepcopy(method_configs.bags_tiny.config)
    config.data = config.pipeline.datamanager.data = clip
    parser = config.pipeline.datamanager.dataparser
    parser.known_cameras, parser.cache_dir, parser.crop_size = known_cameras, tmp_path / "cache", 48
    config.output_dir, config.vis, config.max_num_iterations = tmp_path, "tensorboard", 40
    config.pipeline.model.num_bones, config.pipeline.model.num_random = 6, 500
    config.set_timestamp()
    trainer = BagsTrainer(config)
    trainer.setup()
    return trainer


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("turning") / "clip"
    write_creature_clip(folder, 5, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def pipeline(clip, tmp_path_factory):
    return trainer_on(clip, tmp_path_factory.mktemp("run"), known_cameras=False).pipeline


def orbit(azimuths_deg):
    azimuths = torch.deg2rad(torch.tensor(azimuths_deg))
    return orbit_camera(azimuths, torch.full_like(azimuths, 0.2), torch.full_like(azimuths, 2.0))


def test_turns_count_whole_rounds_and_have_a_sign():
    assert turns_deg(orbit([170.0, 190.0, 300.0, 400.0]))[-1] == pytest.approx(230.0, abs=1e-3)
    assert turns_deg(orbit([10.0, -20.0]))[-1] == pytest.approx(-30.0, abs=1e-3)


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
    assert info.object_centric and not pipeline.datamanager.has_test_views
    pose = pipeline.datamanager.train_dataset.cameras.camera_to_worlds
    assert torch.equal(pose, pose[:1].expand_as(pose))
    camera = pipeline.datamanager.train_dataset.cameras[0]
    side = info.crop_boxes[0, 2]  # the crop's field of view is its part of the file's
    whole = 2 * math.atan(0.5 * SETTINGS.size / (float(camera.fx) * side / 48))
    assert whole == pytest.approx(SETTINGS.fov, abs=1e-3)


@torch.no_grad()
def test_views_of_an_exact_motion_are_exact(pipeline):
    """The true cameras, given as root motion: the test views are those of the same Gaussians in the true world."""
    model = pipeline.model.eval()
    truth = TrueClip.of_run(pipeline)
    theirs = truth.camera_to_worlds
    ours = pipeline.datamanager.train_dataset.cameras.camera_to_worlds[0]
    ours = torch.cat([ours, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
    canonical = pipeline.datamanager.clip.canonical_index
    # World of the run = T applied to the true one, so that the canonical cameras agree and root(canonical) = 1.
    T = ours @ rigid_inverse(theirs[canonical])
    roots = ours @ rigid_inverse(T @ theirs)
    table = torch.cat([so3_log(roots[:, :3, :3]), roots[:, :3, 3] - model.root_motion.path], dim=1)
    model.root_motion.table.copy_(table - table[canonical])
    report, summary = evaluate_unposed(pipeline)
    assert report["true_turn_deg"] == pytest.approx(60.0, abs=1e-2)
    assert report["turn_error_deg"] < 0.05 and report["rotation_error_deg"] < 0.1

    white = torch.ones(3)
    rows = []
    from bags_ns.data.dataparser import cameras_of
    from bags_ns.data.frames import read_frame
    from bags_ns.unposed import _pinhole, depth_before, nearest_true_centre

    first = ours @ torch.eye(4)
    gaussians = model.posed_gaussians(model.pose_at(model.root_motion.canonical_time))
    scale = depth_before(theirs[0], nearest_true_centre(truth)) / depth_before(T @ theirs[0], gaussians.centroid())
    back = rigid_inverse(T)
    # Scaled about the first camera, as the similarity does: its own place in the true world.
    moved = Similarity(1.0, back[:3, :3], back[:3, 3]).moved(gaussians)
    about = theirs[0, :3, 3]
    moved = Similarity(scale, torch.eye(3), about - scale * about).moved(moved)
    for index, frame in enumerate(truth.test_frames):
        camera = cameras_of([_pinhole(truth.test_frames[index])])
        output = model.render_gaussians(moved, camera, white, with_depth=False)
        target = model.ground_truth(torch.from_numpy(read_frame(frame)))
        rows.append(image_metrics(output.rgb[0].clamp(0, 1), output.alpha[0], target))
    for name in ("psnr", "iou"):
        assert summary["test"][name] == pytest.approx(sum(row[name] for row in rows) / len(rows), abs=1e-3)
    assert first.shape == (4, 4)
    model.root_motion.table.zero_()


def test_a_run_that_knew_its_cameras_has_nothing_to_recover(clip, tmp_path):
    known = trainer_on(clip, tmp_path, known_cameras=True).pipeline
    with pytest.raises(DataError, match="trained with them"):
        evaluate_unposed(known)
