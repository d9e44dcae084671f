"""From the studio's store to pairs: what people picked, what metrics tell apart, what was spoilt on purpose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from core.backbones.bundles import Bundle
from core.faces import FaceAnalyzer
from studio.store import NewRoundPair, Store
from studio.store.models import RoundPair
from trainers.training_pairs import TrainingPair


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which pairs are made, and what the filter asks of them."""

    thresholds: Mapping[str, float] = field(
        default_factory=lambda: {"identity": 0.05, "object": 0.1, "semantic": 0.02, "aesthetic": 0.25}
    )
    """tau_k of eq. 8 for each metric k of `core.metrics`."""
    generated: int = 0
    """Most pairs of two generated pictures that nobody compared, told apart by the metrics."""
    perturbed: int = 0
    """Most pairs of a picked picture and a spoilt copy of it."""
    seed: int = 0


def collect_pairs(
    store: Store,
    bundle_name: str,
    *,
    analyzer: FaceAnalyzer | None,
    config: PairConfig | None = None,
    until: datetime | None = None,
    held_out: Collection[str] = (),
) -> list[NewRoundPair]:
    """All pairs a round looks at, kept ones and dropped ones with their reason, for `store.rounds.save_pairs`.

    Args:
        bundle_name: `BundleCard.name`; only pictures made with it.
        analyzer: None where there is no face pack; what needs faces is absent then.
        until: picks made until then (the round's snapshot); None for all.
        held_out: SHA-256 of portrait files (`Portrait.picture_sha256`) that no round may train on.
    """
    raise NotImplementedError


def load_training_pairs(
    store: Store, pairs: Sequence[RoundPair], bundle: Bundle, *, analyzer: FaceAnalyzer | None
) -> list[TrainingPair]:
    """Kept rows of a round as they are trained on, pictures and prepared references in memory.

    Raises:
        StoreError: a picture, portrait or generation is gone; names it.
    """
    raise NotImplementedError
