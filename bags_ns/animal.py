"""The animal: splatfacto's Gaussians in a canonical frame, moved by bones and a root, rendered in any pose.

It subclasses nerfstudio's splatfacto so that viewer and exporter keep working: the inherited properties (means, scales,
quats, ...) stay canonical, posing is an explicit call. How it is trained stands in `model.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.models.splatfacto import SplatfactoModel
from torch import Tensor, nn
from torch.nn import Parameter

from bags_ns.cameras import viewmats_from_camera_to_worlds
from bags_ns.gaussians import Gaussians
from bags_ns.metrics import image_metrics, psnr, straight_rgba
from bags_ns.rendering import RenderOutput, render
from bags_ns.rig.bones import Bones
from bags_ns.rig.deformation import deform
from bags_ns.rig.field import DeformationField
from bags_ns.rig.motion import BoneMotion, FixedMotion, Pose, RootMotion, bone_transforms
from bags_ns.rig.replay import Replay
from bags_ns.rig.skeleton import Skeleton
from bags_ns.rig.skinning import SkinningField
from bags_ns.rig.transforms import quat_to_rotation
from bags_ns.splatfacto import TrimmedSplatfactoConfig, without_lpips

Kept = TypeVar("Kept")

OPAQUE = 0.3
"""Gaussians above this opacity count as part of the animal where bones are placed."""


@dataclass
class AnimalModelConfig(TrimmedSplatfactoConfig):
    """Size of the rig, and splatfacto's own fields with values that fit an animal of length 1 and every device."""

    _target: type = field(default_factory=lambda: AnimalModel)
    motion: Literal["bones", "field"] = "bones"
    """What moves the Gaussians: bones, or a deformation field for each of them (Deformable-3DGS), which cannot be posed."""
    field_hidden: int = 256
    """Hidden units of each layer of the deformation field."""
    field_layers: int = 8
    """Layers of the deformation field."""
    num_bones: int = 48
    """Number of bones (the paper uses 50)."""
    skinning_hidden: int = 32
    """Hidden units of the residual skinning network."""
    motion_frequencies: int = 24
    """Fourier frequencies of the time code of the bones' motion; the highest has half as many periods a clip."""
    motion_hidden: int = 128
    """Hidden units of the bones' motion network."""
    start_opacity: float = 0.04
    """Opacity of the Gaussians at the start: where the first frames see through them, limbs find their place sooner."""
    num_random: int = 5000
    """About how many Gaussians to start with, drawn from the data's seed points (or at random where there are none)."""
    random_scale: float = 1.0
    """Edge of the cube of random Gaussians."""
    eps2d: float = 0.1
    """Added to the Gaussians' variances in a picture, in pixels squared: gsplat's own .3 blurs the outlines of thin legs."""
    background_color: Literal["random", "black", "white"] = "random"
    """Background in training; random colours make coverage and colour separable. Outside training it is white."""
    sh_degree: int = 0
    """Only 0: spherical harmonics do not turn with a bone, so colours are logits."""
    use_bilateral_grid: bool = False
    """Only False: the colours of frames are not corrected."""


def kept_between_renders(method: Callable[[AnimalModel], Kept]) -> Callable[[AnimalModel], Kept]:
    """Computes what follows from the parameters only once outside of training, as long as no gradients are asked for."""

    @functools.wraps(method)
    def value(self: AnimalModel) -> Kept:
        if self.training or torch.is_grad_enabled():
            return method(self)
        gaussians = (self.means.data_ptr(), len(self.means))  # others may have taken their place
        known = self._kept.get(method.__name__)
        if known is None or known[0] != gaussians:
            known = self._kept[method.__name__] = gaussians, method(self)
        return known[1]

    return value


