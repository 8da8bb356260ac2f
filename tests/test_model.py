"""The model and its pipeline on a made-up clip: gauge, gradients, loading in place, densification, memory of a prior."""

import copy
from contextlib import contextmanager

import pytest
import torch
from tiny_runs import STEPS, run, trainer_on
from torch.utils._pytree import tree_leaves

from bags_ns.rig.motion import Pose
from bags_ns.rig.parallax import across

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(clip, tmp_path_factory):
    torch.manual_seed(0)
    trainer = trainer_on(clip, tmp_path_factory.mktemp("run"))
    run(trainer, range(STEPS))
    return trainer


def psnr_of(trainer, index):
    from bags_ns.metrics import image_metrics

    model = trainer.pipeline.model.eval()
    camera, image = trainer.pipeline.datamanager.train_image(index)
    outputs = model.get_outputs_for_camera(camera)
    return image_metrics(outputs["rgb"], outputs["accumulation"], model.ground_truth(image))["psnr_silhouette"]


def test_the_canonical_pose_is_the_identity_and_other_times_move(trained):
    model = trained.model.eval()
    t0 = model.pose_at(model.bone_motion.canonical_time)
    assert torch.allclose(t0.T_world_canonical.cpu(), torch.eye(4).expand(8, 4, 4), atol=1e-6)
    far = model.pose_at(model.bone_motion.knots[0])
    assert (model.posed_gaussians(far).means - model.means).abs().max() > 1e-3


@torch.no_grad()
def test_a_change_of_the_canonical_pose_moves_its_gaussians_and_bones_and_hardly_other_frames(trained):
    model = trained.model.eval()
    state = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    motion = model.bone_motion
    motion.settle()
    t0, before = float(motion.canonical_time), model.gaussians_at(0.0).means
    try:
        canonical = int((motion.knots - t0).abs().argmin())
        motion.table[canonical] += 0.02 * torch.randn(
            motion.table.shape[1:], generator=torch.Generator().manual_seed(0)
        )
        model.train().settle_canonical_pose()
        model.eval()
        shape = (model.gaussians_at(t0).means - state["gauss_params.means"]).norm(dim=1).mean()
        other = (model.gaussians_at(0.0).means - before).norm(dim=1).mean()
        centers = (model.bones.centers - state["bones.centers"]).norm(dim=1).mean()
        assert shape > 0.005 and centers > 0.005 and other < 0.25 * shape  # what is left is where bones blend
    finally:
        model.load_state_dict({**model.state_dict(), **state})


def test_training_improves_frames_far_from_the_canonical_one(trained, clip, tmp_path):
    fresh = trainer_on(clip, tmp_path)
    assert psnr_of(trained, 0) > psnr_of(fresh, 0) + 2


def test_motion_explains_what_the_canonical_shape_does_not(trained):
    model = trained.model
    moving = psnr_of(trained, 0)
    still = model.pose_at(model.bone_motion.canonical_time)
    model.page_renderer = lambda camera: model.outputs_in_pose(camera, still)
    try:
        assert moving > psnr_of(trained, 0) + 1
    finally:
        model.page_renderer = None


@contextmanager
def a_gait(model, period=0.4):
    """A period, whether or not that is what was found."""
    found = model.gait_period
    model.repeat_every(period)
    try:
        yield
    finally:
        model.repeat_every(found)


@contextmanager
def a_mirror(model):
    """A plane where none may have been found."""
    found = model.mirror.shift
    model.mirror.place(model.means.detach().mean(0), 0.0, 0.0, shift=0.2)
    try:
        yield
    finally:
        model.mirror.shift = found


def test_every_group_gets_a_gradient(trained):
    model = trained.model.train()
    for parameter in model.parameters():
        parameter.grad = None
    with a_mirror(model), a_gait(model):
        sum(model.training_losses(trained.pipeline.datamanager.next_frames(2)).values()).backward()
    for name, parameters in model.get_param_groups().items():
        if name != "features_rest":  # empty at degree 0
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in parameters), name


