"""A person at the page, in a real browser: looks, moves through time, takes hold of a joint, sets keyframes, plays, exports."""

import time

import cv2
import numpy as np
import pytest
import viser.transforms as tf
from browser import Browser, find_chromium

CANVAS = "document.querySelector('canvas[data-engine]').getBoundingClientRect()"
PANEL = 320
"""Width of viser's control panel, in pixels."""
ARC = 0.65
"""Radius of a gizmo's arcs, in its size (three.js' pivot controls)."""


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


class Person:
    """Sees the page's pixels and moves its mouse; knows where things in the scene are on the screen."""

    def __init__(self, browser, viewer, controls):
        self.browser, self.viewer, self.controls = browser, viewer, controls
        self.client = next(iter(viewer.viser_server.get_clients().values()))

    @property
    def box(self):
        """Left, top, width and height of the scene on the page."""
        return self.browser.evaluate(f"(r => [r.x, r.y, r.width, r.height])({CANVAS})")

    def see(self, path=None):
        """The scene's pixels, when they have come to rest: two pictures alike, and the render sharp."""
        x, y, width, height = (round(value) for value in self.box)
        machine = self.viewer.render_statemachines[self.client.client_id]
        before, deadline = None, time.monotonic() + 60
        while time.monotonic() < deadline:
            picture = self.browser.picture(path)[y : y + height, x : x + width].astype(float)
            if before is not None and machine.state == "high" and np.abs(picture - before).mean() < 0.02:
                return picture
            before = picture
            time.sleep(0.4)
        raise AssertionError("the picture never came to rest")

    def place(self, point):
        """Where a point of the scene is on the page, in pixels."""
        x, y, width, height = self.box
        camera = self.client.camera
        right, down, depth = tf.SO3(camera.wxyz).inverse() @ (np.asarray(point) - camera.position)
        focal = height / 2 / np.tan(camera.fov / 2)
        return x + width / 2 + focal * right / depth, y + height / 2 + focal * down / depth

    def arc(self, angle):
        """A point of the selected gizmo's arc from its x to its y axis."""
        gizmo = self.controls.handles._gizmo
        radius = ARC * 2.0
        return self.place(
            gizmo.position + tf.SO3(gizmo.wxyz) @ (radius * np.array([np.cos(angle), np.sin(angle), 0.0]))
        )


@pytest.fixture(scope="module")
def person(viewer, pipeline, tmp_path_factory):
    chromium = find_chromium()
    if not chromium:
        pytest.skip("no chromium on the PATH (or in BAGS_CHROMIUM): apt install chromium")
    browser = Browser(chromium, tmp_path_factory.mktemp("browser"), width=800, height=520)
    try:
        browser.open(f"http://127.0.0.1:{viewer.config.websocket_port}")
        browser.wait_for("!!document.querySelector('canvas[data-engine]')")
        until(lambda: viewer.viser_server.get_clients() and pipeline.animal_controls.renders.shown is not None)
        until(lambda: browser.evaluate(f"{CANVAS}.width") <= browser.width - PANEL)  # it has moved in
        yield Person(browser, viewer, pipeline.animal_controls)
    finally:
        browser.close()


@pytest.fixture(autouse=True)
def afresh(person):
    """Each test starts with the video at time 0 and no joint chosen."""
    person.controls.handles.select(None)
    editor = person.controls.editor
    editor.work, editor.time = type(editor.work)(editor.work.duration), 0.0
    person.controls._edit(lambda: None)


def change(a, b):
    """Mean difference of two pictures over squares of 12 pixels: on a busy machine viser draws coarser, and that is no change."""
    return np.abs(cv2.blur(a - b, (12, 12))).mean()


def test_the_page_opens_on_the_whole_animal(person):
    animal = person.see()[:, :-24].min(axis=2) < 200  # the panel throws a shadow
    height, width = animal.shape
    rows, columns = np.flatnonzero(animal.any(1)), np.flatnonzero(animal[: int(0.85 * height)].any(0))
    assert animal.mean() > 0.02 and animal[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3].any()
    assert not animal[:8].any() and not animal[:, :8].any() and not animal[:, -8:].any()
    assert rows[-1] - rows[0] > 0.2 * height and columns[-1] - columns[0] > 0.2 * width


