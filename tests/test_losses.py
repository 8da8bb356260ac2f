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
