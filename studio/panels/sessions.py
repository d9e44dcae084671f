"""Labelling sessions: who one is, which session one is in, and making new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from studio.context import Studio
from studio.draft import Draft
from studio.judging import Judging, known_answers
from studio.panels.judging_view import GUIDELINES, annotator_of, notice, page_values
from studio.store import StoreError
from studio.visitors import login_of

MOST_PREPARED = 200


@dataclass(frozen=True, eq=False)
class SessionForm:
    name: gr.Textbox
    session: gr.Dropdown
    join: gr.Button
    leave: gr.Button
    notice: gr.HTML
    title: gr.Textbox
    rules: gr.Textbox
    overlap: gr.Slider
    repeats: gr.Slider
    gold: gr.Slider
    create: gr.Button


def build() -> SessionForm:
    name = gr.Textbox(
        label="Your name",
        info="Picks are kept under it, so that agreement can be measured.",
        max_length=80,
        elem_id="annotator",
    )
    session = gr.Dropdown([], label="Session", value=None, elem_id="session")
    with gr.Row():
        join = gr.Button("Start or resume", variant="primary", elem_id="join-session")
        leave = gr.Button("Leave", elem_id="leave-session")
    said = gr.HTML(elem_id="session-notice")
    with gr.Accordion("New session from pictures nobody was asked about", open=False):
        title = gr.Textbox(label="Title", max_length=120, elem_id="session-title")
        rules = gr.Textbox(GUIDELINES, label="Guidelines", lines=6, max_lines=12)
        overlap = gr.Slider(1, 5, value=1, step=1, label="People per comparison")
        repeats = gr.Slider(
            0,
            0.3,
            value=0.1,
            step=0.05,
            label="Share of repeats",
            info="Shown again with sides swapped, to measure self-consistency; sources then stay hidden.",
        )
        gold = gr.Slider(
            0,
            20,
            value=0,
            step=1,
            label="Known answers mixed in",
            info="Taken from your own clear picks; they count for nothing but the check.",
        )
        create = gr.Button("Create session", elem_id="create-session")
    return SessionForm(name, session, join, leave, said, title, rules, overlap, repeats, gold, create)


def wire(
    form: SessionForm, studio: Studio, judging: gr.BrowserState, draft: gr.BrowserState, page: Sequence[Any]
) -> None:
    """`page`: the components that `page_values` sets."""
    store = studio.store

    def join(
        name: str, session_id: str | None, state: dict[str, Any], drafted: dict[str, Any], request: gr.Request
    ) -> tuple[Any, ...]:
        current = replace(Judging.read(state), annotator=" ".join((name or "").split()), session=session_id)
        try:
            if not current.annotator and login_of(request) is None:
                raise StoreError("Give your name first: picks are kept under it.")
            if session_id is None:
                raise StoreError("Choose a session, or create one below.")
            annotator = annotator_of(studio, current, Draft.read(drafted), request)
            page = page_values(studio, current, annotator)
        except StoreError as error:
            return state, *[gr.skip()] * 4, notice(str(error), bad=True)
        return current.write(), *page, notice("You are in the session above.")

    def leave(state: dict[str, Any], drafted: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        current = replace(Judging.read(state), session=None)
        try:
            page = page_values(studio, current, annotator_of(studio, current, Draft.read(drafted), request))
        except StoreError as error:
            return state, *[gr.skip()] * 4, notice(str(error), bad=True)
        return current.write(), *page, notice("You left the session; what you judged is kept.")

    def create(
        name: str,
        title: str,
        rules: str,
        overlap: float,
        repeats: float,
        gold: float,
        state: dict[str, Any],
        drafted: dict[str, Any],
        request: gr.Request,
    ) -> tuple[Any, ...]:
        current = replace(Judging.read(state), annotator=" ".join((name or "").split()))
        try:
            author = annotator_of(studio, current, Draft.read(drafted), request)
            owner = None if studio.sees_everything else Draft.read(drafted).owner(store).id
            prepared = store.comparisons.prepare(limit=MOST_PREPARED, author_id=owner)
            if not prepared:
                raise StoreError("There are no pictures that nobody was asked about; generate some first.")
            golden = known_answers(store, author.id, int(gold))
            session = store.sessions.create(
                title or "",
                guidelines=rules or "",
                overlap=int(overlap),
                repeat_share=float(repeats),
                gold_share=0.1 if golden else 0.0,
                created_by=author.id,
            )
            store.sessions.add(session.id, [*prepared, *golden])
        except StoreError as error:
            return gr.skip(), notice(str(error), bad=True)
        words = f"{len(prepared)} comparisons" + (f" and {len(golden)} known answers" if golden else "")
        return (
            session_choices(studio, replace(current, session=session.id)),
            notice(f"“{session.name}” is open with {words}. Give your name and press Start."),
        )

    private = {"api_visibility": "private"}
    states = [judging, draft]
    entered = [judging, *page, form.notice]
    form.join.click(join, [form.name, form.session, *states], entered, show_progress="hidden", **private)
    form.leave.click(leave, states, entered, show_progress="hidden", **private)
    form.create.click(
        create,
        [form.name, form.title, form.rules, form.overlap, form.repeats, form.gold, *states],
        [form.session, form.notice],
        **private,
    )


def session_choices(studio: Studio, judging: Judging) -> Any:
    sessions = studio.store.sessions.list()
    chosen = judging.session or (sessions[0].id if sessions else None)
    return gr.update(choices=[(session.name, session.id) for session in sessions], value=chosen)
