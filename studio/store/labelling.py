"""Labelling sessions: a queue of comparisons that hands every annotator something different to judge."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from studio.store.claims import Claim
from studio.store.comparisons import Comparisons
from studio.store.engine import Database, StoreError
from studio.store.models import (
    Candidate,
    Comparison,
    LabellingSession,
    Lease,
    LeaseState,
    Pick,
    QueueItem,
    SessionState,
    Standing,
    utc_now,
)
from studio.store.picks import reopen, supersede

RECENT_PICKS = 200
"""The median time per pick is taken over so many of the newest."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What one annotator judges next."""

    lease_id: str
    comparison: Comparison
    """With candidates and generations."""
    shown: tuple[str, ...]
    """Candidate ids from left to right."""
    expires_at: datetime

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates from left to right."""
        by_id = {candidate.id: candidate for candidate in self.comparison.candidates}
        return [by_id[candidate_id] for candidate_id in self.shown]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a session is, for everybody and for one annotator. Gold comparisons and repeats are not in the totals."""

    comparisons: int
    picks_wanted: int
    """Comparisons times overlap."""
    picks_made: int
    mine: int
    """Picks of this annotator that count."""
    skipped: int
    gold_seen: int
    gold_right: int
    median_seconds: float | None
    """Of this annotator's newest picks; None before the first."""


