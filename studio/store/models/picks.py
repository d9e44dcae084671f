"""Comparisons, picks and the queues that hand them out."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from studio.store.models.base import Base, Created, Id, enum_column, owned_by, refers_to
from studio.store.models.generations import Candidate
from studio.store.models.people import Annotator


class ComparisonKind(StrEnum):
    """Where the candidates of a comparison come from."""

    GENERATION = "generation"
    AB = "ab"
    ADAPTER = "adapter"
    GOLD = "gold"
    IMPORTED = "imported"


class Outcome(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    RANKING = "ranking"


class Standing(StrEnum):
    """What a pick counts for: only `counted` ones enter win rates, agreement and training."""

    COUNTED = "counted"
    GOLD = "gold"
    REPEAT = "repeat"
    SUPERSEDED = "superseded"


class SessionState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class LeaseState(StrEnum):
    OPEN = "open"
    PICKED = "picked"
    SKIPPED = "skipped"


class Comparison(Base):
    """Two to four candidates to choose from. Its own order is arbitrary; what was shown is on the pick."""

    __tablename__ = "comparisons"

    id: Mapped[Id]
    kind: Mapped[ComparisonKind] = mapped_column(enum_column(ComparisonKind))
    blind: Mapped[bool] = mapped_column(default=True)
    gold_winner_id: Mapped[str | None] = owned_by("candidates.id", index=True)
    """The known answer of a gold comparison."""
    created_by: Mapped[str | None] = refers_to("annotators.id")
    created_at: Mapped[Created]

    entries: Mapped[list[ComparisonCandidate]] = relationship(
        order_by="ComparisonCandidate.position", lazy="raise", passive_deletes=True
    )

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates in the comparison's own order."""
        return [entry.candidate for entry in self.entries]


