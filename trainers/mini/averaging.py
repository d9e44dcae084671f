"""The moving average of weights and the precision that the trainers of the mini bundle share."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from core.precision import computes_in_bfloat16


def fast_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the device computes it faster, float32 elsewhere; the weights stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16("auto", device))


class MovingAverage:
    """Exponential moving average of the trainable weights, warmed up so that early steps do not weigh for
    ever."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it must be at least 0 and below 1")
        self._decay = decay
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.weights: dict[str, Tensor] = {n: p.detach().clone() for n, p in self._trained(model)}

    def _trained(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        parameters = dict(model.named_parameters())
        return ((name, parameters[name]) for name in self._names)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        trained = [parameter.detach() for _, parameter in self._trained(model)]
        torch._foreach_lerp_(list(self.weights.values()), trained, 1 - decay)

    def model(self, model: nn.Module) -> nn.Module:
        """A copy of `model` with the averaged weights, in evaluation mode, without gradients."""
        averaged = copy.deepcopy(model)
        averaged.load_state_dict(self.weights, strict=False)
        return averaged.eval().requires_grad_(False)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(weights[name])
