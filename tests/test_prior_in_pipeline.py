"""A prior at work in the pipeline: what it is shown, what it moves, and that nothing of it is kept."""

from pathlib import Path

import pytest
import torch
from tiny_runs import config_on

from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.priors.base import PriorCamera
from bags_ns.trainer import BagsTrainer


class FakePrior:
    """Wants every view to be white, and remembers what it was shown."""

    image_size = 16
    camera = PriorCamera(fov_deg=40.0, radius_range=(2.0, 2.0), elevation_range_deg=(0.0, 0.0))
    alphas_cumprod = torch.linspace(0.999, 0.01, 100)
    limit, guidance = 1.0, 1.0

    def __init__(self):
        self.network = torch.nn.Linear(4, 4)
        self.references, self.views = [], []

    def condition(self, images, camera_to_worlds, fovs_deg):
        self.references.append((images, camera_to_worlds, fovs_deg))
        return len(self.references) - 1

    def encode(self, renders):
        return 2 * renders.permute(0, 3, 1, 2) - 1

    def decode(self, x):
        return 0.5 * x.permute(0, 2, 3, 1) + 0.5

    def noise_predictor(self, camera_to_worlds, conditioning):
        self.views.append((camera_to_worlds, conditioning))

        def predict(x_t, t):
            alpha = self.alphas_cumprod[t]
            return (x_t - alpha.sqrt()) / (1 - alpha).sqrt()

        return predict


def small_run(tmp_path, arc_deg=60.0):
    """The config of a run on a small made-up clip."""
    settings = ClipSettings(num_frames=4, size=48, arc_deg=arc_deg, num_test_times=1, num_test_azimuths=1)
    write_creature_clip(tmp_path / "clip", 5, settings)
    return config_on(
        tmp_path / "clip", tmp_path, steps=40, prior={"name": "small", "num_views": 2, "every": 1}, num_bones=6
    )


@pytest.fixture
def trainer(tmp_path):
    trainer = BagsTrainer(small_run(tmp_path))
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
    for name in ("means", "opacities", "scales"):
        assert model.gauss_params[name].grad.abs().max() > 0
    assert len(model.infos) == len(pipeline.datamanager.active_frames) + 1
    assert model.infos[-1]["means2d"].grad.abs().max() > 0 and model.infos[-1]["n_cameras"] == 2
    assert not [name for name in pipeline.state_dict() if "prior" in name]
    assert len(list(pipeline.parameters())) == len(list(model.parameters()))


def test_colours_get_the_part_of_the_priors_gradient_that_is_asked_for(trainer):
    pipeline, model = trainer.pipeline, trainer.model
    model.step_cb(trainer.optimizers, 30)

    def gradients(color_mult):
        pipeline.config.prior.color_mult = color_mult
        torch.manual_seed(0)
        names = ("means", "features_dc")
        return torch.autograd.grad(
            pipeline.prior_loss(0.5), [model.gauss_params[name] for name in names], allow_unused=True
        )

    (of_means, none), (means, half), (_, whole) = gradients(0.0), gradients(0.5), gradients(1.0)
    assert none is None or none.abs().max() == 0
    assert torch.equal(of_means, means), "shapes are moved the same"
    assert whole.abs().max() > 0 and torch.allclose(half, 0.5 * whole, atol=1e-9)


@pytest.mark.gpu
def test_the_bundled_prior_trains_on_the_gpu(tmp_path):
    config = small_run(tmp_path)
    config.machine.device_type = "cuda"
    trainer = BagsTrainer(config)
    trainer.setup()
    trainer.pipeline.train()
    trainer.model.step_cb(trainer.optimizers, 30)
    trainer.pipeline.get_train_loss_dict(30)[1]["prior"].backward()
    assert trainer.model.gauss_params["means"].grad.is_cuda


def test_densification_counts_the_priors_views(trainer):
    """Gaussians that only novel views see must be able to split: their screen gradients are in the strategy's averages."""
    pipeline, model = trainer.pipeline, trainer.model

    def statistics(loss_mult):
        pipeline.config.prior.loss_mult = loss_mult
        torch.manual_seed(0)
        model.step_cb(trainer.optimizers, 1)
        _, losses, _ = pipeline.get_train_loss_dict(1)
        trainer.optimizers.zero_grad_all()
        sum(losses.values()).backward()
        model.strategy_state = model.strategy.initialize_state(scene_scale=1.0)
        seen = sum((info["radii"] > 0).sum() for info in model.infos)
        model.step_post_backward(1)  # at step 0 the strategy resets opacities
        assert model.strategy_state["count"].sum() == seen
        return model.strategy_state["grad2d"].sum(), seen

    (without, seen_by_video), (with_prior, seen_by_both) = statistics(0.0), statistics(1.0)
    assert seen_by_both > 1.5 * seen_by_video and with_prior > without


@pytest.mark.parametrize("variant", ["x0", "views"])
@pytest.mark.parametrize(
    "window, expected", [((0.0, 1.0), {0.0: 96, 0.5: 49, 1.0: 2}), ((0.5, 0.75), {0.5: 96, 0.625: 49, 0.75: 2})]
)
def test_noise_is_annealed_over_the_priors_own_work(trainer, variant, window, expected):
    pipeline, config, seen = trainer.pipeline, trainer.pipeline.config.prior, []
    config.sds.variant, config.views.num_steps, config.views.num_sets = variant, 1, 10
    config.start, config.end = window
    pipeline.prior.noise_predictor = lambda *_: lambda x_t, t: seen.append(t) or x_t
    for progress in expected:
        pipeline.prior_loss(progress)
    assert seen == [*expected.values()]


