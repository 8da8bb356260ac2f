"""Joins nerfstudio's viewer, the panel, the handles in the scene and the editor."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor
from viser import ClientHandle

from bags_ns.animal import OPAQUE
from bags_ns.animation.joint_rotations import SampledMotion
from bags_ns.animation.mirroring import fit_plane
from bags_ns.model import BagsModel
from bags_ns.progress import say
from bags_ns.rig.motion import Pose
from bags_ns.rigged import body_of, clip_duration, clip_fps, joint_motion
from bags_ns.viewer.editor import PoseEditor
from bags_ns.viewer.exports import export
from bags_ns.viewer.first_view import whole_view
from bags_ns.viewer.page_renders import PageRenders
from bags_ns.viewer.panel import NO_KEYFRAME, Panel
from bags_ns.viewer.playback import Playback
from bags_ns.viewer.rig_handles import RigHandles

IN_TRAINING = (
    "Training goes on and may change the skeleton, which ends what a track fits: make lasting ones afterwards."
)
TICK = 1 / 30
"""Seconds between two looks at the clock and at what the last render has shown."""


class AnimalControls(ViewerControl):
    """The animal's part of the viewer; nerfstudio finds it on the pipeline and sets it up.

    viser calls back from threads of its own. What they share is the editor's work, which is replaced as a whole, and
    the model, which is read under the viewer's `train_lock` where a read takes long.

    Args:
        model: the animal.
        camera_to_world: OpenGL pose of the video's first camera, from whose side a page first looks.
    """

    def __init__(self, model: BagsModel, camera_to_world: Float[Tensor, "3 4"]) -> None:
        self._model, self._direction = model, camera_to_world[:, 2].cpu()

        @torch.no_grad()
        def video(time: float) -> Pose:
            return model.pose_at(time)

        def fit(pose: Pose) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "4 4"]]:
            motion = SampledMotion(torch.zeros(1), pose.T_object_canonical[None], pose.T_world_object[None])
            rotations, roots = joint_motion(model, motion)
            return rotations[0], roots[0]

        self.editor = PoseEditor(model.skeleton, video, fit, clip_duration(model), clip_fps(model))
        self.playback = Playback()
        self._editing = threading.Lock()
        self._followed: Pose | None = None
        self._reported: str | None = None

    def _setup(self, viewer: Viewer) -> None:
        """Called by nerfstudio when the viewer has been built."""
        super()._setup(viewer)
        viewer.control_panel._layer_depth.value = False  # else the body hides the handles inside it
        self.folder = viewer.log_filename.parent
        self.renders = self._model.page_renderer = PageRenders(self._model, self.editor, viewer.control_panel)
        self.renders.warm_up()
        self.panel = Panel(self.viser_server.gui, self._model.skeleton.names, self.editor.work.duration)
        self.handles = RigHandles(
            self.viser_server.scene,
            len(self._model.bones),
            on_select=self.select,
            on_turn=lambda joint, rotation, drag: self._edit(lambda: self.editor.turn(joint, rotation, drag)),
            on_move=lambda shift, drag: self._edit(lambda: self.editor.move(shift, drag)),
        )
        self._connect()
        self.viser_server.on_client_connect(self._place_camera)
        threading.Thread(target=self._run, daemon=True, name="animal-controls").start()

    # --- from the page -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Gives every widget what it does."""
        panel, editor = self.panel, self.editor
        self._on(panel.time, self.seek)
        time_of_nerfstudio = self.viewer.control_panel._time.gui_handle
        self._on(time_of_nerfstudio, self.seek)
        self._on(panel.play, lambda _: self.play(True))
        self._on(panel.pause, lambda _: self.play(False))
        self._on(panel.speed, lambda speed: setattr(self.playback, "speed", speed))
        self._on(panel.loop, lambda loop: setattr(self.playback, "loop", loop))
        self._on(panel.video_share, editor.set_video_share)
        self._on(panel.skeleton, lambda visible: setattr(self.handles, "visible", visible))
        self._on(panel.joint, lambda name: self.select(self._model.skeleton.names.index(name)))
        self._on(panel.reset_joint, lambda _: editor.reset(self.renders.joint))
        self._on(panel.reset, lambda _: editor.reset())
        self._on(panel.mirror, lambda _: self.mirror())
        self._on(panel.undo, lambda _: editor.undo())
        self._on(panel.keyframe, lambda _: self._go_to_keyframe())
        self._on(panel.add, lambda _: self._add_keyframe())
        self._on(panel.move, lambda _: editor.move_keyframe(panel.chosen_keyframe))
        self._on(panel.delete, lambda _: editor.delete_keyframe(panel.chosen_keyframe))
        self._on(panel.interpolation, editor.set_interpolation)
        self._on(panel.duration, editor.set_duration)
        self._on(panel.save, lambda _: self._save())
        self._on(panel.load, lambda _: editor.load(self._track_file()))
        self._on(panel.export, lambda _: self.export(panel.format.value), edits=False)

    def _on(self, widget: Any, action: Callable[[Any], None], *, edits: bool = True) -> None:
        """Calls `action` with the widget's value when a person, and not this program, changes it."""
        do = self._edit if edits else self._try

        def react(event: Any) -> None:
            if event.client_id is not None:
                do(lambda: action(widget.value))

        (widget.on_click if hasattr(widget, "on_click") else widget.on_update)(react)

    def _try(self, action: Callable[[], None]) -> None:
        """Does something for a person, and shows what goes wrong with it."""
        try:
            self._say("")
            action()
        except (ValueError, OSError, ImportError) as error:
            self._say(f"**{error}**")

    def _edit(self, action: Callable[[], None]) -> None:
        """Does one edit after the other, and shows what has changed."""
        with self._editing:
            self._try(action)
            work = self.editor.work
            self.panel.video_share.value = work.video_share
            self.panel.interpolation.value = work.interpolation
            self.panel.duration.value = work.duration
            self.panel.show_keyframes(self.editor.key_times, self.editor.seconds)
            self._show_time()

    def _say(self, message: str) -> None:
        if self.panel.message.content != message:
            self.panel.message.content = message

    def _show_time(self) -> None:
        """Shows the editor's time, in the panel and in the picture."""
        self.panel.show_time(self.editor.time, self.editor.work.duration)
        self.viewer.control_panel.time = self.editor.time
        with contextlib.suppress(KeyError):  # nerfstudio's table of pages, when one is just being closed
            self.viewer._trigger_rerender()

    def seek(self, time: float) -> None:
        """Goes to a time in [0, 1]."""
        self.editor.time = float(time)

    def play(self, playing: bool) -> None:
        """Starts or stops the clock."""
        self.playback.playing = playing
        if playing:
            self.editor.time = self.playback.start(self.editor.time)
        self.panel.show_playing(playing)

    def select(self, joint: int) -> None:
        """Puts the gizmo onto a joint."""
        self.handles.select(joint, is_root=int(self._model.skeleton.parents[joint]) < 0)
        self.renders.joint = joint
        self.panel.joint.value = self._model.skeleton.names[joint]
        self._follow()

    def mirror(self) -> None:
        """Exchanges left and right of what is shown, across the plane in which the animal is most alike."""
        with self._reading():
            body = body_of(self._model)
            plane = fit_plane(body.points)
        self.editor.mirror(body.centers, plane)

    def _add_keyframe(self) -> None:
        self.editor.add_keyframe()
        self._say(" ".join(self._warnings()))

    def _warnings(self) -> list[str]:
        """What a person who makes a track is to know."""
        trainer = self.viewer.trainer
        return [] if trainer is None or trainer.training_state == "completed" else [IN_TRAINING]

    def _go_to_keyframe(self) -> None:
        if self.panel.keyframe.value != NO_KEYFRAME:
            seconds = self.editor.key_times[self.panel.chosen_keyframe]
            self.editor.time = seconds / self.editor.work.duration

    def _track_file(self) -> Path:
        """In the run's folder for tracks, whatever is typed: a page may be open to a network."""
        name, folder = self.panel.file.value.strip(), self.folder / "tracks"
        if not name or Path(name).name != name:
            raise ValueError(f"'{name}' is not the name of a file in {folder}")
        return folder / name

    def _save(self) -> None:
        self.editor.save(self._track_file())
        self._say(" ".join([f"Saved {self._track_file()}", *self._warnings()]))

    def export(self, name: str) -> None:
        """Writes one of the exports into the run's folder, with a bar that moves where the work can be counted."""
        progress = self.panel.progress
        progress.value, progress.animated, progress.visible = 100.0, True, True

        def share(done: float) -> None:
            progress.animated, progress.value = False, 100 * done

        try:
            with self._reading():
                path = export(name, self._model, self.editor, self.folder / "exports", share)
        finally:
            progress.visible = False
        self._say(f"Wrote {path}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """While the model is read it must not be trained."""
        with self.viewer.train_lock or contextlib.nullcontext():
            yield

    # --- to the page -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _place_camera(self, client: ClientHandle) -> None:
        with self._reading():
            gaussians = self._model.posed_gaussians(self.editor.pose_at(self.editor.time))
            means = gaussians.means[gaussians.opacities > OPAQUE]
        points = means.cpu() if len(means) else torch.zeros(1, 3)
        position, middle = whole_view(points, self._direction, client.camera.fov, client.camera.aspect)
        client.camera.up_direction = (0.0, 0.0, 1.0)
        client.camera.position = VISER_NERFSTUDIO_SCALE_RATIO * np.asarray(position)
        client.camera.look_at = VISER_NERFSTUDIO_SCALE_RATIO * np.asarray(middle)

    def _run(self) -> None:
        """Moves time on while it plays, and keeps the scene and the messages with what the renders show."""
        before = time.monotonic()
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            try:
                self._tick(now - before)
            except Exception as error:  # the clock must outlive a failed step of it
                self._say(f"**{type(error).__name__}: {error}**")
            before = now

    def _tick(self, elapsed: float) -> None:
        if self.playback.playing:
            self.editor.time = self.playback.advance(self.editor.time, elapsed, self.editor.work.duration)
            if not self.playback.playing:
                self.panel.show_playing(False)
            self._show_time()
        if self.renders.problem != self._reported:
            self._reported = self.renders.problem
            self._say(f"**This pose cannot be rendered.** {self._reported}" if self._reported else "")
            if self._reported:
                say(f"viewer: {self._reported}")
        if self.renders.shown is not self._followed:
            self._follow()

    def _follow(self) -> None:
        """Puts the handles onto the joints of what the last render has shown."""
        shown = self._followed = self.renders.shown
        self.handles.visible = self.panel.skeleton.value and self._model.bones_placed
        if shown is not None and self.handles.visible:
            self.handles.follow(shown, self._model.skeleton, self._model.bones.centers)
