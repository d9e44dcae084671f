"""The Training page: picks that wait, the round that runs, what came of the earlier ones, and which adapter is used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from studio.context import Studio
from studio.draft import Draft
from studio.judging import Judging
from studio.panels.adapter_duel import as_side_b, duel_of, line_up
from studio.panels.compare import ComparePanel
from studio.panels.judging_view import annotator_of
from studio.panels.run_settings import SettingsPanel
from studio.panels.training_layout import TrainingPanel, build
from studio.panels.training_values import Mark, everything, preview_html, what_changed
from studio.round_control import require_operator, shown_round, start_round, use_adapter
from studio.store import StoreError
from studio.store.models import Annotator, RoundRequest

__all__ = ["TITLE", "TrainingPanel", "build", "wire"]

TITLE = "Training"


def wire(
    panel: TrainingPanel,
    studio: Studio,
    draft: gr.BrowserState,
    tabs: gr.Tabs,
    judge: ComparePanel,
    create: SettingsPanel,
) -> None:
    store = studio.store

    def look(place: Mapping[str, Any] | None) -> dict[Any, Any]:
        return everything(studio, panel, _place(place))

    def tick(place: Mapping[str, Any] | None, seen: Mark | None) -> dict[Any, Any]:
        return what_changed(studio, panel, _place(place), seen)

    def visit(place: Mapping[str, Any] | None, event: gr.SelectData) -> dict[Any, Any]:
        # Nobody looks at the other pages' rounds, so nobody asks for them.
        return look(place) if event.value == TITLE else {panel.timer: gr.Timer(active=False)}

    def start(state: dict[str, Any], request: gr.Request) -> dict[Any, Any]:
        try:
            require_operator(studio)
            row = start_round(studio, annotator_of(studio, Judging(), Draft.read(state), request).id)
        except StoreError as error:
            raise gr.Error(str(error), title="Not started") from error
        return {panel.place: {"round": row.id}, panel.previewed: "", **everything(studio, panel, row.id)}

    def ask(wanted: RoundRequest, place: Mapping[str, Any] | None) -> dict[Any, Any]:
        row = shown_round(studio, _place(place))
        try:
            require_operator(studio)
            if row is not None:
                store.rounds.ask(row.id, wanted)
        except StoreError as error:
            gr.Warning(str(error))
        return look(place)

    def act(
        place: Mapping[str, Any] | None,
        note: str,
        state: dict[str, Any],
        judging: dict[str, Any],
        event: gr.EventData,
        request: gr.Request,
    ) -> dict[Any, Any]:
        target, current = str(event.id), Judging.read(judging)
        try:
            if event.action == "show":
                return {panel.place: {"round": target}, **everything(studio, panel, target)}
            require_operator(studio)
            person = annotator_of(studio, current, Draft.read(state), request)
            if event.action == "use":
                said = use_adapter(studio, target, by_id=person.id, note=note)
                return {panel.note: "", panel.said: _said(said), **look(place)}
            if event.action == "compare":
                return compare(target, current, person)
            raise StoreError(f"The list knows no action {event.action!r}.")
        except StoreError as error:
            raise gr.Error(str(error), title="Nothing was changed") from error

    def compare(adapter_id: str, judging: Judging, person: Annotator) -> dict[Any, Any]:
        duel = duel_of(store, adapter_id)
        lineup = line_up(store, duel, person.id)
        if not lineup:
            return {
                tabs: gr.update(selected="create"),
                panel.timer: gr.Timer(active=False),
                **as_side_b(studio, create, duel),
            }
        # The Compare page draws itself when it opens; a stage that was never on show loses its settings when drawn to.
        judging = Judging(annotator=judging.annotator, lineup=lineup)
        return {
            tabs: gr.update(selected="compare"),
            panel.timer: gr.Timer(active=False),
            judge.judging: judging.write(),
        }

    private = {"api_visibility": "private"}
    quiet = {**private, "show_progress": "hidden"}
    tabs.select(visit, panel.place, panel.shown, **quiet)
    panel.refresh.click(look, panel.place, panel.shown, **quiet)
    panel.timer.tick(tick, [panel.place, panel.seen], panel.shown, concurrency_limit=None, **quiet)
    panel.start.click(start, draft, [panel.place, panel.previewed, *panel.shown], **quiet)
    panel.preview.click(lambda: preview_html(studio), outputs=panel.previewed, **private)
    for button, wanted in (
        (panel.pause, RoundRequest.PAUSE),
        (panel.resume, RoundRequest.RUN),
        (panel.cancel, RoundRequest.CANCEL),
    ):
        button.click(partial(ask, wanted), panel.place, panel.shown, **quiet)
    panel.history.act(
        act,
        [panel.place, panel.note, draft, judge.judging],
        [
            *(panel.place, panel.note, panel.said, *panel.shown),
            *(tabs, judge.judging),
            *(create.adapter, create.compare_with, create.side_b, create.differs, create.other_timing),
            create.other_adapter,
        ],
        **quiet,
    )


def _said(sentence: str) -> str:
    return f'<p class="note" role="status">{escape(sentence)}</p>'


def _place(place: Mapping[str, Any] | None) -> str | None:
    found = place.get("round") if isinstance(place, Mapping) else None
    return found if isinstance(found, str) else None
