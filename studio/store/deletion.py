"""Deleting people and pictures, with everything that came from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from studio.store.engine import Database, StoreError
from studio.store.media import MediaStore
from studio.store.models import (
    Adapter,
    Candidate,
    Comparison,
    ComparisonCandidate,
    Generation,
    GenerationPortrait,
    Person,
    Pick,
    Portrait,
    Prompt,
    PromptPerson,
    Round,
    RoundPair,
    utc_now,
)


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What a deletion removes, or would remove."""

    portraits: int
    prompts: int
    generations: int
    candidates: int
    comparisons: int
    picks: int
    """Superseded ones included."""
    pairs: int
    """Pairs of training rounds."""
    files: int
    round_ids: tuple[str, ...]
    """Rounds that trained on the pictures; what their trainers cached beside them must go as well."""
    adapter_names: tuple[str, ...]
    """Adapters that learned from the pictures; they stay and are marked."""


class Deletions:
    """Previews run the deletion and take it back, so they cannot count anything else than what will happen."""

    def __init__(self, database: Database, media: MediaStore) -> None:
        self._database = database
        self._media = media

    def preview_person(self, person_id: str) -> Deletion:
        """What `delete_person` would remove."""
        return self._preview(lambda session: self._person(session, person_id))

    def delete_person(self, person_id: str) -> Deletion:
        """Remove a person's portraits and embeddings, and every prompt, picture, comparison, pick and pair from them.

        Group pictures with the person go as a whole. Adapters trained on the pictures, and their descendants, are
        marked.
        """
        return self._delete(lambda session: self._person(session, person_id))

    def preview_generations(self, generation_ids: Sequence[str]) -> Deletion:
        """What `delete_generations` would remove."""
        return self._preview(lambda session: self._generations(session, generation_ids))

    def delete_generations(self, generation_ids: Sequence[str]) -> Deletion:
        """Remove generations for good, with their candidates, comparisons, picks and pairs."""
        return self._delete(lambda session: self._generations(session, generation_ids))

    def preview_candidates(self, candidate_ids: Sequence[str]) -> Deletion:
        """What `delete_candidates` would remove."""
        return self._preview(lambda session: self._candidates(session, candidate_ids))

    def delete_candidates(self, candidate_ids: Sequence[str]) -> Deletion:
        """Remove pictures for good (`generations.hide` only puts them into the bin)."""
        return self._delete(lambda session: self._candidates(session, candidate_ids))

    def _preview(self, run) -> Deletion:
        with self._database.write() as session:
            deletion, _paths = run(session)
            session.rollback()
        return deletion

    def _delete(self, run) -> Deletion:
        with self._database.write() as session:
            deletion, paths = run(session)
        self._media.unlink(paths)
        return deletion

    def _person(self, session: Session, person_id: str) -> tuple[Deletion, list[Path]]:
        if session.get(Person, person_id) is None:
            raise StoreError(f"Person {person_id!r} does not exist; it may have been deleted already.")
        portraits = session.execute(
            select(Portrait.picture_sha256, Portrait.crop_sha256).where(Portrait.person_id == person_id)
        ).all()
        generations = (
            select(GenerationPortrait.generation_id)
            .join(GenerationPortrait.portrait)
            .where(Portrait.person_id == person_id)
        )
        prompts = session.scalars(select(PromptPerson.prompt_id).where(PromptPerson.person_id == person_id)).all()
        removed = _remove_pictures(session, select(Candidate.id).where(Candidate.generation_id.in_(generations)))
        generation_count = _delete_rows(session, delete(Generation).where(Generation.id.in_(generations)))
        session.execute(delete(Person).where(Person.id == person_id))
        prompt_count = sum(
            _delete_rows(
                session,
                delete(Prompt).where(Prompt.id == prompt_id, Prompt.id.not_in(select(Generation.prompt_id))),
            )
            for prompt_id in prompts
        )
        hashes = {*removed.hashes, *(sha256 for row in portraits for sha256 in row)}
        return self._finish(
            session, removed, hashes, portraits=len(portraits), prompts=prompt_count, generations=generation_count
        )

    def _generations(self, session: Session, generation_ids: Sequence[str]) -> tuple[Deletion, list[Path]]:
        removed = _remove_pictures(session, select(Candidate.id).where(Candidate.generation_id.in_(generation_ids)))
        count = _delete_rows(session, delete(Generation).where(Generation.id.in_(generation_ids)))
        return self._finish(session, removed, removed.hashes, generations=count)

    def _candidates(self, session: Session, candidate_ids: Sequence[str]) -> tuple[Deletion, list[Path]]:
        removed = _remove_pictures(session, select(Candidate.id).where(Candidate.id.in_(candidate_ids)))
        return self._finish(session, removed, removed.hashes)

    def _finish(
        self,
        session: Session,
        removed: _Removed,
        hashes: set[str],
        *,
        portraits: int = 0,
        prompts: int = 0,
        generations: int = 0,
    ) -> tuple[Deletion, list[Path]]:
        session.flush()
        paths = self._media.remove_unreferenced(session, hashes)
        deletion = Deletion(
            portraits=portraits,
            prompts=prompts,
            generations=generations,
            candidates=removed.candidates,
            comparisons=removed.comparisons,
            picks=removed.picks,
            pairs=removed.pairs,
            files=len(paths),
            round_ids=removed.round_ids,
            adapter_names=removed.adapter_names,
        )
        return deletion, paths


