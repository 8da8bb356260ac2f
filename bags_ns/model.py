"""The model of `ns-train bags`: the animal in training, and its losses."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns import losses
from bags_ns.cameras import project_points
from bags_ns.data.datamanager import FrameBatch
from bags_ns.data.flow import FlowPair
from bags_ns.densification import DensifiedModelConfig
from bags_ns.gaussians import Gaussians
from bags_ns.rendering import RenderOutput
from bags_ns.rig.deformation import apply_transforms, blend_transforms, deform
from bags_ns.rig.motion import bone_transforms
from bags_ns.rig.replay import ReplayedLoss
from bags_ns.rigidity import DeformationRigidity
from bags_ns.tracking import TrackedModel


@dataclass
class BagsModelConfig(DensifiedModelConfig):
    """The animal and the weights of its losses."""

    _target: type = field(default_factory=lambda: BagsModel)
    l1_loss_mult: float = 1.0
    """Weight of the absolute colour error, per pixel of the animal."""
    ssim_loss_mult: float = 0.2
    """Weight of 1 - SSIM in the animal's box; 0 switches it off."""
    ssim_stride: int = 2
    """SSIM is measured at every n-th pixel in both directions: its map is smooth, and costs as much as the render."""
    coarse_loss_mult: float = 0.5
    """Weight of the absolute colour error after averaging over squares of `coarse_pixels`: it sees limbs that are off by more than their width."""
    coarse_pixels: int = 16
    """Edge of those squares, in pixels."""
    silhouette_loss_mult: float = 1.0
    """Weight of the squared error of the rendered coverage, per pixel of the animal."""
    reach_loss_mult: float = 30.0
    """Weight of the bones' distance, in the picture, to pixels of the animal that are left empty: it finds legs that were lost."""
    reach_samples: int = 2048
    """Gaussians, drawn at random each step, whose distance to such pixels is measured."""
    reach_pixels: int = 256
    """Empty pixels of each frame, drawn at random each step."""
    rigidity_loss_mult: float = 0.05
    """Weight of the rigidity of the deformation (squared distance of its Jacobian to a rotation)."""
    rigidity_samples: int = 2048
    """Gaussians, drawn at random each step, on which rigidity and bone placement are measured."""
    bone_placement_loss_mult: float = 0.1
    """Weight of the chamfer distance between bones and Gaussians, which keeps bones inside the animal."""
    smoothness_loss_mult: float = 1.0
    """Weight of the bones' and the root's squared acceleration from frame to frame."""
    root_loss_mult: float = 30.0
    """Weight of the root's squared rotation (radians) and translation where cameras are known: else it sways and its shape stays flat."""
    root_loss_scale: float = 0.1
    """Root motion beyond this costs hardly more: the animal really walks or turns."""
    root_smoothness_loss_mult: float = 30.0
    """Further weight of the root's squared acceleration where cameras are unknown: its table would take part in every step of the gait."""
    least_motion_loss_mult: float = 3.0
    """Weight of the bones' squared translations: along the viewing ray nothing else holds them."""
    pose_dropout: float = 0.5
    """Part of the frames that have no poses of their own in a step, but what lies between their neighbours', once everything is trained: against poses that make up for errors of the shape."""
    gait_loss_mult: float = 400.0
    """Weight of the squared change of the bones' twists over a period of the gait, where their motion repeats; 0: not looked for."""
    gait_samples: int = 8
    """Times, drawn at random each step, at which poses a period apart are compared."""
    mirror_loss_mult: float = 1.0
    """Weight of a frame's colour and silhouette errors for the mirrored animal of half a period before or after; 0: no mirror is looked for."""
    flow_loss_mult: float = 0.0
    """Weight of the difference between the Gaussians' motion in the picture and its optical flow, in picture sides; 0: no flow."""
    color_spread_loss_mult: float = 0.02
    """Weight of the squared distance of Gaussians' colours to their neighbours': what no frame shows takes the colours beside it."""
    color_samples: int = 256
    """Gaussians, drawn at random each step, whose neighbours are looked for."""
    aspect_loss_mult: float = 0.1
    """Weight of the excess of Gaussians' longest to middle axis over `max_gauss_ratio`."""
    max_gauss_ratio: float = 4.0
    """Longest to middle axis of a Gaussian that is free of cost."""


class FrameRenders(NamedTuple):
    """Renders of K frames of the video."""

    rgb: Float[Tensor, "K H W 3"]
    alpha: Float[Tensor, "K H W 1"]
    backgrounds: Float[Tensor, "K 3"]


