"""What the Training page shows, drawn from the store: all of it, or nothing while nothing has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio import training_plots
from studio.adapter_choice import adapter_name, bundle_name
from studio.context import Studio
from studio.model_host import ModelsNotReady
from studio.panels import round_view
from studio.panels.adapter_duel import before_and_after
from studio.panels.adapter_history import History, activations_html, duels_of, history_html
from studio.panels.evaluation_view import evaluation_html
from studio.panels.training_layout import TrainingPanel
from studio.round_control import pairs_for_a_round, shown_round
from studio.store import StoreError
from studio.store.models import Round, RoundRequest, RoundState, utc_now
from studio.store.round_pairs import PairCounts
from studio.store.rounds import LIVE
from studio.times import duration_words

PLOTS = {
    "loss": training_plots.loss,
    "distances": training_plots.distances,
    "shares": training_plots.shares,
    "gradient": training_plots.gradient,
}
MOST_ON_SHEET = 12
JUDGED = (RoundState.PROMOTED, RoundState.CANDIDATE, RoundState.REJECTED)
"""Rounds that came to their end."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What the page was drawn from. page: changes with rounds and their states. steps: with every word of a worker."""

    page: str = ""
    steps: str = ""


def mark(studio: Studio, wanted: str | None) -> Mark:
    """A query or two, for the timer to see whether there is anything to draw."""
    bundle, row, now = bundle_name(studio), shown_round(studio, wanted), utc_now()
    live = [] if bundle is None else studio.store.rounds.live(bundle=bundle)
    page = [f"{one.id} {one.state.value}" for one in live]
    if row is None:
        return Mark(page=str(page))
    page.append(f"{row.id} {row.state.value} {row.request.value}")
    silent = row.state in LIVE and (row.lease_expires_at is None or row.lease_expires_at < now)
    return Mark(page=str(page), steps=f"{row.heartbeat_at} {silent} {row.message}")


def what_changed(studio: Studio, panel: TrainingPanel, wanted: str | None, seen: Mark | None) -> dict[Any, Any]:
    """Values of what has to be drawn again since `seen`: nothing, the round's progress, or everything."""
    now = mark(studio, wanted)
    if now == seen:
        return {panel.seen: gr.skip()}
    row = shown_round(studio, wanted)
    if seen is None or now.page != seen.page or row is None:
        return everything(studio, panel, wanted)
    return {panel.seen: now, **progress_values(studio, panel, row)}


def everything(studio: Studio, panel: TrainingPanel, wanted: str | None) -> dict[Any, Any]:
    """Values of all that is drawn from the store; the timer runs while a round does."""
    bundle = bundle_name(studio)
    if bundle is None:
        state = studio.host.state.message
        return {
            panel.seen: Mark(),
            panel.timer: gr.Timer(active=False),
            panel.facts: "",
            panel.next: f'<p class="problem" role="status">Nothing can be trained: {escape(state)}</p>',
            panel.start: gr.update(interactive=False),
        }
    seen, row = mark(studio, wanted), shown_round(studio, wanted)
    history = History.read(studio.store, bundle)
    going = [one for one in history.rounds if one.state in LIVE]
    people = studio.store.people.annotators({row.by_id for row in history.activations if row.by_id})
    return {
        panel.seen: seen,
        panel.timer: gr.Timer(active=bool(going)),
        panel.facts: facts_html(studio, history, bundle),
        panel.next: next_html(studio, bundle, history.rounds),
        panel.start: gr.update(interactive=not going),
        panel.history: history_html(history, shown=row and row.id, may_act=studio.sees_everything),
        panel.activations: activations_html(history, {person.id: person.name for person in people}),
        **(_no_round(panel) if row is None else round_values(studio, panel, history, row)),
    }


def round_values(studio: Studio, panel: TrainingPanel, history: History, row: Round) -> dict[Any, Any]:
    """Values of all that shows one round."""
    adapter = next((one for one in history.adapters.values() if one.round_id == row.id), None)
    parent, counts = history.name(row.parent_adapter_id), history.counts.get(row.id)
    cases = round_view.cases_html(studio, before_and_after(studio.store, row.id))
    return {
        **progress_values(studio, panel, row),
        panel.evaluation: evaluation_html(adapter.evaluation, before=parent, after=adapter.name) if adapter else "",
        panel.cases_box: gr.update(visible=bool(cases)),
        panel.cases: cases,
        panel.pairs_box: gr.update(visible=counts is not None),
        panel.pairs: pairs_of_round(studio, row, counts),
    }


