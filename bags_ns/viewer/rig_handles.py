"""The skeleton in the page's scene: lines between joints, a ball on each joint to click, a gizmo on the chosen one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
from torch import Tensor
from viser import SceneApi, TransformControlsHandle

from bags_ns.bone_colors import bone_colors
from bags_ns.rig.motion import Pose
from bags_ns.rig.skeleton import Skeleton
from bags_ns.rig.transforms import quat_from_rotation, quat_to_rotation

BALL_RADIUS, GIZMO_SIZE = 0.012, 0.2
"""In animal lengths."""
LINE_COLOR = (40, 40, 40)
DRAG_ENDS_AFTER = 0.5
"""Seconds without news of a dragged gizmo after which its drag is over and it follows the pose again. Before, the pose lags behind it."""


def tree_tour(parents: Int[Tensor, " B"]) -> list[int]:
    """A way along the whole tree, each edge there and back: b stands for bone b's joint, B + b for the centre of a leaf."""
    children: dict[int, list[int]] = {}
    for bone, parent in enumerate(parents.tolist()):
        children.setdefault(parent, []).append(bone)

    def walk(bone: int) -> Iterator[int]:
        yield bone
        for child in children.get(bone, []):
            yield from walk(child)
            yield bone
        if bone not in children:
            yield from (len(parents) + bone, bone)

    return [point for root in children.get(-1, []) for point in walk(root)]


class RigHandles:
    """Draws the skeleton in the pose that is shown, and says what a person does to it.

    Args:
        scene: of the viser server.
        num_bones: bones of the rig.
        on_select: called with the joint that was clicked.
        on_turn: called with a joint, the world rotation that its bone is to have and the number of the drag.
        on_move: called with a shift of the whole animal, in world units, and the number of the drag.
    """

    def __init__(
        self,
        scene: SceneApi,
        num_bones: int,
        *,
        on_select: Callable[[int], None],
        on_turn: Callable[[int, Float[Tensor, "3 3"], int], None],
        on_move: Callable[[Float[Tensor, "3"], int], None],
    ) -> None:
        self._scene, self._on_turn, self._on_move = scene, on_turn, on_move
        self._root = scene.add_frame("/skeleton", show_axes=False)
        self.selected: int | None = None
        self._gizmo: TransformControlsHandle | None = None
        self._gizmo_at = torch.zeros(3)
        self._dragged, self._drags = 0.0, 0
        colors = (255 * bone_colors(num_bones)).byte().tolist()
        radius = BALL_RADIUS * VISER_NERFSTUDIO_SCALE_RATIO
        self._balls = [
            scene.add_icosphere(f"/skeleton/joint_{bone:02d}", radius, color, subdivisions=2)
            for bone, color in enumerate(colors)
        ]
        for bone, ball in enumerate(self._balls):
            ball.on_click(lambda _, bone=bone: on_select(bone))

    @property
    def visible(self) -> bool:
        """Whether any of it is drawn."""
        return self._root.visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        self._root.visible = visible
        if not visible:
            self.select(None)  # a gizmo that is not seen must not be dragged

    def select(self, joint: int | None, is_root: bool = False) -> None:
        """Puts the gizmo onto a joint: turns only, and for the root moves too."""
        if self._gizmo is not None:
            self._gizmo.remove()
            self._gizmo = None
        self.selected, self._dragged = joint, 0.0
        if joint is None:
            return
        size = GIZMO_SIZE * VISER_NERFSTUDIO_SCALE_RATIO
        self._gizmo = self._scene.add_transform_controls(
            "/skeleton/gizmo", scale=size, disable_axes=not is_root, disable_sliders=not is_root, depth_test=False
        )
        self._gizmo.on_update(self._drag)

    def _drag(self, gizmo: TransformControlsHandle) -> None:
        if self.selected is None:
            return
        if not self._in_drag:
            self._drags += 1
        self._dragged = time.monotonic()
        at = torch.from_numpy(np.asarray(gizmo.position)).float() / VISER_NERFSTUDIO_SCALE_RATIO
        shift, self._gizmo_at = at - self._gizmo_at, at
        if float(shift.norm()) > 1e-5:
            self._on_move(shift, self._drags)
        else:
            rotation = quat_to_rotation(torch.from_numpy(np.asarray(gizmo.wxyz)).float())
            self._on_turn(self.selected, rotation, self._drags)

    @property
    def _in_drag(self) -> bool:
        return time.monotonic() - self._dragged <= DRAG_ENDS_AFTER

    def follow(self, pose: Pose, skeleton: Skeleton, centers: Float[Tensor, "B 3"]) -> None:
        """Moves everything to where `pose` has it."""
        T = pose.T_world_canonical
        points = torch.stack([skeleton.joints, centers])
        moved = (T[:, :3, :3] @ points[..., None])[..., 0] + T[:, :3, 3]
        places = VISER_NERFSTUDIO_SCALE_RATIO * moved.detach().flatten(0, 1).cpu().numpy()
        for ball, place in zip(self._balls, places, strict=False):
            ball.position = place
        tour = places[tree_tour(skeleton.parents)]
        self._scene.add_spline_catmull_rom(
            "/skeleton/lines", tour, "catmullrom", tension=0.0, line_width=2.0, color=LINE_COLOR, segments=len(tour) - 1
        )
        gizmo, joint = self._gizmo, self.selected  # a click may replace them meanwhile
        if gizmo is not None and joint is not None and not self._in_drag:
            self._gizmo_at = moved[0, joint].detach().cpu()
            gizmo.position = places[joint]
            gizmo.wxyz = quat_from_rotation(T[joint, :3, :3]).detach().cpu().numpy()
