"""Adapters: which there are, which is active, and where each came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from studio.store.engine import Database, StoreError
from studio.store.models import (
    Activation,
    Adapter,
    AdapterState,
    Candidate,
    Generation,
    GenerationPortrait,
    Round,
    RoundPair,
    utc_now,
)


@dataclass(frozen=True, kw_only=True)
class NewAdapter:
    """A trained adapter; `media_sha256` comes from `store.media.add_file` on its safetensors file."""

    name: str
    media_sha256: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """Rank, alpha, target modules, versions."""
    evaluation: Mapping[str, Any] | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What one adapter was trained on."""

    adapter: Adapter
    round: Round | None
    pair_ids: tuple[str, ...]
    """Pairs trained on, not those dropped."""
    pick_ids: tuple[str, ...]
    candidate_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    schedules: tuple[str, ...]
    generation_ids: tuple[str, ...]
    portrait_ids: tuple[str, ...]


class Adapters:
    """The active adapter of a bundle is the newest of its activations; None is the base model."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, new: NewAdapter, *, bundle: str, parent_id: str | None = None) -> Adapter:
        """Store an adapter that no round made; it is a candidate."""
        with self._database.write() as session:
            return add_adapter(session, new, bundle=bundle, parent_id=parent_id, round_id=None)

    def get(self, adapter_id: str) -> Adapter:
        """An adapter with its round."""
        with self._database.read() as session:
            return _get(session, adapter_id)

    def list(self, *, bundle: str | None = None) -> list[Adapter]:
        """Adapters with their rounds, newest first."""
        query = select(Adapter).options(joinedload(Adapter.round)).order_by(Adapter.id.desc())
        if bundle is not None:
            query = query.where(Adapter.bundle == bundle)
        with self._database.read() as session:
            return list(session.scalars(query))

    def active(self, bundle: str) -> Adapter | None:
        """The adapter the studio generates with, None for the base model."""
        with self._database.read() as session:
            return active_adapter(session, bundle)

    def activate(self, bundle: str, adapter_id: str | None, *, by_id: str | None = None, note: str = "") -> Activation:
        """Promote or roll back: make an adapter, or the base model (None), the active one.

        Raises StoreError for an adapter of another bundle or one that is broken.
        """
        with self._database.write() as session:
            if adapter_id is not None:
                adapter = _get(session, adapter_id)
                if adapter.bundle != bundle:
                    raise StoreError(f"Adapter {adapter.name!r} belongs to {adapter.bundle}, not to {bundle}.")
                if adapter.state is AdapterState.BROKEN:
                    raise StoreError(f"Adapter {adapter.name!r} cannot be loaded: {adapter.note}")
                adapter.state = AdapterState.PROMOTED
                adapter.promoted_at = adapter.promoted_at or utc_now()
            return activate(session, bundle, adapter_id, by_id=by_id, note=note)

    def activations(self, bundle: str) -> list[Activation]:
        """Every promotion and roll back, newest first."""
        query = select(Activation).where(Activation.bundle == bundle).order_by(Activation.id.desc())
        with self._database.read() as session:
            return list(session.scalars(query))

    def mark_broken(self, adapter_id: str, reason: str) -> Adapter | None:
        """Say why an adapter cannot be loaded. Where it was active, the one before it takes over.

        Returns the adapter that is active afterwards.
        """
        with self._database.write() as session:
            broken = _get(session, adapter_id)
            broken.state = AdapterState.BROKEN
            broken.note = reason
            session.flush()
            history = session.scalars(
                select(Activation).where(Activation.bundle == broken.bundle).order_by(Activation.id.desc())
            ).all()
            if not history or history[0].adapter_id != adapter_id:
                return None if not history or history[0].adapter_id is None else _get(session, history[0].adapter_id)
            earlier = (_get(session, row.adapter_id) if row.adapter_id else None for row in history)
            heir = next((row for row in earlier if row is None or row.state is not AdapterState.BROKEN), None)
            activate(session, broken.bundle, heir.id if heir else None, by_id=None, note=reason)
            return heir

    def save_evaluation(self, adapter_id: str, evaluation: Mapping[str, Any]) -> None:
        with self._database.write() as session:
            _get(session, adapter_id).evaluation = dict(evaluation)

    def set_note(self, adapter_id: str, note: str) -> None:
        with self._database.write() as session:
            _get(session, adapter_id).note = note

    def lineage(self, adapter_id: str) -> list[Origin]:
        """The adapter and its ancestors down to the base, each with what it was trained on."""
        origins: list[Origin] = []
        following: str | None = adapter_id
        with self._database.read() as session:
            while following is not None:
                origins.append(_origin(session, _get(session, following)))
                following = origins[-1].adapter.parent_id
        return origins


def add_adapter(
    session: Session, new: NewAdapter, *, bundle: str, parent_id: str | None, round_id: str | None
) -> Adapter:
    """Insert an adapter as a candidate."""
    adapter = Adapter(
        name=new.name,
        bundle=bundle,
        parent_id=parent_id,
        round_id=round_id,
        media_sha256=new.media_sha256,
        config=dict(new.config),
        evaluation=None if new.evaluation is None else dict(new.evaluation),
        note=new.note,
    )
    session.add(adapter)
    session.flush()
    return adapter


def active_adapter(session: Session, bundle: str) -> Adapter | None:
    """The adapter of the newest activation; None for the base model."""
    query = select(Activation).where(Activation.bundle == bundle).order_by(Activation.id.desc()).limit(1)
    newest = session.scalar(query)
    return None if newest is None or newest.adapter_id is None else _get(session, newest.adapter_id)


def activate(session: Session, bundle: str, adapter_id: str | None, *, by_id: str | None, note: str) -> Activation:
    """Append to the history of what is active."""
    activation = Activation(bundle=bundle, adapter_id=adapter_id, by_id=by_id, note=note)
    session.add(activation)
    session.flush()
    return activation


def _get(session: Session, adapter_id: str) -> Adapter:
    adapter = session.get(Adapter, adapter_id, options=[joinedload(Adapter.round)])
    if adapter is None:
        raise StoreError(f"Adapter {adapter_id!r} does not exist.")
    return adapter


def _origin(session: Session, adapter: Adapter) -> Origin:
    trained = (RoundPair.round_id == adapter.round_id, RoundPair.kept.is_(True))
    pairs = session.scalars(select(RoundPair).where(*trained).order_by(RoundPair.position)).all()
    in_pairs = (
        select(RoundPair.chosen_candidate_id)
        .where(*trained)
        .union(select(RoundPair.rejected_candidate_id).where(*trained))
    )
    candidates = session.execute(
        select(Candidate.id, Candidate.seed, Generation.id, Generation.schedule)
        .join(Candidate.generation)
        .where(Candidate.id.in_(in_pairs))
        .order_by(Candidate.id)
    ).all()
    portraits = session.scalars(
        select(GenerationPortrait.portrait_id)
        .join(Candidate, Candidate.generation_id == GenerationPortrait.generation_id)
        .where(Candidate.id.in_(in_pairs))
        .distinct()
    ).all()
    return Origin(
        adapter=adapter,
        round=adapter.round,
        pair_ids=tuple(pair.id for pair in pairs),
        pick_ids=tuple(dict.fromkeys(pair.pick_id for pair in pairs if pair.pick_id is not None)),
        candidate_ids=tuple(row[0] for row in candidates),
        seeds=tuple(sorted({row[1] for row in candidates})),
        schedules=tuple(sorted({row[3] for row in candidates})),
        generation_ids=tuple(dict.fromkeys(row[2] for row in candidates)),
        portrait_ids=tuple(sorted(portraits)),
    )
