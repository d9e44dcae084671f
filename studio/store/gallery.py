"""What the gallery shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select

from studio.store.models import Candidate, Generation, GenerationPortrait, Portrait, Prompt, Purpose, Task

IN_GALLERY = (Purpose.STUDIO, Purpose.IMPORTED)


@dataclass(frozen=True, kw_only=True)
class GalleryFilter:
    """What the gallery shows; None does not filter."""

    task: Task | str | None = None
    person_id: str | None = None
    author_id: str | None = None
    adapter_id: str | None = None
    schedule_mode: str | None = None
    favourites: bool = False
    deleted: bool = False
    """The bin instead of the gallery."""
    words: str = ""
    """Part of the prompt."""
    since: datetime | None = None
    until: datetime | None = None


def filtered(query: Select[Any], wanted: GalleryFilter) -> Select[Any]:
    """Restrict a query over candidates joined with their generations."""
    query = query.where(
        Generation.purpose.in_(IN_GALLERY),
        Candidate.deleted_at.is_not(None) if wanted.deleted else Candidate.deleted_at.is_(None),
    )
    if wanted.favourites:
        query = query.where(Candidate.favourite.is_(True))
    if wanted.task is not None:
        query = query.where(Generation.task == Task(wanted.task))
    if wanted.author_id is not None:
        query = query.where(Generation.author_id == wanted.author_id)
    if wanted.adapter_id is not None:
        query = query.where(Generation.adapter_id == wanted.adapter_id)
    if wanted.schedule_mode is not None:
        query = query.where(Generation.schedule_mode == wanted.schedule_mode)
    if wanted.since is not None:
        query = query.where(Candidate.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Candidate.created_at < wanted.until)
    if wanted.words.strip():
        said = [func.lower(Prompt.text).contains(word.lower(), autoescape=True) for word in wanted.words.split()]
        query = query.where(Generation.prompt_id.in_(select(Prompt.id).where(*said)))
    if wanted.person_id is not None:
        shown = (
            select(GenerationPortrait.generation_id)
            .join(GenerationPortrait.portrait)
            .where(Portrait.person_id == wanted.person_id)
        )
        query = query.where(Generation.id.in_(shown))
    return query
