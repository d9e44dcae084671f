"""The page: a header that says how the models are, and one tab for each job."""

from __future__ import annotations

import secrets
from html import escape

import gradio as gr

from studio.api import add_endpoints
from studio.context import Studio
from studio.model_host import ModelState, Stage
from studio.panels import compare, compose, insights, library, training
from studio.widgets.zoom import zoom_dialog

TITLE = "IdGlow Studio"


def build_page(studio: Studio) -> gr.Blocks:
    """Lay out and wire the page; loads no model."""
    # Uploads and exports are copies of personal data: the server drops them after a day.
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        # First, because Gradio gives a name to whoever asks first.
        add_endpoints(studio)
        secret = _browser_secret(studio)
        draft = gr.BrowserState({}, storage_key="idglow-draft", secret=secret)
        zoom_dialog()
        if studio.settings.login == "huggingface":
            gr.LoginButton(size="sm", elem_id="login")
        header = gr.HTML(lambda: header_html(studio.host.state), elem_id="header")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Create", id="create") as create_tab:
                create = compose.build(studio)
            with gr.Tab("Compare", id="compare") as compare_tab:
                judge = compare.build(secret)
            with gr.Tab(training.TITLE, id="training"):
                rounds = training.build(studio, secret)
            with gr.Tab("Library", id="library") as library_tab:
                shelf = library.build(studio)
            with gr.Tab("Insights", id="insights") as insights_tab:
                counted = insights.build()
        compose.wire(create, studio, draft, create_tab)
        compare.wire(judge, studio, draft, compare_tab, tabs, create.results)
        training.wire(rounds, studio, draft, tabs, judge, create.settings)
        library.wire(shelf, studio, draft, library_tab)
        insights.wire(counted, studio, insights_tab)
        compose.restore(create, studio, draft, page)
        pulse = gr.Timer(2.0)
        pulse.tick(
            lambda: header_html(studio.host.state),
            outputs=header,
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def _browser_secret(studio: Studio) -> str:
    """The key of what browsers remember; the same after a restart, or every draft would be lost with it."""
    secret = studio.store.preferences.get("browser_secret")
    if secret is None:
        secret = secrets.token_hex(16)
        studio.store.preferences.set("browser_secret", secret)
    return secret


def header_html(state: ModelState) -> str:
    """Name of the application and the state of its models."""
    kind = {Stage.READY: "ready", Stage.FAILED: "failed"}.get(state.stage, "loading")
    notes = "".join(f"<span>{escape(note)}</span>" for note in state.notes)
    return (
        f'<div class="header"><h1>{TITLE}</h1><p class="models {kind}" role="status">'
        f"<span>{escape(state.message)}</span>{notes}</p></div>"
    )
