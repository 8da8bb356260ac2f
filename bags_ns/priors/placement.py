"""Where a prior's networks sit and what they compute in, unless the user says otherwise."""

from __future__ import annotations

import torch


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """`device`, or the fastest one that there is."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16, as GPUs since 2020 and some CPUs do; emulation does not count."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()