def test_the_gait_is_looked_for_in_all_frames_at_last_and_its_period_is_kept(trained, clip, tmp_path):
    model, frames = trained.model.train(), trained.pipeline.datamanager.next_frames(2)
    assert model.gait_part == 1
    found = model.gait_period
    try:
        for period in (None, 0.4):
            model.repeat_every(period)
            assert ("gait" in model.training_losses(frames)) == (model.gait_period is not None)
        fresh = trainer_on(clip, tmp_path).model
        assert not fresh.gait_part
        for mine, theirs in ((fresh, model), (fresh.bone_motion, model.bone_motion)):
            mine.set_extra_state(theirs.get_extra_state())
        assert fresh.gait_part == 1 and fresh.gait_period == 0.4
    finally:
        model.repeat_every(found)


def test_frames_enter_as_the_animal_went_a_period_before_where_the_gait_is_known(clip, tmp_path):
    model = trainer_on(clip, tmp_path).model
    motion, knots = model.bone_motion, model.bone_motion.knots
    model.canonical_index = 2
    model.enter_frames(range(1, 5))
    with torch.no_grad():
        motion.table.normal_(generator=torch.Generator().manual_seed(0))
        model.repeat_every(2 * motion.mean_spacing)
        model.enter_frames(range(6))
        for last, entered, earlier in ((4, 5, (2, 3)), (1, 0, (3, 2))):
            now, then = motion(knots[[last, entered]]), motion(knots[list(earlier)])
            assert torch.allclose(now[1] - now[0], then[1] - then[0], atol=1e-5)
    assert model.span_entered == (0.0, 1.0)


def test_a_mirror_is_on_trial_for_a_part_of_the_run(trained):
    model, pipeline = trained.model, trained.pipeline
    with a_gait(model), a_mirror(model):
        model.mirror.on_trial, model.mirror.gains = True, []
        for progress, num_looks in ((0.61, 0), (0.63, 1), (0.64, 1)):
            pipeline.prepare_phase(progress)
            assert model.mirror.on_trial and model.mirror.shift == 0.2 and len(model.mirror.gains) == num_looks
        pipeline.prepare_phase(0.7)
        assert not model.mirror.on_trial and model.mirror.shift is None, "placed anywhere, it explains nothing"
    pipeline.prepare_phase(1.0)


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_was_learned_with_a_mirror_goes_with_it(clip, tmp_path, monkeypatch, is_kept):
    trainer = trainer_on(clip, tmp_path, steps=40, densify_grad_thresh=0.0)
    model, pipeline = trainer.model, trainer.pipeline

    def placed(mirror, means, *_):
        mirror.place(means.mean(0), 1.5, 0.0, shift=0.2)
        mirror.on_trial = True

    def judged(mirror, *_):
        mirror.shift, mirror.on_trial = mirror.shift if is_kept else None, False

    def states():
        optimizers = {
            name: optimizer.state_dict()["state"] for name, optimizer in trainer.optimizers.optimizers.items()
        }
        leaves = tree_leaves(copy.deepcopy((model.state_dict(), optimizers)))
        return [leaf for leaf in leaves if torch.is_tensor(leaf)]

    monkeypatch.setattr("bags_ns.tracking.gait_period", lambda *_: 0.4)
    monkeypatch.setattr("bags_ns.tracking.find_mirror", placed)
    monkeypatch.setattr("bags_ns.rig.symmetry.MirrorPlane.judge", judged)
    run(trainer, range(24))
    pipeline.prepare_phase(0.6)
    assert model.mirror.on_trial
    before = states()
    run(trainer, range(24, 26))
    learned = states()
    pipeline.prepare_phase(0.66)
    assert not model.mirror.on_trial and (model.mirror.shift == 0.2) is is_kept
    assert model.gait_period == 0.4
    for now, expected in zip(states(), learned if is_kept else before, strict=True):
        assert torch.equal(now, expected)
    assert any(mine.shape != theirs.shape for mine, theirs in zip(before, learned, strict=True)), "Gaussians were added"
    run(trainer, range(27, 30))


