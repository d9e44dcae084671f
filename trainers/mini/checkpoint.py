"""Checkpoints, step log and moving average, shared by the three trainers of the mini bundle.

A run is a folder: `config.json`, `checkpoint.pt` (the last one), `log.jsonl` (a line per step), pictures.
Everything random in a step comes from a generator seeded by (seed, step), so model, optimizer, average and
step number are all that a resumed run needs to continue exactly where the killed one would have gone.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class RunError(RuntimeError):
    """A run folder cannot be continued; the message says why and what to do."""


class Run:
    """One training run in a folder; continues from its last checkpoint if there is one."""

    def __init__(self, folder: Path, config: Any, *, checkpoint_minutes: float) -> None:
        self.folder = folder
        self._every = checkpoint_minutes * 60
        self._saved_at = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        _check_config(folder / "config.json", config)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The last checkpoint, or None for a fresh run; log lines after it are dropped, they will be made
        again."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            self._truncate_log(step=0)
            return None
        state = torch.load(path, map_location=device, weights_only=True)
        self._truncate_log(state["step"])
        return state

    def log(self, step: int, **values: float | str) -> None:
        """Append one line; flushed at once, so that a killed run keeps what it did."""
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, **values}) + "\n")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint whole or not at all."""
        partial = self.folder / "checkpoint.pt.partial"
        torch.save(dict(state), partial)
        os.replace(partial, self.folder / "checkpoint.pt")
        self._saved_at = time.monotonic()

    def save_is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._every

    def _truncate_log(self, step: int) -> None:
        path = self.folder / "log.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            path.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):  # cut off by a kill
        return float("inf")


def _check_config(path: Path, config: Any) -> None:
    wanted = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    if path.exists() and (saved := json.loads(path.read_text())) != wanted:
        changed = sorted(key for key in wanted if saved.get(key) != wanted[key])
        raise RunError(
            f"{path.parent} holds a run with other settings ({', '.join(changed) or 'other keys'}); "
            "continue it with its own config.json, or choose another --out folder"
        )
    path.write_text(json.dumps(wanted, indent=2) + "\n")


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


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of everything random in one step (on the CPU, so that every device draws the same)."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def learning_rate_factor(step: int, *, steps: int, warmup: int, decay_share: float) -> float:
    """Linear warm-up, constant, linear decay to 2 % over the last `decay_share` of the run."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    left = (steps - step) / max(1.0, decay_share * steps)
    return rise * min(1.0, max(0.02, left))
