"""nerfstudio's full-image data manager with a window of active train frames, on CPU and on CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from torch import Tensor

from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.data.prepared import ClipInfo


@dataclass
class BagsDataManagerConfig(FullImageDatamanagerConfig):
    """Options of how frames are kept and drawn."""

    _target: type = field(default_factory=lambda: BagsDataManager)
    """target class to instantiate"""
    dataparser: AnnotatedDataParserUnion = field(default_factory=AnimalVideoDataParserConfig)
    """Where the frames and cameras come from."""
    cache_images_type: Literal["uint8", "float32"] = "uint8"
    """How images are kept and given out; uint8 needs a quarter of the memory of float32."""


class BagsDataManager(FullImageDatamanager):
    """Gives whole frames as they are stored: uint8 RGBA tensors [H W 4] whose alpha is the silhouette."""

    config: BagsDataManagerConfig
    _active: tuple[int, ...] | None = None

    @property
    def clip(self) -> ClipInfo:
        """What is known of the train frames as a clip."""
        return self.train_dataparser_outputs.metadata["clip"]

    @property
    def has_test_views(self) -> bool:
        """Whether the evaluation split holds views that are not trained on."""
        return bool(self.dataparser.prepared_clip().test)

    @property
    def active_frames(self) -> tuple[int, ...]:
        """The train frames that training draws from, ascending."""
        return tuple(range(len(self.train_dataset))) if self._active is None else self._active

    def set_active_frames(self, indices: Sequence[int] | None) -> None:
        """Lets training draw from these train frames only (None: from all).

        Within a pass no frame comes twice: frames of the current pass that are still to come stay to come, and new
        ones join them, so that a window that grows at every step still shows all of its frames.
        """
        before = set(self.active_frames)
        active = tuple(sorted(set(indices))) if indices is not None else tuple(range(len(self.train_dataset)))
        if not active or active[0] < 0 or active[-1] >= len(self.train_dataset):
            raise ValueError(f"Active frames must be some of 0..{len(self.train_dataset) - 1}; got {active[:5]}.")
        self._active = active
        if set(active) == before:
            return
        unseen = [index for index in active if index not in before]
        if len(self.train_unseen_cameras) < len(before):  # else the last pass has just ended: new frames come first
            unseen += [index for index in self.train_unseen_cameras if index in set(active)]
        self.random_generator.shuffle(unseen)
        self.train_unseen_cameras = unseen or self.sample_train_cameras()

    def sample_train_cameras(self) -> list[int]:
        """The next pass: every active frame once, in an order that the seed decides."""
        if self._active is None:
            return super().sample_train_cameras()
        indices = list(self._active)
        self.random_generator.shuffle(indices)
        return indices

    def train_image(self, index: int) -> tuple[Cameras, UInt8[Tensor, "H W 4"]]:
        """A train frame's camera (a batch of one, on the device, with its time) and its image, whatever is active."""
        image = self.cached_train[index]["image"].to(self.device)
        return self.train_cameras[index : index + 1].to(self.device), image

    def _load_images(
        self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]
    ) -> list[dict[str, Any]]:
        # "cpu" pins memory, which needs a CUDA driver; "gpu" moves to the device, which may be the CPU.
        return super()._load_images(split, cache_images_device if torch.cuda.is_available() else "gpu")
