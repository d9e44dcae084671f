"""What the processes of one training started by `accelerate launch` tell each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn


def sum_over_processes(values: Sequence[Tensor], weights: Sequence[nn.Parameter]) -> None:
    """Replace values, and the gradients of weights, by their sums over all processes."""
    processes = PartialState()
    if processes.num_processes == 1:
        return
    for weight in weights:
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    gradients = [weight.grad for weight in weights]
    for tensors in (values, gradients):
        flat = torch.cat([tensor.flatten() for tensor in tensors]).to(processes.device)
        torch.distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


def from_main_process(value: str | None) -> str | None:
    """The main process's value, in every process."""
    values = [value]
    return broadcast_object_list(values)[0] if PartialState().num_processes > 1 else value
