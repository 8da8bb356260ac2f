"""A prior at work in the pipeline: what it is shown, what it moves, and that nothing of it is kept."""

import copy

import pytest
import torch

from bags_ns import method_configs
from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.priors.base import PriorCamera
from bags_ns.trainer import BagsTrainer


class FakePrior:
    """Wants every view to be white, and remembers what it was shown."""

    num_views, image_size = 2, 16
    camera = PriorCamera(fov_deg=40.0, radius_range=(2.0, 2.0), elevation_range_deg=(0.0, 0.0))
    alphas_cumprod = torch.linspace(0.999, 0.01, 100)

    def __init__(self):
        self.network = torch.nn.Linear(4, 4)
        self.references, self.views = [], []

    def condition(self, images, camera_to_worlds, fovs_deg):
        self.references.append((images, camera_to_worlds, fovs_deg))
        return len(self.references) - 1

    def encode(self, renders):
        return 2 * renders.permute(0, 3, 1, 2) - 1

    def noise_predictor(self, camera_to_worlds, conditioning):
        self.views.append((camera_to_worlds, conditioning))

        def predict(x_t, t):
            alpha = self.alphas_cumprod[t]
            return (x_t - alpha.sqrt()) / (1 - alpha).sqrt()

        return predict


@pytest.fixture
def trainer(tmp_path):
    write_creature_clip(
        tmp_path / "clip", 5, ClipSettings(num_frames=4, size=48, num_test_times=1, num_test_azimuths=1)
    )
    config = copy.deepcopy(method_configs.bags_tiny.config)
    config.data = config.pipeline.datamanager.data = tmp_path / "clip"
    config.output_dir, config.vis, config.max_num_iterations = tmp_path, "tensorboard", 40
    config.pipeline.model.num_bones, config.pipeline.model.num_random = 6, 500
    config.pipeline.prior.num_views = 2
    config.set_timestamp()
    trainer = BagsTrainer(config)
    trainer.setup()
    trainer.pipeline.prior = FakePrior()
    trainer.pipeline.config.prior.name = "small"
    trainer.pipeline.train()
    return trainer


def test_the_prior_moves_gaussians_and_feeds_densification_but_is_not_kept(trainer):
    pipeline, model = trainer.pipeline, trainer.model
    model.step_cb(trainer.optimizers, 30)
    _, losses, _ = pipeline.get_train_loss_dict(30)
    assert losses["prior"] > 0
    losses["prior"].backward()
    for name in ("means", "features_dc", "opacities", "scales"):
        assert model.gauss_params[name].grad.abs().max() > 0
    assert len(model.infos) == len(pipeline.datamanager.active_frames) + 1
    assert model.infos[-1]["means2d"].grad.abs().max() > 0 and model.infos[-1]["n_cameras"] == 2
    assert not [name for name in pipeline.state_dict() if "prior" in name]
    assert len(list(pipeline.parameters())) == len(list(model.parameters()))


def test_the_prior_rests_where_its_config_says_so(trainer):
    trainer.model.step_cb(trainer.optimizers, 10)
    config = trainer.pipeline.config.prior
    for field, value in (("every", 3), ("start", 0.9), ("loss_mult", 0.0), ("name", "none")):
        before = getattr(config, field)
        setattr(config, field, value)
        assert "prior" not in trainer.pipeline.get_train_loss_dict(10)[1], field
        setattr(config, field, before)


@pytest.mark.parametrize("turn", [0.0, 0.8])
def test_views_are_relative_to_the_reference_about_the_posed_animal(trainer, turn):
    """The animal stands elsewhere and turned: cameras must still be given about its own middle, in world directions."""
    pipeline, model = trainer.pipeline, trainer.model
    frame = 1 if pipeline.datamanager.clip.canonical_index != 1 else 2
    pipeline.datamanager.set_active_frames([frame])
    with torch.no_grad():
        model.root_motion.table[frame] = torch.tensor([0.0, 0.0, turn, 0.3, -0.2, 0.1])
        torch.manual_seed(0)
        pipeline.prior_loss(0.5)
    centroid = model.posed_gaussians(model.pose_at(pipeline.datamanager.clip.times[frame])).centroid()
    _, reference_pose, _ = pipeline.prior.references[0]
    views, _ = pipeline.prior.views[0]
    camera = pipeline.datamanager.train_dataset.cameras.camera_to_worlds[frame]
    offset = camera[:, 3] - centroid
    assert torch.allclose(reference_pose[0, :3, 3].norm(), offset.norm(), atol=0.15)
    cosine = torch.nn.functional.cosine_similarity(reference_pose[0, :3, 3], offset, dim=0)
    assert cosine > 0.97  # the middle of the silhouette's box is not quite the centroid
    assert torch.allclose(views[:, :3, 3].norm(dim=1), torch.full((2,), 2.0), atol=1e-5)
