"""Dataclasses of tensors that share a leading batch axis, and random numbers for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Batch = TypeVar("Batch", bound="TensorBatch")


@dataclass(frozen=True)
class TensorBatch:
    """Base of dataclasses whose fields are tensors (or further `TensorBatch`es) with the same first axis."""

    def map(self: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
        """The same structure with `function` applied to every tensor."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(
            **{name: v.map(function) if isinstance(v, TensorBatch) else function(v) for name, v in values.items()}
        )

    def __getitem__(self: Batch, index: slice | Tensor) -> Batch:
        """Elements of the batch; the batch axis stays, also for one element (`creatures[2:3]`)."""
        return self.map(lambda tensor: tensor[index])

    def repeat_interleave(self: Batch, repeats: int) -> Batch:
        """Each element `repeats` times in a row: one creature, several views."""
        return self.map(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def to(self: Batch, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return self.map(lambda tensor: tensor.to(device))


def uniform(
    generator: torch.Generator, device: torch.device, low: float, high: float, *shape: int
) -> Float[Tensor, ...]:
    """Numbers in [low, high), drawn where the generator lives (so that a seed gives the same creature on any device)."""
    return (low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)).to(device)


def chance(generator: torch.Generator, device: torch.device, probability: float, *shape: int) -> Float[Tensor, ...]:
    """1 with the given probability, else 0."""
    return (uniform(generator, device, 0.0, 1.0, *shape) < probability).float()


def pick(generator: torch.Generator, device: torch.device, count: int, *shape: int) -> Tensor:
    """Indices in [0, count)."""
    return torch.randint(count, shape, generator=generator, device=generator.device).to(device)
