"""Losses as functions of tensors."""

import torch

from bags_ns import losses


def test_colours_spread_from_what_is_seen_to_what_is_not():
    """A line of Gaussians whose one end is held red: the rest, grey at first, takes its colour on."""
    torch.manual_seed(0)
    means = torch.stack([torch.linspace(0, 1, 40), torch.zeros(40), torch.zeros(40)], dim=1)
    colors = torch.full((40, 3), 0.5, requires_grad=True)
    red, opacities = torch.tensor([1.0, 0.0, 0.0]), torch.ones(40)
    optimizer = torch.optim.Adam([colors], lr=0.02)
    for _ in range(600):
        optimizer.zero_grad()
        spread = losses.color_spread(means, colors, opacities, torch.randint(40, (40,)))
        (spread + 10 * (colors[:5] - red).square().mean()).backward()
        optimizer.step()
    assert (colors - red).abs().max() < 0.1


def test_only_the_sample_is_moved_and_opaque_neighbours_count_more():
    means = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    colors = torch.zeros(30, 3, requires_grad=True)
    opacities = torch.zeros(30)
    sample = torch.tensor([3])
    nearest = torch.cdist(means[3:4], means)[0].argsort()[1]
    opacities[nearest] = 1.0
    with torch.no_grad():
        colors[nearest] = 1.0
    losses.color_spread(means, colors, opacities, sample).backward()
    assert colors.grad[3].abs().max() > 1.9 and colors.grad.count_nonzero() == 3


def covered(*rows: tuple[int, int, int, int], size: int = 64) -> torch.Tensor:
    """One picture's coverage [1 H W 1]: 1 in rectangles (top, bottom, left, right)."""
    alpha = torch.zeros(1, size, size, 1)
    for top, bottom, left, right in rows:
        alpha[:, top:bottom, left:right] = 1
    return alpha


def legs(places: torch.Tensor) -> torch.Tensor:
    """Points of upright legs of 40 pixels, as of one picture [1 S 2]."""
    return torch.stack([places.repeat_interleave(21), torch.linspace(12, 52, 21).repeat(len(places))], dim=1)[None]


def test_legs_that_are_lost_between_the_places_of_two_find_them():
    """Neither overlaps with its place, so that no gradient of a render could say where to go."""
    torch.manual_seed(0)
    true_alpha, alpha = covered((12, 52, 8, 12), (12, 52, 48, 52)), covered((12, 52, 28, 30), (12, 52, 33, 35))
    places = torch.tensor([29.0, 34.0], requires_grad=True)
    optimizer = torch.optim.Adam([places], lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        losses.reach(legs(places), alpha, true_alpha, 64).backward()
        optimizer.step()
    assert torch.allclose(places, torch.tensor([10.0, 50.0]), atol=1.5)


def test_an_animal_that_is_covered_is_reached():
    true_alpha = covered((12, 52, 8, 12))
    points = legs(torch.tensor([40.0]))
    assert losses.reach(points, true_alpha, true_alpha, 16) == 0
    assert losses.reach(points, 0.5 * true_alpha, true_alpha, 16) > 0


def test_an_outline_is_not_drawn_to_its_own_edge():
    """Points of a leg that is a pixel too thin: what is missing is too near to be a limb that was lost."""
    true_alpha, alpha = covered((12, 52, 8, 14)), covered((12, 52, 9, 13))
    points = legs(torch.tensor([9.0, 10.5, 13.0]))
    assert losses.reach(points, alpha, true_alpha, 64) < 1e-3
    assert losses.reach(points + 8, alpha, true_alpha, 64) > 0.05
