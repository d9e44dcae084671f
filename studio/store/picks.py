"""Picks: what people answered. A pick that was acknowledged is on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Load, Session, joinedload, selectinload

from studio.store.comparisons import entries
from studio.store.engine import Database, StoreError
from studio.store.models import (
    Candidate,
    Comparison,
    ComparisonCandidate,
    Generation,
    LabellingSession,
    Lease,
    LeaseState,
    Outcome,
    Pick,
    PickPair,
    QueueItem,
    Standing,
    new_id,
    utc_now,
)

TIE, BOTH_BAD = Outcome.TIE.value, Outcome.BOTH_BAD.value


@dataclass(frozen=True, kw_only=True)
class NewPick:
    """A decision as the page sends it."""

    request_id: str
    """Made by the client once for each decision: sending the same twice keeps one pick."""
    comparison_id: str
    annotator_id: str
    outcome: Outcome | str
    shown: Sequence[str] = ()
    """Candidate ids from left to right; may be empty when a lease or the comparison's own order says it."""
    ranking: Sequence[Sequence[str]] | None = None
    """For `ranking`: candidate ids, best first, those that share a place together."""
    reasons: Sequence[str] = ()
    note: str = ""
    latency_ms: int | None = None
    lease_id: str | None = None
    """The lease of a labelling session, where the comparison came from one."""


class Picks:
    """Decisions: saved once, superseded by a newer one or an undo, never overwritten."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, new: NewPick) -> Pick:
        """Keep a decision; it is on the disk when this returns.

        The same `request_id` again returns the pick already kept. A second decision of the same annotator on the same
        comparison supersedes the first. Raises StoreError when the answer does not fit the comparison.
        """
        with self._database.read() as session:
            known = session.scalar(select(Pick).where(Pick.request_id == new.request_id))
        if known is not None:
            return known
        with self._database.write() as session:
            self._database.serialise(session, f"pick-{new.annotator_id}")
            known = session.scalar(select(Pick).where(Pick.request_id == new.request_id))
            return known if known is not None else save_pick(session, new)

    def undo(self, pick_id: str) -> Pick:
        """Take a decision back: it stays in the history and counts for nothing. Its lease is open again."""
        with self._database.write() as session:
            pick = session.get(Pick, pick_id)
            if pick is None:
                raise StoreError(f"Pick {pick_id!r} does not exist; its pictures may have been deleted.")
            if pick.standing is not Standing.SUPERSEDED:
                supersede(session, pick)
                _reopen(session, pick)
            return pick

    def undo_last(self, annotator_id: str) -> Pick | None:
        """Undo the annotator's newest decision; None when there is none left."""
        query = (
            select(Pick.id)
            .where(Pick.annotator_id == annotator_id, Pick.standing != Standing.SUPERSEDED)
            .order_by(Pick.id.desc())
            .limit(1)
        )
        with self._database.read() as session:
            pick_id = session.scalar(query)
        return None if pick_id is None else self.undo(pick_id)

    def get(self, pick_id: str) -> Pick:
        """A pick with its comparison, candidates and generations."""
        with self._database.read() as session:
            pick = session.scalar(select(Pick).options(*around_picks()).where(Pick.id == pick_id))
        if pick is None:
            raise StoreError(f"Pick {pick_id!r} does not exist; its pictures may have been deleted.")
        return pick

    def of_comparison(self, comparison_id: str) -> list[Pick]:
        """All picks on a comparison, oldest first, superseded ones too."""
        with self._database.read() as session:
            return list(session.scalars(select(Pick).where(Pick.comparison_id == comparison_id).order_by(Pick.id)))

    def latest(self, *, annotator_id: str | None = None, limit: int = 20) -> list[Pick]:
        """The newest decisions that still stand, with everything around them."""
        query = select(Pick).options(*around_picks()).where(Pick.standing != Standing.SUPERSEDED)
        if annotator_id is not None:
            query = query.where(Pick.annotator_id == annotator_id)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Pick.id.desc()).limit(limit)))

    def counted(
        self, *, after: str | None = None, until: datetime | None = None, bundle: str | None = None, limit: int = 500
    ) -> list[Pick]:
        """A page of the picks that count, oldest first, with pairs, candidates and generations, to train from.

        `after` is the last id of the page before; `until` a moment; `bundle` keeps picks on pictures of one bundle.
        """
        query = select(Pick).options(selectinload(Pick.pairs)).where(Pick.standing == Standing.COUNTED)
        if until is not None:
            query = query.where(Pick.created_at <= until)
        if bundle is not None:
            query = query.where(Pick.bundle == bundle)
        return self._page(query, after, limit)

    def standing(self, *, after: str | None = None, limit: int = 500) -> list[Pick]:
        """A page of all picks that were not superseded, gold and repeats too, oldest first, with everything around."""
        query = select(Pick).options(selectinload(Pick.pairs)).where(Pick.standing != Standing.SUPERSEDED)
        return self._page(query, after, limit)

    def _page(self, query: Select[tuple[Pick]], after: str | None, limit: int) -> list[Pick]:
        query = query.options(*around_picks()).order_by(Pick.id).limit(limit)
        if after is not None:
            query = query.where(Pick.id > after)
        with self._database.read() as session:
            return list(session.scalars(query))

    def count(self, *, since: datetime | None = None, bundle: str | None = None) -> int:
        """How many picks count, all or since a moment (such as the snapshot of the last round)."""
        query = select(func.count()).where(Pick.standing == Standing.COUNTED)
        if since is not None:
            query = query.where(Pick.created_at > since)
        if bundle is not None:
            query = query.where(Pick.bundle == bundle)
        with self._database.read() as session:
            return session.scalar(query) or 0


