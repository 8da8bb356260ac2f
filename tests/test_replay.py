"""What is kept and replayed outside of training gives what is computed anew: on CUDA these are graphs, on the CPU plain calls.

With gradients nothing is kept or replayed, so that is what the rest is compared with.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch
from tiny_runs import run, trainer_on

from bags_ns.gaussians import Gaussians
from bags_ns.model import BagsModel
from bags_ns.rig.replay import PLAIN_CALLS, Replay
from bags_ns.trainer import BagsTrainer

pytestmark = pytest.mark.usefixtures("one_thread")
TIMES = [float(time) for time in torch.linspace(0, 1, PLAIN_CALLS + 4)]


@pytest.fixture(scope="module")
def trainer(clip, tmp_path_factory) -> Iterator[BagsTrainer]:
    """Of an animal whose every frame is another pose."""
    torch.manual_seed(0)
    trainer = trainer_on(clip, tmp_path_factory.mktemp("run"), densify_grad_thresh=0.0)
    model = trainer.model
    model.bones.place(model.means.detach())
    with torch.no_grad():
        for values in (model.bone_motion.table, model.bone_motion.head.weight, model.root_motion.table):
            values.normal_(std=0.1)
    yield trainer


def posed(model: BagsModel) -> list[Gaussians]:
    """At all the times, held together: by their poses, and at once."""
    by_poses = [model.posed_gaussians(model.pose_at(time)) for time in TIMES]
    return by_poses + [model.gaussians_at(time) for time in TIMES]


def assert_frames_are_fresh(model: BagsModel) -> None:
    with torch.no_grad():
        kept = posed(model)
    for ours, theirs in zip(kept, posed(model), strict=True):
        for field in fields(Gaussians):
            assert torch.allclose(getattr(ours, field.name), getattr(theirs, field.name), atol=1e-5), field.name
    assert (kept[-1].means - kept[-2].means).abs().max() > 1e-3


def test_frames_are_those_that_are_computed_anew(trainer):
    assert_frames_are_fresh(trainer.model.eval())


def test_a_time_may_be_a_number_or_a_tensor(trainer):
    model = trainer.model.eval()
    with torch.no_grad():
        for time in TIMES:
            pose = model.pose_at(torch.tensor(time))
            assert torch.equal(pose.T_object_canonical, model.pose_at(time).T_object_canonical)


def test_frames_follow_training_and_the_number_of_gaussians(trainer):
    assert_frames_are_fresh(trainer.model.eval())
    before = trainer.model.num_points
    run(trainer, range(20))
    assert trainer.model.num_points != before
    assert_frames_are_fresh(trainer.model.eval())


def test_frames_follow_gaussians_that_took_others_places(trainer):
    model = trainer.model.eval()
    assert_frames_are_fresh(model)
    for parameter in model.gauss_params.values():
        parameter.data = parameter.data.flip(0)
    assert_frames_are_fresh(model)


@pytest.mark.gpu
class TestReplay:
    def test_it_reads_what_changed_in_place_and_its_results_stay(self):
        offset = torch.zeros(3, device="cuda")
        replay = Replay(lambda x: (x + offset, 2 * x))
        results = []
        for call in range(PLAIN_CALLS + 3):
            offset.fill_(call)
            results.append(replay(torch.full((3,), 10.0 * call, device="cuda")))
        assert replay._graph is not None
        for call, (total, double) in enumerate(results):
            assert total.eq(11.0 * call).all() and double.eq(20.0 * call).all()

    def test_a_viewer_that_stops_its_renders_does_not_stop_a_capture(self):
        """It stops them by a trace, which may raise at any line that it sees: it must see none of what torch does there."""
        replay, ones, seen = Replay(lambda x: (x + 1,)), torch.ones(3, device="cuda"), []
        for _ in range(PLAIN_CALLS):
            replay(ones)

        def trace(frame, event, arg):
            seen.append(frame.f_code.co_name)
            return trace

        sys.settrace(trace)
        try:
            (result,) = replay(ones)
        finally:
            sys.settrace(None)
        assert result.eq(2).all() and "_capture" in seen and "capture_end" not in seen and "synchronize" not in seen

    def test_threads_do_not_write_into_each_others_inputs(self):
        replay, wrong = Replay(lambda x: (x.cumsum(0) - x.cumsum(0) + x,)), []

        def work(number: int) -> None:
            for call in range(200):
                value = 1000.0 * number + call
                if not replay(torch.full((1000,), value, device="cuda"))[0].sub(value).abs().max() < 0.1:
                    wrong.append((number, call))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