class BagsModel(TrackedModel):
    """An animal in training."""

    config: BagsModelConfig

    def populate_modules(self) -> None:
        """Builds the animal; no step has been taken yet."""
        super().populate_modules()
        self.posed_frames: dict[int, Gaussians] = {}
        self.rigidity = ReplayedLoss(DeformationRigidity(self.skinning, self.bones))

    def step_post_backward(self, step: int) -> None:
        """After each step: what the base does, and the step's poses are forgotten."""
        self.posed_frames = {}
        super().step_post_backward(step)

    # --- losses ------------------------------------------------------------------------------------------------------

    def training_losses(self, frames: FrameBatch) -> dict[str, Tensor]:
        """Weighted losses of K frames of the video and of the rig, which is moved once for all of them.

        Densification sees the screen gradients of all of them.
        """
        drops = self.config.pose_dropout > 0 and self.bone_motion.canonical_learns
        with self.poses_dropped(self.config.pose_dropout) if drops else nullcontext():
            return self._losses_of_poses(frames)

    def _losses_of_poses(self, frames: FrameBatch) -> dict[str, Tensor]:
        """The same, with the poses that the motion has just now."""
        around = frames.times[:, None] + self.bone_motion.mean_spacing * torch.arange(-1, 2, device=self.device)
        root_change = self.root_motion.change(around.flatten()).unflatten(0, (-1, 3))
        roots = self.root_motion(frames.times)
        target = self.ground_truth(frames.images)
        if self.field is not None:
            renders = self._render_frames(frames, *self.moved_by_field(frames.times, roots))
            return self._weighted(self._frame_losses(frames, target, renders) | self._root_losses(root_change))
        twists = self.bone_motion(around.flatten()).unflatten(0, (-1, 3))
        transforms, weights = bone_transforms(twists[:, 1], self.bones.centers), self.skin_weights()
        T_world_canonical = roots[:, None] @ transforms
        renders = self._render_frames(
            frames, *deform(self.means, self.covariance_factors(), weights, T_world_canonical)
        )
        terms = self._frame_losses(frames, target, renders)
        if self.bones_placed:
            terms |= self._rig_losses(transforms[0])
            if self.config.reach_loss_mult:
                terms["reach"] = self._reach_loss(frames, target, renders.alpha, weights, T_world_canonical)
            terms |= self._bone_motion_losses(twists, self._root_losses(root_change))
        if self.mirror.shift is not None:
            terms |= self._mirror_losses(frames, roots, weights)
        return self._weighted(terms)

    def _frame_losses(
        self, frames: FrameBatch, target: Float[Tensor, "K H W 4"], renders: FrameRenders
    ) -> dict[str, Tensor]:
        """Losses of the renders of K frames and of the Gaussians' shape."""
        terms = self._image_losses(renders.rgb, renders.alpha, target, renders.backgrounds, frames.box)
        terms["aspect"] = losses.aspect(self.scales, self.config.max_gauss_ratio)
        if self.config.color_spread_loss_mult and self.num_points > losses.COLOR_NEIGHBORS:
            sample = torch.randint(self.num_points, (self.config.color_samples,), device=self.device)
            terms["color_spread"] = losses.color_spread(self.means, self.colors, self.canonical_opacities(), sample)
        return terms

    def flow_losses(self, pair: FlowPair) -> dict[str, Tensor]:
        """The weighted difference of two frames' optical flow to the rendered motion of the Gaussians between them.

        It moves Gaussians only: how much each of them counts in a pixel is held fixed.
        """
        posed = [self.gaussians_at(time) for time in pair.times]
        means, covars = (torch.stack([getattr(each, name) for each in posed]) for name in ("means", "covars"))
        places = project_points(means, pair.viewmats, pair.Ks)
        motion = torch.nn.functional.pad(places[1] - places[0], (0, 1))  # as colours, the third is not used
        moving = Gaussians(means[0].detach(), covars[0].detach(), self.canonical_opacities().detach(), motion)
        height, width = pair.flow.shape[:2]
        output = self.render(moving, pair.viewmats[:1], pair.Ks[:1], width, height)
        alpha = output.alpha[0].detach()
        return self._weighted({"flow": losses.flow(output.rgb[0, ..., :2] / alpha.clamp_min(0.5), alpha, pair.flow)})

    def _weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The one place where a weight meets a loss of the model."""
        return {name: getattr(self.config, f"{name}_loss_mult") * value for name, value in terms.items()}

    def _render_frames(
        self, frames: FrameBatch, means: Float[Tensor, "K N 3"], covars: Float[Tensor, "K N 3 3"]
    ) -> FrameRenders:
        """Each frame's own Gaussians through its own camera, on a background of its own."""
        opacities, colors = self.canonical_opacities(), self.colors
        backgrounds = torch.stack([self._get_background_color() for _ in frames.indices])
        posed = [Gaussians(means[k], covars[k], opacities, colors) for k in range(len(frames.indices))]
        self.posed_frames = dict(zip(frames.indices, posed, strict=True))
        renders = [self._render_frame(frames, k, posed[k], backgrounds[k]) for k in range(len(posed))]
        return FrameRenders(torch.cat([r.rgb for r in renders]), torch.cat([r.alpha for r in renders]), backgrounds)

    def _render_frame(
        self, frames: FrameBatch, k: int, gaussians: Gaussians, background: Float[Tensor, "3"]
    ) -> RenderOutput:
        """Gaussians through the camera of one of the frames, with screen gradients for densification."""
        height, width = frames.images.shape[1:3]
        view = slice(k, k + 1)
        output = self.render(gaussians, frames.viewmats[view], frames.Ks[view], width, height, background=background)
        self.watch_gradients(output)
        return output

    def _reach_loss(
        self,
        frames: FrameBatch,
        target: Float[Tensor, "K H W 4"],
        alpha: Float[Tensor, "K H W 1"],
        weights: Float[Tensor, "N B"],
        T_world_canonical: Float[Tensor, "K B 4 4"],
    ) -> Float[Tensor, ""]:
        """How far the poses are from covering the animal; it moves bones and root only."""
        sample = torch.multinomial(self.canonical_opacities().detach(), self.config.reach_samples, replacement=True)
        blended = blend_transforms(weights.detach()[sample], T_world_canonical)
        points = project_points(apply_transforms(blended, self.means.detach()[sample]), frames.viewmats, frames.Ks)
        return losses.reach(points, alpha, target[..., 3:], self.config.reach_pixels)

    def _mirror_losses(
        self, frames: FrameBatch, roots: Float[Tensor, "K 4 4"], weights: Float[Tensor, "N B"]
    ) -> dict[str, Tensor]:
        """Colour and silhouette errors of one of the frames for the mirrored animal of half a period before or after."""
        k = int(torch.randint(len(frames.indices), ()))
        twists = self.bone_motion(self.mirror.times_like(frames.times[k : k + 1]))[0]
        # Where it then is stays the frame's own business.
        T_world_canonical = roots[k].detach() @ self.mirror() @ bone_transforms(twists, self.bones.centers)
        placed = deform(self.means, self.covariance_factors(), weights, T_world_canonical)
        background = self._get_background_color()
        gaussians = Gaussians(*placed, self.canonical_opacities(), self.colors)
        output = self._render_frame(frames, k, gaussians, background)
        target = self.ground_truth(frames.images[k : k + 1])
        terms = self._image_losses(output.rgb, output.alpha, target, background[None], ssim_box=None)
        return {"mirror": torch.stack([*self._weighted(terms).values()]).sum()}

    def _image_losses(
        self,
        rgb: Float[Tensor, "K H W 3"],
        alpha: Float[Tensor, "K H W 1"],
        target: Float[Tensor, "K H W 4"],
        backgrounds: Float[Tensor, "K 3"],
        ssim_box: tuple[slice, slice] | None,
    ) -> dict[str, Tensor]:
        """Losses of K renders on their backgrounds against straight RGBA frames; SSIM in a box, where there is one."""
        wanted = torch.lerp(backgrounds[:, None, None], target[..., :3], target[..., 3:])
        terms = losses.per_animal_pixel(rgb - wanted, alpha, target[..., 3:], self.config.coarse_pixels)
        if self.config.ssim_loss_mult and ssim_box is not None:
            inside = (slice(None), *ssim_box)
            terms["ssim"] = 1 - losses.ssim(rgb[inside], wanted[inside], self.config.ssim_stride)
        return terms

    def _rig_losses(self, T_object_canonical: Float[Tensor, "B 4 4"]) -> dict[str, Tensor]:
        sample = torch.randint(self.num_points, (self.config.rigidity_samples,), device=self.device)
        points = self.means.index_select(0, sample)
        return {
            "rigidity": self.rigidity(points, T_object_canonical),
            "bone_placement": losses.bone_placement(self.bones.centers, points.detach()),
        }

    def _bone_motion_losses(self, twists: Float[Tensor, "K 3 B 6"], of_root: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of the bones' motion before, at and after K times, with those of the root."""
        smoothness = losses.smoothness(twists.transpose(0, 1)) + of_root["smoothness"]
        terms = of_root | {"smoothness": smoothness, "least_motion": twists[:, 1, :, 3:].square().sum(-1).mean()}
        if self.gait_period is not None:
            change = self.bone_motion.change_over(self.gait_period, self.config.gait_samples, self.span_entered)
            terms["gait"] = change.square().sum(-1).mean()
        return terms

    def _root_losses(self, root_change: Float[Tensor, "K 3 6"]) -> dict[str, Tensor]:
        """Losses of the root's motion before, at and after K times."""
        smoothness = losses.smoothness(root_change.transpose(0, 1))
        terms = {"smoothness": smoothness}
        if self.cameras_known:
            squares = root_change[:, 1].unflatten(-1, (2, 3)).square().sum(-1)
            terms["root"] = losses.saturating(squares, self.config.root_loss_scale)
        else:
            terms["root_smoothness"] = smoothness
        return terms

    # --- nerfstudio's evaluation -------------------------------------------------------------------------------------

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """Weighted image losses of one frame, for nerfstudio's evaluation; training goes through `training_losses`."""
        target = self.ground_truth(batch["image"])[None]
        background = outputs["background"].reshape(-1, 3)[:1]
        box = (slice(None), slice(None))
        terms = self._image_losses(outputs["rgb"][None], outputs["accumulation"][None], target, background, box)
        return self._weighted(terms)
