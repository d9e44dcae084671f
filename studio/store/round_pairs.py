"""What callers hand to `store.rounds.save_pairs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.store.models import new_id


@dataclass(frozen=True, kw_only=True)
class NewRoundPair:
    """A pair the round looked at, kept or dropped."""

    origin: str
    chosen_sha256: str
    rejected_sha256: str
    kept: bool
    drop_reason: str = ""
    pick_id: str | None = None
    generation_id: str | None = None
    """Whose prompt and references condition both sides."""
    chosen_candidate_id: str | None = None
    rejected_candidate_id: str | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """Prompt and references where there is no generation."""
    deltas: Mapping[str, float] = field(default_factory=dict)
    """Metric of chosen minus metric of rejected."""


@dataclass(frozen=True, kw_only=True)
class PairCounts:
    """How many pairs a round trained on and dropped; `picks` is how many decisions the kept ones came from."""

    kept: int
    dropped: int
    picks: int


def pair_row(round_id: str, position: int, pair: NewRoundPair) -> dict[str, Any]:
    """The columns of a pair in its round."""
    return {
        "id": new_id(),
        "round_id": round_id,
        "position": position,
        "origin": pair.origin,
        "pick_id": pair.pick_id,
        "generation_id": pair.generation_id,
        "chosen_candidate_id": pair.chosen_candidate_id,
        "rejected_candidate_id": pair.rejected_candidate_id,
        "chosen_sha256": pair.chosen_sha256,
        "rejected_sha256": pair.rejected_sha256,
        "conditions": dict(pair.conditions),
        "deltas": dict(pair.deltas),
        "kept": pair.kept,
        "drop_reason": pair.drop_reason,
    }
