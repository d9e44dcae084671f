"""What the steps of a preference round say while it runs: its metrics, and when it does harm (IdGlow 3.4)."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.preference import PreferenceLoss


@dataclass(frozen=True, eq=False)
class StepOutcome:
    """One optimiser step: the loss over all of its pairs, on the CPU, and the norm of its gradient before clipping."""

    loss: PreferenceLoss
    gradient_norm: float

    def state(self) -> dict[str, Any]:
        return {**vars(self.loss), "gradient_norm": self.gradient_norm}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> StepOutcome:
        fields = {field.name: state[field.name] for field in dataclasses.fields(PreferenceLoss)}
        return cls(PreferenceLoss(**fields), state["gradient_norm"])


def summary(outcomes: Sequence[StepOutcome]) -> dict[str, float]:
    """Means over the pairs of these steps: loss, d_w, d_l, implicit_accuracy, rejected_only_share, gradient_norm.

    `rejected_only_share` is absent while no pair was won.
    """
    pooled = _pooled(outcomes)
    values = {
        "loss": pooled.loss.item(),
        "d_w": pooled.chosen_delta.mean().item(),
        "d_l": pooled.rejected_delta.mean().item(),
        "implicit_accuracy": pooled.implicit_accuracy,
        "gradient_norm": sum(outcome.gradient_norm for outcome in outcomes) / len(outcomes),
    }
    share = pooled.rejected_only_share
    return values if share is None else {**values, "rejected_only_share": share}


class Watch:
    """The last steps of a round after its warm-up, and whether they are reason to end it.

    Args:
        steps: how many have to agree; 0 never ends a round.
        warmup: steps at the beginning that do not count.
    """

    def __init__(self, steps: int, warmup: int) -> None:
        self._warmup, self._enabled = warmup, steps > 0
        self._seen = 0
        self._last: deque[StepOutcome] = deque(maxlen=max(1, steps))

    def add(self, outcome: StepOutcome) -> None:
        self._seen += 1
        self._last.append(outcome)

    @property
    def summary(self) -> dict[str, float]:
        """Of the last steps, see `summary`; empty before the first."""
        return summary(self._last) if self._last else {}

    @property
    def reason_to_stop(self) -> str | None:
        """Why the round does harm, a sentence; None where nothing says so."""
        count = self._last.maxlen
        if not self._enabled or self._seen < self._warmup + count:
            return None
        if all(outcome.loss.chosen_delta.mean() > 0 for outcome in self._last):
            return (
                f"d_w was above 0 in each of the last {count} steps: the policy is worse at the chosen pictures "
                "than its reference. A lower learning rate, more asymmetry or an SFT weight may keep it from that."
            )
        share = _pooled(self._last).rejected_only_share
        if share is not None and share > 0.5:
            return (
                f"{share:.0%} of the pairs won in the last {count} steps were won only because the policy got worse at "
                "the rejected picture. More asymmetry, or pairs whose rejected side looks less strange, help."
            )
        return None

    def state(self) -> dict[str, Any]:
        return {"seen": self._seen, "last": [outcome.state() for outcome in self._last]}

    def load(self, state: dict[str, Any]) -> None:
        self._seen = state["seen"]
        self._last.extend(StepOutcome.of_state(outcome) for outcome in state["last"])


def _pooled(outcomes: Iterable[StepOutcome]) -> PreferenceLoss:
    losses = [outcome.loss for outcome in outcomes]
    return PreferenceLoss(
        loss=torch.stack([loss.loss for loss in losses]).mean(),
        logit=torch.cat([loss.logit for loss in losses]),
        chosen_delta=torch.cat([loss.chosen_delta for loss in losses]),
        rejected_delta=torch.cat([loss.rejected_delta for loss in losses]),
    )
