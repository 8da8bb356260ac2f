"""Skinning weights: which bones move a point of canonical space, and how that changes from point to point."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bags_ns.rig.bones import Bones, squared_mahalanobis

LENGTH = 10.0
"""Points are multiplied by this before the residual network: details of a tenth of an animal are of order one there."""


class SkinningField(nn.Module):
    """w_b(x) = softmax over bones of -0.5 Mahalanobis^2 / temperature + a residual network of x; constant in time.

    The residual has one hidden tanh layer, so its gradient in x has a closed form; it is zero at the start.
    """

    def __init__(self, num_bones: int, num_hidden: int = 32) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.hidden = nn.Linear(3, num_hidden)
        self.output = nn.Linear(num_hidden, num_bones)
        nn.init.normal_(self.hidden.weight, std=0.5)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, points: Float[Tensor, "N 3"], bones: Bones) -> Float[Tensor, "N B"]:
        """Weights of canonical `points`; rows sum to 1."""
        distances = squared_mahalanobis(points, bones.centers, bones.precisions())
        residual = self.output(torch.tanh(self.hidden(LENGTH * points)))
        return torch.softmax(-0.5 * distances * (-self.log_temperature).exp() + residual, dim=-1)

    def weighted_logit_gradient(
        self, points: Float[Tensor, "N 3"], bones: Bones, factors: Float[Tensor, "N 3 B"]
    ) -> Float[Tensor, "N 3 3"]:
        """sum_b factors_b (d logit_b / dx)^T, without forming the N x 3 x B gradients of the residual network."""
        precisions = bones.precisions() * (-self.log_temperature).exp()
        rows = precisions.transpose(0, 1)  # [3 B 3]
        pulls = points @ rows.flatten(0, 1).T - (rows * bones.centers).sum(-1).flatten()
        gaussian = factors @ pulls.unflatten(1, (3, -1)).transpose(1, 2)
        slopes = 1 - torch.tanh(self.hidden(LENGTH * points)).square()
        per_hidden = factors @ self.output.weight  # [N 3 H]
        return LENGTH * (per_hidden * slopes[:, None, :]) @ self.hidden.weight - gaussian
