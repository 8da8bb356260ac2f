"""Pictures of creatures by sphere tracing, in plain torch: batched with fixed shapes, or with finished rays left out.

The fixed path (`compact=False`) has no data-dependent shapes and suits `torch.compile`; the other gives the same picture
and is quicker where it runs eagerly (CPU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bags_ns.data.creatures.batch import TensorBatch
from bags_ns.data.creatures.cones import BLEND, ConeField, Cones, cone_boxes
from bags_ns.data.creatures.pose import Poses, pose_cones
from bags_ns.data.creatures.shading import Lights, default_lights, shade
from bags_ns.data.creatures.shape import Creatures

NUM_STEPS = 28
"""Steps along a ray: enough at 64 pixels; finer pictures need more where rays graze the body (a clip takes 96)."""

TILE = 8
"""Side of the squares of rays that the compact path tests at once."""

CHUNK = 4096
"""Rays that the compact path follows at once: their numbers stay in a processor's cache."""


class CreatureImages(NamedTuple):
    """Straight (not premultiplied) colour and coverage."""

    rgb: Float[Tensor, "batch H W 3"]
    """In [0, 1]; 0 where alpha is 0."""
    alpha: Float[Tensor, "batch H W 1"]
    """Share of the pixel that the animal covers, in [0, 1]."""


def render_creatures(
    creatures: Creatures,
    poses: Poses,
    camera_to_worlds: Float[Tensor, "batch 4 4"],
    Ks: Float[Tensor, "batch 3 3"],
    width: int,
    height: int,
    lights: Lights | None = None,
    supersample: int = 1,
    num_steps: int = NUM_STEPS,
    compact: bool = False,
) -> CreatureImages:
    """One picture of each creature in its pose, from its own camera.

    Args:
        camera_to_worlds: OpenGL camera poses.
        Ks: pinhole intrinsics in pixels (pixel centres at half-integers).
        lights: daylight from above unless told.
        supersample: rays along each side of a pixel. Silhouettes are antialiased with 1 too, colours inside are not.
        compact: leave finished rays out, picture by picture (same result, data-dependent shapes).
    """
    lights = default_lights(len(Ks), Ks.device) if lights is None else lights
    cones = pose_cones(creatures, poses)
    rays = _camera_rays(camera_to_worlds, Ks, width, height, supersample)
    if compact:
        rgb, alpha = _draw_compact(cones, creatures, lights, rays, num_steps, columns=width * supersample)
    else:
        rgb, alpha = _draw(cones, creatures, lights, rays, num_steps)
    return _to_pixels(rgb, alpha, width, height, supersample)


@dataclass(frozen=True)
class Rays(TensorBatch):
    """Rays of whole pictures, and the width of a ray a unit of its length."""

    origins: Float[Tensor, "batch 3"]
    directions: Float[Tensor, "batch rays 3"]
    footprints: Float[Tensor, "batch 1"]

    def points(self, depths: Float[Tensor, "batch rays"]) -> Float[Tensor, "batch rays 3"]:
        """Points on the rays."""
        return self.origins[:, None] + depths[..., None] * self.directions

    def subset(self, index: Tensor) -> Rays:
        """Some of the rays, the same of each picture."""
        return Rays(self.origins, self.directions[:, index], self.footprints)


def _camera_rays(
    camera_to_worlds: Float[Tensor, "batch 4 4"],
    Ks: Float[Tensor, "batch 3 3"],
    width: int,
    height: int,
    supersample: int,
) -> Rays:
    """Rays through the centres of pixels (or of their `supersample` x `supersample` parts), row by row."""
    columns, rows = (
        (torch.arange(size * supersample, device=Ks.device, dtype=Ks.dtype) + 0.5) / supersample
        for size in (width, height)
    )
    x = ((columns - Ks[:, 0, 2, None]) / Ks[:, 0, 0, None])[:, None, :].expand(-1, len(rows), -1)
    y = ((Ks[:, 1, 2, None] - rows) / Ks[:, 1, 1, None])[:, :, None].expand(-1, -1, len(columns))
    local = torch.nn.functional.normalize(torch.stack([x, y, -torch.ones_like(x)], dim=-1).flatten(1, 2), dim=-1)
    axes = camera_to_worlds[:, None, :3, :3]
    directions = (axes * local[..., None, :]).sum(dim=-1)
    return Rays(camera_to_worlds[:, :3, 3], directions, 1 / (Ks[:, 0, :1] * supersample))


