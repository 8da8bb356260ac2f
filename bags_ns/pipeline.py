"""The pipeline: decides what happens when. It joins data, model and prior, and schedules the three phases of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig

from bags_ns.data.datamanager import BagsDataManager, BagsDataManagerConfig
from bags_ns.model import BagsModel, BagsModelConfig
from bags_ns.priors.base import PriorConfig
from bags_ns.schedule import FrameWindow, Phase, PhaseSchedule
from bags_ns.viewer import FirstView


@dataclass
class BagsPipelineConfig(VanillaPipelineConfig):
    """Data, model, prior and when each is at work."""

    _target: type = field(default_factory=lambda: BagsPipeline)
    datamanager: BagsDataManagerConfig = field(default_factory=BagsDataManagerConfig)
    """Frames, silhouettes and cameras."""
    model: BagsModelConfig = field(default_factory=BagsModelConfig)
    """Gaussians and rig."""
    frames_per_step: int = 4
    """Frames of the video that a step looks at together."""
    phases: PhaseSchedule = field(default_factory=PhaseSchedule)
    """When the canonical warm-up ends and the bones begin, in fractions of the run."""
    prior: PriorConfig = field(default_factory=PriorConfig)
    """The diffusion prior for the sides that the video does not show."""


class BagsPipeline(VanillaPipeline):
    """Trains on the canonical frame first, then on a window of frames that grows outward, then on all of them."""

    config: BagsPipelineConfig
    datamanager: BagsDataManager
    model: BagsModel

    def __init__(self, config: BagsPipelineConfig, device: str, **kwargs: Any) -> None:
        super().__init__(config, device, **kwargs)
        self._frames: FrameWindow | None = None
        first_camera = self.datamanager.train_dataset.cameras.camera_to_worlds[0]
        self.first_view = FirstView(first_camera.cpu().numpy())

    def get_train_loss_dict(self, step: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Prepares the phase that `step` lies in, then takes a few frames of the video."""
        self.prepare_phase(self.model.progress)
        losses = self.model.training_losses(self.datamanager.next_frames(self.config.frames_per_step))
        return {}, losses, {"gaussian_count": self.model.num_points}

    def prepare_phase(self, progress: float) -> None:
        """Bones placed, frames entered and densification switched as the schedule has it at `progress` of the run."""
        phases, model = self.config.phases, self.model
        phase = phases.phase(progress)
        model.densifying = phase is not Phase.BONES
        if phase is not Phase.CANONICAL and not model.bones_placed:
            model.place_bones()
        clip = self.datamanager.clip
        frames = phases.window(progress, clip.canonical_index, len(clip.times))
        if frames != self._frames:
            model.enter_frames(frames.active, clip.canonical_index)
            self.datamanager.set_active_frames(frames.active, frames.newest)
            self._frames = frames
