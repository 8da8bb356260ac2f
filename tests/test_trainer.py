"""Runs that go wrong or are killed: what ends them says why, and what they leave can be gone on from."""

import copy
import os
import re
import shutil
import signal

import pytest
import torch
import yaml
from tiny_runs import run, trainer_on

from bags_ns import method_configs
from bags_ns.runs import open_run
from bags_ns.watch import EXPLOSION, LOOK_EVERY, LossWatch

pytestmark = pytest.mark.usefixtures("one_thread")


def newest(trainer):
    return max(trainer.checkpoint_dir.glob("step-*.ckpt"))


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def watched(losses):
    """The problem that a watch finds in a run with these values of a term, beside one that is always .5."""
    watch = LossWatch()
    for step, value in enumerate(losses):
        terms = {"l1": torch.tensor(0.5), "rigidity": torch.tensor(value)}
        watch.add(step, terms)
        if watch.is_due and (problem := watch.problem()):
            return problem
    return watch.problem()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3 * EXPLOSION])
def test_the_first_lost_step_and_its_term_are_named(bad):
    steady = [1.0] * (3 * LOOK_EVERY)
    assert watched(steady) is None
    # It is found though all is well again at the time of the look.
    lost = [*steady[: LOOK_EVERY + 3], bad, *steady[:20]]
    assert re.search(f"'rigidity' is .* at step {LOOK_EVERY + 3}$", watched(lost) or "")


def test_a_term_that_is_large_from_its_start_has_not_exploded():
    assert watched([5 * EXPLOSION] * 20) is None
    assert "at step 11" in (watched([2.0] * 11 + [4 * EXPLOSION] * 20) or "")


def test_a_lost_loss_ends_training_in_one_line_and_the_last_good_checkpoint_stays(clip, tmp_path):
    trainer = trainer_on(clip, tmp_path)
    run(trainer, range(20))
    trainer.model.config.rigidity_loss_mult = float("nan")
    trainer._start_step, trainer.config.steps_per_save = 20, 5
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    message = str(stopped.value)
    first_with_bones = int(0.1 * trainer.run_length)
    assert f"the loss term 'rigidity' is nan at step {first_with_bones}," in message and "\n" not in message
    # Step 25 was to be saved, before the next look was due.
    assert newest(trainer).name == "step-000000020.ckpt" and str(newest(trainer)) in message
    assert all(
        torch.isfinite(values).all() for values in load(newest(trainer))["pipeline"].values() if torch.is_tensor(values)
    )


def test_parameters_that_are_no_numbers_are_never_saved(clip, tmp_path):
    trainer = trainer_on(clip, tmp_path)
    run(trainer, range(3))
    trainer.model.gauss_params["means"].data[7] = float("nan")
    with pytest.raises(SystemExit, match="gauss_params.means are not finite at step 2"):
        trainer.save_checkpoint(2)
    assert not list(trainer.checkpoint_dir.glob("*"))


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("phases", "canonical_end", -0.1),
        ("phases", "window_end", 0.1),
        ("phases", "bones_end", 0.4),
        ("phases", "bones_end", 1.5),
        ("model", "sh_degree", 3),
        ("model", "use_bilateral_grid", True),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused_in_one_line(part, name, value, tmp_path):
    config = copy.deepcopy(method_configs.bags_tiny.config)
    config.pipeline.check()
    setattr(getattr(config.pipeline, part), name, value)
    config.output_dir, config.vis = tmp_path, "tensorboard"
    config.set_timestamp()
    config.save_config()
    with pytest.raises(SystemExit, match=rf"^ns-train: --pipeline.{part}.* takes ") as refused:
        config.setup().setup()
    message = str(refused.value)
    assert "\n" not in message and name.replace("_", "-") in message and not list(tmp_path.rglob("*.yml"))


