"""The page: a header that says how the models are, and one tab for each job."""

from __future__ import annotations

from html import escape

import gradio as gr

from studio.context import Studio
from studio.model_host import ModelState, Stage
from studio.panels import compose

TITLE = "IdGlow Studio"


def build_page(studio: Studio) -> gr.Blocks:
    """Lay out and wire the page; loads no model."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        draft = gr.BrowserState({}, storage_key="idglow-draft", secret="")
        header = gr.HTML(lambda: header_html(studio.host.state), elem_id="header")
        with gr.Tabs(elem_id="tabs"), gr.Tab("Create", id="create"):
            create = compose.build(studio)
        compose.wire(create, studio, draft)
        compose.restore(create, studio, draft)
        pulse = gr.Timer(2.0)
        pulse.tick(
            lambda: header_html(studio.host.state),
            outputs=header,
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def header_html(state: ModelState) -> str:
    """Name of the application and the state of its models."""
    kind = {Stage.READY: "ready", Stage.FAILED: "failed"}.get(state.stage, "loading")
    notes = "".join(f"<span>{escape(note)}</span>" for note in state.notes)
    return (
        f'<div class="header"><h1>{TITLE}</h1><p class="models {kind}" role="status">'
        f"<span>{escape(state.message)}</span>{notes}</p></div>"
    )
