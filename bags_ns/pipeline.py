"""The pipeline: decides what happens when. It joins data, model and prior, and schedules the three phases of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from torch import Tensor

from bags_ns.cameras import look_at
from bags_ns.data.datamanager import BagsDataManager, BagsDataManagerConfig
from bags_ns.data.seed_points import ALIKE_SPREAD, widest_angle
from bags_ns.first_look import reference_of, start_slope, start_turn
from bags_ns.model import BagsModel, BagsModelConfig
from bags_ns.priors.config import PriorConfig
from bags_ns.priors.reference import Reference
from bags_ns.priors.sampled_views import SampledViews
from bags_ns.priors.sds import prior_loss, timestep
from bags_ns.priors.views import moved, random_views
from bags_ns.progress import say
from bags_ns.schedule import FrameWindow, Phase, PhaseSchedule, entry_order

MOVED = 0.05
"""Relative change of the animal's distance after which a frame's conditioning is made anew."""
GAIT_FRAMES = 12
"""Frames in which the gait is looked for, evenly over those that have entered."""
GAIT_PARTS = (0.5, 0.75)
"""Parts of the clip after which it is looked for until it is found, as before a gap; and once more in all of it, when everything is trained."""
GAIT_LEAST_FRAMES = 24
"""So many must have entered for that: in a stride or less, half of it looks like a period."""
GAP_FRAMES = 8
"""Frames beyond a gap that are compared with the animal as it was before it."""
DEPTH_SETTLINGS = 20
"""So often in a run the animal's distance from the canonical camera is set right."""
GAIT_SETTLINGS = 10
"""So often in a run, once everything is trained, the gait's period is set right."""
KEPT_FRAMES = 128
"""Frames whose recut reference and conditioning are kept."""


class ConfigError(ValueError):
    """Settings that cannot be trained with; one line that names them and says what they may be."""


@dataclass
class BagsPipelineConfig(VanillaPipelineConfig):
    """Data, model, prior and when each is at work."""

    _target: type = field(default_factory=lambda: BagsPipeline)
    datamanager: BagsDataManagerConfig = field(default_factory=BagsDataManagerConfig)
    """Frames, silhouettes and cameras."""
    model: BagsModelConfig = field(default_factory=BagsModelConfig)
    """Gaussians and rig."""
    frames_per_step: int = 12
    """Frames of the video that a step looks at together."""
    phases: PhaseSchedule = field(default_factory=PhaseSchedule)
    """When the canonical warm-up ends and the bones begin, in fractions of the run."""
    prior: PriorConfig = field(default_factory=PriorConfig)
    """The diffusion prior for the sides that the video does not show."""
    turn_from_outlines: bool = True
    """Where cameras are unknown, silhouettes say before training how far the animal turns and how far the camera looks down."""
    turn_from_prior: bool = True
    """A prior that judges single views (small, zero123) has a say in that, above all whether to the left or to the right."""
    slope_from_prior: bool = True
    """Where frames see the animal from one side, the prior says before training how its body stands to the picture's plane."""

    def check(self) -> None:
        """Raises ConfigError where a run would go wrong on its way."""
        canonical, window, bones = self.phases.canonical_end, self.phases.window_end, self.phases.bones_end
        if not 0 <= canonical < window <= bones <= 1:
            wanted = "0 <= canonical-end < window-end <= bones-end <= 1"
            raise ConfigError(f"--pipeline.phases takes {wanted}, got {canonical}, {window}, {bones}.")
        if self.model.sh_degree:
            raise ConfigError("--pipeline.model.sh-degree takes 0: spherical harmonics do not turn with a bone.")
        if self.model.use_bilateral_grid:
            raise ConfigError(
                "--pipeline.model.use-bilateral-grid takes False: colours of frames are not corrected here."
            )


