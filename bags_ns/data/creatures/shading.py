"""Colour of a creature's surface: soft light, and a coat that sticks to the body as it moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.data.creatures.batch import TensorBatch, uniform
from bags_ns.data.creatures.coat import Coats
from bags_ns.data.creatures.cones import BLEND, ConeField
from bags_ns.data.creatures.shape import Creatures


@dataclass(frozen=True)
class Lights(TensorBatch):
    """Soft light, fixed in the world, without cast shadows. Strengths add up to about 1."""

    directions: Float[Tensor, "batch 3"]
    """Unit vectors towards the key light."""
    key: Float[Tensor, "batch 3"]
    """Strength (RGB) of the key light."""
    sky: Float[Tensor, "batch 3"]
    """Strength (RGB) of light from all round, on surfaces that look up."""
    ground: Float[Tensor, "batch 3"]
    """The same on surfaces that look down."""
    head: Float[Tensor, " batch"]
    """Strength of a light at the camera."""


def default_lights(batch: int, device: torch.device | None = None) -> Lights:
    """Soft daylight from above, a little from the front and the left."""
    direction = torch.nn.functional.normalize(torch.tensor([0.3, -0.4, 0.85], device=device), dim=0)
    key, sky, ground = (torch.full((batch, 3), value, device=device) for value in (0.38, 0.68, 0.5))
    return Lights(direction.expand(batch, 3), key, sky, ground, torch.full((batch,), 0.05, device=device))


def random_lights(batch: int, generator: torch.Generator, device: torch.device | None = None) -> Lights:
    """Lights of random direction (above the horizon), strength, tint and contrast."""
    device = generator.device if device is None else device

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return uniform(generator, device, low, high, batch, *shape)

    heading, height = draw(0.0, 6.2832), draw(0.15, 1.0)
    flat = (1 - height.square()).sqrt()
    directions = torch.stack([flat * heading.cos(), flat * heading.sin(), height], dim=-1)
    key, sky = draw(0.1, 0.65, 1), draw(0.45, 0.75, 1)
    tints = draw(0.92, 1.06, 3, 3)
    ground = sky * draw(0.55, 1.0, 1)
    return Lights(directions, key * tints[:, 0], sky * tints[:, 1], ground * tints[:, 2], draw(0.0, 0.25))


def shade(
    field: ConeField,
    creatures: Creatures,
    lights: Lights,
    points: Float[Tensor, "batch rays 3"],
    directions: Float[Tensor, "batch rays 3"],
) -> Float[Tensor, "batch rays 3"]:
    """Colour (RGB) of the surface nearest to `points`, seen along `directions`."""
    samples = field.evaluate(points)
    normals = field.normals(points, samples)
    # Colours melt over a third of the width over which the shape does.
    weights = torch.softmax(samples.distances * (-3 / BLEND), dim=-1)
    T_world_rest = _blend(weights, field.cones.T_world_rest[..., :3, :].flatten(2)).unflatten(-1, (3, 4))
    back = T_world_rest[..., :3].transpose(-1, -2)
    rest_points = (back * (points - T_world_rest[..., 3])[..., None, :]).sum(dim=-1)
    rest_normals = (back * normals[..., None, :]).sum(dim=-1)
    albedo = _coat_colors(creatures, weights, samples.along / field.lengths, rest_points, rest_normals)
    return (albedo * _light(lights, normals, directions)).clamp(0.0, 1.0)


def _blend(
    weights: Float[Tensor, "batch rays cones"], values: Float[Tensor, "batch cones k"]
) -> Float[Tensor, "batch rays k"]:
    """Means over cones of values that belong to cones."""
    return torch.einsum("brc,bck->brk", weights, values)


def _light(
    lights: Lights, normals: Float[Tensor, "batch rays 3"], directions: Float[Tensor, "batch rays 3"]
) -> Float[Tensor, "batch rays 3"]:
    """Light (RGB) that surfaces send to the camera."""
    up = 0.5 + 0.5 * normals[..., 2:]
    around = lights.ground[:, None] + up * (lights.sky - lights.ground)[:, None]
    key = (normals * lights.directions[:, None]).sum(dim=-1, keepdim=True).clamp_min(0.0)
    head = -(normals * directions).sum(dim=-1, keepdim=True).clamp_max(0.0)
    return around + key * lights.key[:, None] + head * lights.head[:, None, None]


def _coat_colors(
    creatures: Creatures,
    weights: Float[Tensor, "batch rays cones"],
    along: Float[Tensor, "batch rays cones"],
    rest_points: Float[Tensor, "batch rays 3"],
    rest_normals: Float[Tensor, "batch rays 3"],
) -> Float[Tensor, "batch rays 3"]:
    """Colour (RGB) of surface points without light. `along` is the place along each cone, 0 to 1."""
    coat = creatures.coat
    turned = weights * _ramp(along - coat.color_splits[:, None], 0.12)
    colors = _blend(weights, coat.start_colors) + _blend(turned, coat.end_colors - coat.start_colors)
    patterned, underside = (_blend(weights, shown[..., None]) for shown in (coat.pattern_shown, coat.under_shown))
    colors = colors.lerp(coat.marking_color[:, None], patterned * _pattern(coat, rest_points))
    waves, phase, strength = coat.rings[:, None].unbind(-1)
    ringed = _ramp(((weights * along).sum(dim=-1) * waves + phase).sin() - 0.35, 0.1) * strength
    colors = colors.lerp(coat.marking_color[:, None], ringed[..., None])
    below = _ramp(coat.under_level[:, None] - rest_normals[..., 2], 0.15)[..., None]
    colors = colors.lerp(coat.under_color[:, None], underside * below)
    gaps = (rest_points[:, :, None] - creatures.mark_centers[:, None]).norm(dim=-1) / creatures.mark_radii[:, None]
    marked = _ramp(1 - gaps, 0.15).amax(dim=-1, keepdim=True)
    return colors.lerp(coat.mark_color[:, None], marked)


def _pattern(coat: Coats, rest_points: Float[Tensor, "batch rays 3"]) -> Float[Tensor, "batch rays 1"]:
    """Where the pattern shows, 0 to 1."""
    x, y, z = rest_points.unbind(-1)
    x = torch.where(coat.asymmetry[:, None] > 0, x, x.abs())
    angles = coat.wave_phases[:, None]
    for i, coordinate in enumerate((x, y, z)):
        angles = torch.addcmul(angles, coordinate[..., None], coat.waves[:, None, :, i])
    return _ramp(angles.sin().mean(dim=-1) - coat.marking_level[:, None], 0.06)[..., None]


def _ramp(values: Float[Tensor, "*shape"], width: float) -> Float[Tensor, "*shape"]:
    """0 below -width, 1 above width, smooth between."""
    t = (values * (0.5 / width) + 0.5).clamp(0.0, 1.0)
    return t * t * (3 - 2 * t)