def test_a_mirror_shows_the_side_that_a_frame_hides(trained):
    """Its loss is there with the mirror, and moves Gaussians and bones."""
    model, frames = trained.model.train(), trained.pipeline.datamanager.next_frames(2)
    model.mirror.shift = None
    assert "mirror" not in model.training_losses(frames)
    with a_mirror(model):
        loss = model.training_losses(frames)["mirror"]
        parameters = [model.gauss_params["means"], model.gauss_params["features_dc"], model.bone_motion.table]
        assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss, parameters)) and loss.isfinite()


def test_poses_reach_for_what_they_leave_empty(trained):
    """The loss is there with its weight, and moves bones and root, not Gaussians."""
    model, frames = trained.model.train(), trained.pipeline.datamanager.next_frames(2)
    assert "reach" not in model.training_losses(frames)  # in bags-tiny
    model.config.reach_loss_mult = 30.0
    try:
        loss = model.training_losses(frames)["reach"]
        moved = torch.autograd.grad(loss, [model.bone_motion.table, model.root_motion.table], retain_graph=True)
        assert all(g.abs().max() > 0 for g in moved) and loss.isfinite()
        assert torch.autograd.grad(loss, model.gauss_params["means"], allow_unused=True) == (None,)
    finally:
        model.config.reach_loss_mult = 0.0


def test_loading_keeps_the_parameters_that_the_optimizers_hold(trained, clip, tmp_path):
    other = trainer_on(clip, tmp_path, num_random=300)
    before = dict(other.model.gauss_params.items())
    assert len(other.model.means) != len(trained.model.means)
    other.pipeline.load_pipeline(trained.pipeline.state_dict(), STEPS - 1)
    for name, parameter in other.model.gauss_params.items():
        assert parameter is before[name] and torch.equal(parameter, trained.model.gauss_params[name])
    assert other.model.bones_placed and other.model.step == STEPS - 1


def test_densification_acts_on_canonical_gaussians_and_respects_the_cap(clip, tmp_path):
    torch.manual_seed(0)
    trainer = trainer_on(clip, tmp_path, densify_grad_thresh=0.0, max_gaussians=1000, cull_alpha_thresh=0.0)
    run(trainer, range(20))
    count = trainer.model.num_points
    assert count > 1000
    run(trainer, range(20, 30))
    assert trainer.model.num_points == count


def test_a_pose_from_outside_replaces_the_videos(trained):
    model = trained.model.eval()
    camera, _ = trained.pipeline.datamanager.train_image(0)
    at_rest = torch.eye(4, device=model.device)
    away = at_rest.clone()
    away[2, 3] = 10.0
    assert model.outputs_in_pose(camera, Pose(at_rest.expand(8, 4, 4), away))["accumulation"].max() == 0
    assert model.get_outputs_for_camera(camera)["accumulation"].max() > 0.5


def test_a_camera_without_time_shows_the_canonical_pose(trained):
    model = trained.model.eval()
    camera, _ = trained.pipeline.datamanager.train_image(trained.pipeline.datamanager.clip.canonical_index)
    timed = model.get_outputs_for_camera(camera)["rgb"]
    camera.times = None
    assert torch.equal(model.get_outputs_for_camera(camera)["rgb"], timed)


def test_the_viewers_crop_box_hides_what_lies_outside(trained):
    from nerfstudio.data.scene_box import OrientedBox

    model = trained.model.eval()
    camera, _ = trained.pipeline.datamanager.train_image(0)
    box = OrientedBox.from_params((5.0, 5.0, 5.0), (0.0, 0.0, 0.0), (0.1, 0.1, 0.1))
    assert model.get_outputs_for_camera(camera, obb_box=box)["accumulation"].max() == 0
    assert model.get_outputs_for_camera(camera)["accumulation"].max() > 0.5


