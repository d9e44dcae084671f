"""Fine-grained group-level DPO (IdGlow 3.4): preference pairs become a LoRA adapter on a bundle's transformer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.backbones.bundles import Bundle
from core.flow import SigmaDistribution
from trainers.training_pairs import TrainingPair

__all__ = ["DpoConfig", "DpoResult", "StepReport", "TrainingPair", "train"]


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """Settings of a round; resolved, they are saved beside the adapter."""

    name: str = "dpo"
    """Of the adapter, shown to people."""
    seed: int = 0
    steps: int = 100
    """Optimiser steps."""
    batch: int = 8
    """Pairs behind one optimiser step, over all micro-batches and processes."""
    micro_batch: int = 1
    """Pairs that go through the model together."""
    rank: int = 16
    alpha: float | None = None
    """None: the rank. Rank and alpha stay the same over the rounds of a bundle."""
    learning_rate: float = 1e-4
    warmup: int = 10
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    beta: float = 2000.0
    """Of `core.preference`, goes with the mean over dimensions."""
    asymmetry: float = 1.0
    margin: float = 0.0
    sft_weight: float = 0.0
    sigma_distribution: SigmaDistribution = "uniform"
    sigma_shift: float = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the device computes it faster than float32."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time."""
    watched_steps: int = 20
    """A round is stopped by what the last so many steps say; 0 never stops it."""
    checkpoint_minutes: float = 0.5

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1), ("batch", 1), ("micro_batch", 1), ("rank", 1), ("warmup", 0), ("watched_steps", 0),
            ("weight_decay", 0), ("sft_weight", 0), ("margin", 0), ("asymmetry", 1), ("checkpoint_minutes", 0),
        ):  # fmt: skip
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= least):
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be a finite number of at least {least}.")
        for name in ("learning_rate", "gradient_clip", "beta", "sigma_shift"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be a finite number above 0.")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision is {self.precision!r}; choose auto, float32 or bfloat16.")


@dataclass(frozen=True)
class StepReport:
    """State after an optimiser step.

    step, steps: done, of all.
    metrics: loss, d_w, d_l, implicit_accuracy, rejected_only_share (absent while no pair was won), gradient_norm,
        learning_rate, all of this step's pairs.
    seconds_left: until the last step at the pace so far.
    """

    step: int
    steps: int
    metrics: dict[str, float]
    seconds_left: float


@dataclass(frozen=True)
class DpoResult:
    """What became of a round.

    adapter: its folder in the format of `core.adapters`; written once the round has ended, so not when `stopped`.
    steps: done.
    stopped_early: why the training ended itself before its last step, a sentence; None where it did not.
    stopped: why it was interrupted; the same call goes on from the checkpoint. None where it has ended.
    metrics: means over the last `watched_steps` steps, as in StepReport.
    """

    adapter: Path
    steps: int
    stopped_early: str | None
    stopped: str | None
    metrics: dict[str, float]


OnStep = Callable[[StepReport], None]
ShouldStop = Callable[[], bool]


def train(
    config: DpoConfig,
    pairs: Sequence[TrainingPair],
    bundle: Bundle,
    out: Path,
    *,
    parent: Path | None = None,
    on_step: OnStep | None = None,
    should_stop: ShouldStop | None = None,
) -> DpoResult:
    """Train an adapter on pairs in the run folder `out`; goes on from its checkpoint where there is one.

    The bundle is as before afterwards, also when an exception ends the training.

    Args:
        parent: folder of the adapter that is reference policy and start (the last promoted one); None: the base.
        on_step: told after every step, in the main process; may block, for example while others need the device, and
            may raise to abort, which loses what came after the last checkpoint.
        should_stop: asked after every step; true writes a checkpoint and returns.

    Raises:
        ValueError: no pairs, or pairs, configuration and bundle do not fit together.
        RunError: `out` holds a run with other settings, pairs or parent, or its checkpoint is damaged.
        AdapterError: the parent is missing, damaged, or made for other weights.
        FloatingPointError: the loss is not finite.
    """
    raise NotImplementedError