def around_picks() -> tuple[Load, ...]:
    """Load the annotators of picks, and their comparisons with all of `entries()`, along with them."""
    return joinedload(Pick.annotator), joinedload(Pick.comparison).options(entries())


def supersede(session: Session, pick: Pick, by: str | None = None) -> None:
    """Let a pick count for nothing from now on, and give its place in the queue back."""
    if pick.lease_id is not None and pick.standing in (Standing.COUNTED, Standing.GOLD):
        item = select(Lease.item_id).where(Lease.id == pick.lease_id).scalar_subquery()
        session.execute(update(QueueItem).where(QueueItem.id == item).values(done=QueueItem.done - 1))
    session.execute(delete(PickPair).where(PickPair.pick_id == pick.id))
    pick.standing = Standing.SUPERSEDED
    pick.superseded_at = utc_now()
    pick.superseded_by = by
    session.flush()


def _reopen(session: Session, pick: Pick) -> None:
    lease = session.get(Lease, pick.lease_id) if pick.lease_id is not None else None
    if lease is not None:
        reopen(session, lease)


def reopen(session: Session, lease: Lease) -> None:
    """Hand a finished lease to its annotator again."""
    lease.state = LeaseState.OPEN
    lease.finished_at = None
    labelling = session.get_one(LabellingSession, lease.session_id)
    lease.expires_at = labelling.lease_end(utc_now())


def save_pick(
    session: Session,
    new: NewPick,
    *,
    pick_id: str | None = None,
    created_at: datetime | None = None,
    known_order: bool = True,
) -> Pick:
    """Insert a pick, its pairs and what follows from it. Raises StoreError when the answer does not fit.

    `known_order` is False for imported picks whose order on the screen nobody recorded.
    """
    outcome = Outcome(new.outcome)
    comparison = session.get(Comparison, new.comparison_id)
    if comparison is None:
        raise StoreError(f"Comparison {new.comparison_id!r} does not exist; its pictures may have been deleted.")
    own_order = list(
        session.scalars(
            select(ComparisonCandidate.candidate_id)
            .where(ComparisonCandidate.comparison_id == comparison.id)
            .order_by(ComparisonCandidate.position)
        )
    )
    lease = _lease_of(session, new)
    shown = list(lease.shown if lease is not None else new.shown or own_order)
    if sorted(shown) != sorted(own_order):
        raise StoreError(f"The candidates shown, {shown}, are not those of the comparison, {own_order}.")
    places = places_of(outcome, shown, new.ranking)
    best = [candidate_id for candidate_id in shown if places[candidate_id] == 0]
    winner = best[0] if len(best) == 1 else None
    bundles = set(
        session.scalars(select(Generation.bundle).join(Generation.candidates).where(Candidate.id.in_(shown)).distinct())
    )
    pick = Pick(
        id=pick_id or new_id(),
        request_id=new.request_id,
        comparison_id=comparison.id,
        annotator_id=new.annotator_id,
        session_id=lease.session_id if lease is not None else None,
        lease_id=lease.id if lease is not None else None,
        outcome=outcome,
        shown=shown,
        ranking=[list(group) for group in new.ranking] if new.ranking is not None else None,
        winner_id=winner,
        winner_position=shown.index(winner) if winner is not None and known_order else None,
        choice=_choice(outcome, winner, own_order),
        size=len(shown),
        bundle=next(iter(bundles)) if len(bundles) == 1 else "",
        reasons=list(dict.fromkeys(new.reasons)),
        note=new.note,
        latency_ms=new.latency_ms,
        standing=_standing(comparison, lease),
        created_at=created_at or utc_now(),
    )
    _supersede_earlier(session, pick)
    session.add(pick)
    session.flush()
    if pick.standing is Standing.COUNTED:
        session.add_all(_pairs(session, pick, comparison, places))
    if lease is not None:
        lease.state = LeaseState.PICKED
        lease.finished_at = utc_now()
        if pick.standing in (Standing.COUNTED, Standing.GOLD):
            session.execute(update(QueueItem).where(QueueItem.id == lease.item_id).values(done=QueueItem.done + 1))
    return pick