def test_the_time_slider_moves_the_animal_and_back(person):
    slider = "document.querySelector('.mantine-Slider-root').getBoundingClientRect()"
    x, y, width, height = person.browser.evaluate(f"(r => [r.x, r.y, r.width, r.height])({slider})")
    start = person.see()
    person.browser.click(x + 0.5 * width, y + height / 2)
    until(lambda: 0.3 < person.controls.editor.time < 0.7)
    until(lambda: abs(person.viewer.control_panel.time - person.controls.editor.time) < 1e-6)
    later = person.see()
    assert change(later, start) > 0.5
    person.browser.drag([(x + part * width, y + height / 2) for part in (0.5, 0.3, 0.1, -0.2)])
    until(lambda: person.controls.editor.time == 0)
    assert change(person.see(), start) < 0.3 * change(later, start)


def test_a_click_selects_a_joint_and_dragging_its_gizmo_turns_the_bone(person):
    controls = person.controls
    start = person.see()
    leaf = max(set(range(10)) - set(controls._model.skeleton.parents.tolist()))
    person.browser.click(*person.place(controls.handles._balls[leaf].position))
    until(lambda: controls.handles.selected == leaf)
    until(lambda: controls.panel.joint.value == controls._model.skeleton.names[leaf])
    time.sleep(1)  # the gizmo is being drawn
    before = controls.editor.pose_at(0.0).T_object_canonical
    person.browser.drag([person.arc(angle) for angle in (0.8, 0.7, 0.5, 0.2, -0.2, -0.5)])
    until(lambda: controls.editor.work.held is not None)
    turned = (controls.editor.pose_at(0.0).T_object_canonical - before).abs().amax((1, 2))
    assert turned[leaf] > 0.2 and turned.argmax() == leaf
    assert change(person.see(), start) > 0.05
    work = controls.editor.work
    person.browser.click_button("Reset joint")
    until(lambda: controls.editor.work is not work)
    person.browser.click_button("Undo")
    until(lambda: controls.editor.work is work)
    person.browser.click_button("Undo")
    until(lambda: controls.editor.work.held is None)


def test_keyframes_are_set_played_saved_and_exported(person):
    controls, browser = person.controls, person.browser
    editor = controls.editor
    browser.click_button("Add keyframe")
    until(lambda: len(editor.key_times) == 1)
    controls._edit(lambda: controls.seek(1.0))
    browser.click_button("Reset pose")
    until(lambda: editor.work.held is not None)
    browser.click_button("Add keyframe")
    until(lambda: controls.panel.keyframe.options == ("0.000 s", f"{editor.work.duration:.3f} s"))
    times = set()
    browser.click_button("Play")
    until(lambda: times.add(round(controls.editor.time, 2)) or len(times) > 5)
    assert controls.playback.playing
    browser.click_button("Pause")
    until(lambda: not controls.playback.playing)
    controls._edit(lambda: controls.seek(0.0))
    first = person.see()
    controls._edit(lambda: controls.seek(1.0))
    assert change(person.see(), first) > 0.2
    browser.click_button("Save track")
    until((controls.folder / "tracks" / "track.json").is_file)
    browser.click_button("Export")
    until(lambda: "Wrote" in controls.panel.message.content)
    path = controls.folder / "exports" / "animal.glb"
    assert path.read_bytes()[:4] == b"glTF" and b'"track"' in path.read_bytes()
    assert not controls.panel.progress.visible


def test_what_goes_wrong_is_said_on_the_page(person, monkeypatch):
    controls, browser = person.controls, person.browser
    for name, problem in (("nowhere.json", "No such file"), ("../up.json", "not the name of a file")):
        controls.panel.file.value = name
        browser.click_button("Load track")
        browser.wait_for(f"document.body.innerText.includes({problem!r})")
    start = person.see()
    monkeypatch.setattr(controls._model, "posed_gaussians", lambda pose: 1 / 0)
    controls._show_time()
    browser.wait_for("document.body.innerText.includes('cannot be rendered')")
    monkeypatch.undo()
    controls._show_time()
    browser.wait_for("!document.body.innerText.includes('cannot be rendered')")
    assert change(person.see(), start) < 2


def test_the_skeleton_can_be_hidden(person):
    start = person.see()
    person.controls.panel.skeleton.value = False
    person.controls._follow()
    hidden = person.see()
    assert 0.05 < change(hidden, start) < 20 and not person.controls.handles.visible
    person.controls.panel.skeleton.value = True
    person.controls._follow()
    assert change(person.see(), start) < 0.5 * change(hidden, start)
