"""The Compare page: blind comparisons, one after the other, of one's own pictures or in a labelling session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from studio.context import Studio
from studio.draft import Draft
from studio.judging import Judging, decide, line_up, of_adapters, skip, undo
from studio.panels import results, sessions
from studio.panels.judging_view import GUIDELINES, annotator_of, guidelines_html, page_values, problem_values
from studio.panels.results import ResultsPanel
from studio.panels.reveal import reveal_html
from studio.panels.sessions import SessionForm
from studio.store import StoreError
from studio.store.models import Annotator
from studio.widgets.compare_stage import compare_stage


@dataclass(frozen=True, eq=False)
class ComparePanel:
    judging: gr.BrowserState
    status: gr.HTML
    own: gr.Button
    stage: gr.HTML
    reveal: gr.HTML
    guidelines: gr.HTML
    form: SessionForm

    @property
    def page(self) -> list[Any]:
        """What `judging_view.page_values` sets."""
        return [self.stage, self.status, self.reveal, self.guidelines]


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
                form = sessions.build()
    return ComparePanel(judging, status, own, stage, reveal, guidelines, form)


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
            # Whoever has looked at the evidence of their own pictures meanwhile is asked with open eyes.
            if judging.session is None and (not judging.lineup or current.revealed) and not of_adapters(store, judging):
                judging = replace(judging, lineup=_own(studio, current, annotator))
            page = page_values(studio, judging, annotator)
        except StoreError as error:
            judging = Judging(annotator=judging.annotator)
            page = problem_values(str(error))
        # Somebody may be typing a name already.
        name = judging.annotator or gr.skip()
        return judging.write(), *page, name, sessions.session_choices(studio, judging)

    def own(state: dict[str, Any], drafted: dict[str, Any], request: gr.Request) -> tuple[Judging, Annotator]:
        judging, current = Judging.read(state), Draft.read(drafted)
        try:
            annotator = annotator_of(studio, judging, current, request)
            lineup = _own(studio, current, annotator)
            if not lineup:
                raise StoreError("There are no two pictures to compare; generate some on the Create page first.")
        except StoreError as error:
            raise gr.Error(str(error), title="Nothing to compare") from error
        return Judging(annotator=judging.annotator, lineup=lineup), annotator

    def compare_own(state: dict[str, Any], drafted: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        judging, annotator = own(state, drafted, request)
        return judging.write(), *page_values(studio, judging, annotator)

    def go_and_compare(state: dict[str, Any], drafted: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        """The page draws itself when it opens; drawn to from here as well, the two would race."""
        judging, _ = own(state, drafted, request)
        return judging.write(), gr.update(selected="compare")

    def act(
        state: dict[str, Any], drafted: dict[str, Any], event: gr.EventData, request: gr.Request
    ) -> tuple[Any, ...]:
        judging, current = Judging.read(state), Draft.read(drafted)
        pick, undone, problem = None, False, ""
        try:
            annotator = annotator_of(studio, judging, current, request)
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
            annotator = annotator_of(studio, judging, current, request)
            stage, status, _, guidelines = page_values(studio, judging, annotator)
        except StoreError as error:
            stage, status, _, guidelines = problem_values(str(error))
        stage |= {"answered": event.request, "problem": problem or stage.get("problem", ""), "undone": undone}
        if pick is not None:
            reveal = reveal_html(studio, judging, store.picks.get(pick.id))
        else:
            reveal = "" if undone else gr.skip()
        # What was judged to the end has been revealed; the Create page need not hide it any longer.
        own = judging.session is None and not of_adapters(store, judging)
        judged = own and not stage["questions"] and pick is not None
        seen = replace(current, revealed=True).write() if judged else gr.skip()
        return judging.write(), stage, status, reveal, guidelines, seen

    private = {"api_visibility": "private"}
    states = [panel.judging, draft]
    page = panel.page
    tab.select(
        open_, states, [panel.judging, *page, panel.form.name, panel.form.session], show_progress="hidden", **private
    )
    panel.own.click(compare_own, states, [panel.judging, *page], show_progress="hidden", **private)
    for button in (shown.blind, shown.again):
        button.click(go_and_compare, states, [panel.judging, tabs], show_progress="hidden", **private)
    panel.stage.act(
        act,
        states,
        [panel.judging, *page, draft],
        show_progress="hidden",
        # Gradio drops an event that comes while the one before it is being finished; a pick must not be dropped.
        trigger_mode="multiple",
        concurrency_limit=None,
        **private,
    )
    sessions.wire(panel.form, studio, panel.judging, draft, page)


def _own(studio: Studio, draft: Draft, annotator: Annotator) -> tuple[str, ...]:
    return tuple(line_up(studio.store, results.load(studio, draft), annotator.id, blind=not draft.revealed))


def _still_there(studio: Studio, judging: Judging) -> Judging:
    try:
        if judging.session is not None:
            studio.store.sessions.get(judging.session)
    except StoreError:
        return replace(judging, session=None)
    return judging