@torch.no_grad()
def test_all_that_is_rendered_is_as_sharp_as_the_settings_say(trained, monkeypatch):
    """Frames in training, views for the prior and what a viewer asks for: more variance in the picture covers more of it."""
    model, data = trained.model, trained.pipeline.datamanager
    gaussians = model.gaussians_at(model.bone_motion.canonical_time)
    camera, _ = data.train_image(0)
    frames = data.next_frames(1)
    view = frames.viewmats.inverse() * torch.tensor([1.0, -1, -1, 1])  # OpenGL's axes

    def covered():
        model.train()
        of_frame = model._render_frame(frames, 0, gaussians, torch.ones(3)).alpha
        of_view = model.render_views(gaussians, view, fov_deg=40.0, size=32).alpha
        model.eval()
        return [
            float(alpha.sum()) for alpha in (of_frame, of_view, model.get_outputs_for_camera(camera)["accumulation"])
        ]

    as_it_is = covered()
    monkeypatch.setattr(model.config, "eps2d", 1.0)
    for sharp, blurred in zip(as_it_is, covered(), strict=True):
        assert sharp > 0 and blurred > 1.02 * sharp


def test_empty_pixels_are_far(trained):
    model = trained.model.eval()
    outputs = model.get_outputs_for_camera(trained.pipeline.datamanager.train_image(0)[0])
    empty = outputs["accumulation"] == 0
    assert empty.any() and outputs["depth"][empty].min() >= outputs["depth"][~empty].max()


@torch.no_grad()
def test_frames_without_poses_of_their_own_have_those_between_their_neighbours(clip, tmp_path):
    model = trainer_on(clip, tmp_path).model
    model.canonical_index = 2
    motion, root = model.bone_motion, model.root_motion
    for each in (motion, root):
        each.canonical_time.copy_(each.knots[2])
        each.table.normal_(generator=torch.Generator().manual_seed(0))
    own = motion(motion.knots), root.tables_at(root.knots)
    with model.poses_dropped(1.0):
        for mine, now in zip(own, (motion(motion.knots), root.tables_at(root.knots)), strict=True):
            assert torch.allclose(now[[0, 2, 5]], mine[[0, 2, 5]], atol=1e-5), "ends and canonical frame keep theirs"
            assert torch.allclose(now[1], (mine[0] + mine[2]) / 2, atol=1e-5)
            assert torch.allclose(
                now[3:5], torch.stack([mine[2] + (mine[5] - mine[2]) * k / 3 for k in (1, 2)]), atol=1e-5
            )
    assert torch.equal(motion(motion.knots), own[0]) and torch.equal(root.tables_at(root.knots), own[1])


@torch.no_grad()
def test_an_animal_that_seems_to_move_is_put_where_it_stands_and_looks_the_same_from_its_canonical_camera(
    clip, tmp_path
):
    trainer = trainer_on(clip, tmp_path)
    model, canonical = trainer.model, trainer.model.canonical_index
    count = len(model.clip_times)
    angles = torch.deg2rad(torch.linspace(-40, 20, count))
    positions = 3 * torch.stack([angles.sin(), -angles.cos(), torch.zeros(count)], dim=1)
    middle = model.means.mean(0)
    rays = torch.nn.functional.normalize(middle - positions, dim=1)

    def directions() -> torch.Tensor:
        places = model.means.mean(0) + model.root_motion.change(model.root_motion.knots)[:, 3:]
        return torch.nn.functional.normalize(places - positions, dim=1)

    model.enter_frames(range(count))
    model.root_motion.table[:, 3:] = 0.02 + 0.05 * (across(rays) @ rays[canonical])  # what all share is no motion
    before, seen = model.means - positions[canonical], directions()
    for _ in range(5):
        model.settle_depth(positions, most=0.1)
    after = model.means - positions[canonical]
    assert torch.allclose(after / after.norm(dim=1, keepdim=True), before / before.norm(dim=1, keepdim=True), atol=1e-5)
    assert (model.means.mean(0) - middle) @ rays[canonical] == pytest.approx(0.05, abs=5e-3)
    assert model.root_motion.change(model.root_motion.knots).abs().max() < 5e-3
    assert torch.allclose(directions(), seen, atol=2e-3)
    model.root_motion.table[:, 3] = 0.3 * torch.linspace(-1, 1, count)
    walking = model.means.clone()
    model.settle_depth(positions, most=0.1)
    assert torch.equal(model.means, walking), "it really goes somewhere"
