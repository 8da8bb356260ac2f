"""A deformation field: each Gaussian goes its own way, after Deformable-3DGS (Yang et al., arXiv 2309.13101).

It is what bones are compared with: F(code(x), code(t)) = offsets of mean, quaternion and scale of the canonical Gaussian
at x, by one network, with no bones and nothing rigid. Of the paper's recipe the annealed noise on t, meant for wrong
cameras, is left out; scales are offset as logarithms, so that they stay positive.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bags_ns.rig.transforms import quat_to_rotation

POSITION_FREQUENCIES, TIME_FREQUENCIES = 10, 6
"""Octaves of the two positional codes: the paper's for captured scenes."""


def octave_code(values: Float[Tensor, "*batch C"], num_octaves: int) -> Float[Tensor, "*batch code"]:
    """[v, sin(2^k v), cos(2^k v)] for k = 0 .. num_octaves - 1 (NeRF's positional encoding without its factor pi)."""
    phases = (values[..., None] * 2.0 ** torch.arange(num_octaves, device=values.device)).flatten(-2)
    return torch.cat([values, phases.sin(), phases.cos()], dim=-1)


class DeformationField(nn.Module):
    """The network: `num_layers` of `num_hidden`, the codes fed in again in the middle; its head is zero at the start."""

    def __init__(self, num_hidden: int, num_layers: int) -> None:
        super().__init__()
        code = 3 * (1 + 2 * POSITION_FREQUENCIES) + 1 + 2 * TIME_FREQUENCIES
        self.middle = num_layers // 2
        sizes = [code if layer == 0 else num_hidden + code * (layer == self.middle) for layer in range(num_layers)]
        self.layers = nn.ModuleList(nn.Linear(size, num_hidden) for size in sizes)
        self.head = nn.Linear(num_hidden, 10)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, means: Float[Tensor, "N 3"], times: Float[Tensor, " K"]) -> Float[Tensor, "K N 10"]:
        """Offsets of mean, quaternion (wxyz) and log scale of canonical Gaussians; no gradient goes into their means here."""
        positions = octave_code(means.detach(), POSITION_FREQUENCIES).expand(len(times), -1, -1)
        moments = octave_code(times[:, None], TIME_FREQUENCIES)[:, None].expand(-1, len(means), -1)
        code = hidden = torch.cat([positions, moments], dim=-1)
        for number, layer in enumerate(self.layers):
            if number == self.middle and number:
                hidden = torch.cat([code, hidden], dim=-1)
            hidden = torch.relu(layer(hidden))
        return self.head(hidden)

    def moved(
        self,
        means: Float[Tensor, "N 3"],
        quats: Float[Tensor, "N 4"],
        log_scales: Float[Tensor, "N 3"],
        times: Float[Tensor, " K"],
        T_world_object: Float[Tensor, "K 4 4"],
    ) -> tuple[Float[Tensor, "K N 3"], Float[Tensor, "K N 3 3"]]:
        """Means and covariances of canonical Gaussians at `times`, in the world: the field first, then the root."""
        offsets = self(means, times)
        rotations = quat_to_rotation(torch.nn.functional.normalize(quats, dim=-1) + offsets[..., 3:7])
        factors = rotations * (log_scales + offsets[..., 7:]).exp()[..., None, :]
        turns, shifts = T_world_object[:, None, :3, :3], T_world_object[:, None, :3, 3]
        factors = turns @ factors
        placed = (turns @ (means + offsets[..., :3])[..., None])[..., 0] + shifts
        return placed, factors @ factors.transpose(-1, -2)