class Sessions:
    """Queues with leases. What is handed out stays reserved until it is judged, skipped or expired."""

    def __init__(self, database: Database, comparisons: Comparisons, rng: random.Random) -> None:
        self._database = database
        self._comparisons = comparisons
        self._rng = rng

    def create(
        self,
        name: str,
        *,
        guidelines: str = "",
        overlap: int = 1,
        gold_share: float = 0.0,
        repeat_share: float = 0.0,
        lease_seconds: int = 600,
        created_by: str | None = None,
    ) -> LabellingSession:
        """Open a session with an empty queue. Raises StoreError for settings out of range."""
        if not name.strip():
            raise StoreError("The session has no name; give one.")
        if overlap < 1:
            raise StoreError(f"Overlap is {overlap}; each comparison needs at least one judge.")
        if gold_share < 0 or repeat_share < 0 or gold_share + repeat_share >= 1:
            raise StoreError(
                f"Gold share {gold_share} and repeat share {repeat_share} must not be negative and must leave room for "
                "new comparisons; together they stay below 1."
            )
        if lease_seconds < 1:
            raise StoreError(f"A lease of {lease_seconds} s ends before anybody has looked; use 60 or more.")
        with self._database.write() as session:
            row = LabellingSession(
                name=name.strip(),
                guidelines=guidelines,
                overlap=overlap,
                gold_share=gold_share,
                repeat_share=repeat_share,
                lease_seconds=lease_seconds,
                created_by=created_by,
            )
            session.add(row)
            return row

    def get(self, session_id: str) -> LabellingSession:
        with self._database.read() as session:
            return _get(session, session_id)

    def list(self, *, state: SessionState | str | None = SessionState.OPEN) -> list[LabellingSession]:
        """Sessions, newest first."""
        query = select(LabellingSession).order_by(LabellingSession.id.desc())
        if state is not None:
            query = query.where(LabellingSession.state == SessionState(state))
        with self._database.read() as session:
            return list(session.scalars(query))

    def set_state(self, session_id: str, state: SessionState | str) -> None:
        """Open or close a session; a closed one hands nothing out and takes picks on what it had handed out."""
        with self._database.write() as session:
            _get(session, session_id).state = SessionState(state)

    def add(self, session_id: str, comparison_ids: Sequence[str]) -> int:
        """Append comparisons to the queue; those already in it stay where they are. Returns how many were new."""
        with self._database.write() as session:
            _lock(session, session_id)
            gold = dict(
                session.execute(
                    select(Comparison.id, Comparison.gold_winner_id.is_not(None)).where(
                        Comparison.id.in_(comparison_ids)
                    )
                ).all()
            )
            present = set(session.scalars(select(QueueItem.comparison_id).where(QueueItem.session_id == session_id)))
            last = session.scalar(select(func.max(QueueItem.position)).where(QueueItem.session_id == session_id))
            position = -1 if last is None else last
            added = 0
            for comparison_id in dict.fromkeys(comparison_ids):
                if comparison_id not in gold:
                    raise StoreError(f"Comparison {comparison_id!r} does not exist; its pictures may be deleted.")
                if comparison_id in present:
                    continue
                added += 1
                session.add(
                    QueueItem(
                        session_id=session_id,
                        comparison_id=comparison_id,
                        position=position + added,
                        gold=gold[comparison_id],
                    )
                )
            return added

    def claim(self, session_id: str, annotator_id: str, *, count: int = 2) -> list[Assignment]:
        """Reserve comparisons for an annotator: the one to show and those to load ahead.

        What the annotator already holds comes first and its time starts anew, so a reloaded page shows the same again.
        Fewer than `count` when the queue has no more for this annotator; empty when the session is closed or done.
        """
        with self._database.write() as session:
            labelling = _lock(session, session_id)
            if labelling.state is SessionState.CLOSED:
                return []
            claim = Claim(session, labelling, annotator_id, self._rng)
            leases = claim.renew_held()[:count]
            while len(leases) < count and (lease := claim.next()) is not None:
                leases.append(lease)
            session.flush()
            held = [(lease, lease.item.comparison_id) for lease in leases]
        comparisons = self._comparisons.get_many([comparison_id for _, comparison_id in held])
        return [
            Assignment(lease_id=lease.id, comparison=comparison, shown=tuple(lease.shown), expires_at=lease.expires_at)
            for (lease, _), comparison in zip(held, comparisons, strict=True)
        ]

    def skip(self, lease_id: str, annotator_id: str) -> None:
        """Give a comparison back; this annotator is not asked again, others may be."""
        with self._database.write() as session:
            lease = session.get(Lease, lease_id)
            if lease is None or lease.annotator_id != annotator_id:
                raise StoreError(f"Lease {lease_id!r} is not one of this annotator's; ask for the next comparison.")
            if lease.state is LeaseState.OPEN:
                lease.state = LeaseState.SKIPPED
                lease.finished_at = utc_now()

    def undo(self, session_id: str, annotator_id: str) -> Assignment | None:
        """Take the annotator's last pick or skip in this session back and hand that comparison out again.

        None when there is nothing to undo.
        """
        query = (
            select(Lease)
            .options(joinedload(Lease.item))
            .where(Lease.session_id == session_id, Lease.annotator_id == annotator_id, Lease.finished_at.is_not(None))
            .order_by(Lease.finished_at.desc())
            .limit(1)
        )
        with self._database.write() as session:
            lease = session.scalar(query)
            if lease is None:
                return None
            standing = select(Pick).where(Pick.lease_id == lease.id, Pick.standing != Standing.SUPERSEDED)
            for pick in session.scalars(standing):
                supersede(session, pick)
            reopen(session, lease)
            comparison_id = lease.item.comparison_id
        return Assignment(
            lease_id=lease.id,
            comparison=self._comparisons.get(comparison_id),
            shown=tuple(lease.shown),
            expires_at=lease.expires_at,
        )

    def progress(self, session_id: str, annotator_id: str | None = None) -> Progress:
        """Counts for the progress line."""
        with self._database.read() as session:
            labelling = _get(session, session_id)
            comparisons, made = session.execute(
                select(func.count(), func.coalesce(func.sum(QueueItem.done), 0)).where(
                    QueueItem.session_id == session_id, QueueItem.gold.is_(False)
                )
            ).one()
            mine = Pick.annotator_id == annotator_id, Pick.session_id == session_id
            by_standing = dict(
                session.execute(select(Pick.standing, func.count()).where(*mine).group_by(Pick.standing)).all()
            )
            gold_right = session.scalar(
                select(func.count())
                .select_from(Pick)
                .join(Pick.comparison)
                .where(*mine, Pick.standing == Standing.GOLD, Pick.winner_id == Comparison.gold_winner_id)
            )
            skipped = session.scalar(
                select(func.count()).where(
                    Lease.session_id == session_id,
                    Lease.annotator_id == annotator_id,
                    Lease.state == LeaseState.SKIPPED,
                )
            )
            latencies = session.scalars(
                select(Pick.latency_ms)
                .where(*mine, Pick.standing != Standing.SUPERSEDED, Pick.latency_ms.is_not(None))
                .order_by(Pick.id.desc())
                .limit(RECENT_PICKS)
            ).all()
        return Progress(
            comparisons=comparisons,
            picks_wanted=comparisons * labelling.overlap,
            picks_made=made,
            mine=by_standing.get(Standing.COUNTED, 0),
            skipped=skipped or 0,
            gold_seen=by_standing.get(Standing.GOLD, 0),
            gold_right=gold_right or 0,
            median_seconds=statistics.median(latencies) / 1000 if latencies else None,
        )


def _get(session: Session, session_id: str) -> LabellingSession:
    labelling = session.get(LabellingSession, session_id)
    if labelling is None:
        raise StoreError(f"Labelling session {session_id!r} does not exist.")
    return labelling


def _lock(session: Session, session_id: str) -> LabellingSession:
    # On PostgreSQL claims of one session go one after the other; SQLite has one writer anyway.
    labelling = session.get(LabellingSession, session_id, with_for_update=True)
    if labelling is None:
        raise StoreError(f"Labelling session {session_id!r} does not exist.")
    return labelling
