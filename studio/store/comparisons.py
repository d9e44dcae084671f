"""Comparisons: what people are asked."""

from __future__ import annotations

import random
from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Load, Session, aliased, selectinload

from studio.store.engine import Database, StoreError
from studio.store.generations import everything
from studio.store.models import (
    Candidate,
    Comparison,
    ComparisonCandidate,
    ComparisonKind,
    Generation,
    GenerationState,
    Purpose,
)

SIZES = range(2, 5)


class Comparisons:
    """Two to four candidates side by side."""

    def __init__(self, database: Database, rng: random.Random) -> None:
        self._database = database
        self._rng = rng

    def create(
        self,
        candidate_ids: Sequence[str],
        *,
        kind: ComparisonKind | str = ComparisonKind.GENERATION,
        blind: bool = True,
        gold_winner_id: str | None = None,
        created_by: str | None = None,
    ) -> Comparison:
        """Ask which of two to four candidates is best. They are shuffled, so that no side means anything."""
        with self._database.write() as session:
            order = list(candidate_ids)
            self._rng.shuffle(order)
            comparison = add_comparison(
                session, order, ComparisonKind(kind), blind=blind, gold_winner_id=gold_winner_id, created_by=created_by
            )
        return self.get(comparison.id)

    def prepare(self, *, limit: int = 100, author_id: str | None = None) -> list[str]:
        """Make blind comparisons of candidates that nobody was asked about yet; returns the new ids.

        Candidates of an A/B run meet their counterpart with the same seed (kind `ab`); all others are paired with their
        neighbour of the same generation.
        """
        with self._database.read() as session:
            pairs = [
                *_uncompared(session, ComparisonKind.AB, author_id, limit),
                *_uncompared(session, ComparisonKind.GENERATION, author_id, limit),
            ][:limit]
        made = []
        with self._database.write() as session:
            self._database.serialise(session, "prepare")
            for kind, *order in pairs:
                # Somebody may have prepared the same pair since it was looked for.
                if session.scalar(select(_shown_together(*order))):
                    continue
                self._rng.shuffle(order)
                made.append(add_comparison(session, order, kind, blind=True).id)
        return made

    def get(self, comparison_id: str) -> Comparison:
        """A comparison with its candidates and their generations (as `generations.get` gives them)."""
        return self.get_many([comparison_id])[0]

    def get_many(self, comparison_ids: Sequence[str]) -> list[Comparison]:
        """Several comparisons, in the order asked for."""
        query = select(Comparison).options(entries()).where(Comparison.id.in_(comparison_ids))
        with self._database.read() as session:
            found = {comparison.id: comparison for comparison in session.scalars(query)}
        for comparison_id in comparison_ids:
            if comparison_id not in found:
                raise StoreError(f"Comparison {comparison_id!r} does not exist; its pictures may have been deleted.")
        return [found[comparison_id] for comparison_id in comparison_ids]

    def of_generation(self, generation_id: str) -> list[Comparison]:
        """Comparisons that show a candidate of this generation, newest first."""
        shown = (
            select(ComparisonCandidate.comparison_id)
            .join(ComparisonCandidate.candidate)
            .where(Candidate.generation_id == generation_id)
        )
        query = select(Comparison).options(entries()).where(Comparison.id.in_(shown)).order_by(Comparison.id.desc())
        with self._database.read() as session:
            return list(session.scalars(query))


def entries() -> Load:
    """Load the candidates of comparisons, and the generations they came from, along with them."""
    return (
        selectinload(Comparison.entries)
        .joinedload(ComparisonCandidate.candidate)
        .joinedload(Candidate.generation)
        .options(*everything())
    )


def add_comparison(
    session: Session,
    candidate_ids: Sequence[str],
    kind: ComparisonKind,
    *,
    blind: bool,
    gold_winner_id: str | None = None,
    created_by: str | None = None,
) -> Comparison:
    """Insert a comparison in the order given. Raises StoreError for a wrong number, doubles or unknown candidates."""
    if len(candidate_ids) not in SIZES or len(set(candidate_ids)) != len(candidate_ids):
        raise StoreError(
            f"A comparison shows {SIZES.start} to {SIZES.stop - 1} different candidates; got {list(candidate_ids)}."
        )
    known = set(session.scalars(select(Candidate.id).where(Candidate.id.in_(candidate_ids))))
    for candidate_id in candidate_ids:
        if candidate_id not in known:
            raise StoreError(f"Candidate {candidate_id!r} does not exist; it may have been deleted.")
    if gold_winner_id is not None and gold_winner_id not in known:
        raise StoreError(f"The gold answer {gold_winner_id!r} is not among the candidates {list(candidate_ids)}.")
    comparison = Comparison(kind=kind, blind=blind, gold_winner_id=gold_winner_id, created_by=created_by)
    session.add(comparison)
    session.flush()
    session.add_all(
        ComparisonCandidate(comparison_id=comparison.id, position=position, candidate_id=candidate_id)
        for position, candidate_id in enumerate(candidate_ids)
    )
    session.flush()
    return comparison


def _uncompared(
    session: Session, kind: ComparisonKind, author_id: str | None, limit: int
) -> list[tuple[ComparisonKind, str, str]]:
    """Pairs of candidates of finished studio generations that no comparison shows together."""
    first, second = aliased(Candidate), aliased(Candidate)
    made_first, made_second = aliased(Generation), aliased(Generation)
    if kind is ComparisonKind.AB:
        made_together = (made_first.ab_group == made_second.ab_group) & (made_first.ab_side < made_second.ab_side)
        counterparts = first.seed == second.seed
    else:
        made_together = (made_first.id == made_second.id) & made_first.ab_group.is_(None)
        counterparts = first.position + 1 == second.position
    query = (
        select(first.id, second.id)
        .select_from(made_first)
        .join(made_second, made_together)
        .join(first, first.generation_id == made_first.id)
        .join(second, second.generation_id == made_second.id)
        .where(
            counterparts,
            made_first.purpose == Purpose.STUDIO,
            made_first.state == GenerationState.DONE,
            made_second.state == GenerationState.DONE,
            first.deleted_at.is_(None),
            second.deleted_at.is_(None),
            ~_shown_together(first.id, second.id),
        )
        .order_by(made_first.created_at.desc())
        .limit(limit)
    )
    if author_id is not None:
        query = query.where(made_first.author_id == author_id)
    return [(kind, left, right) for left, right in session.execute(query)]


def _shown_together(first: ColumnElement[str] | str, second: ColumnElement[str] | str) -> ColumnElement[bool]:
    one, other = aliased(ComparisonCandidate), aliased(ComparisonCandidate)
    return exists(
        select(1)
        .select_from(one)
        .join(other, one.comparison_id == other.comparison_id)
        .where(one.candidate_id == first, other.candidate_id == second)
    )
