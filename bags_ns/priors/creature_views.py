"""Pictures of made-up animals for the small prior: several views of each, with their cameras, on the device that trains.

World of a view: the animal's centre (nearly that of its box) at the origin, its length about 1, z up.

Cones are as wide as they are high, real animals are narrower, and built in more ways than the table of body plans. So some
animals are varied: each of their cones is thicker or thinner, and they are drawn narrower as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bags_ns.cameras import look_at
from bags_ns.data.creatures import Creatures, Lights, Poses, random_creatures, random_lights, random_poses, rest_poses
from bags_ns.data.creatures import render as tracing
from bags_ns.data.creatures.anatomy import CONES
from bags_ns.data.creatures.batch import chance, uniform
from bags_ns.data.creatures.plain import plain_lights, random_plain_bodies
from bags_ns.data.creatures.pose import pose_cones
from bags_ns.data.creatures.shading import shade
from bags_ns.priors.small_config import ViewRanges

NUM_NOW = 5
"""Views of an animal at one time: a reference and four targets."""
NUM_OTHER = 2
"""Further references, each at a time of its own."""
NUM_VIEWS = NUM_NOW + NUM_OTHER

VARIED_WIDTHS = (0.55, 1.05)
"""Widths of varied animals, relative to those that their cones give."""
VARIED_RADII = 0.18
"""Standard deviation of the logarithm of what their cones' radii are multiplied by; head and snout, which carry the marks, keep theirs."""


def _cones_of_both_sides() -> list[int]:
    """For each cone itself or, for one of the right side, that of the left."""
    names = [cone.name for cone in CONES]
    return [names.index(name.replace("right", "left")) for name in names]


BOTH_SIDES = _cones_of_both_sides()
KEEPS_RADIUS = [cone.part == "head" for cone in CONES]


@dataclass(frozen=True)
class CreatureViews:
    """`views` are `NUM_NOW` at one time, then `NUM_OTHER` at other times."""

    images: UInt8[Tensor, "N views 4 size size"]
    """Straight RGBA."""
    camera_to_worlds: Float[Tensor, "N views 4 4"]
    fovs_deg: Float[Tensor, "N views"]

    def __len__(self) -> int:
        return len(self.images)

    def select(self, animals: Int[Tensor, " batch"], views: Int[Tensor, "batch chosen"]) -> CreatureViews:
        """Some views of some animals."""
        index = (animals[:, None], views)
        return CreatureViews(self.images[index], self.camera_to_worlds[index], self.fovs_deg[index])

    def on_white(self, recolor: Float[Tensor, "N 3 3"] | None = None) -> Float[Tensor, "N views 3 size size"]:
        """Pictures in [-1, 1] on white, the animals' colours multiplied by `recolor`."""
        rgba = self.images.float() / 255
        rgb, alpha = rgba[:, :, :3], rgba[:, :, 3:]
        if recolor is not None:
            rgb = (recolor[:, None] @ rgb.flatten(3)).view(rgb.shape).clamp(0, 1)
        return 2 * (rgb * alpha + 1 - alpha) - 1

    def write(self, start: int, views: CreatureViews) -> None:
        """Overwrites the animals from `start` on."""
        for mine, new in zip(vars(self).values(), vars(views).values(), strict=True):
            mine[start : start + len(new)] = new


class Shot(NamedTuple):
    """What stands before the camera in one view of each animal."""

    creatures: Creatures
    poses: Poses
    centers: Float[Tensor, "batch 3"]
    """The origin of the view's world."""
    lights: Lights
    hazy: Float[Tensor, " batch"]
    """1: soft edges and a quarter of the white background shining through; 0: opaque."""
    widths: Float[Tensor, " batch"]
    """Factors of all lengths along x, from side to side."""


