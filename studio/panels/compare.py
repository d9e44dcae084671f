"""The Compare page: blind comparisons, one after the other, of one's own pictures or in a labelling session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from studio.adapter_choice import adapter_name
from studio.context import Studio
from studio.draft import Draft
from studio.judging import (
    REASONS,
    Judging,
    Question,
    decide,
    known_answers,
    line_up,
    questions,
    skip,
    undo,
)
from studio.panels import results
from studio.panels.results import ResultsPanel
from studio.store import StoreError
from studio.store.models import Annotator, AnnotatorOrigin, Candidate, Generation, Outcome, Pick
from studio.widgets.compare_stage import compare_stage
from studio.words import face_strip

LETTERS = "ABCD"
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
MOST_PREPARED = 200


@dataclass(frozen=True, eq=False)
class ComparePanel:
    judging: gr.BrowserState
    status: gr.HTML
    own: gr.Button
    stage: gr.HTML
    reveal: gr.HTML
    guidelines: gr.HTML
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


def build(secret: str) -> ComparePanel:
    """`secret` is the key of what browsers remember."""
    judging = gr.BrowserState({}, storage_key="idglow-compare", secret=secret)
    with gr.Column(elem_id="compare"):
        with gr.Row(elem_id="compare-bar"):
            status = gr.HTML(elem_id="compare-status")
            own = gr.Button("Compare the pictures on Create", size="sm", elem_id="compare-own")
        stage = compare_stage(elem_id="stage")
        reveal = gr.HTML(elem_id="reveal")
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320), gr.Accordion("Guidelines", open=False):
                guidelines = gr.HTML(guidelines_html(GUIDELINES), elem_id="guidelines")
            with gr.Column(min_width=320), gr.Accordion("Labelling session", open=False, elem_id="labelling"):
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
                notice = gr.HTML(elem_id="session-notice")
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
    return ComparePanel(
        judging, status, own, stage, reveal, guidelines, name, session, join, leave, notice, title, rules, overlap,
        repeats, gold, create,
    )  # fmt: skip


def wire(
    panel: ComparePanel, studio: Studio, draft: gr.BrowserState, tab: gr.Tab, tabs: gr.Tabs, shown: ResultsPanel
) -> None:
    store = studio.store

    def open_(state: dict[str, Any], drafted: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        """Whatever this browser was judging, or the pictures on the Create page when it was judging nothing."""
        judging, annotator = Judging.read(state), None
        current = Draft.read(drafted)
        try:
            annotator = annotator_of(studio, judging, current, request)
            judging = _still_there(studio, judging)
            if judging.session is None and not judging.lineup:
                judging = replace(judging, lineup=_own(studio, current, annotator))
            page = page_values(studio, judging, annotator)
        except StoreError as error:
            judging = Judging(annotator=judging.annotator)
            page = _problem(str(error))
        # Somebody may be typing a name already.
        name = judging.annotator or gr.skip()
        return judging.write(), *page, name, _session_choices(studio, judging)

    def compare_own(state: dict[str, Any], drafted: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        judging, current = Judging.read(state), Draft.read(drafted)
        try:
            annotator = annotator_of(studio, judging, current, request)
            lineup = _own(studio, current, annotator)
            if not lineup:
                raise StoreError("There are no two pictures to compare; generate some on the Create page first.")
            judging = Judging(annotator=judging.annotator, lineup=lineup)
            page = page_values(studio, judging, annotator)
        except StoreError as error:
            raise gr.Error(str(error), title="Nothing to compare") from error
        return judging.write(), *page

    def act(
        state: dict[str, Any], drafted: dict[str, Any], event: gr.EventData, request: gr.Request
    ) -> tuple[Any, ...]:
        judging, pick, undone, problem = Judging.read(state), None, False, ""
        try:
            annotator = annotator_of(studio, judging, Draft.read(drafted), request)
            if event.action == "decide":
                judging, pick = decide(store, judging, annotator.id, event._data)
            elif event.action == "skip":
                judging = skip(store, judging, annotator.id, event._data)
            elif event.action == "undo":
                judging, undone = undo(store, judging, annotator.id)
            else:
                problem = f"The stage knows no action {event.action!r}."
        except (StoreError, ValueError, KeyError) as error:
            problem = f"Not saved: {error}"
        try:
            annotator = annotator_of(studio, judging, Draft.read(drafted), request)
            stage, status, _, guidelines = page_values(studio, judging, annotator)
        except StoreError as error:
            stage, status, _, guidelines = _problem(str(error))
        stage |= {"answered": event.request, "problem": problem or stage.get("problem", ""), "undone": undone}
        if pick is not None:
            reveal = reveal_html(studio, judging, store.picks.get(pick.id))
        else:
            reveal = "" if undone else gr.skip()
        return judging.write(), stage, status, reveal, guidelines

    def join(
        name: str, session_id: str | None, state: dict[str, Any], drafted: dict[str, Any], request: gr.Request
    ) -> tuple[Any, ...]:
        judging = replace(Judging.read(state), annotator=" ".join((name or "").split()), session=session_id)
        try:
            if not judging.annotator and not request.username:
                raise StoreError("Give your name first: picks are kept under it.")
            if session_id is None:
                raise StoreError("Choose a session, or create one below.")
            annotator = annotator_of(studio, judging, Draft.read(drafted), request)
            page = page_values(studio, judging, annotator)
        except StoreError as error:
            return state, *[gr.skip()] * 4, _notice(str(error), bad=True)
        return judging.write(), *page, _notice("You are in the session above.")

    def leave(state: dict[str, Any], drafted: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        judging = replace(Judging.read(state), session=None)
        page = page_values(studio, judging, annotator_of(studio, judging, Draft.read(drafted), request))
        return judging.write(), *page, _notice("You left the session; what you judged is kept.")

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
        judging = replace(Judging.read(state), annotator=" ".join((name or "").split()))
        try:
            author = annotator_of(studio, judging, Draft.read(drafted), request)
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
            return gr.skip(), _notice(str(error), bad=True)
        words = f"{len(prepared)} comparisons" + (f" and {len(golden)} known answers" if golden else "")
        return (
            _session_choices(studio, replace(judging, session=session.id)),
            _notice(f"“{session.name}” is open with {words}. Give your name and press Start."),
        )

    private = {"api_visibility": "private"}
    states = [panel.judging, draft]
    page = [panel.stage, panel.status, panel.reveal, panel.guidelines]
    tab.select(open_, states, [panel.judging, *page, panel.name, panel.session], show_progress="hidden", **private)
    for button in (panel.own.click, shown.blind.click):
        button(lambda: gr.update(selected="compare"), outputs=tabs, show_progress="hidden", **private).then(
            compare_own, states, [panel.judging, *page], show_progress="hidden", **private
        )
    panel.stage.act(
        act,
        states,
        [panel.judging, *page],
        show_progress="hidden",
        # Gradio drops an event that comes while the one before it is being finished; a pick must not be dropped.
        trigger_mode="multiple",
        concurrency_limit=None,
        **private,
    )
    entered = [panel.judging, *page, panel.notice]
    panel.join.click(join, [panel.name, panel.session, *states], entered, show_progress="hidden", **private)
    panel.leave.click(leave, states, entered, show_progress="hidden", **private)
    panel.create.click(
        create,
        [panel.name, panel.title, panel.rules, panel.overlap, panel.repeats, panel.gold, *states],
        [panel.session, panel.notice],
        **private,
    )


def annotator_of(studio: Studio, judging: Judging, draft: Draft, request: gr.Request | None) -> Annotator:
    """Who judges: the one logged in, else the name that was typed, else this browser."""
    if request is not None and request.username:
        return studio.store.people.annotator(request.username, AnnotatorOrigin.LOGIN)
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


def reveal_html(studio: Studio, judging: Judging, pick: Pick) -> str:
    """Where the pictures of the pair just judged came from; nothing where they may come back blind."""
    if judging.session is not None and studio.store.sessions.get(judging.session).repeat_share > 0:
        return '<p class="reveal-none">Sources stay hidden in this session, because comparisons may come back.</p>'
    by_id = {candidate.id: candidate for candidate in pick.comparison.candidates}
    cards = "".join(
        _card(studio, by_id[candidate_id], LETTERS[position], _place(pick, candidate_id, position))
        for position, candidate_id in enumerate(pick.shown)
    )
    details = [decision_words(pick)]
    if pick.latency_ms is not None:
        details.append(f"{pick.latency_ms / 1000:.1f} s")
    details += [REASONS.get(reason, reason) for reason in pick.reasons]
    if pick.note:
        details.append(f"“{pick.note}”")
    words = escape(" · ".join(details))
    return (
        f'<section class="reveal"><p class="reveal-title"><b>The one before, saved.</b> {words}</p>'
        f'<div class="reveal-cards">{cards}</div></section>'
    )


def decision_words(pick: Pick) -> str:
    """A decision in the letters that stood under the pictures."""
    letters = dict(zip(pick.shown, LETTERS, strict=False))
    if pick.outcome is Outcome.RANKING:
        return " > ".join(" = ".join(letters[one] for one in group) for group in pick.ranking)
    return {
        Outcome.LEFT: "A better than B",
        Outcome.RIGHT: "B better than A",
        Outcome.TIE: "tie",
        Outcome.BOTH_BAD: "all bad" if pick.size > 2 else "both bad",
    }[pick.outcome]


def guidelines_html(text: str) -> str:
    return f'<p class="guidelines">{escape(text)}</p>' if text.strip() else '<p class="guidelines">None given.</p>'


def _place(pick: Pick, candidate_id: str, position: int) -> str:
    if pick.outcome is Outcome.RANKING:
        place = next(place for place, group in enumerate(pick.ranking, start=1) if candidate_id in group)
        return f"place {place}"
    if pick.winner_id is None:
        return "tie" if pick.outcome is Outcome.TIE else "bad"
    return "chosen" if pick.winner_id == candidate_id else ""


def _card(studio: Studio, candidate: Candidate, letter: str, place: str) -> str:
    row = candidate.generation
    url = escape(studio.media_url(candidate.media_sha256))
    portraits = [reference.portrait for reference in row.references]
    strip = face_strip(
        candidate.face_report,
        [portrait.person.name for portrait in portraits],
        [studio.media_url(portrait.crop_sha256) for portrait in portraits],
        studio.media_url(candidate.media_sha256),
    )
    best = " best" if place in ("chosen", "place 1") else ""
    label = f'<span class="reveal-place">{place}</span>' if place else ""
    return (
        f'<article class="reveal-card{best}"><img src="{url}" alt="picture {letter}">'
        f"<div><p><b>{letter}</b> {label}</p><p>{escape(source_words(studio, row))}</p>"
        f"<p>seed {candidate.seed}, {row.steps} steps</p>"
        f"<details><summary>Faces</summary>{strip}</details></div></article>"
    )


def source_words(studio: Studio, row: Generation) -> str:
    """Schedule and adapter of a generation in a line."""
    strength = "" if row.strength == 1 else f", strength {row.strength:g}"
    return f"{row.schedule}{strength} · {adapter_name(studio.store, row.adapter_id)}"


def page_values(studio: Studio, judging: Judging, annotator: Annotator) -> tuple[Any, ...]:
    """Values of stage, status, reveal and guidelines."""
    asked = questions(studio.store, judging, annotator.id)
    if judging.session is not None:
        session = studio.store.sessions.get(judging.session)
        progress = studio.store.sessions.progress(session.id, annotator.id)
        can_undo = progress.mine + progress.skipped + progress.gold_seen > 0
        stage = stage_value(studio, asked, empty=SESSION_DONE, can_undo=can_undo)
        return stage, session_html(session.name, annotator.name, progress), "", guidelines_html(session.guidelines)
    stage = stage_value(studio, asked, empty=ALL_DONE if judging.lineup else NOTHING, can_undo=bool(judging.done))
    return stage, _lineup_html(judging), "", guidelines_html(GUIDELINES)


def _problem(sentence: str) -> tuple[Any, ...]:
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


def _lineup_html(judging: Judging) -> str:
    total = len(judging.lineup)
    if not total:
        return '<div class="judging"><p><b>Blind comparison</b></p></div>'
    return (
        f'<div class="judging"><p><b>Your pictures</b> {len(judging.done)} of {total} judged</p>'
        f'<progress value="{len(judging.done)}" max="{total}" aria-label="progress"></progress></div>'
    )


def _own(studio: Studio, draft: Draft, annotator: Annotator) -> tuple[str, ...]:
    return tuple(line_up(studio.store, results.load(studio, draft), annotator.id))


def _still_there(studio: Studio, judging: Judging) -> Judging:
    try:
        if judging.session is not None:
            studio.store.sessions.get(judging.session)
    except StoreError:
        return replace(judging, session=None)
    return judging


def _session_choices(studio: Studio, judging: Judging) -> Any:
    sessions = studio.store.sessions.list()
    chosen = judging.session or (sessions[0].id if sessions else None)
    return gr.update(choices=[(session.name, session.id) for session in sessions], value=chosen)


def _notice(sentence: str, *, bad: bool = False) -> str:
    kind = "problem" if bad else "note"
    return f'<p class="{kind}" role="status">{escape(sentence)}</p>'
