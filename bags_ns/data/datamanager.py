"""nerfstudio's full-image data manager with a window of active train frames, on CPU and on CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from bags_ns.cameras import viewmats_from_camera_to_worlds
from bags_ns.data.dataparser import AnimalVideoDataParser, AnimalVideoDataParserConfig
from bags_ns.data.flow import FlowPair, clip_flow
from bags_ns.data.images import FOREGROUND
from bags_ns.data.prepared import ClipInfo
from bags_ns.losses import SSIM_WINDOW, mask_box


@dataclass
class BagsDataManagerConfig(FullImageDatamanagerConfig):
    """Options of how frames are kept and drawn."""

    _target: type = field(default_factory=lambda: BagsDataManager)
    """target class to instantiate"""
    dataparser: AnnotatedDataParserUnion = field(default_factory=AnimalVideoDataParserConfig)
    """Where the frames and cameras come from."""
    cache_images_type: Literal["uint8", "float32"] = "uint8"
    """How images are kept and given out; uint8 needs a quarter of the memory of float32."""
    canonical_every: int = 12
    """Every n-th frame is the canonical one: others can change their pose to suit the shape, in it only the shape can change."""


@dataclass(frozen=True, eq=False)
class FrameBatch:
    """K frames of the video, of equal size, on the training device."""

    indices: list[int]
    """Their places among the train frames."""
    times: Float[Tensor, " K"]
    """In [0, 1]."""
    viewmats: Float[Tensor, "K 4 4"]
    """OpenCV world-to-camera matrices."""
    Ks: Float[Tensor, "K 3 3"]
    """Intrinsics in pixels."""
    images: UInt8[Tensor, "K H W 4"]
    """Straight RGBA."""
    box: tuple[slice, slice]
    """Rows and columns that hold the animal in all frames of this size, with room for the SSIM window."""


@dataclass(frozen=True, eq=False)
class _TrainViews:
    times: Float[Tensor, " T"]
    viewmats: Float[Tensor, "T 4 4"]
    Ks: Float[Tensor, "T 3 3"]
    sizes: list[tuple[int, ...]]
    boxes: dict[tuple[int, ...], tuple[slice, slice]]
    """For each size of frames: one box for all of them, since cuDNN plans its convolutions anew for every new shape."""


class BagsDataManager(FullImageDatamanager):
    """Gives whole frames as they are stored: uint8 RGBA tensors [H W 4] whose alpha is the silhouette."""

    config: BagsDataManagerConfig
    _active: tuple[int, ...] | None = None
    _focus: tuple[int, ...] = ()

    @property
    def clip(self) -> ClipInfo:
        """What is known of the train frames as a clip."""
        return self.train_dataparser_outputs.metadata["clip"]

    @property
    def test_dataset(self) -> InputDataset | None:
        """The evaluation split where it holds views that are not trained on."""
        return self.eval_dataset if self.dataparser.prepared_clip().test else None

    @cached_property
    def held_out_dataset(self) -> InputDataset | None:
        """Frames of the video that training never sees, as nerfstudio's datasets are; None where none is held out."""
        if not self.dataparser.prepared_clip().held_out:
            return None
        outputs = self.dataparser.get_dataparser_outputs("held_out")
        return self.dataset_type(dataparser_outputs=outputs, scale_factor=self.config.camera_res_scale_factor)

    @property
    def active_frames(self) -> tuple[int, ...]:
        """The train frames that training draws from, ascending."""
        return tuple(range(len(self.train_dataset))) if self._active is None else self._active

    def set_active_frames(self, indices: Sequence[int] | None, focus: Sequence[int] = ()) -> None:
        """Lets training draw from these train frames only (None: from all), and half of the time from those in `focus`.

        A pass shows every active frame once or, with a focus, each frame of the focus and as many others; the canonical
        one comes again after every `canonical_every` frames of it.
        """
        count = len(self.train_dataset)
        active = tuple(sorted(set(range(count) if indices is None else indices)))
        if not active or active[0] < 0 or active[-1] >= count or not set(focus) <= set(active):
            raise ValueError(
                f"Active frames must be some of 0..{count - 1}, and the focus some of them; got {active[:5]}."
            )
        focus = tuple(sorted(set(focus)))
        if (active, focus) != (self._active, self._focus):
            self._active, self._focus = active, focus
            self.train_unseen_cameras = self.sample_train_cameras()

    def sample_train_cameras(self) -> list[int]:
        """The next pass, in an order that the seed decides."""
        everything = super().sample_train_cameras()
        if self._active is None:
            return everything
        indices = [index for index in everything if index in self._active]
        if self._focus:
            others = [index for index in indices if index not in self._focus]
            indices = [*self._focus, *others[: len(self._focus)]]
            self.random_generator.shuffle(indices)
        return self._with_canonical(indices)

    def _with_canonical(self, indices: list[int]) -> list[int]:
        every, canonical = self.config.canonical_every, self.clip.canonical_index
        if every and canonical in self.active_frames:
            for place in range(every, len(indices), every):
                indices.insert(place, canonical)
        return indices

    def next_frames(self, count: int) -> FrameBatch:
        """The next frames of the pass, at most `count` and all of the size of the first."""
        indices: list[int] = []
        while len(indices) < min(count, len(self.active_frames)):
            if not self.train_unseen_cameras:
                self.train_unseen_cameras = self.sample_train_cameras()
            index = self.train_unseen_cameras.pop()
            if indices and self._views.sizes[index] != self._views.sizes[indices[0]]:
                self.train_unseen_cameras.append(index)
                break
            indices.append(index)
        return FrameBatch(
            indices=indices,
            times=self._views.times[indices],
            viewmats=self._views.viewmats[indices],
            Ks=self._views.Ks[indices],
            images=torch.stack([self.cached_train[index]["image"] for index in indices]).to(self.device),
            box=self._views.boxes[self._views.sizes[indices[0]]],
        )

    @cached_property
    def _views(self) -> _TrainViews:
        """Matrices, sizes and boxes of the train frames, made once."""
        cameras = self.train_dataset.cameras
        masks = [frame["image"][..., 3].cpu() >= FOREGROUND for frame in self.cached_train]
        return _TrainViews(
            times=torch.as_tensor(cameras.times).flatten().to(self.device),
            viewmats=viewmats_from_camera_to_worlds(cameras.camera_to_worlds).to(self.device),
            Ks=cameras.get_intrinsics_matrices().to(self.device),
            sizes=[tuple(mask.shape) for mask in masks],
            boxes={
                size: mask_box(torch.stack([m for m in masks if m.shape == size]).any(dim=0), margin=SSIM_WINDOW)
                for size in {tuple(mask.shape) for mask in masks}
            },
        )

    def flow_pair(self, indices: Sequence[int]) -> FlowPair | None:
        """The first of these train frames whose next one is active too, with the flow to that; None if there is none."""
        active = set(self.active_frames)
        first = next((index for index in indices if index + 1 in active), None)
        if first is None:
            return None
        flow = self._flow[first].to(self.device).float()
        pair, scale = slice(first, first + 2), flow.shape[1] / self._views.sizes[first][1]
        Ks = self._views.Ks[pair] * self._views.Ks.new_tensor([scale, scale, 1.0])[:, None]
        return FlowPair(self._views.times[pair], self._views.viewmats[pair], Ks, flow)

    @cached_property
    def _flow(self) -> list[Tensor]:
        """Optical flow from each train frame to the next, computed when it is first asked for."""
        cache_dir = cast(AnimalVideoDataParser, self.dataparser).cache_dir
        return clip_flow(self.train_dataset.image_filenames, cache_dir)

    def train_image(self, index: int) -> tuple[Cameras, UInt8[Tensor, "H W 4"]]:
        """A train frame's camera (a batch of one, on the device, with its time) and its image, whatever is active."""
        image = self.cached_train[index]["image"].to(self.device)
        return self.train_cameras[index : index + 1].to(self.device), image

    def _load_images(
        self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]
    ) -> list[dict[str, Any]]:
        # "cpu" pins memory, which needs a CUDA driver; "gpu" moves to the device, which may be the CPU.
        return super()._load_images(split, cache_images_device if torch.cuda.is_available() else "gpu")