class ComparisonCandidate(Base):
    __tablename__ = "comparison_candidates"
    __table_args__ = (UniqueConstraint("comparison_id", "candidate_id"),)

    comparison_id: Mapped[str] = owned_by("comparisons.id", primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[str] = owned_by("candidates.id", index=True)

    candidate: Mapped[Candidate] = relationship(lazy="raise")


class LabellingSession(Base):
    """A queue of comparisons that several people work through."""

    __tablename__ = "sessions"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(String(200))
    guidelines: Mapped[str] = mapped_column(default="")
    overlap: Mapped[int] = mapped_column(default=1)
    """How many people judge each comparison."""
    gold_share: Mapped[float] = mapped_column(default=0.0)
    """Chance that the next comparison is a gold one."""
    repeat_share: Mapped[float] = mapped_column(default=0.0)
    """Chance that the next comparison is one the annotator has judged before, sides reversed."""
    lease_seconds: Mapped[int] = mapped_column(default=600)
    state: Mapped[SessionState] = mapped_column(enum_column(SessionState), default=SessionState.OPEN)
    created_by: Mapped[str | None] = refers_to("annotators.id")
    created_at: Mapped[Created]

    def lease_end(self, now: datetime) -> datetime:
        """When a comparison handed out now goes back to the queue."""
        return now + timedelta(seconds=self.lease_seconds)


class QueueItem(Base):
    """A comparison in a session's queue."""

    __tablename__ = "queue_items"
    __table_args__ = (
        UniqueConstraint("session_id", "comparison_id"),
        Index("ix_queue_items_next", "session_id", "gold", "position", "done"),
    )

    id: Mapped[Id]
    session_id: Mapped[str] = owned_by("sessions.id")
    comparison_id: Mapped[str] = owned_by("comparisons.id", index=True)
    position: Mapped[int]
    gold: Mapped[bool] = mapped_column(default=False)
    done: Mapped[int] = mapped_column(default=0)
    """Counted or gold picks made from this item."""


class Lease(Base):
    """A queue item in the hands of one annotator, and what became of it."""

    __tablename__ = "leases"
    __table_args__ = (
        UniqueConstraint("item_id", "annotator_id", "repeat"),
        Index("ix_leases_order", "session_id", "annotator_id", "number"),
        Index("ix_leases_finished", "session_id", "annotator_id", "finished_at"),
        Index("ix_leases_taken", "item_id", "state", "expires_at"),
    )

    id: Mapped[Id]
    session_id: Mapped[str] = owned_by("sessions.id")
    item_id: Mapped[str] = owned_by("queue_items.id")
    annotator_id: Mapped[str] = refers_to("annotators.id", index=True)
    repeat: Mapped[bool] = mapped_column(default=False)
    number: Mapped[int]
    """How many comparisons the annotator was handed before in this session."""
    shown: Mapped[list[Any]] = mapped_column(JSON)
    """Candidate ids from left to right."""
    state: Mapped[LeaseState] = mapped_column(enum_column(LeaseState), default=LeaseState.OPEN)
    leased_at: Mapped[Created]
    expires_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    item: Mapped[QueueItem] = relationship(lazy="raise")


class Pick(Base):
    """A decision. Rows are only added; a later one or an undo turns the standing to `superseded`."""

    __tablename__ = "picks"
    __table_args__ = (
        Index("ix_picks_agreement", "standing", "comparison_id", "choice", "session_id"),
        Index("ix_picks_time", "standing", "bundle", "created_at"),
        Index("ix_picks_position", "standing", "size", "winner_position"),
        Index("ix_picks_annotator", "annotator_id", "id", "standing"),
        Index("ix_picks_progress", "session_id", "annotator_id", "standing"),
        Index("ix_picks_people", "standing", "annotator_id"),
        Index(
            "uq_picks_counted",
            "comparison_id",
            "annotator_id",
            unique=True,
            sqlite_where=text("standing = 'counted'"),
            postgresql_where=text("standing = 'counted'"),
        ),
    )

    id: Mapped[Id]
    request_id: Mapped[str] = mapped_column(String(100), unique=True)
    """Made by the client: the same request sent twice is one pick."""
    comparison_id: Mapped[str] = owned_by("comparisons.id", index=True)
    annotator_id: Mapped[str] = refers_to("annotators.id")
    session_id: Mapped[str | None] = refers_to("sessions.id")
    lease_id: Mapped[str | None] = mapped_column(String(32), ForeignKey("leases.id", ondelete="SET NULL"), index=True)
    outcome: Mapped[Outcome] = mapped_column(enum_column(Outcome))
    shown: Mapped[list[Any]] = mapped_column(JSON)
    """Candidate ids from left to right, as they were on the screen."""
    ranking: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """Best first; each entry a list of candidate ids that share the place."""
    winner_id: Mapped[str | None] = owned_by("candidates.id", index=True)
    winner_position: Mapped[int | None]
    """Where the winner stood on the screen, 0 is leftmost."""
    choice: Mapped[str] = mapped_column(String(16))
    """The winner's position in the comparison's own order, or `tie`, or `both_bad`: the same for everybody."""
    size: Mapped[int]
    """How many candidates were shown."""
    bundle: Mapped[str] = mapped_column(String(200))
    """The bundle that made all candidates shown; empty where they come from different ones."""
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list)
    note: Mapped[str] = mapped_column(default="")
    latency_ms: Mapped[int | None]
    standing: Mapped[Standing] = mapped_column(enum_column(Standing))
    superseded_at: Mapped[datetime | None]
    superseded_by: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[Created]

    comparison: Mapped[Comparison] = relationship(lazy="raise")
    annotator: Mapped[Annotator] = relationship(lazy="raise")
    pairs: Mapped[list[PickPair]] = relationship(
        order_by="PickPair.left_id, PickPair.right_id", lazy="raise", passive_deletes=True
    )


class PickPair(Base):
    """A counted pick taken apart into pairs, with the settings the win rates are grouped by.

    Derived from the pick when it is saved, gone when the pick is superseded.
    """

    __tablename__ = "pick_pairs"
    __table_args__ = (
        Index("ix_pick_pairs_schedules", "blind", "left_schedule", "right_schedule", "left_score"),
        Index("ix_pick_pairs_adapters", "blind", "left_adapter_id", "right_adapter_id", "left_score"),
    )

    pick_id: Mapped[str] = owned_by("picks.id", primary_key=True)
    left_id: Mapped[str] = owned_by("candidates.id", primary_key=True, index=True)
    right_id: Mapped[str] = owned_by("candidates.id", primary_key=True, index=True)
    left_score: Mapped[float]
    """1: left is better; 0: right is better; 0.5: tie or both bad."""
    blind: Mapped[bool]
    left_schedule: Mapped[str] = mapped_column(String(100))
    right_schedule: Mapped[str] = mapped_column(String(100))
    left_adapter_id: Mapped[str | None] = mapped_column(String(32))
    right_adapter_id: Mapped[str | None] = mapped_column(String(32))
