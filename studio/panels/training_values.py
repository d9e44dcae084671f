"""What the Training page shows, drawn from the store: all of it, or nothing while nothing has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from studio import training_plots
from studio.adapter_choice import bundle_name
from studio.context import Studio
from studio.model_host import ModelsNotReady
from studio.panels import round_view
from studio.panels.adapter_duel import before_and_after
from studio.panels.adapter_history import History, activations_html, duels_of, history_html
from studio.panels.evaluation_view import evaluation_html
from studio.panels.training_layout import TrainingPanel
from studio.round_control import pairs_for_a_round, shown_round
from studio.store import NewRoundPair, StoreError
from studio.store.models import Round, RoundPair, RoundRequest, RoundState, utc_now
from studio.store.round_pairs import PairCounts
from studio.store.rounds import LIVE

PLOTS = {
    "loss": training_plots.loss,
    "distances": training_plots.distances,
    "shares": training_plots.shares,
    "gradient": training_plots.gradient,
}
MOST_ON_SHEET = 12


def mark(studio: Studio, wanted: str | None) -> str:
    """Changes whenever the page would look different: one small query or two, for the timer."""
    bundle, row, now = bundle_name(studio), shown_round(studio, wanted), utc_now()
    live = [] if bundle is None else studio.store.rounds.live(bundle=bundle)
    going = [f"{one.id}{one.state.value}" for one in live]
    if row is None:
        return f"{going}"
    silent = row.state in LIVE and (row.lease_expires_at is None or row.lease_expires_at < now)
    return f"{going}{row.id}{row.state.value}{row.request.value}{row.heartbeat_at}{silent}{row.message}"


def everything(studio: Studio, panel: TrainingPanel, wanted: str | None) -> dict[Any, Any]:
    """Values of all that is drawn from the store; the timer runs while a round does."""
    bundle = bundle_name(studio)
    if bundle is None:
        state = studio.host.state.message
        return {
            panel.seen: "",
            panel.timer: gr.Timer(active=False),
            panel.facts: "",
            panel.next: f'<p class="problem" role="status">Nothing can be trained: {escape(state)}</p>',
            panel.start: gr.update(interactive=False),
        }
    seen, row, may_act = mark(studio, wanted), shown_round(studio, wanted), studio.sees_everything
    history = History.read(studio.store, bundle)
    going = [one for one in history.rounds if one.state in LIVE]
    people = studio.store.people.annotators({row.by_id for row in history.activations if row.by_id})
    return {
        panel.seen: seen,
        panel.timer: gr.Timer(active=bool(going)),
        panel.facts: facts_html(studio, history, bundle),
        panel.next: next_html(studio, bundle, going),
        panel.start: gr.update(interactive=not going),
        panel.history: history_html(history, shown=row and row.id, may_act=may_act),
        panel.activations: activations_html(history, {person.id: person.name for person in people}),
        **round_values(studio, panel, history, row, may_act=may_act),
    }


def round_values(
    studio: Studio, panel: TrainingPanel, history: History, row: Round | None, *, may_act: bool
) -> dict[Any, Any]:
    """Values of all that shows one round."""
    hidden = gr.update(visible=False)
    if row is None:
        return {
            panel.round: round_view.NOTHING,
            **dict.fromkeys((panel.pause, panel.resume, panel.cancel, panel.curves), hidden),
            panel.evaluation: "",
            **dict.fromkeys((panel.cases_box, panel.pairs_box, panel.log_box), hidden),
        }
    store = studio.store
    adapter = next((one for one in history.adapters.values() if one.round_id == row.id), None)
    parent, live = history.name(row.parent_adapter_id), row.state in LIVE and may_act
    steps = store.rounds.steps(row.id)
    figures = {name: draw(steps) for name, draw in PLOTS.items()}
    cases = round_view.cases_html(studio, before_and_after(store, row.id))
    counts = history.counts.get(row.id)
    return {
        panel.round: round_view.round_html(row, parent, now=utc_now(), worker=studio.settings.worker),
        panel.pause: gr.update(visible=live and row.request is RoundRequest.RUN),
        panel.resume: gr.update(visible=live and row.request is RoundRequest.PAUSE),
        panel.cancel: gr.update(visible=live and row.request is not RoundRequest.CANCEL),
        panel.curves: gr.update(visible=bool(steps)),
        **{panel.plots[name]: gr.update(value=figure, visible=figure is not None) for name, figure in figures.items()},
        panel.evaluation: evaluation_html(
            adapter and adapter.evaluation, before=parent, after=adapter.name if adapter else ""
        ),
        panel.cases_box: gr.update(visible=bool(cases)),
        panel.cases: cases,
        panel.pairs_box: gr.update(visible=counts is not None),
        panel.pairs: pairs_of_round(studio, row, counts),
        panel.log_box: gr.update(visible=row.log_path is not None),
        panel.log: round_view.log_html(round_view.log_tail(store.folder, row.log_path)),
    }


def pairs_of_round(studio: Studio, row: Round, counts: PairCounts | None) -> str:
    """What the round trained on and what it dropped, with some of the pictures for those who may see them."""
    if counts is None:
        return ""
    kept = studio.store.rounds.pairs(row.id, kept=True)
    html = round_view.pairs_html(counts, Counter(pair.origin for pair in kept), studio.store.rounds.dropped(row.id))
    return html + _sheet(studio, kept)


def preview_html(studio: Studio) -> str:
    """What a round started now would train on and drop, and why; nothing is stored."""
    try:
        pairs = pairs_for_a_round(studio)
    except (StoreError, ModelsNotReady) as error:
        return f'<p class="problem" role="alert">{escape(str(error))}</p>'
    kept = [pair for pair in pairs if pair.kept]
    counts = PairCounts(
        kept=len(kept), dropped=len(pairs) - len(kept), picks=len({pair.pick_id for pair in kept if pair.pick_id})
    )
    dropped = Counter(pair.drop_reason for pair in pairs if not pair.kept)
    return round_view.pairs_html(counts, Counter(pair.origin for pair in kept), dropped) + _sheet(studio, kept)


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


def next_html(studio: Studio, bundle: str, going: Sequence[Round]) -> str:
    """What starts the next round, and how far away that is."""
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
    busy = f"<p>Round {going[0].number} has to end first.</p>" if going else ""
    return f'<div class="next-round"><p><b>{picks}.</b> {rule}</p>{bar}{busy}</div>'


def _sheet(studio: Studio, pairs: Sequence[RoundPair] | Sequence[NewRoundPair]) -> str:
    """Some of the pictures, for those who may see what others made."""
    if not studio.sees_everything:
        return ""
    shown = pairs[:MOST_ON_SHEET]
    return round_view.sheet_html(
        [(studio.media_url(pair.chosen_sha256), studio.media_url(pair.rejected_sha256)) for pair in shown]
    )