class BagsPipeline(VanillaPipeline):
    """Trains on the canonical frame first, then on a window of frames that grows outward, then on all of them."""

    config: BagsPipelineConfig
    datamanager: BagsDataManager
    model: BagsModel

    def __init__(self, config: BagsPipelineConfig, device: str | torch.device, **kwargs: Any) -> None:
        # Before any video is read: weights may be missing. A plain object, so that no checkpoint holds it.
        prior = config.prior.setup() if kwargs.get("test_mode", "val") == "val" else None
        from bags_ns.viewer.controls import AnimalControls  # and all exporters: not where only help is asked for

        super().__init__(config, device, **kwargs)  # type: ignore[arg-type]  nerfstudio itself gives both
        self.prior = prior
        clip = self.datamanager.clip
        self._entry_order = entry_order(clip.times.tolist(), clip.canonical_index)
        self._frames: FrameWindow | None = None
        self._sampled = SampledViews(config.prior.views)
        self._references: dict[int, Reference] = {}
        self._conditionings: dict[int, tuple[float, Any]] = {}
        first_camera = self.datamanager.train_dataset.cameras.camera_to_worlds[0]
        self.animal_controls = AnimalControls(self.model, first_camera)

    def get_train_loss_dict(self, step: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Prepares the phase that `step` lies in, then takes a few frames of the video."""
        self.prepare_phase(self.model.progress)
        self._settle_depth(step)
        self._settle_gait(step)
        progress = self.model.progress
        frames = self.datamanager.next_frames(self.config.frames_per_step)
        losses = self.model.training_losses(frames)
        if self.model.config.flow_loss_mult and (pair := self.datamanager.flow_pair(frames.indices)):
            losses |= self.model.flow_losses(pair)
        if self.prior is not None and self.config.prior.at_work(step, progress):
            losses["prior"] = self.config.prior.loss_mult * self.prior_loss(progress)
        return {}, losses, {"gaussian_count": self.model.num_points}

    def prior_loss(self, progress: float) -> Float[Tensor, ""]:
        """What the prior says of views all round the animal at the time of a frame that is being trained on."""
        assert self.prior is not None
        config, prior = self.config.prior, self.prior
        by_views = config.sds.variant == "views"
        known = self._sampled.choose(progress) if by_views else None
        posed = self.model.posed_frames  # the step's own frames are posed already
        candidates = [known.frame] if known else [*posed] or self.datamanager.active_frames
        frame = candidates[int(torch.randint(len(candidates), ()))]
        if frame not in self._references:
            _keep(self._references, frame, reference_of(self.model, self.datamanager, self.prior, frame))
        reference = self._references[frame]
        gaussians = posed.get(frame)
        if gaussians is None:
            gaussians = self.model.gaussians_at(self.datamanager.clip.times[frame])
        colors = torch.lerp(gaussians.colors.detach(), gaussians.colors, config.color_mult)
        gaussians = replace(gaussians, colors=colors)
        target = reference.target(gaussians.centroid().detach())
        views = known.camera_to_worlds if known else random_views(config.num_views, prior.camera, self.model.device)
        output = self.model.render_views(gaussians, moved(views, target), prior.camera.fov_deg, prior.image_size)
        if known:
            return known.loss(output.rgb)
        conditioning = self._conditioning(frame, reference, target)
        if by_views:
            t = timestep(config.sds, config.part_done(progress), len(prior.alphas_cumprod))
            return self._sampled.add(prior, frame, output.rgb, views, conditioning, t).loss(output.rgb)
        return prior_loss(prior, config.sds, output.rgb, output.alpha, views, conditioning, config.part_done(progress))

    def _conditioning(self, frame: int, reference: Reference, target: Float[Tensor, " 3"]) -> Any:
        """The prior's conditioning on a frame, made anew when the animal has moved along the camera's ray."""
        assert self.prior is not None
        distance = float((target - reference.position).norm())
        known = self._conditionings.get(frame)
        if known is None or abs(known[0] / distance - 1) > MOVED:
            pose = look_at(reference.position - target, torch.zeros_like(target))
            fov = torch.tensor([reference.fov_deg], device=target.device)
            known = distance, self.prior.condition(reference.picture[None], pose[None], fov)
            _keep(self._conditionings, frame, known)
        return known[1]

    def _camera_positions(self) -> Float[Tensor, "T 3"]:
        return self.datamanager.train_dataset.cameras.camera_to_worlds[:, :3, 3].to(self.device)

    def _sees_one_side(self, positions: Float[Tensor, "C 3"]) -> bool:
        """Whether the directions from cameras to the animal are too alike to tell depth."""
        directions = torch.nn.functional.normalize(self.model.means.detach().mean(dim=0) - positions, dim=-1)
        return widest_angle(directions.double().cpu().numpy()) < ALIKE_SPREAD

    def _is_due(self, step: int, times: int) -> bool:
        """Whether it is the turn of what is done so many `times`, evenly over the run."""
        return step % max(1, self.model.run_length // times) == 0

    def _settle_depth(self, step: int) -> None:
        """Now and then, once bones follow the animal: its distance, where known cameras have seen it from different sides."""
        model = self.model
        if not (self._is_due(step, DEPTH_SETTLINGS) and model.bones_placed and model.cameras_known):
            return
        positions = self._camera_positions()
        if not self._sees_one_side(positions[sorted(model.frames_entered)]):
            model.settle_depth(positions, model.config.root_loss_scale)

    def _settle_gait(self, step: int) -> None:
        """Now and then, once everything is trained: the period of a gait."""
        was_looked_for = self.model.progress > self.config.phases.bones_end
        if self._is_due(step, GAIT_SETTLINGS) and was_looked_for and self.model.gait_period is not None:
            self.model.settle_gait(self._frames_entered())

    def _look_for_gait(self, phase: Phase, before_gap: bool) -> None:
        """Lets the model look for its gait when it is time to, also before it crosses a gap, and says what it found."""
        model, clip = self.model, self.datamanager.clip
        if not model.frames_entered or not model.config.gait_loss_mult or model.field is not None:
            return
        if phase is Phase.JOINT:
            part = 1.0
        else:
            entered = len(model.frames_entered)
            due = [*GAIT_PARTS, entered / len(clip.times)] if before_gap else GAIT_PARTS
            can_tell = entered >= GAIT_LEAST_FRAMES
            part = max((part for part in due if can_tell and part <= entered / len(clip.times)), default=0.0)
        if part <= model.gait_part or (phase is not Phase.JOINT and model.gait_period is not None):
            return
        say("Looking for the gait.")
        model.find_gait(
            self._frames_entered(), part, with_mirror=phase is Phase.JOINT and model.config.mirror_loss_mult > 0
        )
        if (period := model.gait_period) is not None:
            seconds = period * (len(clip.times) - 1) / clip.fps
            say(f"The gait repeats every {seconds:.2f} s, {1 / period:.1f} times in the clip.")

    def _frames_entered(self) -> Iterator[tuple[Cameras, UInt8[Tensor, "H W 4"]]]:
        """Some of the frames that have entered, evenly over them."""
        first, last = min(self.model.frames_entered), max(self.model.frames_entered)
        chosen = torch.linspace(first, last, min(last - first + 1, GAIT_FRAMES)).round().long().tolist()
        return (self.datamanager.train_image(index) for index in chosen)

    def _try_mirror(self, progress: float) -> None:
        """Lets the model look at the mirror that is on trial when it is time to, keep or drop it at last, and says which."""
        looks = self.config.phases.mirror_looks(self.model.run_length)
        if sum(progress >= look for look in looks) > len(self.model.mirror.gains):
            self.model.weigh_mirror(self._frames_entered())
        if progress < looks[-1]:
            return
        self.model.judge_mirror()
        takes_turns = self.model.mirror.shift is not None
        say("Its sides take turns: each shows what the other hides." if takes_turns else "Its sides do not take turns.")

    def _look_first(self) -> None:
        """Lets outlines and prior say how the animal turns and stands, where cameras do not."""
        config, model, data, prior = self.config, self.model, self.datamanager, self.prior
        single = prior if prior is not None and prior.camera.views_per_ring == 1 else None
        told = False
        if config.turn_from_outlines and not model.cameras_known:
            told = start_turn(model, data, single if config.turn_from_prior else None)
        if prior is not None and config.slope_from_prior and not told and self._sees_one_side(self._camera_positions()):
            start_slope(model, data, prior)

    def prepare_phase(self, progress: float) -> None:
        """Bones placed, frames entered and densification switched as the schedule has it at `progress` of the run."""
        phases, model = self.config.phases, self.model
        is_fresh = self._frames is None and not model.frames_entered
        if is_fresh:
            self._look_first()
        phase = phases.phase(progress)
        model.densifying = phase is not Phase.BONES
        if phase is not Phase.CANONICAL and not model.bones_placed:
            model.place_bones()
        if phase is Phase.JOINT:
            model.free_canonical_pose()
        frames = phases.window(progress, self._entry_order)
        takes = model.new_takes(frames.active)
        if phase is not Phase.CANONICAL:
            self._look_for_gait(phase, before_gap=bool(takes))
        if model.mirror.on_trial:
            self._try_mirror(progress)
        for take in takes:
            beyond = take[:GAP_FRAMES]
            model.look_back(beyond, (self.datamanager.train_image(frame) for frame in beyond))
        if frames != self._frames:
            model.enter_frames(frames.active)
            self.datamanager.set_active_frames(frames.active, frames.newest)
            self._frames = frames


def _keep(known: dict[int, Any], frame: int, value: Any) -> None:
    """Adds what is known of a frame, and forgets the oldest beyond `KEPT_FRAMES`."""
    known[frame] = value
    if len(known) > KEPT_FRAMES:
        del known[next(iter(known))]
