"""Prompts, generations and the candidates they made."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from studio.store.models.base import Base, Created, Id, enum_column, owned_by, refers_to
from studio.store.models.people import Media, Portrait


class Task(StrEnum):
    """The values of `core.prompts.Task`."""

    GROUP = "group"
    CHILD = "child"


class PromptOrigin(StrEnum):
    TEMPLATE = "template"
    WRITTEN = "written"
    EDITED = "edited"
    IMPORTED = "imported"


class Purpose(StrEnum):
    """Why pictures were made; only `studio` and `imported` ones are in the gallery."""

    STUDIO = "studio"
    EVALUATION = "evaluation"
    TRAINING = "training"
    IMPORTED = "imported"


class GenerationState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Prompt(Base):
    """A full prompt and where it came from. It may describe a person's looks: it goes when the person goes."""

    __tablename__ = "prompts"
    __table_args__ = (Index("ix_prompts_history", "author_id", "last_used_at"),)

    id: Mapped[Id]
    text: Mapped[str]
    task: Mapped[Task] = mapped_column(enum_column(Task))
    scene_words: Mapped[str] = mapped_column(default="")
    origin: Mapped[PromptOrigin] = mapped_column(enum_column(PromptOrigin))
    author_id: Mapped[str | None] = refers_to("annotators.id")
    created_at: Mapped[Created]
    last_used_at: Mapped[Created]


class PromptPerson(Base):
    """A person whom a prompt was written for."""

    __tablename__ = "prompt_people"

    prompt_id: Mapped[str] = owned_by("prompts.id", primary_key=True)
    person_id: Mapped[str] = owned_by("people.id", primary_key=True, index=True)


class Generation(Base):
    """One run of the sampler: everything needed to repeat it."""

    __tablename__ = "generations"
    __table_args__ = (
        Index("ix_generations_state", "state", "created_at"),
        Index("ix_generations_ab", "ab_group"),
    )

    id: Mapped[Id]
    purpose: Mapped[Purpose] = mapped_column(enum_column(Purpose), default=Purpose.STUDIO)
    task: Mapped[Task] = mapped_column(enum_column(Task))
    prompt_id: Mapped[str] = refers_to("prompts.id", index=True)
    schedule: Mapped[str] = mapped_column(String(100))
    """`str(IdentitySchedule)`, for example `gate-0.3-0.6`."""
    schedule_mode: Mapped[str] = mapped_column(String(16))
    strength: Mapped[float]
    steps: Mapped[int]
    guidance: Mapped[float]
    """Scale of guidance towards the prompt; 1 is none."""
    identity_guidance: Mapped[float] = mapped_column(server_default="1")
    """Scale of guidance towards the portraits; 1 is none."""
    width: Mapped[int]
    height: Mapped[int]
    seeds: Mapped[list[Any]] = mapped_column(JSON)
    bundle: Mapped[str] = mapped_column(String(200))
    bundle_revision: Mapped[str] = mapped_column(String(100), default="")
    adapter_id: Mapped[str | None] = refers_to("adapters.id", index=True)
    adapter_scale: Mapped[float] = mapped_column(default=1.0)
    options: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Settings without a column of their own: negative prompt, expected order, what one backbone needs."""
    ab_group: Mapped[str | None] = mapped_column(String(32))
    """The same for generations that share their seeds and are compared side by side."""
    ab_side: Mapped[str | None] = mapped_column(String(8))
    round_id: Mapped[str | None] = refers_to("rounds.id", index=True)
    """The training round that the pictures were made for, as evaluation or as pairs."""
    author_id: Mapped[str | None] = refers_to("annotators.id", index=True)
    state: Mapped[GenerationState] = mapped_column(enum_column(GenerationState), default=GenerationState.QUEUED)
    message: Mapped[str] = mapped_column(default="")
    timings: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Seconds by phase."""
    created_at: Mapped[Created]
    started_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    prompt: Mapped[Prompt] = relationship(lazy="raise")
    references: Mapped[list[GenerationPortrait]] = relationship(
        order_by="GenerationPortrait.position", lazy="raise", passive_deletes=True
    )
    candidates: Mapped[list[Candidate]] = relationship(
        back_populates="generation", order_by="Candidate.position", lazy="raise", passive_deletes=True
    )


class GenerationPortrait(Base):
    """The reference at one position: `image 1` of the prompt is position 0."""

    __tablename__ = "generation_portraits"

    generation_id: Mapped[str] = owned_by("generations.id", primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    portrait_id: Mapped[str] = refers_to("portraits.id", index=True)
    target_age: Mapped[int | None]

    portrait: Mapped[Portrait] = relationship(lazy="raise")


class Candidate(Base):
    """One generated picture and what was measured on it."""

    __tablename__ = "candidates"
    __table_args__ = (
        UniqueConstraint("generation_id", "position"),
        Index("ix_candidates_favourites", "favourite", "id"),
        Index(
            "ix_candidates_measured",
            "id",
            "face_sim",
            "aesthetic",
            sqlite_where=text("aesthetic IS NOT NULL"),
            postgresql_where=text("aesthetic IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    generation_id: Mapped[str] = owned_by("generations.id")
    position: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    media_sha256: Mapped[str] = mapped_column(String(64), ForeignKey("media.sha256"), index=True)
    width: Mapped[int]
    height: Mapped[int]
    face_report: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """FaceReport as JSON, with the name of the face pack; None where nothing was measured."""
    face_sim: Mapped[float | None]
    coverage: Mapped[float | None]
    aesthetic: Mapped[float | None]
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    seconds: Mapped[float | None]
    favourite: Mapped[bool] = mapped_column(default=False)
    deleted_at: Mapped[datetime | None]
    """Hidden from gallery and queues; picks already made stay."""
    created_at: Mapped[Created]

    generation: Mapped[Generation] = relationship(back_populates="candidates", lazy="raise")
    media: Mapped[Media] = relationship(lazy="raise")