class AnimalModel(SplatfactoModel):
    """Canonical Gaussians, a rig, and renders of the posed animal."""

    config: AnimalModelConfig

    def populate_modules(self) -> None:
        """Builds splatfacto's Gaussians on any device, then the rig."""
        seed = self.seed_points
        if seed is not None:
            seed = tuple(rows[:: max(1, len(rows) // self.config.num_random)] for rows in seed)
            self.seed_points = (seed[0], seed[1][:0])  # an empty colour tensor skips a branch that needs CUDA
        with without_lpips():
            super().populate_modules()
        del self.lpips  # type: ignore[has-type]
        if seed is not None and len(seed[1]):
            self.gauss_params["features_dc"] = Parameter(torch.logit(seed[1].float() / 255, eps=1e-2))
        clip = self.kwargs["metadata"]["clip"]
        self.gauss_params["opacities"].data.fill_(math.log(self.config.start_opacity / (1 - self.config.start_opacity)))
        self.cameras_known = not clip.object_centric
        self._populate_rig(clip.times, clip.canonical_time, clip.root_translations)
        self.bones_placed = False
        self.page_renderer: Callable[[Cameras], dict[str, Any] | None] | None = None
        self._kept: dict[str, tuple[tuple[int, int], Any]] = {}

    def _populate_rig(
        self, times: Float[Tensor, " T"], canonical_time: float, path: Float[Tensor, "T 3"] | None
    ) -> None:
        config = self.config
        self.bones = Bones(config.num_bones)
        self.skinning = SkinningField(config.num_bones, config.skinning_hidden)
        self.bone_motion = BoneMotion(
            config.num_bones, times, canonical_time, config.motion_frequencies, config.motion_hidden
        )
        self.root_motion = RootMotion(times, canonical_time, path)
        self.skeleton = Skeleton(config.num_bones)
        has_field = config.motion == "field"  # its bones then are never placed and never move
        self.field = DeformationField(config.field_hidden, config.field_layers) if has_field else None

    def check_bones(self) -> None:
        """Raises ValueError where nothing can be posed."""
        if self.field is not None:
            raise ValueError(
                "this run's motion is a deformation field: it has no bones (--pipeline.model.motion bones has)"
            )

    def train(self, mode: bool = True) -> AnimalModel:
        """Switches between training and inference; what was kept between renders is dropped."""
        self._kept.clear()
        return super().train(mode)

    def load_state_dict(self, dict: Mapping[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Loads in place: the optimizers keep the very Parameters that they were built on, resized to the checkpoint."""
        for name, parameter in self.gauss_params.items():
            parameter.data = parameter.data.new_zeros(dict[f"gauss_params.{name}"].shape)
        self._kept.clear()
        return nn.Module.load_state_dict(self, dict, **kwargs)

    # --- posing ------------------------------------------------------------------------------------------------------

    @kept_between_renders
    def canonical_opacities(self) -> Float[Tensor, " N"]:
        """Opacities in [0, 1]."""
        return self.opacities.sigmoid().squeeze(-1)

    @property
    @kept_between_renders
    def colors(self) -> Float[Tensor, "N 3"]:
        """RGB in [0, 1]."""
        return super().colors

    def pose_at(self, time: float | Float[Tensor, ""]) -> Pose:
        """The video's pose at `time` in [0, 1]."""
        times = self._one_time(time)
        if self.training or torch.is_grad_enabled():
            transforms = bone_transforms(self.bone_motion(times)[0], self.bones.centers)
            root = self.root_motion(times)[0]
        else:
            transforms, root = self._fixed_motion()(times)
        return Pose(transforms, root, None if self.field is None else times[0])

    def _one_time(self, time: float | Float[Tensor, ""]) -> Float[Tensor, " 1"]:
        if isinstance(time, Tensor):
            return time.to(self.device, torch.float32).reshape(1)
        return torch.full((1,), time, dtype=torch.float32, device=self.device)  # a copy would wait for the device

    @kept_between_renders
    def _fixed_motion(self) -> Replay:
        return Replay(FixedMotion(self.bone_motion, self.root_motion, self.bones.centers))

    @kept_between_renders
    def skin_weights(self) -> Float[Tensor, "N B"]:
        """Skinning weights of the canonical means.

        Raises:
            ValueError: nothing is skinned, since a deformation field moves the Gaussians.
        """
        self.check_bones()
        return self.skinning(self.means, self.bones)

    @kept_between_renders
    def covariance_factors(self) -> Float[Tensor, "N 3 3"]:
        """L with L L^T the canonical covariances: rotations times scales. N is the last axis in memory, as `deform` has it."""
        factors = quat_to_rotation(self.quats) * self.scales.exp()[:, None, :]
        return factors.permute(1, 2, 0).contiguous().permute(2, 0, 1)

    def posed_gaussians(self, pose: Pose) -> Gaussians:
        """The animal in `pose`, in the world frame."""
        if self.field is not None and pose.time is not None:
            placed = self.moved_by_field(pose.time[None], pose.T_world_object[None])
            means, covars = (values[0] for values in placed)
        else:
            means, covars = self._deformation()(pose.T_world_canonical)
        return Gaussians(means, covars, self.canonical_opacities(), self.colors)

    def gaussians_at(self, time: float | Float[Tensor, ""]) -> Gaussians:
        """The animal as the video has it at `time` in [0, 1], in the world frame; outside of training in one launch."""
        if self.training or torch.is_grad_enabled() or self.field is not None:
            return self.posed_gaussians(self.pose_at(time))
        means, covars = self._animation()(self._one_time(time))
        return Gaussians(means, covars, self.canonical_opacities(), self.colors)

    @kept_between_renders
    def _animation(self) -> Replay:
        """The Gaussians' means and covariances, in the world, by the time."""
        motion, deformation = self._fixed_motion().function, self._deformation().function

        def animated(times: Float[Tensor, " 1"]) -> tuple[Tensor, ...]:
            T_object_canonical, T_world_object = motion(times)
            return deformation(T_world_object @ T_object_canonical)

        return Replay(animated)

    @kept_between_renders
    def _deformation(self) -> Replay:
        """The canonical Gaussians' means and covariances, in the world, by T_world_canonical of the bones."""
        return Replay(functools.partial(deform, self.means, self.covariance_factors(), self.skin_weights()))

    def moved_by_field(
        self, times: Float[Tensor, " K"], T_world_object: Float[Tensor, "K 4 4"]
    ) -> tuple[Float[Tensor, "K N 3"], Float[Tensor, "K N 3 3"]]:
        """Means and covariances in the world at `times`, where a deformation field is what moves them."""
        assert self.field is not None
        return self.field.moved(self.means, self.quats, self.scales, times, T_world_object)

    def camera_time(self, camera: Cameras) -> Float[Tensor, ""]:
        """Time of a camera; the canonical time where it has none (ns-render interpolate)."""
        if camera.times is None:
            return self.bone_motion.canonical_time
        return camera.times.reshape(-1)[0].to(self.device)

    @torch.no_grad()
    def rebuild_skeleton(self) -> None:
        """Builds the skeleton tree from the bones' present motion."""
        twists = self.bone_motion(self.bone_motion.knots)
        centers = self.bones.centers
        self.skeleton.rebuild(centers, centers + twists[..., 3:])

    # --- rendering ---------------------------------------------------------------------------------------------------

    def _get_background_color(self) -> Float[Tensor, "3"]:
        """Splatfacto's background in training, white otherwise."""
        return super()._get_background_color() if self.training else torch.ones(3, device=self.device)

    def render(
        self,
        gaussians: Gaussians,
        viewmats: Float[Tensor, "C 4 4"],
        Ks: Float[Tensor, "C 3 3"],
        width: int,
        height: int,
        **options: Any,
    ) -> RenderOutput:
        """`rendering.render`, as sharp as the settings have it; all that the model renders goes through here."""
        return render(gaussians, viewmats, Ks, width, height, eps2d=self.config.eps2d, **options)

    def render_gaussians(
        self, gaussians: Gaussians, camera: Cameras, background: Float[Tensor, "3"], with_depth: bool
    ) -> RenderOutput:
        """World Gaussians through one nerfstudio camera."""
        viewmats = viewmats_from_camera_to_worlds(camera.camera_to_worlds.to(self.device))
        Ks = camera.get_intrinsics_matrices().to(self.device)
        width, height = int(camera.width.item()), int(camera.height.item())
        return self.render(gaussians, viewmats, Ks, width, height, background=background, with_depth=with_depth)

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Any]:
        """Splatfacto's; the viewer's `page_renderer`, where one is set, answers for what the viewer's pages show."""
        self.set_crop(obb_box)
        camera = camera.to(self.device)
        outputs = self.page_renderer(camera) if self.page_renderer is not None else None
        return self.get_outputs(camera) if outputs is None else outputs

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:
        """Renders the animal as the video has it at the camera's time."""
        return self._outputs(camera, self.gaussians_at(self.camera_time(camera)))

    def outputs_in_pose(self, camera: Cameras, pose: Pose) -> dict[str, Any]:
        """Renders the animal in any pose."""
        return self._outputs(camera, self.posed_gaussians(pose))

    def _outputs(self, camera: Cameras, gaussians: Gaussians) -> dict[str, Any]:
        """nerfstudio's names, each [H W channels]."""
        background, gaussians = self._get_background_color(), self.cropped(gaussians)
        output = self.render_gaussians(gaussians, camera, background, with_depth=True)
        self.last_size = output.rgb.shape[1:3]
        return {
            "rgb": output.rgb[0].clamp(0, 1),
            "depth": cast(Tensor, output.depth)[0],
            "accumulation": output.alpha[0],
            "background": background.expand_as(output.rgb[0]),
        }

    def cropped(self, gaussians: Gaussians) -> Gaussians:
        """Only what lies inside the viewer's crop box, where one is set."""
        if self.crop_box is None:
            return gaussians
        inside = self.crop_box.within(gaussians.means).squeeze(-1)
        return Gaussians(*(getattr(gaussians, name)[inside] for name in ("means", "covars", "opacities", "colors")))

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Float[Tensor, "H W 4"]:
        """A cut-out: the colour and the coverage."""
        return torch.cat([outputs[output_name], outputs["accumulation"]], dim=-1)

    def ground_truth(self, image: UInt8[Tensor, "*K H W C"] | Float[Tensor, "*K H W C"]) -> Float[Tensor, "*K H W 4"]:
        """Frames as straight RGBA in [0, 1] on the model's device; a frame without alpha is all animal."""
        return straight_rgba(image.to(self.device))

    # --- nerfstudio's evaluation -------------------------------------------------------------------------------------

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        """Numbers for the log of nerfstudio's evaluation."""
        target = self.composite_with_background(self.ground_truth(batch["image"]), outputs["background"])
        return {"psnr": psnr(outputs["rgb"], target), "gaussian_count": self.num_points}

    @torch.no_grad()
    def get_image_metrics_and_images(
        self, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Whole and in-silhouette metrics on white, and the frame beside its render."""
        target = self.ground_truth(batch["image"])
        metrics = image_metrics(outputs["rgb"], outputs["accumulation"], target)
        wanted = self.composite_with_background(target, outputs["background"])
        return metrics, {"img": torch.cat([wanted, outputs["rgb"]], dim=1)}
