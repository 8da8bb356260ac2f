"""What the viewer's pages show of the model: the editor's pose, in the animal's or its rig's colours."""

from __future__ import annotations

import threading
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.control_panel import ControlPanel
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException

from bags_ns.bone_colors import in_bone_colors, in_weight_colors
from bags_ns.model import BagsModel
from bags_ns.rig.motion import Pose
from bags_ns.viewer.editor import PoseEditor


class PageRenders:
    """A `page_renderer` for the model. It calls nothing of viser: nerfstudio may stop a render at any line, and viser's locks would stay shut.

    Beside splatfacto's outputs there are `bones` (colours of the skinning weights) and `weight` (of one joint).
    """

    def __init__(self, model: BagsModel, editor: PoseEditor, panel: ControlPanel) -> None:
        self._model, self._editor, self._panel = model, editor, panel
        self.joint = 0
        """Whose skinning weight is shown."""
        self.shown: Pose | None = None
        """Of the last render."""
        self.problem: str | None = None
        """Why the last render failed, if it did."""

    def warm_up(self) -> None:
        """Renders once: the first render imports and compiles its kernels, and an import must not be stopped halfway."""
        tiny = Cameras(torch.eye(4)[None, :3], 16.0, 16.0, 8.0, 8.0, 16, 16).to(self._model.device)
        was_training = self._model.training
        with torch.no_grad():
            self._model.eval().outputs_in_pose(tiny, self._editor.pose_at(0.0))
        self._model.train(was_training)

    def __call__(self, camera: Cameras) -> dict[str, Any] | None:
        """The outputs for a page; None if another thread asks, such as ns-train's evaluation, which is about the video.

        An exception would end the page's thread for good, so a failed render is a blank one and a `problem`.
        """
        if not isinstance(threading.current_thread(), RenderStateMachine):
            return None
        try:
            pose = self._editor.pose_at(float(self._model.camera_time(camera)))
            outputs = self._model.outputs_in_pose(camera, pose)
            outputs |= {name: self._in_rig_colors(name, camera, pose, outputs) for name in ("bones", "weight")}
        except IOChangeException:
            raise
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            return _blank(camera)
        self.shown, self.problem = pose, None
        return outputs

    def _in_rig_colors(self, name: str, camera: Cameras, pose: Pose, outputs: dict[str, Any]) -> torch.Tensor:
        """One of the two outputs; while nobody looks at it, a stand-in that costs nothing."""
        panel, model = self._panel, self._model
        if name != panel.output_render and not (panel.split and name == panel.split_output_render):
            return outputs["rgb"]
        gaussians = model.posed_gaussians(pose)
        if name == "bones":
            gaussians = in_bone_colors(model, gaussians)
        else:
            gaussians = in_weight_colors(model, gaussians, self.joint)
        background = outputs["background"][0, 0]
        return model.render_gaussians(model.cropped(gaussians), camera, background, with_depth=False).rgb[0].clamp(0, 1)


def _blank(camera: Cameras) -> dict[str, Any]:
    """White, and far away, under the names of a render's outputs."""
    white = torch.ones(int(camera.height.item()), int(camera.width.item()), 3)
    empty = white[..., :1] * 0
    colors = {name: white for name in ("rgb", "background", "bones", "weight")}
    return {**colors, "depth": empty + 1e3, "accumulation": empty}
