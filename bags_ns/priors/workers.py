"""The processes that train the small prior together, one a GPU, as `torchrun` starts them; usually there is one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Workers:
    """This process among `count`."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> Workers:
        """Meets the others, if `torchrun` started any; their gradients go through NCCL on GPUs, else through Gloo."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), count)

    @property
    def is_first(self) -> bool:
        """The first one speaks, scores and writes."""
        return self.rank == 0

    def choose_device(self, wanted: str | None) -> torch.device:
        """A GPU for each of them, unless another device is wanted or there is none."""
        if wanted is not None or not torch.cuda.is_available():
            return torch.device(wanted or "cpu")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The mean over the processes, in one message."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.count).split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(old) for part, old in zip(parts, gradients, strict=True)])

    def agree(self, number: float) -> float:
        """The first one's number, for all: clocks differ. The GPU is not waited for."""
        if self.count == 1:
            return number
        told = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(told, src=0)
        return float(told)

    def leave(self) -> None:
        """Says goodbye to the others."""
        if self.count > 1:
            dist.destroy_process_group()