class _March(NamedTuple):
    """State of rays on their way: where they are, and where they came nearest to the surface."""

    depths: Float[Tensor, "batch rays"]
    far: Float[Tensor, "batch rays"]
    best_depths: Float[Tensor, "batch rays"]
    clearances: Float[Tensor, "batch rays"]
    """Smallest distance to the surface so far, in ray widths."""


def _start(cones: Cones, rays: Rays, spread: float = 0.5) -> _March:
    """Rays where they enter a ball around the creature and `spread` ray widths more (if they miss it: nearest to it)."""
    low, high = cone_boxes(cones.starts, cones.ends, cones.start_radii, cones.end_radii)
    center = 0.5 * (low + high)
    reach = torch.maximum(
        (cones.starts - center[:, None]).norm(dim=-1) + cones.start_radii,
        (cones.ends - center[:, None]).norm(dim=-1) + cones.end_radii,
    )
    radius = reach.amax(dim=1, keepdim=True) + 2 * BLEND
    offset = (center - rays.origins)[:, None]
    radius = radius + spread * rays.footprints * (offset.norm(dim=-1) + radius)
    middle = (offset * rays.directions).sum(dim=-1)
    half = (radius.square() - offset.square().sum(dim=-1) + middle.square()).clamp_min(0.0).sqrt()
    near, far = (middle - half).clamp_min(0.01), (middle + half).clamp_min(0.01)
    return _March(near, far, near.clone(), torch.full_like(near, torch.inf))


def _step(field: ConeField, rays: Rays, march: _March) -> _March:
    """Rays one step on.

    They head for the surface half a ray's width below the real one (a little more, to get there): then the smallest
    distance seen runs from -1/2 to 1/2 widths across a silhouette, which is the share of the pixel that is covered.
    Steps are at least half a width, else rays would creep along contours. Rays that have arrived stay.
    """
    widths = rays.footprints * march.depths
    distances = field.distance(rays.points(march.depths))
    clearances = distances / widths
    moved = torch.minimum(march.depths + torch.maximum(distances + 0.55 * widths, 0.5 * widths), march.far)
    return _March(
        depths=torch.where(clearances > -0.5, moved, march.depths),
        far=march.far,
        best_depths=torch.where(clearances < march.clearances, march.depths, march.best_depths),
        clearances=torch.minimum(clearances, march.clearances),
    )


def _draw(
    cones: Cones, creatures: Creatures, lights: Lights, rays: Rays, num_steps: int
) -> tuple[Float[Tensor, "batch rays 3"], Float[Tensor, "batch rays"]]:
    """Colour and coverage of every ray, all rays all the way."""
    field, march = ConeField(cones), _start(cones, rays)
    for _ in range(num_steps):
        march = _step(field, rays, march)
    alpha = (0.5 - march.clearances).clamp(0.0, 1.0)
    return shade(field, creatures, lights, rays.points(march.best_depths), rays.directions), alpha


