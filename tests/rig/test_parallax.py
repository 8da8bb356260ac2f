from __future__ import annotations

import pytest
import torch

from bags_ns.rig.parallax import across, depth_error


@pytest.mark.parametrize("error", [-0.05, 0.0, 0.08])
def test_an_animal_that_is_placed_too_near_or_too_far_seems_to_move_and_that_says_by_how_much(error):
    angles = torch.deg2rad(torch.linspace(-60, 60, 13))
    positions = 3 * torch.stack([angles.sin(), -angles.cos(), torch.full_like(angles, 0.2)], dim=1)
    place = torch.tensor([0.1, 0.05, 0.0])
    rays = torch.nn.functional.normalize(place - positions, dim=1)
    taken = place - error * rays[6]
    seen = (across(rays) @ (place - taken)[:, None])[
        ..., 0
    ]  # what a root that stays in the picture's plane makes of it
    swaying = 0.01 * torch.sin(7 * torch.linspace(0, 3, 13))[:, None] * torch.tensor([0.0, 0.0, 1.0])
    assert float(depth_error(seen + swaying, rays, rays[6])) == pytest.approx(error, rel=0.15, abs=2e-3)
    assert not (across(rays) @ rays[..., None]).abs().max() > 1e-6
