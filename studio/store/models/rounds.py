"""Training rounds, the pairs they used, the adapters they made."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from studio.store.models.base import Base, Created, Id, enum_column, owned_by, refers_to


class RoundState(StrEnum):
    QUEUED = "queued"
    COLLECTING = "collecting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    PROMOTED = "promoted"
    CANDIDATE = "candidate"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RoundRequest(StrEnum):
    """What people want of a round; its worker looks between steps."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class AdapterState(StrEnum):
    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    BROKEN = "broken"


class Round(Base):
    """One preference-training round."""

    __tablename__ = "rounds"
    __table_args__ = (Index("ix_rounds_state", "state", "created_at"),)

    id: Mapped[Id]
    number: Mapped[int] = mapped_column(unique=True)
    bundle: Mapped[str] = mapped_column(String(200))
    state: Mapped[RoundState] = mapped_column(enum_column(RoundState), default=RoundState.QUEUED)
    request: Mapped[RoundRequest] = mapped_column(enum_column(RoundRequest), default=RoundRequest.RUN)
    config: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    parent_adapter_id: Mapped[str | None] = mapped_column(String(32))
    """The reference policy: the adapter that was active, None for the base. Not a foreign key: adapters refer to their
    round, and a circle of foreign keys can neither be created nor imported in one order."""
    requested_by: Mapped[str | None] = refers_to("annotators.id")
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    """How often a worker took the round up."""
    progress: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    checkpoint_path: Mapped[str | None]
    """Relative to the data folder."""
    log_path: Mapped[str | None]
    """Relative to the data folder."""
    message: Mapped[str] = mapped_column(default="")
    snapshot_at: Mapped[datetime | None]
    """Picks made until then are what the round looked at."""
    data_deleted_at: Mapped[datetime | None]
    """A person whose pictures the round used was deleted then."""
    created_at: Mapped[Created]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class RoundPair(Base):
    """A pair a round looked at: kept with its metric differences, or dropped with the reason."""

    __tablename__ = "round_pairs"
    __table_args__ = (Index("ix_round_pairs_kept", "round_id", "kept", "position"),)

    id: Mapped[Id]
    round_id: Mapped[str] = owned_by("rounds.id")
    position: Mapped[int]
    origin: Mapped[str] = mapped_column(String(50))
    """`pick`, or how the pair was made without one: `rendered`, `generated`, `perturbed-noise`, ..."""
    pick_id: Mapped[str | None] = owned_by("picks.id", index=True)
    generation_id: Mapped[str | None] = owned_by("generations.id", index=True)
    """Whose prompt and references condition both sides."""
    chosen_candidate_id: Mapped[str | None] = owned_by("candidates.id", index=True)
    rejected_candidate_id: Mapped[str | None] = owned_by("candidates.id", index=True)
    chosen_sha256: Mapped[str] = mapped_column(String(64), ForeignKey("media.sha256"), index=True)
    rejected_sha256: Mapped[str] = mapped_column(String(64), ForeignKey("media.sha256"), index=True)
    conditions: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Prompt and references of a pair that has no generation."""
    deltas: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    kept: Mapped[bool]
    drop_reason: Mapped[str] = mapped_column(default="")


class RoundStep(Base):
    """What a training step logged; written again when a round resumes from an earlier checkpoint."""

    __tablename__ = "round_steps"

    round_id: Mapped[str] = owned_by("rounds.id", primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)


class Adapter(Base):
    """A trained LoRA."""

    __tablename__ = "adapters"
    __table_args__ = (Index("ix_adapters_bundle", "bundle", "created_at"),)

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(String(200))
    bundle: Mapped[str] = mapped_column(String(200))
    parent_id: Mapped[str | None] = refers_to("adapters.id")
    round_id: Mapped[str | None] = refers_to("rounds.id", index=True)
    media_sha256: Mapped[str] = mapped_column(String(64), ForeignKey("media.sha256"), index=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Rank, alpha, target modules, versions: what loading needs besides the weights."""
    evaluation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    state: Mapped[AdapterState] = mapped_column(enum_column(AdapterState), default=AdapterState.CANDIDATE)
    note: Mapped[str] = mapped_column(default="")
    promoted_at: Mapped[datetime | None]
    data_deleted_at: Mapped[datetime | None]
    """A person whose pictures the adapter was trained on was deleted then."""
    created_at: Mapped[Created]

    round: Mapped[Round | None] = relationship(lazy="raise")


class Activation(Base):
    """Which adapter became active when; the newest row of a bundle is what the studio generates with."""

    __tablename__ = "activations"
    __table_args__ = (Index("ix_activations_bundle", "bundle", "id"),)

    id: Mapped[Id]
    bundle: Mapped[str] = mapped_column(String(200))
    adapter_id: Mapped[str | None] = refers_to("adapters.id", index=True)
    """None: the base model without an adapter."""
    by_id: Mapped[str | None] = refers_to("annotators.id")
    note: Mapped[str] = mapped_column(default="")
    created_at: Mapped[Created]