@pytest.mark.parametrize("wrong", ["data", "step"])
def test_a_failed_setup_leaves_the_run_in_its_folder_as_it_was(wrong, clip, tmp_path):
    trainer = trainer_on(clip, tmp_path)
    run(trainer, range(2))
    trainer.save_checkpoint(1)
    path = trainer.base_dir / "config.yml"
    before = path.read_bytes()
    again = yaml.load(path.read_text(), Loader=yaml.Loader)  # as ns-train --load-config does
    if wrong == "data":
        again.pipeline.datamanager.data = tmp_path / "moved"
    else:
        again.load_dir, again.load_step = trainer.checkpoint_dir, 7
    again.save_config()
    with pytest.raises(SystemExit, match=r"^ns-train: .*(moved|step-000000007.ckpt) does not exist"):
        again.setup().setup()
    assert path.read_bytes() == before and newest(trainer).name == "step-000000001.ckpt"
    assert not list(trainer.base_dir.glob(".config*"))


def test_a_run_is_opened_where_it_lies_with_its_own_newest_checkpoint(clip, tmp_path):
    trainer = trainer_on(clip, tmp_path / "first")
    for step in range(3):
        run(trainer, range(step, step + 1))
        trainer.save_checkpoint(step)
    copied = shutil.copytree(trainer.base_dir, tmp_path / "copied")
    trainer.model.gauss_params["means"].data += 1
    trainer.save_checkpoint(2)
    assert torch.allclose(open_run(copied).model.means + 1, trainer.model.means)
    assert torch.equal(open_run(trainer.base_dir).model.means, trainer.model.means)
    moved = trainer.base_dir.rename(tmp_path / "moved")
    config = (moved / "config.yml").read_text()
    (moved / "config.yml").write_text(config.replace("load_step: null", "load_step: 50"))  # as runs of old have it
    assert torch.equal(open_run(moved).model.means, trainer.model.means)


def test_a_run_that_was_resumed_from_a_step_is_opened_at_its_own(clip, tmp_path):
    trainer = trainer_on(clip, tmp_path / "first")
    trainer.config.save_only_latest_checkpoint = False
    for step in range(2):
        run(trainer, range(step, step + 1))
        trainer.save_checkpoint(step)
    resumed = trainer_on(clip, tmp_path / "second", load_dir=trainer.checkpoint_dir, load_step=0)
    assert resumed._start_step == 1
    run(resumed, range(1, 4))
    resumed.save_checkpoint(3)
    assert yaml.load((resumed.base_dir / "config.yml").read_text(), Loader=yaml.Loader).load_step is None  # for ns-eval
    assert torch.equal(open_run(resumed.base_dir).model.means, resumed.model.means)


def test_densification_goes_on_where_a_killed_run_left_it(clip, tmp_path):
    torch.manual_seed(0)
    trainer = trainer_on(clip, tmp_path / "first")
    run(trainer, range(12))
    trainer.save_checkpoint(11)
    sums = trainer.model.strategy_state
    assert sums["count"].max() > 1 and sums["grad2d"].max() > 0
    resumed = trainer_on(clip, tmp_path / "second", load_dir=trainer.checkpoint_dir)
    for name in ("grad2d", "count"):
        assert torch.equal(resumed.model.strategy_state[name], sums[name])
    run(resumed, range(12, 30))
    assert resumed.model.num_points != trainer.model.num_points


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(share, clip, tmp_path, monkeypatch):
    trainer = trainer_on(clip, tmp_path)
    run(trainer, range(2))
    trainer.save_checkpoint(1)
    save = torch.save

    def save_some_and_die(state, path):
        save(state, path)
        os.truncate(path, int(share * os.path.getsize(path)))
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        torch.save = save_some_and_die
        trainer.save_checkpoint(2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000001.ckpt"]
    resumed = trainer_on(clip, tmp_path / "second", load_dir=trainer.checkpoint_dir)
    assert resumed._start_step == 2
    assert torch.equal(resumed.model.means, trainer.model.means)
