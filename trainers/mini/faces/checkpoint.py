"""What the three training loops share: a checkpoint that survives a kill, a learning rate and an average of
weights.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run; saved in its checkpoint, and a run is only resumed with the same values.

    data: portrait directories. out: checkpoint file. samples: pictures to train on in all; batch: pictures a
        step.
    start_from: a checkpoint whose averaged weights a new run begins with. learning_rate: its peak.
        weight_decay: of weights of two and more dimensions. seed: of weights and data.
    precision: "bfloat16" computes the layers of the models in it (several times faster on processors with AMX and on
        GPUs, slower on others); weights, losses and the optimiser stay in float32.
    average: decay of the running mean of weights, which is what is exported. save_every: steps between
        checkpoints.
    """

    data: tuple[str, ...]
    out: Path
    samples: int
    batch: int
    learning_rate: float
    weight_decay: float = 1e-3
    start_from: str | None = None
    seed: int = 0
    average: float = 0.998
    save_every: int = 100
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("samples", "batch", "save_every", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if not self.data:
            raise ValueError("name at least one directory of portraits (--data)")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must lie in [0, 1), got {self.average}")

    @property
    def steps(self) -> int:
        return math.ceil(self.samples / self.batch)

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up over the first twentieth, then a cosine down to a hundredth."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))

    def autocast(self) -> torch.autocast:
        """What the forward pass of the model runs in."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def identifying(self) -> dict[str, Any]:
        """The values a checkpoint must agree with; where it runs and how often it saves may change."""
        values = asdict(self)
        for name in ("out", "save_every", "device", "precision"):
            del values[name]
        return values | {"data": list(self.data)}


class Training:
    """Weights, their average, the optimiser and the step, saved and restored together."""

    def __init__(self, config: TrainingConfig, model: nn.Module, head: nn.Module | None = None):
        """`head`: weights needed for the loss only, trained and saved but neither averaged nor exported."""
        self.config, self.model, self.head = config, model, head
        if config.start_from is not None and not config.out.is_file():
            load_average(Path(config.start_from), model)
            model.train()
        modules = [model] if head is None else [model, head]
        parameters = [parameter for module in modules for parameter in module.parameters()]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.step = 0
        if config.out.is_file():
            self._restore()

    def advance(self, loss: torch.Tensor) -> None:
        """One optimiser step; saves when it is time to."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 5.0)
        self.optimizer.step()
        self.step += 1
        # Early weights are worth little: the mean forgets them faster than its final decay would.
        decay = min(self.config.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)
        if self.step % self.config.save_every == 0 or self.step == self.config.steps:
            self.save()

    def save(self) -> None:
        state = {
            "config": self.config.identifying(),
            "step": self.step,
            "model": self.model.state_dict(),
            "head": None if self.head is None else self.head.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        self.config.out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.config.out.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self.config.out)

    def _restore(self) -> None:
        state = torch.load(self.config.out, map_location=self.config.device, weights_only=True)
        if state["config"] != self.config.identifying():
            changed = sorted(
                name for name, value in self.config.identifying().items() if state["config"].get(name) != value
            )
            raise ValueError(
                f"{self.config.out} is a checkpoint of a run with other values for {', '.join(changed)}: "
                "resume with the same ones, or choose another --out"
            )
        self.model.load_state_dict(state["model"])
        if self.head is not None:
            self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step = state["average"], state["step"]


def load_average(file: Path, model: nn.Module) -> nn.Module:
    """The averaged weights of a checkpoint, in `model`, ready to export."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"no checkpoint at {file}: train it first with `python -m trainers.mini.faces train`")
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["average"])
    return model.eval()
