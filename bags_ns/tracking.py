"""How the animal's motion is followed through the clip: bones are placed, frames enter outward, the gait is looked for."""

from __future__ import annotations

import contextlib
import copy
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor
from torch.nn import Parameter

from bags_ns.animal import OPAQUE
from bags_ns.densification import DensifiedModel
from bags_ns.recurrence import Recurrence
from bags_ns.rig.deformation import apply_transforms, blend_transforms
from bags_ns.rig.gait import LEAST_BY_BONES, SAMPLES_A_FRAME, closest_period, gait_period
from bags_ns.rig.motion import bone_transforms
from bags_ns.rig.parallax import across, depth_error
from bags_ns.rig.symmetry import MirrorPlane, find_mirror
from bags_ns.rig.transforms import turned
from bags_ns.schedule import takes_of_frames

MOST_LOOKS_BACK = 120
"""Poses that are compared with what comes out of a gap; fewer in short clips, two a frame."""
SAME_TIME = 1e-6
"""Parts of the clip: times that differ less are one frame's."""


class TrackedModel(DensifiedModel):
    """An animal that knows which frames it has met, its gait and its mirror; the pipeline says when."""

    def populate_modules(self) -> None:
        """Builds the animal; nothing is placed and no frame has entered yet."""
        super().populate_modules()
        clip = self.kwargs["metadata"]["clip"]
        self.clip_times: list[float] = clip.times.tolist()
        self.canonical_index: int = clip.canonical_index
        self.take_of = takes_of_frames(self.clip_times)
        self.frames_entered: set[int] = set()
        self.alike_after: dict[int, float] = {}
        """Of takes by their numbers, beyond gaps before which no gait was known: how long before, or after, the animal was as in them."""
        self.gait_part = 0.0
        """Part of the clip in which the gait was last looked for."""
        self.mirror = MirrorPlane()
        self._before_trial: tuple[dict[str, Any], dict[str, Any]] | None = None
        """The states of model and optimizers when the mirror's trial began."""

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint knows of the run beside its tensors."""
        return super().get_extra_state() | {
            "bones_placed": self.bones_placed,
            "frames_entered": sorted(self.frames_entered),
            "alike_after": self.alike_after,
            "gait_part": self.gait_part,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().set_extra_state(state)
        self.bones_placed = state["bones_placed"]
        self.frames_entered = set(state["frames_entered"])
        self.alike_after = state["alike_after"]
        self.gait_part = state["gait_part"]

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Splatfacto's groups and those of what moves the Gaussians."""
        groups = super().get_param_groups()
        if self.field is not None:
            return groups | {name: list(getattr(self, name).parameters()) for name in ("root_motion", "field")}
        for name in ("bones", "skinning", "root_motion", "mirror"):
            groups[name] = list(getattr(self, name).parameters())
        motion = dict(self.bone_motion.named_parameters())
        groups["bone_table"], groups["bone_stride"] = [motion.pop("table")], [motion.pop("stride")]
        groups["bone_motion"] = list(motion.values())
        return groups

    def place_bones(self) -> None:
        """Puts the bones onto the canonical animal (once, after the warm-up) and forgets their optimizers' momenta."""
        if self.field is not None:
            return
        opaque = self.canonical_opacities() > OPAQUE
        points = self.means[opaque] if int(opaque.sum()) >= 10 * self.config.num_bones else self.means
        self.bones.place(points.detach())
        self.bones_placed = True
        self.rebuild_skeleton()
        for name in ("bones", "skinning", "bone_motion", "bone_table"):
            self.optimizers[name].state.clear()

    def enter_frames(self, window: range) -> None:
        """Frames that are new in the window start from their two neighbours towards the canonical frame, at constant speed.

        Where it is known when the animal was in the same poses, the bones go on as they did then: each leg stays the one
        that it was. Across a gap, what the animal did last says nothing.
        """
        canonical = self.canonical_index
        for frame in sorted(set(window) - self.frames_entered, key=lambda index: abs(index - canonical)):
            inward = -1 if frame > canonical else 1
            neighbour = frame + inward
            if frame != canonical:
                has_two = (neighbour - canonical) * inward < 0 and self._together(neighbour + inward, frame)
                before = neighbour + inward if has_two else neighbour
                alike = self._time_alike(frame, inward)
                if alike is None:
                    self.bone_motion.continue_frame(before, neighbour, frame)
                elif self._together(neighbour, frame):
                    self.bone_motion.repeat_frame(neighbour, frame, self.clip_times[frame] - alike)
                else:
                    self.bone_motion.resume_frame(frame, alike)
                self.root_motion.continue_frame(before, neighbour, frame)
            self.frames_entered.add(frame)

    def _together(self, first: int, second: int) -> bool:
        return self.take_of[first] == self.take_of[second]

    def _time_alike(self, frame: int, inward: int) -> float | None:
        """The time nearest to a frame at which the bones are known and were as in it; None: not known."""
        time, period = self.clip_times[frame], self.gait_period
        if period is not None:
            times = (time + inward * count * period for count in range(1, 1 + int(1 / period)))
            return next((each for each in times if self.knows(each)), None)
        if (shift := self.alike_after.get(self.take_of[frame])) is None:
            return None
        alike = time + inward * shift
        # The take itself was not compared, and nothing says that the animal does so again.
        return alike if self._known_take(alike) not in (None, self.take_of[frame]) else None

    def new_takes(self, window: range) -> list[list[int]]:
        """The frames of each take that the window has just reached, from the gap onward; none at the start of a run."""
        if not self.frames_entered:
            return []
        new = {self.take_of[frame] for frame in window} - {self.take_of[frame] for frame in self.frames_entered}
        members = [[frame for frame, take in enumerate(self.take_of) if take == each] for each in sorted(new)]
        return [frames if frames[0] > min(self.frames_entered) else frames[::-1] for frames in members]

    @torch.no_grad()
    def look_back(self, frames: list[int], shown: Iterable[tuple[Cameras, UInt8[Tensor, "H W 4"]]]) -> None:
        """Finds in what poses that are known the animal comes out of a gap, where no gait says it.

        Args:
            frames: the first ones beyond the gap, which have not entered; they get the root of the last one that has.
            shown: their cameras and pictures.
        """
        if self.gait_period is not None or self.field is not None:
            return
        outward = 1 if frames[0] > min(self.frames_entered) else -1
        edge = max(self.frames_entered) if outward > 0 else min(self.frames_entered)
        for frame in frames:
            self.root_motion.continue_frame(edge, edge, frame)
        times = [self.clip_times[frame] for frame in frames]
        step = max(0.5 * self.bone_motion.mean_spacing, 1 / MOST_LOOKS_BACK)
        shifts = [count * step for count in range(1, int(1 / step))]
        shifts = [shift for shift in shifts if all(self.knows(time - outward * shift) for time in times)]
        if shifts:
            self.eval()
            difference = Recurrence(self, shown, self.knows)
            self.alike_after[self.take_of[frames[0]]] = min(shifts, key=difference)
            self.train()

    @property
    def gait_period(self) -> float | None:
        """The time after which the bones' motion repeats, as a part of the clip; None: not found."""
        return self.bone_motion.period

    def repeat_every(self, period: float | None) -> None:
        """Sets the period (a part of the clip; None: there is none) of bones and root, for a walk also sways; no pose changes."""
        for motion in (self.bone_motion, self.root_motion):
            motion.repeat_every(period, self.span_entered)
        self._kept.clear()

    @property
    def span_entered(self) -> tuple[float, float]:
        """First and last time of the frames that have entered; all of the clip before any has."""
        if not self.frames_entered:
            return 0.0, 1.0
        return self.clip_times[min(self.frames_entered)], self.clip_times[max(self.frames_entered)]

    def knows(self, time: float) -> bool:
        """Whether the frames about a time (a part of the clip) have entered and no gap lies between them."""
        return self._known_take(time) is not None

    def _known_take(self, time: float) -> int | None:
        """The number of the take that a known time lies in."""
        after = bisect_left(self.clip_times, time - SAME_TIME)
        at_frame = after < len(self.take_of) and self.clip_times[after] <= time + SAME_TIME
        before = after if at_frame else after - 1
        known = self.frames_entered.issuperset((before, after)) and self._together(before, after)
        return self.take_of[after] if known else None

    def find_gait(
        self, frames: Iterable[tuple[Cameras, UInt8[Tensor, "H W 4"]]], part: float, with_mirror: bool
    ) -> None:
        """Looks for the time after which the animal's motion repeats.

        Args:
            frames: some of those that have entered.
            part: of the clip that has entered.
            with_mirror: whether to look, too, for the plane in which it repeats mirrored after half of it.
        """
        self.gait_part = part
        self.eval()
        recurrence = Recurrence(self, frames, self.knows)
        least_by_bones = LEAST_BY_BONES if part < 1 else -1.0
        period = gait_period(self.bone_motion, recurrence, self.span_entered, least_by_bones)
        self.repeat_every(period)
        if self.gait_period is not None and with_mirror:
            find_mirror(self.mirror, self.means, self.canonical_opacities(), self.gait_period, recurrence)
            states = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
            self._before_trial = copy.deepcopy((self.state_dict(), states))
        self.train()

    def settle_gait(self, frames: Iterable[tuple[Cameras, UInt8[Tensor, "H W 4"]]]) -> None:
        """Sets the period, and a mirror's half of it, right by some frames of the clip: it was found when poses were worse."""
        assert self.gait_period is not None
        self.eval()
        tolerance = 0.5 * self.bone_motion.mean_spacing / SAMPLES_A_FRAME
        period = closest_period(Recurrence(self, frames, self.knows), self.gait_period, tolerance)
        self.repeat_every(period)
        if self.mirror.shift is not None:
            self.mirror.shift = period / 2
        self.train()

    def weigh_mirror(self, frames: Iterable[tuple[Cameras, UInt8[Tensor, "H W 4"]]]) -> None:
        """Looks at what the mirror that is on trial explains of some frames of the clip."""
        assert self.gait_period is not None
        self.eval()
        self.mirror.weigh(self.gait_period, Recurrence(self, frames, self.knows))
        self.train()

    def judge_mirror(self) -> None:
        """Keeps the mirror that is on trial, or drops it and what was learned with it, by what was seen of it."""
        self.mirror.judge()
        if self.mirror.shift is None and self._before_trial is not None:  # a run that was resumed meanwhile has none
            self._return_to(*self._before_trial)
            self.mirror.shift, self.mirror.on_trial = None, False
        self._before_trial = None

    def _return_to(self, state: dict[str, Any], optimizers: dict[str, Any]) -> None:
        """Goes back to former states; learning rates stay those of now."""
        for name in self.gauss_params:  # of another number by now, and autograd remembers the sizes of the old ones
            self.gauss_params[name] = Parameter(state[f"gauss_params.{name}"])
            self.optimizers[name].state.clear()
            self.optimizers[name].param_groups[0]["params"] = [self.gauss_params[name]]
        self.load_state_dict(state)
        for name, optimizer in self.optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": optimizers[name]["state"], "param_groups": groups})

    @torch.no_grad()
    def settle_depth(self, positions: Float[Tensor, "T 3"], most: float) -> None:
        """Puts the animal nearer to the distance from the canonical camera at which it moves least as a whole; its pictures stay.

        Gaussians and bones each have a place of their own: it takes them long to go there one by one.

        Args:
            positions: of the cameras of all frames, in the world.
            most: an animal that moves farther as a whole really goes somewhere, and stays where it is.
        """
        frames = sorted(self.frames_entered)
        canonical, positions = frames.index(self.canonical_index), positions[frames]
        ways = self.root_motion.change(self.root_motion.knots[frames])[:, 3:]
        if float(ways.norm(dim=-1).max()) > most:
            return
        middle, position = self.means.mean(dim=0), positions[canonical]
        rays = torch.nn.functional.normalize(middle + ways - positions, dim=-1)
        error = depth_error(ways, rays, rays[canonical])
        growth = 1 + error / (middle - position).norm()
        for places in (self.gauss_params["means"], self.bones.centers, self.mirror.point):
            places.copy_(position + growth * (places - position))
        for log_scales in (self.gauss_params["scales"], self.bones.log_scales):
            log_scales.add_(growth.log())
        self.root_motion.table[frames, 3:] -= error * (across(rays) @ rays[canonical])

    @contextlib.contextmanager
    def poses_dropped(self, part: float) -> Iterator[None]:
        """Within it some frames have no poses of their own but what lies between their neighbours'; both ends and the canonical one do.

        A pose then has to suit the frames beside it, too, instead of making up for what is wrong with the shape in one picture.

        Args:
            part: of the frames, drawn at random.
        """
        hidden = torch.rand(len(self.clip_times)) < part
        hidden[[0, self.canonical_index, -1]] = False
        with self.bone_motion.without(hidden), self.root_motion.without(hidden):
            yield

    def free_canonical_pose(self) -> None:
        """From now on the canonical frame has a pose to learn, as any other; its change goes into the shape.

        Not before all frames have entered: where a leg of it still stands wrong, those that follow would be led astray.
        """
        if self.bones_placed and not self.bone_motion.canonical_learns:
            self.bone_motion.settle()
            self.bone_motion.canonical_learns = True

    @torch.no_grad()
    def settle_canonical_pose(self) -> None:
        """Moves the canonical Gaussians and bones as the step has moved the canonical frame's pose, which is the identity again.

        A leg that stands wrong in it goes to its place as a whole, as in any other frame; those keep their poses, for
        their twists are counted from it.
        """
        change = self.bone_motion.settle()
        weights, bones, gaussians = self.skin_weights(), self.bones, self.gauss_params
        blended = blend_transforms(weights, bone_transforms(change, bones.centers))
        gaussians["means"].copy_(apply_transforms(blended, self.means))
        gaussians["quats"].copy_(turned(self.quats, weights @ change[:, :3]))
        bones.centers.add_(change[:, 3:])
        bones.quats.copy_(turned(bones.quats, change[:, :3]))

    def step_post_backward(self, step: int) -> None:
        """After each step: what it did to the canonical pose, and densification."""
        if self.bone_motion.canonical_learns:
            self.settle_canonical_pose()
        super().step_post_backward(step)
