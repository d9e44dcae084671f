"""Training rounds: a queue with leases, so that every round is done once and a killed worker's round goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, delete, distinct, func, insert, or_, select, update
from sqlalchemy.orm import Session

from studio.store.adapters import NewAdapter, activate, active_adapter, add_adapter
from studio.store.engine import Database, StoreError
from studio.store.models import (
    Adapter,
    AdapterState,
    Comparison,
    ComparisonKind,
    Generation,
    Pick,
    Round,
    RoundPair,
    RoundRequest,
    RoundState,
    RoundStep,
    Standing,
    utc_now,
)
from studio.store.round_pairs import NewRoundPair, PairCounts, pair_row

LIVE = (RoundState.QUEUED, RoundState.COLLECTING, RoundState.TRAINING, RoundState.EVALUATING)
ENDS_WITH_ADAPTER = (RoundState.PROMOTED, RoundState.CANDIDATE, RoundState.REJECTED)
NEXT = {
    RoundState.QUEUED: (RoundState.COLLECTING,),
    RoundState.COLLECTING: (RoundState.TRAINING,),
    RoundState.TRAINING: (RoundState.EVALUATING,),
    RoundState.EVALUATING: (RoundState.TRAINING,),
}
"""Where a live round may go; any may also fail, be cancelled, or (from evaluating) end with an adapter. A round whose
adapter was damaged before it was evaluated goes back to training."""
NEW_SIDE = "B"
"""`ab_side` of the evaluation's pictures that the round's own adapter made; before the round ends it has no id."""


class LeaseLost(StoreError):
    """Another worker has taken the round up, or it has ended: stop working on it at once."""


class Rounds:
    """Every method is one short transaction. Workers prove with `owner` that the round is still theirs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Asking for rounds

    def create(
        self,
        bundle: str,
        config: Mapping[str, Any] | None = None,
        *,
        parent_adapter_id: str | None = None,
        requested_by: str | None = None,
    ) -> Round:
        """Queue a round on top of `parent_adapter_id` (None: the base model)."""
        with self._database.write() as session:
            self._database.serialise(session, "rounds")
            return _add(session, bundle, config or {}, parent_adapter_id, requested_by)

    def create_when_due(self, bundle: str, picks: int, config: Mapping[str, Any] | None = None) -> Round | None:
        """Queue a round on top of the active adapter if `picks` new ones count and no round waits or runs.

        New are picks made after the last round of the bundle began, however that ended: one that failed or was
        cancelled is not repeated again and again by itself. However many workers ask, one round is made.
        """
        with self._database.write() as session:
            self._database.serialise(session, "rounds")
            if session.scalar(select(Round.id).where(Round.bundle == bundle, Round.state.in_(LIVE)).limit(1)):
                return None
            began = func.max(func.coalesce(Round.snapshot_at, Round.created_at))
            since = session.scalar(select(began).where(Round.bundle == bundle))
            if _picks_since(session, bundle, since) < picks:
                return None
            active = active_adapter(session, bundle)
            return _add(session, bundle, config or {}, active and active.id, None)

    def ask(self, round_id: str, request: RoundRequest | str) -> Round:
        """Ask a round to pause, to go on or to stop. One nobody works on is cancelled at once."""
        request = RoundRequest(request)
        with self._database.write() as session:
            row = _get(session, round_id, lock=True)
            if row.state not in LIVE:
                raise StoreError(f"Round {row.number} is {row.state.value}; there is nothing to {request.value}.")
            row.request = request
            if request is RoundRequest.CANCEL and not _is_leased(row):
                _end(row, RoundState.CANCELLED, "Cancelled before a worker had taken it up again.")
            return row

    def new_picks(self, bundle: str) -> int:
        """How many counted picks on the bundle's pictures no round has looked at and one could learn from.

        Rounds that failed or were cancelled do not count.
        """
        looked = select(func.max(Round.snapshot_at)).where(
            Round.bundle == bundle, Round.state.not_in((RoundState.FAILED, RoundState.CANCELLED))
        )
        with self._database.read() as session:
            return _picks_since(session, bundle, session.scalar(looked))

    # Working on rounds

    def claim(self, owner: str, *, bundle: str | None = None, lease_seconds: float = 60) -> Round | None:
        """Take up the oldest round (of a bundle) that waits, or whose worker fell silent; None when there is none.

        A round taken up again keeps its state, checkpoint, pairs and progress. Paused rounds wait.
        """
        now = utc_now()
        query = (
            select(Round)
            .where(
                Round.state.in_(LIVE),
                Round.request != RoundRequest.PAUSE,
                or_(Round.lease_expires_at.is_(None), Round.lease_expires_at < now),
            )
            .order_by(Round.created_at, Round.number)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if bundle is not None:
            query = query.where(Round.bundle == bundle)
        with self._database.write() as session:
            row = session.scalar(query)
            if row is None:
                return None
            row.lease_owner = owner
            row.lease_expires_at = now + timedelta(seconds=lease_seconds)
            row.heartbeat_at = now
            row.started_at = row.started_at or now
            row.attempts += 1
            return row

    def heartbeat(
        self,
        round_id: str,
        owner: str,
        *,
        lease_seconds: float = 60,
        progress: Mapping[str, Any] | None = None,
        checkpoint_path: str | None = None,
        log_path: str | None = None,
        message: str | None = None,
    ) -> RoundRequest:
        """Keep the lease, store progress, and learn whether people want the round to run, pause or stop.

        Paths are relative to the data folder. Raises LeaseLost.
        """
        now = utc_now()
        with self._database.write() as session:
            row = _owned(session, round_id, owner)
            row.heartbeat_at = now
            row.lease_expires_at = now + timedelta(seconds=lease_seconds)
            if progress is not None:
                row.progress = dict(progress)
            if checkpoint_path is not None:
                row.checkpoint_path = checkpoint_path
            if log_path is not None:
                row.log_path = log_path
            if message is not None:
                row.message = message
            return row.request

    def release(self, round_id: str, owner: str, *, message: str = "") -> None:
        """Give a round back unfinished, for example because it is paused; the next claim takes it up."""
        with self._database.write() as session:
            row = _owned(session, round_id, owner)
            row.lease_owner = row.lease_expires_at = None
            row.message = message

    def advance(self, round_id: str, owner: str, state: RoundState | str, *, message: str = "") -> Round:
        """queued -> collecting -> training -> evaluating (-> training). StoreError for any other way, LeaseLost."""
        state = RoundState(state)
        with self._database.write() as session:
            row = _owned(session, round_id, owner)
            if state not in NEXT[row.state]:
                raise StoreError(f"Round {row.number} is {row.state.value} and cannot become {state.value}.")
            row.state = state
            row.message = message
            return row

    def finish(
        self,
        round_id: str,
        owner: str,
        state: RoundState | str,
        *,
        message: str,
        adapter: NewAdapter | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> Adapter | None:
        """End a round; its adapter, states and activation appear in one transaction or not at all.

        `promoted`, `candidate` and `rejected` need an adapter; `promoted` makes it the active one. `failed` and
        `cancelled` have none. Raises StoreError when state and adapter do not fit, LeaseLost.
        """
        state = RoundState(state)
        if state in LIVE:
            raise StoreError(f"A round does not end as {state.value}; use advance.")
        if (adapter is not None) != (state in ENDS_WITH_ADAPTER):
            raise StoreError(f"A round that ends as {state.value} has {'an' if adapter is None else 'no'} adapter.")
        with self._database.write() as session:
            row = _owned(session, round_id, owner)
            if state in ENDS_WITH_ADAPTER and row.state is not RoundState.EVALUATING:
                raise StoreError(f"Round {row.number} is {row.state.value}; adapters come out of an evaluation.")
            if metrics is not None:
                row.metrics = dict(metrics)
            _end(row, state, message)
            if adapter is None:
                return None
            made = add_adapter(session, adapter, bundle=row.bundle, parent_id=row.parent_adapter_id, round_id=row.id)
            made.state = AdapterState(state.value)
            made.data_deleted_at = row.data_deleted_at
            session.execute(
                update(Generation)
                .where(Generation.round_id == row.id, Generation.ab_side == NEW_SIDE)
                .values(adapter_id=made.id)
            )
            if state is RoundState.PROMOTED:
                made.promoted_at = utc_now()
                activate(session, row.bundle, made.id, by_id=None, note=message)
            return made

    # What a round used and logged

    def save_pairs(self, round_id: str, owner: str, pairs: Sequence[NewRoundPair], *, snapshot_at: datetime) -> None:
        """Write down the snapshot: all pairs the round looks at, in order. A second call replaces the first."""
        rows = [pair_row(round_id, position, pair) for position, pair in enumerate(pairs)]
        with self._database.write() as session:
            row = _owned(session, round_id, owner)
            row.snapshot_at = snapshot_at
            session.execute(delete(RoundPair).where(RoundPair.round_id == round_id))
            if rows:
                session.execute(insert(RoundPair), rows)

    def pairs(self, round_id: str, *, kept: bool | None = None) -> list[RoundPair]:
        """The round's pairs in order: all, those trained on, or those dropped."""
        query = select(RoundPair).where(RoundPair.round_id == round_id).order_by(RoundPair.position)
        if kept is not None:
            query = query.where(RoundPair.kept.is_(kept))
        with self._database.read() as session:
            return list(session.scalars(query))

    def tasks(self, round_id: str) -> list[str]:
        """Tasks of the pictures behind the pairs that are trained on, such as `group`, in order."""
        query = (
            select(Generation.task)
            .join(RoundPair, RoundPair.generation_id == Generation.id)
            .where(RoundPair.round_id == round_id, RoundPair.kept.is_(True))
            .distinct()
            .order_by(Generation.task)
        )
        with self._database.read() as session:
            return list(session.scalars(query))

    def dropped(self, round_id: str) -> dict[str, int]:
        """Reason -> how many pairs were dropped for it, most first."""
        query = (
            select(RoundPair.drop_reason, func.count())
            .where(RoundPair.round_id == round_id, RoundPair.kept.is_(False))
            .group_by(RoundPair.drop_reason)
            .order_by(func.count().desc())
        )
        with self._database.read() as session:
            return dict(session.execute(query).all())

    def pair_counts(self, round_ids: Sequence[str]) -> dict[str, PairCounts]:
        """Round id -> how many pairs it kept and dropped, and how many picks they came from."""
        kept = func.sum(case((RoundPair.kept, 1), else_=0))
        picks = func.count(distinct(case((RoundPair.kept, RoundPair.pick_id))))
        query = (
            select(RoundPair.round_id, kept, func.count(), picks)
            .where(RoundPair.round_id.in_(round_ids))
            .group_by(RoundPair.round_id)
        )
        with self._database.read() as session:
            return {
                round_id: PairCounts(kept=kept, dropped=total - kept, picks=picks)
                for round_id, kept, total, picks in session.execute(query)
            }

    def log_steps(self, round_id: str, owner: str, steps: Mapping[int, Mapping[str, Any]]) -> None:
        """Store what training steps logged, replacing what an earlier attempt logged for the same steps."""
        rows = [{"round_id": round_id, "step": step, "metrics": dict(metrics)} for step, metrics in steps.items()]
        if not rows:
            return
        with self._database.write() as session:
            _owned(session, round_id, owner)
            session.execute(delete(RoundStep).where(RoundStep.round_id == round_id, RoundStep.step.in_(list(steps))))
            session.execute(insert(RoundStep), rows)

    def steps(self, round_id: str, *, after: int = -1) -> list[RoundStep]:
        """What was logged after a step, in order."""
        query = select(RoundStep).where(RoundStep.round_id == round_id, RoundStep.step > after).order_by(RoundStep.step)
        with self._database.read() as session:
            return list(session.scalars(query))

    # Looking

    def get(self, round_id: str) -> Round:
        with self._database.read() as session:
            return _get(session, round_id)

    def list(self, *, bundle: str | None = None, limit: int = 100) -> list[Round]:
        """Rounds, newest first."""
        query = select(Round).order_by(Round.number.desc()).limit(limit)
        if bundle is not None:
            query = query.where(Round.bundle == bundle)
        with self._database.read() as session:
            return list(session.scalars(query))

    def live(self, *, bundle: str | None = None) -> list[Round]:
        """Rounds that wait or run, oldest first."""
        query = select(Round).where(Round.state.in_(LIVE)).order_by(Round.created_at, Round.number)
        if bundle is not None:
            query = query.where(Round.bundle == bundle)
        with self._database.read() as session:
            return list(session.scalars(query))


def _add(
    session: Session,
    bundle: str,
    config: Mapping[str, Any],
    parent_adapter_id: str | None,
    requested_by: str | None,
) -> Round:
    last = session.scalar(select(func.max(Round.number)))
    row = Round(
        number=1 if last is None else last + 1,
        bundle=bundle,
        config=dict(config),
        parent_adapter_id=parent_adapter_id,
        requested_by=requested_by,
    )
    session.add(row)
    return row


def _picks_since(session: Session, bundle: str, since: datetime | None) -> int:
    # Comparisons of two adapters show people that no round trains on.
    query = (
        select(func.count())
        .select_from(Pick)
        .join(Pick.comparison)
        .where(Pick.standing == Standing.COUNTED, Pick.bundle == bundle, Comparison.kind != ComparisonKind.ADAPTER)
    )
    return session.scalar(query if since is None else query.where(Pick.created_at > since)) or 0


def _get(session: Session, round_id: str, *, lock: bool = False) -> Round:
    row = session.get(Round, round_id, with_for_update=lock or None)
    if row is None:
        raise StoreError(f"Round {round_id!r} does not exist.")
    return row


def _owned(session: Session, round_id: str, owner: str) -> Round:
    row = _get(session, round_id, lock=True)
    if row.state not in LIVE:
        raise LeaseLost(f"Round {row.number} has ended as {row.state.value}; stop working on it.")
    if row.lease_owner != owner:
        raise LeaseLost(f"Round {row.number} belongs to {row.lease_owner!r} now, not to {owner!r}; stop working on it.")
    return row


def _is_leased(row: Round) -> bool:
    return row.lease_expires_at is not None and row.lease_expires_at >= utc_now()


def _end(row: Round, state: RoundState, message: str) -> None:
    row.state = state
    row.message = message
    row.finished_at = utc_now()
    row.lease_owner = row.lease_expires_at = None
