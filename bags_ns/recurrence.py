"""Whether an animal does again what it did: frames of its video against its own renders of other times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from bags_ns.animal import AnimalModel
from bags_ns.metrics import on_white, straight_rgba

MAX_SIZE = 96
"""Longest side, in pixels, at which they are compared."""


class Recurrence:
    """A function of time: how much frames differ from the animal in the pose that it had so much earlier, or later.

    The root stays that of the frame, and so does the camera: neither matters to it. Where a reflection is given, the animal
    in that pose is mirrored in its canonical frame first.

    Args:
        model: in evaluation mode; it is asked again at each call.
        frames: some frames of its video as cameras (batches of one, with times) and straight RGBA pictures.
        knows: whether its pose at a time is known; at all times of the clip unless given.
    """

    def __init__(
        self,
        model: AnimalModel,
        frames: Iterable[tuple[Cameras, UInt8[Tensor, "H W 4"]]],
        knows: Callable[[float], bool] = lambda time: 0 <= time <= 1,
    ) -> None:
        self._model, self._knows = model, knows
        self._frames = [self._made_small(camera, image) for camera, image in frames]

    def _made_small(self, camera: Cameras, image: Tensor) -> tuple[Cameras, Tensor, Tensor]:
        """Camera, picture on white and silhouette, with at most `MAX_SIZE` pixels a side."""
        factor = min(1.0, MAX_SIZE / max(image.shape[:2]))
        camera.rescale_output_resolution(factor)
        size = int(camera.height.item()), int(camera.width.item())
        rgba = straight_rgba(image.to(self._model.device))
        wanted = torch.cat([on_white(rgba), rgba[..., 3:]], dim=-1)
        small = F.interpolate(wanted.permute(2, 0, 1)[None], size, mode="area")[0].permute(1, 2, 0)
        return camera, small[..., :3], small[..., 3:]

    @torch.no_grad()
    def __call__(self, shift: float, T_mirror: Float[Tensor, "4 4"] | None = None) -> float:
        """Mean absolute difference of colour and of coverage, per pixel of the animal; infinite where nothing can be compared."""
        model, white = self._model, torch.ones(3, device=self._model.device)
        differences = []
        for camera, rgb, alpha in self._frames:
            time = float(model.camera_time(camera))
            root = model.pose_at(time).T_world_object
            if T_mirror is not None:
                root = root @ T_mirror.to(root)
            for other in (time - shift, time + shift):
                if self._knows(other):
                    pose = replace(model.pose_at(other), T_world_object=root)
                    output = model.render_gaussians(model.posed_gaussians(pose), camera, white, with_depth=False)
                    difference = (output.rgb[0] - rgb).abs().mean() + (output.alpha[0] - alpha).abs().mean()
                    differences.append(difference / alpha.mean().clamp_min(1e-3))
        return float(torch.stack(differences).mean()) if differences else float("inf")