class CreatureStudio:
    """Draws batches of animals, with fixed shapes. `compiled` pays on a GPU only."""

    def __init__(
        self,
        size: int,
        generator: torch.Generator,
        ranges: ViewRanges | None = None,
        plain_share: float = 0.35,
        compiled: bool = False,
        varied_share: float = 0.0,
    ) -> None:
        self.size, self.generator, self.device = size, generator, generator.device
        self.ranges, self.plain_share, self.varied_share = ranges or ViewRanges(), plain_share, varied_share
        self._tracer = _Tracer(compiled)
        self._debt = 0.0

    @torch.no_grad()
    def draw(self, num_animals: int) -> CreatureViews:
        """Views of new animals, all plain ones or all animal-like ones, in turns that keep to `plain_share`."""
        self._debt += self.plain_share
        plain = self._debt >= 0.5
        self._debt -= float(plain)
        shots = self._plain_shots(num_animals) if plain else self._animal_shots(num_animals)
        cameras, fovs = random_cameras(num_animals, self.ranges, self.generator)
        images = torch.empty(num_animals, NUM_VIEWS, 4, self.size, self.size, dtype=torch.uint8, device=self.device)
        for view, shot in enumerate(shots):
            placed = cameras[:, view].clone()
            placed[:, :3, 3] += _along_x(shot.centers, shot.widths)
            images[:, view] = self._tracer(shot, placed, fovs[:, view], self.size)
        return CreatureViews(images, cameras, fovs)

    def fill(self, num_animals: int, chunk: int, advance: Callable[[int], None] = lambda count: None) -> CreatureViews:
        """Views of many animals, drawn `chunk` at a time; `num_animals` is a multiple of it."""
        views = CreatureViews(
            torch.empty(num_animals, NUM_VIEWS, 4, self.size, self.size, dtype=torch.uint8, device=self.device),
            torch.empty(num_animals, NUM_VIEWS, 4, 4, device=self.device),
            torch.empty(num_animals, NUM_VIEWS, device=self.device),
        )
        for start in range(0, num_animals, chunk):
            views.write(start, self.draw(chunk))
            advance(chunk)
        return views

    def _animal_shots(self, batch: int) -> Iterator[Shot]:
        """Every view of animal-like creatures."""
        creatures, widths = self._varied(random_creatures(batch, self.generator, self.device))
        lights = random_lights(batch, self.generator, self.device)
        for repeats in (NUM_NOW, *[1] * NUM_OTHER):
            poses = random_poses(batch, self.generator, self.device)
            opaque = torch.zeros(batch, device=self.device)
            shot = Shot(creatures, poses, self._center(creatures, poses), lights, opaque, widths)
            yield from [shot] * repeats

    def _varied(self, creatures: Creatures) -> tuple[Creatures, Float[Tensor, " batch"]]:
        """Some of them with other radii, and the widths of all."""
        batch = len(creatures.start_radii)
        widths = torch.ones(batch, device=self.device)
        if self.varied_share == 0:
            return creatures, widths
        varied = chance(self.generator, self.device, self.varied_share, batch)
        widths = _where(varied, uniform(self.generator, self.device, *VARIED_WIDTHS, batch), widths)
        logs = VARIED_RADII * torch.randn(batch, len(CONES), generator=self.generator, device=self.device)
        logs = logs[:, BOTH_SIDES] * varied[:, None]
        logs[:, KEEPS_RADIUS] = 0.0
        radii = {name: getattr(creatures, name) * logs.exp() for name in ("start_radii", "end_radii")}
        return replace(creatures, **radii), widths

    def _plain_shots(self, batch: int) -> Iterator[Shot]:
        """Every view of plain creatures; half of them hazy and in the light that is usual for them."""
        bodies = random_plain_bodies(batch, self.generator, self.device)
        other, usual = random_lights(batch, self.generator, self.device), plain_lights(batch, self.device)
        hazy = chance(self.generator, self.device, 0.5, batch)
        lights = Lights(*(_where(hazy, a, b) for a, b in zip(vars(usual).values(), vars(other).values(), strict=True)))
        poses = rest_poses(batch, self.device)
        for repeats in (NUM_NOW, *[1] * NUM_OTHER):
            creatures = bodies.random_poses(self.generator)
            # Half of them are centred as they were built, whatever their pose.
            center = self._center(creatures, poses) * chance(self.generator, self.device, 0.5, batch, 1)
            yield from [Shot(creatures, poses, center, lights, hazy, torch.ones_like(hazy))] * repeats

    def _center(self, creatures: Creatures, poses: Poses) -> Float[Tensor, "batch 3"]:
        """About the middle of the posed animal: users know the centre of what they have so far only."""
        low, high = tracing.posed_boxes(creatures, poses)
        off = torch.randn(low.shape, generator=self.generator, device=self.device)
        return 0.5 * (low + high) + self.ranges.off_center * off


class _Tracer:
    """The creatures' sphere tracing with its step and its shading compiled one by one: seconds, where the whole takes minutes."""

    def __init__(self, compiled: bool) -> None:
        self.step = torch.compile(tracing._step, dynamic=False) if compiled else tracing._step
        self.shade = torch.compile(shade, dynamic=False) if compiled else shade

    def __call__(
        self, shot: Shot, camera_to_worlds: Float[Tensor, "batch 4 4"], fovs_deg: Float[Tensor, " batch"], size: int
    ) -> UInt8[Tensor, "batch 4 size size"]:
        """Straight RGBA pictures."""
        cones = pose_cones(shot.creatures, shot.poses)
        rays = narrowed(tracing._camera_rays(camera_to_worlds, intrinsics(fovs_deg, size), size, size, 1), shot.widths)
        field, march = tracing.ConeField(cones), tracing._start(cones, rays)
        for _ in range(tracing.NUM_STEPS):
            march = self.step(field, rays, march)
        sharp, soft = (0.5 - march.clearances).clamp(0.0, 1.0), torch.sigmoid(1 - 4 * march.clearances.clamp_min(0.0))
        alpha = _where(shot.hazy, soft, sharp)
        rgb = self.shade(field, shot.creatures, shot.lights, rays.points(march.best_depths), rays.directions)
        rgba = torch.cat([rgb, alpha[..., None]], dim=-1).transpose(1, 2)
        return (255 * rgba).round().to(torch.uint8).view(-1, 4, size, size)


