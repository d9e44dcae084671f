"""The Insights page: what the picks say, with sample sizes. Counted when the page is opened, not before."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio import plots
from studio.context import Studio
from studio.store import Store
from studio.store.agreement import Share
from studio.store.insights import Insights

EMPTY = (
    '<div class="nothing-yet"><p class="nothing-yet-title">No picks yet</p><p>Compare a few pictures on the Compare '
    "page. What people prefer, and how far they agree, appears here.</p></div>"
)
NO_PAIRS = "Not enough yet: no blind pick compares two {} so far."


@dataclass(frozen=True, eq=False)
class InsightsPanel:
    summary: gr.HTML
    page: gr.Column
    plots: dict[str, gr.Plot]
    missing: gr.HTML
    refresh: gr.Button


def build() -> InsightsPanel:
    summary = gr.HTML(EMPTY, elem_id="insights-summary")
    with gr.Column(visible=False, elem_id="insights") as page:
        with gr.Row():
            shown = {"time": gr.Plot(show_label=False), "modes": gr.Plot(show_label=False)}
        with gr.Row():
            shown |= {"gates": gr.Plot(show_label=False), "thresholds": gr.Plot(show_label=False)}
        with gr.Row():
            shown |= {"adapters": gr.Plot(show_label=False), "positions": gr.Plot(show_label=False)}
        with gr.Row():
            shown |= {"looks": gr.Plot(show_label=False)}
        missing = gr.HTML(elem_id="insights-missing")
    refresh = gr.Button("Count again", size="sm", elem_id="insights-refresh")
    return InsightsPanel(summary, page, shown, missing, refresh)


def wire(panel: InsightsPanel, studio: Studio, tab: gr.Tab) -> None:
    def count() -> dict[Any, Any]:
        insights = studio.store.insights
        overview = insights.overview()
        if overview.picks + overview.repeats + overview.gold == 0:
            return {panel.summary: EMPTY, panel.page: gr.update(visible=False)}
        figures = figures_of(studio.store)
        values = {
            panel.plots[name]: gr.update(value=figure, visible=figure is not None) for name, figure in figures.items()
        }
        return {
            panel.summary: summary_html(insights),
            panel.page: gr.update(visible=True),
            panel.missing: missing_html(figures),
            **values,
        }

    outputs = [panel.summary, panel.page, panel.missing, *panel.plots.values()]
    for event in (tab.select, panel.refresh.click):
        event(count, outputs=outputs, show_progress="hidden", api_visibility="private")


def figures_of(store: Store) -> dict[str, Any]:
    """Every figure by name; None where nothing was counted."""
    insights = store.insights
    adapters = {adapter.id: adapter.name for adapter in store.adapters.list()} | {"base": "base model"}
    return {
        "time": plots.picks_over_time(insights.picks_per_day()),
        "modes": plots.win_rates(insights.win_rates_by_mode(), "Schedule mode: preferred to the others"),
        "gates": plots.gate_windows(insights.gate_windows()),
        "thresholds": plots.thresholds(insights.thresholds()),
        "adapters": plots.win_rates(insights.win_rates_by_adapter(), "Adapter: preferred to the others", adapters),
        "positions": plots.position_bias(insights.position_bias()),
        "looks": plots.similarity_and_aesthetics(insights.measured()),
    }


def summary_html(insights: Insights) -> str:
    """Counts, agreement, consistency and known answers, each with its sample size."""
    overview, agreement = insights.overview(), insights.agreement()
    people = insights.annotators()
    gold_hits = sum(one.gold.hits for one in people)
    gold_total = sum(one.gold.total for one in people)
    facts = [
        _fact(f"{overview.picks:,}", "picks that count", f"{overview.superseded:,} were taken back or replaced."),
        _fact(f"{overview.candidates:,}", "pictures", "Candidates in the database, compared or not."),
        _fact(
            "not yet" if agreement.alpha is None else f"{round(agreement.alpha, 2) + 0.0:.2f}",
            f"agreement, {_number(agreement.comparisons, 'comparison')}",
            "Krippendorff's alpha (nominal) over comparisons judged by two or more people; 1 is perfect, 0 is chance. "
            f"From {agreement.picks:,} picks.",
        ),
        _fact(
            _percent(consistency := insights.self_consistency()),
            f"self-consistency, {_number(consistency.total, 'repeat')}",
            f"Same answer when a comparison came back with its sides swapped. 95 % interval {_interval(consistency)}.",
        ),
        _fact(
            f"{gold_hits:.0f} of {gold_total}" if gold_total else "none seen",
            "known answers right",
            "Comparisons with a known answer, mixed into labelling sessions.",
        ),
    ]
    rows = "".join(
        f"<tr><td>{escape(one.annotator.name)}</td><td>{one.picks:,}</td>"
        f"<td>{f'{one.gold.hits:.0f} of {one.gold.total}' if one.gold.total else 'none seen'}</td></tr>"
        for one in people
    )
    table = (
        '<details class="annotators"><summary>By annotator</summary><table><thead><tr><th>Annotator</th><th>Picks</th>'
        f"<th>Known answers right</th></tr></thead><tbody>{rows}</tbody></table></details>"
    )
    return f'<div class="facts">{"".join(facts)}</div>{table}'


def missing_html(figures: dict[str, Any]) -> str:
    """What cannot be drawn yet, and why."""
    reasons = {
        "modes": NO_PAIRS.format("schedule modes"),
        "gates": NO_PAIRS.format("schedules of which one is a gate window"),
        "thresholds": NO_PAIRS.format("schedules of which one anneals"),
        "adapters": NO_PAIRS.format("adapters"),
        "positions": "No pick with one winner so far.",
        "looks": "No picture has both a face similarity and an aesthetic score; that needs the aesthetic model.",
    }
    titles = {
        "modes": "Schedule mode",
        "gates": "Gate window",
        "thresholds": "Annealing threshold",
        "adapters": "Adapter",
        "positions": "Position on the screen",
        "looks": "Likeness and looks",
    }
    lines = "".join(
        f"<li><b>{titles[name]}</b> {reason}</li>" for name, reason in reasons.items() if figures[name] is None
    )
    note = (
        "<p>Win rates use blind picks only, and only pairs that differ in what is compared; ties count half. Whiskers "
        "are 95 % Wilson intervals. A dash across a position is what choosing without bias would give.</p>"
    )
    return (
        f'<div class="insights-notes"><ul>{lines}</ul>{note}</div>'
        if lines
        else f'<div class="insights-notes">{note}</div>'
    )


def _fact(value: str, name: str, how: str) -> str:
    return f'<div class="fact" title="{escape(how)}"><b>{escape(value)}</b><span>{escape(name)}</span></div>'


def _number(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _percent(share: Share) -> str:
    return "not yet" if share.value is None else f"{share.value:.0%}"


def _interval(share: Share) -> str:
    return "unknown" if share.low is None else f"{share.low:.0%} to {share.high:.0%}"
