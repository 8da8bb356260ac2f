"""What a page gets: the editor's pose for the viewer's threads only, and a blank picture instead of a dead thread."""

from types import SimpleNamespace

import pytest
import torch
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException

from bags_ns.rig.transforms import quat_from_rotation, so3_exp
from bags_ns.viewer import rig_handles
from bags_ns.viewer.controls import IN_TRAINING
from bags_ns.viewer.rig_handles import DRAG_ENDS_AFTER


class PageThread(RenderStateMachine):
    """A thread of the viewer's kind that asks the model for one render, as `_render_img` does."""

    def __init__(self, ask):
        super().__init__(None, 10.0, None)
        self._ask, self.outputs, self.error = ask, None, None

    def run(self):
        try:
            with torch.no_grad():
                self.outputs = self._ask()
        except Exception as error:
            self.error = error


def on_a_page(ask):
    thread = PageThread(ask)
    thread.start()
    thread.join(60)
    return thread


@pytest.fixture
def camera(pipeline):
    return pipeline.datamanager.train_image(0)[0]


@pytest.fixture
def controls(viewer, pipeline):
    controls = pipeline.animal_controls
    work = controls.editor.work
    yield controls
    controls.editor.work = work


def test_only_pages_see_the_persons_pose(viewer, pipeline, controls, camera):
    model = pipeline.model
    video = model.get_outputs_for_camera(camera)["rgb"]
    assert torch.equal(on_a_page(lambda: model.get_outputs_for_camera(camera)).outputs["rgb"], video)
    controls.editor.move(torch.tensor([0.0, 0.0, 0.2]))
    page = on_a_page(lambda: model.get_outputs_for_camera(camera)).outputs["rgb"]
    assert (page - video).abs().mean() > 0.01
    assert torch.equal(model.get_outputs_for_camera(camera)["rgb"], video)


def test_rig_colours_are_rendered_when_they_are_looked_at(viewer, pipeline, controls, camera):
    model, panel = pipeline.model, viewer.control_panel
    plain = on_a_page(lambda: model.get_outputs_for_camera(camera)).outputs
    assert {"rgb", "depth", "accumulation", "bones", "weight"} <= set(plain) and plain["bones"] is plain["rgb"]
    seen = {}
    for name in ("bones", "weight"):
        panel.update_output_options(list(plain))
        panel._output_render.value = name
        seen[name] = on_a_page(lambda: model.get_outputs_for_camera(camera)).outputs[name]
        assert (seen[name] - plain["rgb"]).abs().mean() > 0.01
    controls.renders.joint = 5
    other = on_a_page(lambda: model.get_outputs_for_camera(camera)).outputs["weight"]
    assert (other - seen["weight"]).abs().mean() > 1e-3
    panel._output_render.value = "rgb"


def test_each_drag_is_undone_by_itself(viewer, pipeline, controls, monkeypatch):
    now = 100.0
    monkeypatch.setattr(rig_handles, "time", SimpleNamespace(monotonic=lambda: now))
    controls.handles.select(3)
    seen, gizmo = [controls.editor.work], controls.handles._gizmo
    for drag in range(2):
        for update in range(4):
            now += DRAG_ENDS_AFTER / 2  # the drag as a whole lasts longer
            gizmo.wxyz = quat_from_rotation(so3_exp(torch.tensor([0.1 * update, 0.3 * drag, 0.0]))).numpy()
            controls.handles._drag(gizmo)
        seen.append(controls.editor.work)
        now += 2 * DRAG_ENDS_AFTER
    for work in seen[1::-1]:
        controls.editor.undo()
        assert controls.editor.work is work


@pytest.mark.parametrize("state, warned", [("training", True), ("paused", True), ("completed", False), (None, False)])
def test_who_makes_a_track_in_training_is_told_that_its_skeleton_may_change(
    viewer, pipeline, controls, monkeypatch, state, warned
):
    monkeypatch.setattr(viewer, "trainer", state and SimpleNamespace(training_state=state))
    controls._add_keyframe()
    assert (controls.panel.message.content == IN_TRAINING) == warned
    controls._save()
    assert (IN_TRAINING in controls.panel.message.content) == warned


def test_a_failed_render_is_blank_and_is_told(viewer, pipeline, controls, camera, monkeypatch):
    model = pipeline.model
    monkeypatch.setattr(model, "render_gaussians", lambda *_, **__: 1 / 0)
    thread = on_a_page(lambda: model.get_outputs_for_camera(camera))
    assert (
        thread.error is None and (thread.outputs["rgb"] == 1).all() and "ZeroDivisionError" in controls.renders.problem
    )
    with pytest.raises(ZeroDivisionError):
        model.get_outputs_for_camera(camera)
    monkeypatch.undo()
    assert on_a_page(lambda: model.get_outputs_for_camera(camera)).outputs["accumulation"].max() > 0.5
    assert controls.renders.problem is None


def test_nerfstudio_may_stop_a_render(viewer, pipeline, camera, monkeypatch):
    def stopped(pose):
        raise IOChangeException

    monkeypatch.setattr(pipeline.model, "posed_gaussians", stopped)
    thread = on_a_page(lambda: pipeline.model.get_outputs_for_camera(camera))
    assert isinstance(thread.error, IOChangeException)


def test_a_blank_picture_has_the_names_of_a_render(viewer, pipeline, camera, monkeypatch):
    whole = on_a_page(lambda: pipeline.model.get_outputs_for_camera(camera)).outputs
    monkeypatch.setattr(pipeline.model, "posed_gaussians", lambda pose: 1 / 0)
    blank = on_a_page(lambda: pipeline.model.get_outputs_for_camera(camera)).outputs
    assert {n: t.shape for n, t in blank.items()} == {n: t.shape for n, t in whole.items()}