@dataclass(frozen=True, kw_only=True)
class _Removed:
    candidates: int
    comparisons: int
    picks: int
    pairs: int
    hashes: set[str]
    round_ids: tuple[str, ...]
    adapter_names: tuple[str, ...]


def _remove_pictures(session: Session, candidates: Select[tuple[str]]) -> _Removed:
    """Delete candidates and all that hangs on them; what only refers to them goes by the foreign keys' cascade."""
    comparisons = select(ComparisonCandidate.comparison_id).where(ComparisonCandidate.candidate_id.in_(candidates))
    picks = select(Pick.id).where(Pick.comparison_id.in_(comparisons))
    pairs = or_(
        RoundPair.chosen_candidate_id.in_(candidates),
        RoundPair.rejected_candidate_id.in_(candidates),
        RoundPair.pick_id.in_(picks),
        RoundPair.generation_id.in_(select(Candidate.generation_id).where(Candidate.id.in_(candidates))),
    )
    used = session.execute(
        select(RoundPair.round_id, RoundPair.chosen_sha256, RoundPair.rejected_sha256).where(pairs)
    ).all()
    hashes = {sha256 for row in used for sha256 in row[1:]}
    hashes.update(session.scalars(select(Candidate.media_sha256).where(Candidate.id.in_(candidates))))
    round_ids = tuple(sorted({row.round_id for row in used}))
    pick_count = session.scalar(select(func.count()).select_from(picks.subquery())) or 0
    adapter_names = _mark_trained(session, round_ids)
    session.execute(delete(RoundPair).where(pairs))
    comparison_count = _delete_rows(session, delete(Comparison).where(Comparison.id.in_(comparisons)))
    return _Removed(
        candidates=_delete_rows(session, delete(Candidate).where(Candidate.id.in_(candidates))),
        comparisons=comparison_count,
        picks=pick_count,
        pairs=len(used),
        hashes=hashes,
        round_ids=round_ids,
        adapter_names=adapter_names,
    )


def _mark_trained(session: Session, round_ids: Sequence[str]) -> tuple[str, ...]:
    now = utc_now()
    session.execute(update(Round).where(Round.id.in_(round_ids)).values(data_deleted_at=now))
    trained = select(Adapter.id).where(Adapter.round_id.in_(round_ids)).cte("trained", recursive=True)
    trained = trained.union(select(Adapter.id).join(trained, Adapter.parent_id == trained.c.id))
    marked = session.scalars(select(Adapter).where(Adapter.id.in_(select(trained.c.id))).order_by(Adapter.id)).all()
    for adapter in marked:
        adapter.data_deleted_at = now
    session.flush()
    return tuple(adapter.name for adapter in marked)


def _delete_rows(session: Session, statement) -> int:
    return session.execute(statement, execution_options={"synchronize_session": False}).rowcount