def progress_values(studio: Studio, panel: TrainingPanel, row: Round) -> dict[Any, Any]:
    """Values of what moves while a round goes on: its progress, what can be asked of it, curves, log."""
    store, live = studio.store, row.state in LIVE and studio.sees_everything
    steps = store.rounds.steps(row.id)
    figures = {name: draw(steps) for name, draw in PLOTS.items()}
    parent = adapter_name(store, row.parent_adapter_id)
    return {
        panel.round: round_view.round_html(row, parent, now=utc_now(), worker=studio.settings.worker),
        panel.pause: gr.update(visible=live and row.request is RoundRequest.RUN),
        panel.resume: gr.update(visible=live and row.request is RoundRequest.PAUSE),
        panel.cancel: gr.update(visible=live and row.request is not RoundRequest.CANCEL),
        panel.curves: gr.update(visible=bool(steps)),
        **{panel.plots[name]: gr.update(value=figure, visible=figure is not None) for name, figure in figures.items()},
        panel.log_box: gr.update(visible=row.log_path is not None),
        panel.log: round_view.log_html(round_view.log_tail(store.folder, row.log_path)),
    }


def _no_round(panel: TrainingPanel) -> dict[Any, Any]:
    hidden = gr.update(visible=False)
    boxes = (panel.curves, panel.cases_box, panel.pairs_box, panel.log_box)
    return {
        panel.round: round_view.NOTHING,
        panel.evaluation: "",
        **dict.fromkeys((panel.pause, panel.resume, panel.cancel, *boxes), hidden),
    }


def pairs_of_round(studio: Studio, row: Round, counts: PairCounts | None) -> str:
    """What the round trained on and what it dropped, with some of the pictures for those who may see them."""
    if counts is None:
        return ""
    kept = studio.store.rounds.pairs(row.id, kept=True)
    html = round_view.pairs_html(counts, Counter(pair.origin for pair in kept), studio.store.rounds.dropped(row.id))
    return html + _sheet(studio, [(pair.chosen_sha256, pair.rejected_sha256) for pair in kept])


def preview_html(studio: Studio) -> str:
    """What a round started now would train on and drop, and why; nothing is stored."""
    try:
        pairs = pairs_for_a_round(studio)
    except (StoreError, ModelsNotReady, OSError, ValueError) as error:
        return f'<p class="problem" role="alert">{escape(str(error))}</p>'
    kept = [pair for pair in pairs if not pair.drop_reason]
    counts = PairCounts(
        kept=len(kept), dropped=len(pairs) - len(kept), picks=len({pair.pick_id for pair in kept if pair.pick_id})
    )
    dropped = Counter(pair.drop_reason for pair in pairs if pair.drop_reason)
    html = round_view.pairs_html(counts, Counter(pair.origin for pair in kept), dropped)
    # The spoilt side of a perturbed pair is in no file yet.
    shown = [(pair.chosen.media_sha256, pair.rejected.media_sha256) for pair in kept if pair.rejected is not None]
    return html + _sheet(studio, shown)


def facts_html(studio: Studio, history: History, bundle: str) -> str:
    """The adapter in use, its blind win rate, picks that wait, rounds so far."""
    active = history.active
    duels = duels_of(history, active)
    won, met = ("not yet", "compared blind with another adapter")
    if duels:
        name, share = duels[0]
        won, met = (
            f"{share.value:.0%} of {share.total}",
            f"preferred blind to {name} ({share.low:.0%} to {share.high:.0%})",
        )
    promoted = sum(row.state is RoundState.PROMOTED for row in history.rounds)
    facts = (
        (history.name(active), f"in use on {bundle}"),
        (f"{studio.store.rounds.new_picks(bundle):,}", "picks no round has looked at"),
        (str(len(history.rounds)), f"rounds, {promoted} promoted by rule"),
        (won, met),
    )
    listed = "".join(
        f'<div class="fact"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in facts
    )
    return f'<div class="facts">{listed}</div>'


def next_html(studio: Studio, bundle: str, rounds: Sequence[Round]) -> str:
    """What starts the next round, how far away that is, and how long one took here; `rounds` are the newest first."""
    waiting, needed = studio.store.rounds.new_picks(bundle), studio.settings.picks_per_round
    picks = f"{waiting:,} new {'pick' if waiting == 1 else 'picks'}"
    if not studio.settings.worker:
        rule = "This studio trains nothing itself; a round waits until <code>python -m trainers.worker</code> runs."
    elif not needed:
        rule = "Rounds start on request only."
    else:
        rule = f"A round starts by itself at {needed}."
    bar = (
        f'<progress value="{min(waiting, needed)}" max="{needed}" aria-label="picks until the next round"></progress>'
        if needed
        else ""
    )
    going = next((row for row in rounds if row.state in LIVE), None)
    busy = "" if going is None else f"<p>Round {going.number} has to end first.</p>"
    return f'<div class="next-round"><p><b>{picks}.</b> {rule}{_took_words(rounds)}</p>{bar}{busy}</div>'


def _took_words(rounds: Sequence[Round]) -> str:
    """How long the last round took that nothing interrupted; empty where there was none."""
    for row in rounds:
        if row.state in JUDGED and row.attempts == 1:
            return f" The last one took {duration_words((row.finished_at - row.started_at).total_seconds())}."
    return ""


def _sheet(studio: Studio, pairs: Sequence[tuple[str, str]]) -> str:
    """Some of the pictures (chosen, rejected), for those who may see what others made."""
    if not studio.sees_everything:
        return ""
    return round_view.sheet_html([tuple(map(studio.media_url, pair)) for pair in pairs[:MOST_ON_SHEET]])
