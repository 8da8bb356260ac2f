"""A deformation field behind the same model as bones: it starts at rest, learns the motion, is saved, and has no bones."""

import pytest
import torch
from tiny_runs import run, trainer_on

from bags_ns.evaluation import evaluate
from bags_ns.rig.field import DeformationField
from bags_ns.rigged import body_of, posed_splats, rigged_animal, video_motion
from bags_ns.runs import open_run
from bags_ns.visualize import beside_source

pytestmark = pytest.mark.usefixtures("one_thread")


def with_field(clip, folder, **more):
    return trainer_on(clip, folder, steps=160, motion="field", field_hidden=32, field_layers=4, **more)


@pytest.fixture(scope="module")
def trained(clip, tmp_path_factory):
    torch.manual_seed(0)
    trainer = with_field(clip, tmp_path_factory.mktemp("run"))
    run(trainer, range(160))
    return trainer


def test_a_fresh_field_leaves_gaussians_where_the_root_puts_them():
    torch.manual_seed(0)
    means, quats, log_scales = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 3)
    root = torch.eye(4).repeat(2, 1, 1)
    root[1, :3, 3] = torch.tensor([1.0, 2.0, 3.0])
    field = DeformationField(16, 4)
    placed, covars = field.moved(means, quats, log_scales, torch.tensor([0.1, 0.9]), root)
    assert torch.allclose(placed, means + root[:, None, :3, 3]) and torch.equal(covars[0], covars[1])
    assert torch.allclose(torch.linalg.eigvalsh(covars[0]), (2 * log_scales).exp().sort(dim=1).values, rtol=1e-3)


def test_it_learns_what_a_still_animal_cannot_show(trained, clip, tmp_path):
    fresh = with_field(clip, tmp_path)
    before, after = (evaluate(each.model, each.pipeline.datamanager)["train"] for each in (fresh, trained))
    assert after["psnr_silhouette"] > before["psnr_silhouette"] + 2
    model = trained.model.eval()
    first, last = (model.posed_gaussians(model.pose_at(time)).means for time in (0.0, 1.0))
    assert (first - last).abs().max() > 1e-2


def test_every_trained_group_gets_a_gradient(trained):
    model = trained.model.train()
    for parameter in model.parameters():
        parameter.grad = None
    sum(model.training_losses(trained.pipeline.datamanager.next_frames(2)).values()).backward()
    groups = model.get_param_groups()
    assert "field" in groups and "bones" not in groups
    for name, parameters in groups.items():
        if name != "features_rest":
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in parameters), name


def test_a_checkpoint_brings_it_back(trained):
    trained.save_checkpoint(159)
    model, again = trained.model.eval(), open_run(trained.base_dir).model
    for time in (0.0, 0.37, 1.0):
        one, other = (each.posed_gaussians(each.pose_at(time)) for each in (model, again))
        assert torch.equal(one.means, other.means) and torch.equal(one.covars, other.covars)


def test_what_needs_bones_says_that_there_are_none(trained):
    model = trained.model.eval()
    for needs_bones in (body_of, video_motion, rigged_animal):
        with pytest.raises(ValueError, match="it has no bones"):
            needs_bones(model)
    assert len(posed_splats(model, model.pose_at(0.5)).means) == model.num_points


def test_it_is_shown_beside_its_source_without_bone_colours(trained):
    model, data = trained.model.eval(), trained.pipeline.datamanager
    (frame,) = beside_source(model, [data.train_image(0)], 64, 70)
    assert frame.shape == (64, 2 * 70, 3)