def _draw_compact(
    cones: Cones, creatures: Creatures, lights: Lights, rays: Rays, num_steps: int, columns: int
) -> tuple[Float[Tensor, "batch rays 3"], Float[Tensor, "batch rays"]]:
    """The same as `_draw`, picture by picture and without the rays that miss or are finished."""
    rgb = torch.zeros_like(rays.directions)
    alpha = torch.zeros_like(rays.directions[..., 0])
    for index in range(len(rgb)):
        one = slice(index, index + 1)
        picture = (cones[one], creatures[one], lights[one])
        for chunk in _near_rays(picture[0], rays[one], columns).split(CHUNK):
            chunk_alpha, seen, colors = _draw_chunk(*picture, rays[one].subset(chunk), num_steps)
            alpha[index, chunk] = chunk_alpha
            rgb[index, chunk[seen]] = colors
    return rgb, alpha


def _near_rays(cones: Cones, rays: Rays, columns: int) -> Int[Tensor, " near"]:
    """Indices of one picture's rays but those whose tile of `TILE` x `TILE` rays certainly misses the creature."""
    rows = rays.directions.shape[1] // columns
    row_tiles, column_tiles = (torch.arange(size, device=rays.origins.device) // TILE for size in (rows, columns))
    row_middles, column_middles = (
        (tiles.unique() * TILE + TILE // 2).clamp_max(len(tiles) - 1) for tiles in (row_tiles, column_tiles)
    )
    middles = rays.subset((row_middles[:, None] * columns + column_middles).flatten())
    # No ray of the tile is farther from its middle one than this, in ray widths; half a width for the silhouette.
    reach = TILE * 0.5**0.5 + 0.5
    field, march = ConeField(cones), _start(cones, middles, spread=reach)
    depths, near = march.depths, march.depths < 0
    for _ in range(NUM_STEPS):
        widths = rays.footprints * depths
        left = field.distance(middles.points(depths)) - reach * widths
        near = near | (left < widths)
        depths = torch.minimum(depths + left.clamp_min(0.0), march.far)
    near = near | (depths < march.far)
    return near.reshape(len(row_middles), -1)[row_tiles][:, column_tiles].flatten().nonzero()[:, 0]


def _draw_chunk(
    cones: Cones, creature: Creatures, lights: Lights, rays: Rays, num_steps: int
) -> tuple[Float[Tensor, " rays"], Int[Tensor, " seen"], Float[Tensor, "seen 3"]]:
    """Coverage of some rays of one picture, the indices of those that see something, and their colours."""
    field, march = ConeField(cones), _start(cones, rays)
    live = (march.depths < march.far)[0].nonzero()[:, 0]
    for _ in range(num_steps):
        moved = _step(field, rays.subset(live), _March(*(values[:, live] for values in march)))
        for values, new in zip(march, moved, strict=True):
            values[:, live] = new
        live = live[((moved.clearances > -0.5) & (moved.depths < moved.far))[0]]
        if len(live) == 0:
            break
    alpha = (0.5 - march.clearances[0]).clamp(0.0, 1.0)
    seen = alpha.nonzero()[:, 0]
    rays = rays.subset(seen)
    colors = shade(field, creature, lights, rays.points(march.best_depths[:, seen]), rays.directions)
    return alpha, seen, colors[0]


def _to_pixels(
    rgb: Float[Tensor, "batch rays 3"], alpha: Float[Tensor, "batch rays"], width: int, height: int, supersample: int
) -> CreatureImages:
    """Pixels as means of their rays, colours weighted by coverage."""
    shape = (len(rgb), height, supersample, width, supersample)
    coverage = alpha.reshape(*shape, 1)
    covered = coverage.mean(dim=(2, 4))
    colors = (rgb.reshape(*shape, 3) * coverage).mean(dim=(2, 4))
    return CreatureImages(colors / covered.clamp_min(1e-6), covered)


def posed_boxes(creatures: Creatures, poses: Poses) -> tuple[Float[Tensor, "batch 3"], Float[Tensor, "batch 3"]]:
    """Lowest and highest corner of each posed creature's box."""
    cones = pose_cones(creatures, poses)
    return cone_boxes(cones.starts, cones.ends, cones.start_radii, cones.end_radii)
