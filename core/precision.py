"""Which precision a device computes in."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def computes_in_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether work of this precision runs in bfloat16; "auto" does where the device has units for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # The names are torch's own and private; without them a CPU is taken to have none.
    fast = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in fast)