def narrowed(rays: tracing.Rays, widths: Float[Tensor, " batch"]) -> tracing.Rays:
    """The same rays in a world in which animals have the width of their cones; light is narrowed along with them."""
    directions = torch.nn.functional.normalize(_along_x(rays.directions, 1 / widths[:, None]), dim=-1)
    return replace(rays, origins=_along_x(rays.origins, 1 / widths), directions=directions)


def _along_x(vectors: Float[Tensor, "*batch 3"], factors: Float[Tensor, "*#batch"]) -> Float[Tensor, "*batch 3"]:
    """Vectors with their first coordinate multiplied."""
    return torch.cat([vectors[..., :1] * factors[..., None], vectors[..., 1:]], dim=-1)


def intrinsics(fovs_deg: Float[Tensor, " batch"], size: int) -> Float[Tensor, "batch 3 3"]:
    """Pinhole intrinsics of square pictures."""
    focal = 0.5 * size / torch.tan(torch.deg2rad(fovs_deg) / 2)
    matrix = torch.zeros(len(focal), 3, 3, device=focal.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = focal
    matrix[:, :2, 2] = 0.5 * size
    matrix[:, 2, 2] = 1
    return matrix


def random_cameras(
    batch: int, ranges: ViewRanges, generator: torch.Generator
) -> tuple[Float[Tensor, "batch views 4 4"], Float[Tensor, "batch views"]]:
    """Camera poses about the origin and fields of view (degrees) of all views of each animal."""
    device = generator.device

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return uniform(generator, device, low, high, batch, *shape)

    azimuths = draw(0.0, 2 * math.pi, NUM_VIEWS)
    # Half of the animals have their four targets a quarter of a turn apart, as in a run with four views.
    apart = azimuths[:, 1:2] + torch.arange(4, device=device) * (math.pi / 2)
    azimuths[:, 1:NUM_NOW] = _where(chance(generator, device, 0.5, batch), apart, azimuths[:, 1:NUM_NOW])
    reach = math.radians(ranges.other_azimuth_deg)
    near = chance(generator, device, 0.8, batch, NUM_OTHER) > 0
    azimuths[:, NUM_NOW:] = torch.where(near, azimuths[:, :1] + draw(-reach, reach, NUM_OTHER), azimuths[:, NUM_NOW:])
    elevations = torch.deg2rad(draw(*ranges.elevation_deg, NUM_VIEWS))
    elevations[:, NUM_NOW:] = torch.where(near, elevations[:, :1] + draw(-0.1, 0.1, NUM_OTHER), elevations[:, NUM_NOW:])
    fovs = _where(
        chance(generator, device, 0.5, batch, 2),
        torch.full_like(draw(0.0, 1.0, 2), ranges.usual_fov_deg),
        draw(*ranges.fov_deg, 2),
    )
    fovs = fovs[:, [0, 1, 1, 1, 1, 0, 0]]
    radii = 0.5 / (draw(*ranges.fill, NUM_VIEWS) * torch.tan(torch.deg2rad(fovs) / 2))
    flat = elevations.cos()
    directions = torch.stack([flat * azimuths.cos(), flat * azimuths.sin(), elevations.sin()], dim=-1)
    aim = 0.02 * torch.randn(directions.shape, generator=generator, device=device)
    return look_at(directions * radii[..., None].clamp_min(1.1), aim), fovs


def random_colors(batch: int, generator: torch.Generator) -> Float[Tensor, "batch 3 3"]:
    """Changes of colour: brighter or darker, a little tinted, and for one animal in five the channels in another order."""
    device = generator.device
    order = torch.rand(batch, 3, generator=generator, device=device).argsort(dim=1)
    kept = torch.rand(batch, 1, generator=generator, device=device) > 0.2
    order = torch.where(kept, torch.arange(3, device=device), order)
    gain = 0.8 + 0.45 * torch.rand(batch, 1, 1, generator=generator, device=device)
    tint = 0.95 + 0.1 * torch.rand(batch, 3, 1, generator=generator, device=device)
    return torch.eye(3, device=device)[order] * gain * tint


def _where(chosen: Float[Tensor, "batch *more"], yes: Tensor, no: Tensor) -> Tensor:
    """`yes` where `chosen` is 1, `no` where it is 0."""
    return torch.where(chosen.view(*chosen.shape, *[1] * (yes.ndim - chosen.ndim)) > 0, yes, no)