def _lease_of(session: Session, new: NewPick) -> Lease | None:
    if new.lease_id is None:
        return None
    lease = session.get(Lease, new.lease_id, options=[joinedload(Lease.item)])
    # An expired lease still takes its pick: somebody else may have judged the pair as well, which costs nothing.
    if lease is None or lease.annotator_id != new.annotator_id or lease.item.comparison_id != new.comparison_id:
        raise StoreError(
            f"Lease {new.lease_id!r} is not this annotator's lease of this comparison; ask for the next one."
        )
    return lease


def _standing(comparison: Comparison, lease: Lease | None) -> Standing:
    if lease is not None and lease.repeat:
        return Standing.REPEAT
    return Standing.COUNTED if comparison.gold_winner_id is None else Standing.GOLD


def _supersede_earlier(session: Session, pick: Pick) -> None:
    earlier = select(Pick).where(
        Pick.comparison_id == pick.comparison_id,
        Pick.annotator_id == pick.annotator_id,
        Pick.standing == pick.standing,
    )
    for row in session.scalars(earlier):
        supersede(session, row, by=pick.id)


def places_of(outcome: Outcome, shown: list[str], ranking: Sequence[Sequence[str]] | None) -> dict[str, int]:
    """Candidate id -> place, 0 is best; equal places are ties."""
    if outcome is Outcome.RANKING:
        if ranking is None or sorted(i for group in ranking for i in group) != sorted(shown) or not all(ranking):
            raise StoreError(f"The ranking {ranking} does not name each candidate shown, {shown}, exactly once.")
        return {candidate_id: place for place, group in enumerate(ranking) for candidate_id in group}
    if ranking is not None:
        raise StoreError(f"A ranking was sent with the outcome {outcome.value!r}; send the outcome 'ranking'.")
    if outcome in (Outcome.TIE, Outcome.BOTH_BAD):
        return dict.fromkeys(shown, 0)
    if len(shown) != 2:
        raise StoreError(
            f"The outcome {outcome.value!r} needs two candidates, {len(shown)} were shown; send a ranking."
        )
    winner = shown[0 if outcome is Outcome.LEFT else 1]
    return {candidate_id: int(candidate_id != winner) for candidate_id in shown}


def scored_pairs(shown: Sequence[str], places: dict[str, int]) -> list[tuple[str, str, float]]:
    """Every (left, right) of the candidates shown, and 1 where left is better, 0 where right is, 0.5 for equals."""
    return [
        (left, right, 0.5 if places[left] == places[right] else float(places[left] < places[right]))
        for left, right in combinations(shown, 2)
    ]


def _choice(outcome: Outcome, winner: str | None, own_order: list[str]) -> str:
    if outcome is Outcome.BOTH_BAD:
        return BOTH_BAD
    return TIE if winner is None else str(own_order.index(winner))


def _pairs(session: Session, pick: Pick, comparison: Comparison, places: dict[str, int]) -> list[PickPair]:
    rows = session.execute(
        select(Candidate.id, Generation.schedule, Generation.adapter_id)
        .join(Candidate.generation)
        .where(Candidate.id.in_(pick.shown))
    )
    settings = {candidate_id: (schedule, adapter_id) for candidate_id, schedule, adapter_id in rows}
    return [
        PickPair(
            pick_id=pick.id,
            left_id=left,
            right_id=right,
            left_score=score,
            blind=comparison.blind,
            left_schedule=settings[left][0],
            right_schedule=settings[right][0],
            left_adapter_id=settings[left][1],
            right_adapter_id=settings[right][1],
        )
        for left, right, score in scored_pairs(pick.shown, places)
    ]
