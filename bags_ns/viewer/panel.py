"""The widgets that the project adds to the viewer's page, above nerfstudio's own. What they do is in `controls`."""

from __future__ import annotations

from collections.abc import Sequence

from viser import GuiApi, Icon

from bags_ns.viewer.editor import SAME_KEYFRAME
from bags_ns.viewer.exports import EXPORTS

NO_KEYFRAME: str = "none yet"
PLAY, PAUSE = "Play", "Pause"


class Panel:
    """All widgets of one viewer, as handles of viser.

    Args:
        gui: of the viser server.
        joint_names: of the skeleton.
        duration: in seconds.
    """

    def __init__(self, gui: GuiApi, joint_names: Sequence[str], duration: float) -> None:
        with gui.add_folder("Animal", order=-1.0):
            self.message = gui.add_markdown("")
            self.time = gui.add_slider("Time ", 0.0, 1.0, step=0.001, initial_value=0.0, hint="Start to end")
            self.seconds = gui.add_markdown(_seconds(0.0, duration))
            self.play = gui.add_button(PLAY, icon=Icon.PLAYER_PLAY)
            self.pause = gui.add_button(PAUSE, icon=Icon.PLAYER_PAUSE, visible=False)
            self.speed = gui.add_slider("Speed", 0.1, 4.0, step=0.1, initial_value=1.0, hint="1 is as filmed")
            self.loop = gui.add_checkbox("Loop", True)
            self.video_share = gui.add_slider(
                "Video motion", 0.0, 1.0, step=0.01, initial_value=1.0, hint="0 is your pose, 1 the video's motion"
            )
        with gui.add_folder("Pose", order=-0.9):
            self.skeleton = gui.add_checkbox("Skeleton and handles", True, hint="Click a joint to get a handle on it")
            self.joint = gui.add_dropdown("Joint", tuple(joint_names))
            self.reset_joint = gui.add_button("Reset joint", color="gray", icon=Icon.ROTATE)
            self.reset = gui.add_button(
                "Reset pose", color="gray", icon=Icon.REFRESH, hint="All joints as in the canonical pose"
            )
            self.mirror = gui.add_button("Mirror left-right", color="gray", icon=Icon.FLIP_VERTICAL)
            self.undo = gui.add_button("Undo", color="gray", icon=Icon.ARROW_BACK_UP)
        with gui.add_folder("Keyframes", order=-0.8):
            self.keyframe = gui.add_dropdown("Keyframe", (NO_KEYFRAME,), hint="Choose one to go there")
            self.add = gui.add_button("Add keyframe", icon=Icon.PLUS, hint="Keeps what is shown, at this time")
            self.move = gui.add_button("Move keyframe here", color="gray", icon=Icon.ARROWS_HORIZONTAL)
            self.delete = gui.add_button("Delete keyframe", color="gray", icon=Icon.TRASH)
            self.interpolation = gui.add_dropdown("In between", ("slerp", "cubic"), hint="cubic has no jumps in speed")
            self.duration = gui.add_number("Duration (s)", duration, min=0.01, step=0.1)
            self.file = gui.add_text("Track file", "track.json", hint="In tracks/ of the run's folder")
            self.save = gui.add_button("Save track", color="gray", icon=Icon.DEVICE_FLOPPY)
            self.load = gui.add_button("Load track", color="gray", icon=Icon.FOLDER_OPEN)
        with gui.add_folder("Take along", order=-0.7):
            self.format = gui.add_dropdown("What", tuple(EXPORTS))
            self.export = gui.add_button("Export", icon=Icon.DOWNLOAD)
            self.progress = gui.add_progress_bar(0.0, visible=False)

    def show_time(self, time: float, duration: float) -> None:
        """The present time in [0, 1], and in seconds."""
        self.time.value = time
        self.seconds.content = _seconds(time, duration)

    def show_playing(self, playing: bool) -> None:
        """Play or Pause, whichever can be done."""
        self.play.visible, self.pause.visible = not playing, playing

    def show_keyframes(self, seconds: Sequence[float], now: float) -> None:
        """The keyframes' times; the one at `now` is chosen, if there is one."""
        options = tuple(f"{time:.3f} s" for time in seconds) or (NO_KEYFRAME,)
        if self.keyframe.options != options:
            self.keyframe.options = options
        here = [option for option, time in zip(options, seconds, strict=False) if abs(time - now) < SAME_KEYFRAME]
        if here and self.keyframe.value != here[0]:
            self.keyframe.value = here[0]

    @property
    def chosen_keyframe(self) -> int:
        """Index of the chosen keyframe."""
        return self.keyframe.options.index(self.keyframe.value)


def _seconds(time: float, duration: float) -> str:
    return f"{time * duration:.2f} s of {duration:.2f} s"
