"""Prompts, generations, candidates and the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, joinedload, selectinload
from sqlalchemy.sql.base import ExecutableOption

from studio.store.engine import Database, StoreError
from studio.store.gallery import GalleryFilter, filtered
from studio.store.models import (
    Candidate,
    Generation,
    GenerationPortrait,
    GenerationState,
    Portrait,
    Prompt,
    PromptOrigin,
    Purpose,
    Task,
    utc_now,
)
from studio.store.new_generations import NewCandidate, NewGeneration
from studio.store.prompts import save_prompt

SCHEDULE_MODES = ("off", "constant", "anneal", "gate")
LIVE = (GenerationState.QUEUED, GenerationState.RUNNING)


class Generations:
    """What was asked of the sampler and what came of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Prompts

    def save_prompt(
        self,
        text: str,
        *,
        task: Task | str,
        scene_words: str = "",
        origin: PromptOrigin | str,
        author_id: str | None = None,
        person_ids: Sequence[str] = (),
    ) -> Prompt:
        """Keep a prompt in its author's history; the same text again moves to the top."""
        with self._database.write() as session:
            return save_prompt(session, text, Task(task), scene_words, PromptOrigin(origin), author_id, person_ids)

    def prompt_history(self, author_id: str | None, *, limit: int = 30) -> list[Prompt]:
        """The author's prompts, last used first."""
        query = select(Prompt).where(Prompt.author_id == author_id).order_by(Prompt.last_used_at.desc())
        with self._database.read() as session:
            return list(session.scalars(query.limit(limit)))

    # Runs

    def create(self, new: NewGeneration) -> Generation:
        """Queue a generation. Raises StoreError when a portrait is gone or a setting makes no sense."""
        mode = new.schedule.partition("-")[0]
        if mode not in SCHEDULE_MODES:
            raise StoreError(f"Schedule {new.schedule!r} starts with none of {', '.join(SCHEDULE_MODES)}.")
        if not new.seeds:
            raise StoreError("A generation needs at least one seed; none was given.")
        if new.target_ages and len(new.target_ages) != len(new.portrait_ids):
            raise StoreError(
                f"{len(new.target_ages)} target ages for {len(new.portrait_ids)} portraits; give one for each or none."
            )
        ages = list(new.target_ages) or [None] * len(new.portrait_ids)
        with self._database.write() as session:
            people = dict(
                session.execute(select(Portrait.id, Portrait.person_id).where(Portrait.id.in_(new.portrait_ids))).all()
            )
            for portrait_id in new.portrait_ids:
                if portrait_id not in people:
                    raise StoreError(f"Portrait {portrait_id!r} does not exist; it may have been deleted.")
            task = Task(new.task)
            prompt = save_prompt(
                session,
                new.prompt,
                task,
                new.scene_words,
                PromptOrigin(new.prompt_origin),
                new.author_id,
                list(people.values()),
            )
            generation = Generation(
                purpose=Purpose(new.purpose),
                task=task,
                prompt_id=prompt.id,
                schedule=new.schedule,
                schedule_mode=mode,
                strength=new.strength,
                steps=new.steps,
                guidance=new.guidance,
                identity_guidance=new.identity_guidance,
                width=new.width,
                height=new.height,
                seeds=list(new.seeds),
                bundle=new.bundle,
                bundle_revision=new.bundle_revision,
                adapter_id=new.adapter_id,
                adapter_scale=new.adapter_scale,
                options=dict(new.options),
                ab_group=new.ab_group,
                ab_side=new.ab_side,
                round_id=new.round_id,
                author_id=new.author_id,
            )
            session.add(generation)
            session.flush()
            session.add_all(
                GenerationPortrait(
                    generation_id=generation.id, position=position, portrait_id=portrait_id, target_age=ages[position]
                )
                for position, portrait_id in enumerate(new.portrait_ids)
            )
            return generation

    def start(self, generation_id: str) -> None:
        """queued -> running."""
        now = utc_now()
        self._move(
            generation_id, (GenerationState.QUEUED,), state=GenerationState.RUNNING, started_at=now, heartbeat_at=now
        )

    def set_adapter(self, generation_id: str, adapter_id: str | None) -> None:
        """Say which adapter a generation is made with after all, where the one asked for could not be loaded."""
        with self._database.write() as session:
            session.execute(update(Generation).where(Generation.id == generation_id).values(adapter_id=adapter_id))

    def heartbeat(self, generation_id: str) -> None:
        """Say that the run is alive; call it at every step or so, the training worker makes room meanwhile."""
        with self._database.write() as session:
            session.execute(
                update(Generation)
                .where(Generation.id == generation_id, Generation.state == GenerationState.RUNNING)
                .values(heartbeat_at=utc_now())
            )

    def finish(
        self,
        generation_id: str,
        candidates: Sequence[NewCandidate],
        *,
        timings: dict[str, float] | None = None,
        message: str = "",
    ) -> list[Candidate]:
        """running -> done, with the candidates, all at once. Raises StoreError when the generation was deleted.

        `message`: what people should know about how it was made.
        """
        now = utc_now()
        with self._database.write() as session:
            _move(
                session,
                generation_id,
                LIVE,
                state=GenerationState.DONE,
                finished_at=now,
                timings=timings or {},
                message=message,
            )
            rows = [_candidate(generation_id, new) for new in candidates]
            session.add_all(rows)
            return rows

    def cancel(self, generation_id: str, message: str = "") -> None:
        """queued or running -> cancelled."""
        self._move(generation_id, LIVE, state=GenerationState.CANCELLED, message=message, finished_at=utc_now())

    def fail(self, generation_id: str, message: str) -> None:
        """queued or running -> failed, with the sentence the person is shown."""
        self._move(generation_id, LIVE, state=GenerationState.FAILED, message=message, finished_at=utc_now())

    def recover_interrupted(self, *, silent_for: timedelta = timedelta(minutes=2)) -> int:
        """Turn runs nobody works on any more to failed; called at start-up. Returns how many there were."""
        limit = utc_now() - silent_for
        with self._database.write() as session:
            return session.execute(
                update(Generation)
                .where(
                    Generation.state.in_(LIVE), func.coalesce(Generation.heartbeat_at, Generation.created_at) < limit
                )
                .values(
                    state=GenerationState.FAILED,
                    message="The studio was stopped before this generation had ended.",
                    finished_at=utc_now(),
                )
            ).rowcount

    def somebody_generates(self, *, within: timedelta = timedelta(seconds=30)) -> bool:
        """Whether somebody's generation is queued or running right now, as the training worker asks between steps."""
        limit = utc_now() - within
        query = select(Generation.id).where(
            Generation.state.in_(LIVE),
            Generation.purpose == Purpose.STUDIO,
            func.coalesce(Generation.heartbeat_at, Generation.created_at) >= limit,
        )
        with self._database.read() as session:
            return session.scalar(query.limit(1)) is not None

    # Looking

    def get(self, generation_id: str) -> Generation:
        """A generation with prompt, references (and their portraits and people) and candidates."""
        with self._database.read() as session:
            generation = session.scalar(select(Generation).options(*everything()).where(Generation.id == generation_id))
        if generation is None:
            raise StoreError(f"Generation {generation_id!r} does not exist; it may have been deleted.")
        return generation

    def ab_group(self, ab_group: str) -> list[Generation]:
        """The generations of an A/B run, A first, each as `get` gives it."""
        query = select(Generation).options(*everything()).where(Generation.ab_group == ab_group)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Generation.ab_side, Generation.id)))

    def latest(self, author_id: str | None = None, *, limit: int = 10) -> list[Generation]:
        """The newest generations made in the studio, each as `get` gives it."""
        query = select(Generation).options(*everything()).where(Generation.purpose == Purpose.STUDIO)
        if author_id is not None:
            query = query.where(Generation.author_id == author_id)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Generation.id.desc()).limit(limit)))

    def of_round(self, round_id: str) -> list[Generation]:
        """The generations made for a training round, oldest first, each as `get` gives it."""
        query = select(Generation).options(*everything()).where(Generation.round_id == round_id)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Generation.id)))

    def evaluated(self, key: str) -> Generation | None:
        """The newest finished evaluation whose pictures depend on the same things (`options["key"]`), or None."""
        query = (
            select(Generation)
            .options(*everything())
            .where(
                Generation.round_id.is_not(None),
                Generation.purpose == Purpose.EVALUATION,
                Generation.state == GenerationState.DONE,
                Generation.options["key"].as_string() == key,
            )
        )
        with self._database.read() as session:
            return session.scalar(query.order_by(Generation.id.desc()).limit(1))

    def candidate(self, candidate_id: str) -> Candidate:
        """A candidate with its generation (as `get` gives it)."""
        query = (
            select(Candidate)
            .options(joinedload(Candidate.generation).options(*everything()))
            .where(Candidate.id == candidate_id)
        )
        with self._database.read() as session:
            candidate = session.scalar(query)
        if candidate is None:
            raise StoreError(f"Candidate {candidate_id!r} does not exist; it may have been deleted.")
        return candidate

    def gallery(
        self, wanted: GalleryFilter | None = None, *, before: str | None = None, limit: int = 40
    ) -> list[Candidate]:
        """Candidates with generation and prompt, newest first; `before` is the last id of the page before this one."""
        wanted = wanted or GalleryFilter()
        query = (
            filtered(select(Candidate).join(Candidate.generation), wanted)
            .options(joinedload(Candidate.generation).joinedload(Generation.prompt))
            .order_by(Candidate.id.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(Candidate.id < before)
        with self._database.read() as session:
            return list(session.scalars(query))

    def count(self, wanted: GalleryFilter | None = None) -> int:
        """How many candidates the gallery holds under this filter."""
        query = filtered(
            select(func.count(Candidate.id)).select_from(Candidate).join(Candidate.generation),
            wanted or GalleryFilter(),
        )
        with self._database.read() as session:
            return session.scalar(query) or 0

    # Marks

    def set_favourite(self, candidate_id: str, favourite: bool) -> None:
        self._mark([candidate_id], favourite=favourite)

    def hide(self, candidate_ids: Sequence[str]) -> None:
        """Put candidates into the bin: gone from gallery and queues, picks stay."""
        self._mark(candidate_ids, deleted_at=utc_now())

    def restore(self, candidate_ids: Sequence[str]) -> None:
        """Take candidates out of the bin."""
        self._mark(candidate_ids, deleted_at=None)

    def save_metrics(
        self,
        candidate_id: str,
        *,
        metrics: dict[str, float] | None = None,
        face_report: dict[str, Any] | None = None,
        face_sim: float | None = None,
        coverage: float | None = None,
        aesthetic: float | None = None,
    ) -> None:
        """Add what was measured later; what is None stays as it is."""
        values = {"face_report": face_report, "face_sim": face_sim, "coverage": coverage, "aesthetic": aesthetic}
        with self._database.write() as session:
            candidate = session.get(Candidate, candidate_id)
            if candidate is None:
                raise StoreError(f"Candidate {candidate_id!r} does not exist; it may have been deleted.")
            for name, value in values.items():
                if value is not None:
                    setattr(candidate, name, value)
            candidate.metrics = {**candidate.metrics, **(metrics or {})}

    def _mark(self, candidate_ids: Sequence[str], **values: Any) -> None:
        with self._database.write() as session:
            session.execute(update(Candidate).where(Candidate.id.in_(candidate_ids)).values(**values))

    def _move(self, generation_id: str, allowed: Sequence[GenerationState], **values: Any) -> None:
        with self._database.write() as session:
            _move(session, generation_id, allowed, **values)


def everything() -> tuple[ExecutableOption, ...]:
    """Load prompt, references with portraits and people, and candidates along with generations."""
    return (
        joinedload(Generation.prompt),
        selectinload(Generation.references).joinedload(GenerationPortrait.portrait).joinedload(Portrait.person),
        selectinload(Generation.candidates),
    )


def _move(session: Session, generation_id: str, allowed: Sequence[GenerationState], **values: Any) -> None:
    moved = session.execute(
        update(Generation).where(Generation.id == generation_id, Generation.state.in_(allowed)).values(**values)
    ).rowcount
    if moved:
        return
    state = session.scalar(select(Generation.state).where(Generation.id == generation_id))
    if state is None:
        raise StoreError(f"Generation {generation_id!r} does not exist; it may have been deleted.")
    raise StoreError(f"Generation {generation_id!r} is {state.value} and cannot become {values['state'].value}.")


def _candidate(generation_id: str, new: NewCandidate) -> Candidate:
    return Candidate(
        generation_id=generation_id,
        position=new.position,
        seed=new.seed,
        media_sha256=new.media_sha256,
        width=new.width,
        height=new.height,
        face_report=new.face_report,
        face_sim=new.face_sim,
        coverage=new.coverage,
        aesthetic=new.aesthetic,
        metrics=dict(new.metrics),
        seconds=new.seconds,
    )
