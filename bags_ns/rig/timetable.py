"""Tables over the time of a clip: rows of its frames, interpolated, and where the motion repeats, rows of one stride on top."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

STRIDE_ROWS = 16
"""Rows of the table of one stride."""
STRIDE_BENDING = 1e-2
"""What the bending of a stride counts against how far it is from the motion that it is fitted to: it fills phases without a frame."""
MOVEMENT_DEGREE = 2
"""Degree of the polynomial over the clip that is fitted beside a stride, which else would take it up."""


def interpolation_weights(knots: Float[Tensor, " T"], times: Float[Tensor, " K"]) -> Float[Tensor, "K T"]:
    """What each of the ascending `knots` counts at `times`: linear between them, constant beyond, all or nothing at a knot.

    Times a table this interpolates its rows, and its gradient is a product too, where that of indexing is a scatter.
    """
    return hats(*hat_ends(knots), times)


def hat_ends(knots: Float[Tensor, " T"]) -> tuple[Float[Tensor, "2 1 T"], Float[Tensor, "2 1 T"]]:
    """Where the weight of each knot in [0, 1] ends, before and after it, and how far from it that is (before: negative)."""
    never = knots.new_full((1,), 1e6)
    ends = torch.stack([torch.cat([-never, knots[:-1]]), torch.cat([knots[1:], never])])
    return ends[:, None], (ends - knots).clamp(-1, 1)[:, None]  # so that the first and the last never fall below 1


def hats(
    ends: Float[Tensor, "2 1 T"], spans: Float[Tensor, "2 1 T"], times: Float[Tensor, " K"]
) -> Float[Tensor, "K T"]:
    """The weights of all knots at `times`, by what `hat_ends` says of them."""
    return ((ends - times[:, None]) / spans).amin(0).clamp(0, 1)


def stride_weights(times: Float[Tensor, " K"], period: float) -> Float[Tensor, "K S"]:
    """What each of the `STRIDE_ROWS` rows of a stride, evenly over a period and then again from the first, counts at `times`."""
    phases = (times / period) % 1.0
    ends = interpolation_weights(torch.linspace(0, 1, STRIDE_ROWS + 1, device=times.device), phases)
    return torch.cat([ends[:, :1] + ends[:, -1:], ends[:, 1:-1]], dim=1)


class Timetable(nn.Module):
    """Rows of numbers over a clip: those of its frames and, where there is a period, those of one stride on top.

    What all strides have in common is then one thing to learn, from all their frames, and goes on where frames are missing.

    Args:
        knots: ascending frame times in [0, 1].
        canonical_time: the time that rows are counted from.
        row: shape of one of them.
    """

    knots: Tensor
    canonical_time: Tensor

    def __init__(self, knots: Float[Tensor, " T"], canonical_time: float, *row: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(len(knots), *row))
        self.stride = nn.Parameter(torch.zeros(STRIDE_ROWS, *row))
        self.period: float | None = None
        self._shown: Tensor | None = None
        self.mean_spacing = float(knots[-1] - knots[0]) / max(1, len(knots) - 1)
        """Mean time between frames."""
        self.register_buffer("knots", knots.clone())
        self.register_buffer("canonical_time", torch.tensor(float(canonical_time)))

    def get_extra_state(self) -> dict[str, Any]:
        """The period."""
        return {"period": self.period}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self.period = state["period"]

    @torch.no_grad()
    def repeat_every(self, period: float | None, span: tuple[float, float] = (0.0, 1.0)) -> None:
        """Sets the period (a part of the clip; None: there is none). What the rows of frames and stride say together stays.

        The stride's rows start from what the strides within a `span` of the clip have in common, beside a slow movement.
        """
        poses = self._raw(self.knots).flatten(1)
        self.period = period
        self.stride.zero_()
        if period is not None:
            inside = (self.knots >= span[0]) & (self.knots <= span[1])
            times = self.knots[inside]
            part = (2 * times - times[0] - times[-1]) / (times[-1] - times[0])  # -1 to 1
            movement = torch.stack([part**power for power in range(1, MOVEMENT_DEGREE + 1)], dim=1)
            columns = torch.cat([stride_weights(times, period), movement], dim=1)
            identity = torch.eye(STRIDE_ROWS, device=times.device)
            bending = identity.roll(1, 0) - 2 * identity + identity.roll(-1, 0)
            # A little of the identity, for what no frame is near and does not bend.
            held = torch.block_diag(bending.T @ bending, movement.new_zeros(MOVEMENT_DEGREE, MOVEMENT_DEGREE))
            normal = columns.T @ columns + STRIDE_BENDING * (held + 1e-3 * torch.eye(len(held), device=times.device))
            rows = torch.linalg.solve(normal, columns.T @ poses[inside])
            self.stride.copy_(rows[:STRIDE_ROWS].view_as(self.stride))
        self.table += (poses - self._raw(self.knots).flatten(1)).view_as(self.table)

    @contextlib.contextmanager
    def without(self, hidden: Bool[Tensor, " T"]) -> Iterator[None]:
        """Within it the rows of some frames are not there: at their times, what lies between their neighbours'."""
        self._shown = torch.nonzero(~hidden).flatten().to(self.knots.device)
        try:
            yield
        finally:
            self._shown = None

    def _raw(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K *row"]:
        """What there is at `times` before anything is counted from the canonical time."""
        return (self._weights(times) @ self._rows()).unflatten(1, self.table.shape[1:])

    def _weights(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K R"]:
        """What each row counts at `times`."""
        if self._shown is None:
            of_frames = interpolation_weights(self.knots, times)
        else:
            of_frames = times.new_zeros(len(times), len(self.knots))
            of_frames[:, self._shown] = interpolation_weights(self.knots[self._shown], times)
        if self.period is None:
            return of_frames
        within = times.clamp(self.knots[0], self.knots[-1])  # beyond the clip, the pose at its end
        return torch.cat([of_frames, stride_weights(within, self.period)], dim=1)

    def _rows(self) -> Float[Tensor, "R C"]:
        """The rows of the frames and, where there is a period, of a stride."""
        tables = [self.table] if self.period is None else [self.table, self.stride]
        return torch.cat(tables).flatten(1)

    @torch.no_grad()
    def bends(self) -> Float[Tensor, " E"]:
        """The times, ascending, between which all is linear."""
        if self.period is None:
            return self.knots
        step = self.period / STRIDE_ROWS
        of_stride = step * torch.arange(int(1 / step) + 1, device=self.knots.device)
        inside = (of_stride > self.knots[0]) & (of_stride < self.knots[-1])
        return torch.cat([self.knots, of_stride[inside]]).unique()

    def tables_at(self, times: Float[Tensor, " K"]) -> Float[Tensor, "K *row"]:
        """What the tables say at `times`, less what they say at the canonical time: exactly zero there."""
        weights = self._weights(torch.cat([self.canonical_time[None].to(times), times]))
        return ((weights[1:] - weights[:1]) @ self._rows()).unflatten(1, self.table.shape[1:])