def test_what_is_kept_of_frames_is_bounded(trainer, monkeypatch):
    monkeypatch.setattr("bags_ns.pipeline.KEPT_FRAMES", 2)
    pipeline = trainer.pipeline
    for frame in range(4):
        pipeline.datamanager.set_active_frames([frame])
        pipeline.prior_loss(0.5)
    assert [*pipeline._references] == [*pipeline._conditionings] == [2, 3]


def test_sampled_views_are_made_once_and_fitted(trainer):
    pipeline, config = trainer.pipeline, trainer.pipeline.config.prior
    config.sds.variant, config.views.num_sets = "views", 2
    losses = []
    for step in range(6):
        trainer.model.step_cb(trainer.optimizers, step)
        loss = pipeline.get_train_loss_dict(step)[1]["prior"]
        loss.backward()
        losses.append(loss.item())
    assert len(pipeline.prior.views) == 2, "two sets, then no call of the network"
    assert [len(kept.pictures) for kept in pipeline._sampled.sets] == [2, 2] and min(losses) > 0
    assert all((kept.pictures > 250).all() for kept in pipeline._sampled.sets), "this prior wants white"
    assert trainer.model.gauss_params["means"].grad.abs().max() > 0


@pytest.mark.parametrize("name", ["zero123", "imagedream"])
def test_pretrained_priors_train_and_stay_out_of_the_checkpoint(tmp_path, monkeypatch, name):
    pytest.importorskip("transformers", reason="the CLIP encoders of these priors need transformers")
    monkeypatch.syspath_prepend(Path(__file__).parent / "priors")
    import tiny_pipelines

    config = small_run(tmp_path)
    prior = config.pipeline.prior
    prior.name, prior.num_views, prior.device = name, 4, "cpu"
    prior.source = str(getattr(tiny_pipelines, f"save_{name}")(tmp_path / name))
    trainer = BagsTrainer(config)
    trainer.setup()
    trainer.pipeline.train()
    for step in range(2):
        trainer.model.step_cb(trainer.optimizers, step)
        trainer.optimizers.zero_grad_all()
        loss = trainer.pipeline.get_train_loss_dict(step)[1]["prior"]
        loss.backward()
        for parameter in ("means", "opacities", "scales", "quats"):
            gradient = trainer.model.gauss_params[parameter].grad
            assert gradient.isfinite().all() and gradient.abs().max() > 0, parameter
        trainer.optimizers.optimizer_step_all()
    trainer.save_checkpoint(1)
    (checkpoint,) = tmp_path.glob("**/step-000000001.ckpt")
    names = torch.load(checkpoint, map_location="cpu", weights_only=True)["pipeline"]
    assert not [key for key in names if not key.startswith("_model.")]
    assert sum(v.numel() for v in names.values() if isinstance(v, torch.Tensor)) < 200_000


def test_a_prior_that_cannot_be_had_is_one_line_before_any_work(tmp_path):
    config = small_run(tmp_path)
    config.pipeline.prior.name, config.pipeline.prior.source = "zero123", str(tmp_path / "nothing")
    with pytest.raises(SystemExit) as error:
        BagsTrainer(config).setup()
    message = str(error.value)
    assert message.startswith("ns-train: the zero123 prior cannot be used: ") and "\n" not in message
    assert not list(tmp_path.glob("**/config.yml"))


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
    offset = camera[:, 3].to(centroid) - centroid
    assert torch.allclose(reference_pose[0, :3, 3].norm(), offset.norm(), atol=0.15)
    cosine = torch.nn.functional.cosine_similarity(reference_pose[0, :3, 3], offset, dim=0)
    assert cosine > 0.97  # the middle of the silhouette's box is not quite the centroid
    assert views[:, :3, 3].norm(dim=1).tolist() == pytest.approx([2.0, 2.0], abs=1e-5)


@pytest.mark.parametrize("arc_deg", [0.0, 60.0])
def test_seeds_lean_as_the_prior_has_it_where_all_frames_are_from_one_side(tmp_path, monkeypatch, arc_deg):
    config = small_run(tmp_path, arc_deg=arc_deg)
    trainer = BagsTrainer(config)
    trainer.setup()
    pipeline, means = trainer.pipeline, trainer.model.means
    pipeline.prior = FakePrior()
    monkeypatch.setattr("bags_ns.first_look.find_slope", lambda *_: 0.5)
    camera, _ = pipeline.datamanager.train_image(pipeline.datamanager.clip.canonical_index)
    right, backward, position = (camera.camera_to_worlds[0, :, k] for k in (0, 2, 3))
    before = means.detach().clone() - position
    pipeline.prepare_phase(0.0)
    pipeline.prepare_phase(0.01)  # a second time it does nothing
    after = means.detach() - position
    if arc_deg:
        assert torch.equal(after, before)
        return
    assert torch.allclose(torch.nn.functional.cosine_similarity(after, before), torch.tensor(1.0), atol=1e-6)
    across, deeper = before @ right, (before - after) @ backward
    assert torch.allclose(deeper, 0.5 * (across - across.mean()), atol=1e-4)
