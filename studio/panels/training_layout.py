"""The parts of the Training page and where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.context import Studio
from studio.widgets.actions import action_html

SECONDS_BETWEEN_LOOKS = 2.0
READ_ONLY = (
    '<p class="note">Here rounds and adapters can be looked at; whoever runs the studio starts and promotes.</p>'
)


@dataclass(frozen=True, eq=False)
class TrainingPanel:
    place: gr.BrowserState
    seen: gr.State
    timer: gr.Timer
    facts: gr.HTML
    next: gr.HTML
    start: gr.Button
    preview: gr.Button
    previewed: gr.HTML
    round: gr.HTML
    pause: gr.Button
    resume: gr.Button
    cancel: gr.Button
    curves: gr.Column
    plots: dict[str, gr.Plot]
    evaluation: gr.HTML
    cases_box: gr.Accordion
    cases: gr.HTML
    pairs_box: gr.Accordion
    pairs: gr.HTML
    log_box: gr.Accordion
    log: gr.HTML
    note: gr.Textbox
    said: gr.HTML
    history: gr.HTML
    activations: gr.HTML
    refresh: gr.Button

    @property
    def shown(self) -> list[Any]:
        """Everything that is drawn from the store."""
        return [
            self.seen, self.timer, self.facts, self.next, self.start, self.round, self.pause, self.resume, self.cancel,
            self.curves, *self.plots.values(), self.evaluation, self.cases_box, self.cases, self.pairs_box, self.pairs,
            self.log_box, self.log, self.history, self.activations,
        ]  # fmt: skip


def build(studio: Studio, secret: str) -> TrainingPanel:
    """`secret` is the key of what browsers remember."""
    may_act = studio.sees_everything
    place = gr.BrowserState({}, storage_key="idglow-training", secret=secret)
    with gr.Column(elem_id="training"):
        facts = gr.HTML(elem_id="training-facts")
        with gr.Row(equal_height=False, elem_id="training-columns"):
            with gr.Column(scale=5, min_width=320, elem_id="training-side"):
                with gr.Column(elem_classes="step"):
                    gr.Markdown("### Next round")
                    next_round = gr.HTML(elem_id="next-round")
                    with gr.Row(visible=may_act):
                        start = gr.Button(
                            "Start a round", variant="primary", size="md", min_width=120, elem_id="start-round"
                        )
                        preview = gr.Button("What would it use?", size="md", min_width=120, elem_id="preview-round")
                    previewed = gr.HTML("" if may_act else READ_ONLY, elem_id="round-preview")
                with gr.Column(elem_classes="step", elem_id="training-history"):
                    gr.Markdown("### Rounds and adapters")
                    note = gr.Textbox(
                        label="Note",
                        info="Kept with the next change of what is in use: why you promote or go back.",
                        max_length=500,
                        max_lines=3,
                        visible=may_act,
                        elem_id="promotion-note",
                    )
                    said = gr.HTML(elem_id="training-said")
                    history = action_html(elem_id="adapter-history")
                    with gr.Accordion("What was in use when", open=False):
                        activations = gr.HTML(elem_id="activations")
            with gr.Column(scale=8, min_width=340, elem_id="training-round"):
                round_ = gr.HTML(elem_id="round")
                with gr.Row(elem_id="round-buttons"):
                    pause = gr.Button("Pause", size="sm", visible=False, elem_id="pause-round")
                    resume = gr.Button("Resume", size="sm", variant="primary", visible=False, elem_id="resume-round")
                    cancel = gr.Button("Cancel", size="sm", visible=False, elem_id="cancel-round")
                with gr.Column(visible=False, elem_id="curves") as curves:
                    with gr.Row():
                        plots = {name: gr.Plot(show_label=False) for name in ("loss", "distances")}
                    with gr.Row():
                        plots |= {name: gr.Plot(show_label=False) for name in ("shares", "gradient")}
                evaluation = gr.HTML(elem_id="evaluation")
                with gr.Accordion("Before and after, same seeds", visible=False, elem_id="cases-box") as cases_box:
                    cases = gr.HTML(elem_id="cases")
                with gr.Accordion("Pairs", open=False, visible=False, elem_id="pairs-box") as pairs_box:
                    pairs = gr.HTML(elem_id="pairs")
                with gr.Accordion("Log", open=False, visible=False, elem_id="log-box") as log_box:
                    log = gr.HTML(elem_id="log")
        refresh = gr.Button("Look again", size="sm", elem_id="training-refresh")
    return TrainingPanel(
        place, gr.State(None), gr.Timer(SECONDS_BETWEEN_LOOKS, active=False), facts, next_round, start, preview,
        previewed, round_, pause, resume, cancel, curves, plots, evaluation, cases_box, cases, pairs_box, pairs,
        log_box, log, note, said, history, activations, refresh,
    )  # fmt: skip
