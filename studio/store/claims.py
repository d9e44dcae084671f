"""Which comparison an annotator gets next."""

from __future__ import annotations

import random

from sqlalchemy import Select, and_, exists, func, select
from sqlalchemy.orm import Session, aliased, joinedload

from studio.store.models import (
    Candidate,
    ComparisonCandidate,
    LabellingSession,
    Lease,
    LeaseState,
    QueueItem,
    new_id,
    utc_now,
)

REPEAT_GAP = 5
"""A comparison is repeated only after at least this many others, or people remember their answer."""


class Claim:
    """One annotator asking one session for work, inside one write transaction."""

    def __init__(self, session: Session, labelling: LabellingSession, annotator_id: str, rng: random.Random) -> None:
        self._session = session
        self._labelling = labelling
        self._annotator_id = annotator_id
        self._rng = rng
        self._now = utc_now()
        self._mine = and_(Lease.session_id == labelling.id, Lease.annotator_id == annotator_id)

    def renew_held(self) -> list[Lease]:
        """The annotator's open leases; those that ran out while others took the item are dropped."""
        held = self._session.scalars(
            select(Lease)
            .options(joinedload(Lease.item))
            .where(self._mine, Lease.finished_at.is_(None))
            .order_by(Lease.number)
        ).all()
        kept = []
        for lease in held:
            if lease.expires_at < self._now and not self._still_wanted(lease):
                self._session.delete(lease)
                continue
            lease.expires_at = self._labelling.lease_end(self._now)
            kept.append(lease)
        self._session.flush()
        return kept

    def next(self) -> Lease | None:
        """A new lease: now and then a gold or repeated comparison, otherwise the first that still needs a judge."""
        fresh = self._fresh()
        if fresh is None:
            return None
        draw = self._rng.random()
        if draw < self._labelling.gold_share:
            gold = self._gold()
            if gold is not None:
                return self._lease(gold)
        elif draw < self._labelling.gold_share + self._labelling.repeat_share:
            earlier = self._repeatable()
            if earlier is not None:
                return self._lease(earlier.item, shown=list(reversed(earlier.shown)), repeat=True)
        return self._lease(fresh)

    def _fresh(self) -> QueueItem | None:
        # Items are handed out in order, so what is new to this annotator nearly always lies beyond what was seen;
        # the search from the start finds what others gave back.
        furthest = self._session.scalar(
            select(QueueItem.position)
            .join(Lease, Lease.item_id == QueueItem.id)
            .where(self._mine, Lease.repeat.is_(False), QueueItem.gold.is_(False))
            .order_by(Lease.number.desc())
            .limit(1)
        )
        beyond = None
        if furthest is not None:
            beyond = self._session.scalar(self._wanted().where(QueueItem.position > furthest))
        return beyond or self._session.scalar(self._wanted())

    def _wanted(self) -> Select[tuple[QueueItem]]:
        taken = (
            select(func.count())
            .where(
                Lease.item_id == QueueItem.id,
                Lease.state == LeaseState.OPEN,
                Lease.repeat.is_(False),
                Lease.expires_at >= self._now,
            )
            .scalar_subquery()
        )
        return self._unseen(gold=False).where(
            QueueItem.done < self._labelling.overlap, QueueItem.done + taken < self._labelling.overlap
        )

    def _gold(self) -> QueueItem | None:
        return self._session.scalar(self._unseen(gold=True))

    def _unseen(self, *, gold: bool) -> Select[tuple[QueueItem]]:
        seen = exists().where(Lease.item_id == QueueItem.id, Lease.annotator_id == self._annotator_id)
        hidden = exists(
            select(1)
            .select_from(ComparisonCandidate)
            .join(ComparisonCandidate.candidate)
            .where(ComparisonCandidate.comparison_id == QueueItem.comparison_id, Candidate.deleted_at.is_not(None))
        )
        return (
            select(QueueItem)
            .where(QueueItem.session_id == self._labelling.id, QueueItem.gold.is_(gold), ~seen, ~hidden)
            .order_by(QueueItem.position)
            .limit(1)
        )

    def _repeatable(self) -> Lease | None:
        again = aliased(Lease)
        return self._session.scalar(
            select(Lease)
            .options(joinedload(Lease.item))
            .where(
                self._mine,
                Lease.repeat.is_(False),
                Lease.state == LeaseState.PICKED,
                Lease.number <= self._handed_out() - 1 - REPEAT_GAP,
                ~exists().where(
                    again.item_id == Lease.item_id, again.annotator_id == Lease.annotator_id, again.repeat.is_(True)
                ),
                Lease.item.has(QueueItem.gold.is_(False)),
            )
            .order_by(Lease.number)
            .limit(1)
        )

    def _lease(self, item: QueueItem, *, shown: list[str] | None = None, repeat: bool = False) -> Lease:
        if shown is None:
            shown = list(
                self._session.scalars(
                    select(ComparisonCandidate.candidate_id)
                    .where(ComparisonCandidate.comparison_id == item.comparison_id)
                    .order_by(ComparisonCandidate.position)
                )
            )
            self._rng.shuffle(shown)
        lease = Lease(
            id=new_id(),
            session_id=self._labelling.id,
            item=item,
            annotator_id=self._annotator_id,
            repeat=repeat,
            number=self._handed_out(),
            shown=shown,
            expires_at=self._labelling.lease_end(self._now),
        )
        self._session.add(lease)
        self._session.flush()
        return lease

    def _handed_out(self) -> int:
        last = self._session.scalar(select(func.max(Lease.number)).where(self._mine))
        return 0 if last is None else last + 1

    def _still_wanted(self, lease: Lease) -> bool:
        if lease.repeat or lease.item.gold:
            return True
        others = self._session.scalar(
            select(func.count()).where(
                Lease.item_id == lease.item_id,
                Lease.id != lease.id,
                Lease.state == LeaseState.OPEN,
                Lease.repeat.is_(False),
                Lease.expires_at >= self._now,
            )
        )
        return lease.item.done + (others or 0) < self._labelling.overlap
