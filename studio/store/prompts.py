"""Prompts as their authors used them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from studio.store.engine import StoreError
from studio.store.models import Prompt, PromptOrigin, PromptPerson, Task, utc_now


def save_prompt(
    session: Session,
    text: str,
    task: Task,
    scene_words: str,
    origin: PromptOrigin,
    author_id: str | None,
    person_ids: Sequence[str],
) -> Prompt:
    """Insert a prompt, or move the same text of the same author to the top; note whom it was written for."""
    if not text.strip():
        raise StoreError("The prompt is empty; write one or go back to the template.")
    prompt = session.scalar(
        select(Prompt).where(Prompt.author_id == author_id, Prompt.task == task, Prompt.text == text).limit(1)
    )
    if prompt is None:
        prompt = Prompt(text=text, task=task, scene_words=scene_words, origin=origin, author_id=author_id)
        session.add(prompt)
        session.flush()
    else:
        prompt.last_used_at = utc_now()
        prompt.scene_words = scene_words
    known = set(session.scalars(select(PromptPerson.person_id).where(PromptPerson.prompt_id == prompt.id)))
    session.add_all(
        PromptPerson(prompt_id=prompt.id, person_id=person_id)
        for person_id in dict.fromkeys(person_ids)
        if person_id not in known
    )
    return prompt
