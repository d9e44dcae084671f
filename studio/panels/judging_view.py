"""What the Compare page says and shows to one annotator; nothing that gives a source away."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from studio.context import Studio
from studio.draft import Draft
from studio.judging import Judging, Question, answered, of_adapters, questions
from studio.store import StoreError
from studio.store.models import Annotator
from studio.visitors import login_of

GUIDELINES = """\
Judge the picture as a whole, in this order:
1. Is everybody there, once each, and recognisable? A lost or doubled face loses.
2. For children: do they look like children, and like these people as children?
3. Do clothes, hair and things belong to the right person?
4. Is it a good picture: light, anatomy, artefacts, composition?
Tie when you honestly cannot tell; both bad when neither is worth training on."""
NOTHING = "Generate two or more pictures on the Create page and press Compare blind there, or join a session below."
ALL_DONE = "Everything here is judged. Generate more on the Create page, or join a labelling session below."
SESSION_DONE = "Nothing is left for you in this session. Thank you; others may still be judging."


def annotator_of(studio: Studio, judging: Judging, draft: Draft, request: gr.Request | None) -> Annotator:
    """Who judges: the one logged in, else the name that was typed, else this browser.

    Raises StoreError where everybody has to log in and this visitor has not.
    """
    login = login_of(request)
    if login is not None:
        return studio.store.people.annotator(*login)
    if studio.settings.login == "huggingface":
        raise StoreError("Sign in with Hugging Face at the top of the page first: picks are kept under that name.")
    if judging.annotator.strip():
        return studio.store.people.annotator(judging.annotator)
    return draft.owner(studio.store)


def stage_value(studio: Studio, asked: Sequence[Question], *, empty: str, can_undo: bool) -> dict[str, Any]:
    """What the stage shows: addresses of pictures and ids, nothing about where the pictures come from."""
    return {
        "questions": [
            {
                "comparison": question.comparison_id,
                "lease": question.lease_id,
                "pictures": [
                    {"id": candidate.id, "url": studio.media_url(candidate.media_sha256)}
                    for candidate in question.candidates
                ],
            }
            for question in asked
        ],
        "title": "All judged" if empty != NOTHING else "Nothing to compare yet",
        "empty": empty,
        "can_undo": can_undo,
    }


def page_values(studio: Studio, judging: Judging, annotator: Annotator) -> tuple[Any, ...]:
    """Values of stage, status, reveal and guidelines."""
    asked = questions(studio.store, judging, annotator.id)
    if judging.session is not None:
        session = studio.store.sessions.get(judging.session)
        progress = studio.store.sessions.progress(session.id, annotator.id)
        can_undo = progress.mine + progress.skipped + progress.gold_seen > 0
        stage = stage_value(studio, asked, empty=SESSION_DONE, can_undo=can_undo)
        return stage, session_html(session.name, annotator.name, progress), "", guidelines_html(session.guidelines)
    done = len(answered(studio.store, judging, annotator.id))
    stage = stage_value(studio, asked, empty=ALL_DONE if judging.lineup else NOTHING, can_undo=done > 0)
    title = "Two adapters, same seeds" if of_adapters(studio.store, judging) else "Your pictures"
    open_eyes = bool(asked) and not studio.store.comparisons.get(asked[0].comparison_id).blind
    return stage, _lineup_html(title, done, len(judging.lineup), open_eyes), "", guidelines_html(GUIDELINES)


def problem_values(sentence: str) -> tuple[Any, ...]:
    return {"questions": [], "empty": NOTHING, "problem": sentence}, "", "", guidelines_html(GUIDELINES)


def session_html(session: str, annotator: str, progress: Any) -> str:
    """Name, bar and counts of a labelling session."""
    wanted = max(progress.picks_wanted, 1)
    facts = [f"{progress.mine} by {annotator}"]
    if progress.skipped:
        facts.append(f"{progress.skipped} skipped")
    if progress.median_seconds is not None:
        facts.append(f"median {progress.median_seconds:.1f} s per pick")
    return (
        f'<div class="judging"><p><b>{escape(session)}</b> {progress.picks_made} of {progress.picks_wanted} picks'
        f'<span class="judging-facts">{escape(" · ".join(facts))}</span></p>'
        f'<progress value="{min(progress.picks_made, wanted)}" max="{wanted}" aria-label="session progress"></progress>'
        "</div>"
    )


def _lineup_html(title: str, done: int, total: int, open_eyes: bool) -> str:
    if not total:
        return '<div class="judging"><p><b>Blind comparison</b></p></div>'
    words = "You have seen who is recognised: win rates leave these picks out." if open_eyes else ""
    return (
        f'<div class="judging"><p><b>{title}</b> {done} of {total} judged'
        f'<span class="judging-facts">{words}</span></p>'
        f'<progress value="{done}" max="{total}" aria-label="progress"></progress></div>'
    )


def guidelines_html(text: str) -> str:
    return f'<p class="guidelines">{escape(text)}</p>' if text.strip() else '<p class="guidelines">None given.</p>'


def notice(sentence: str, *, bad: bool = False) -> str:
    kind = "problem" if bad else "note"
    return f'<p class="{kind}" role="status">{escape(sentence)}</p>'
