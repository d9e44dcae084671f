"""A look at pictures in full size: opened by a click on any `img.zoomable`, or by `window.idglowZoom`.

Pictures under one `[data-zoom-group]` are turned over at the same place and size, so that two can be compared.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_SCRIPT = Path(__file__).with_suffix(".js")


def zoom_dialog() -> gr.HTML:
    """The dialog; one for the whole page."""
    return gr.HTML(
        html_template='<dialog class="zoom" aria-label="Picture in full size"></dialog>',
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="zoom",
    )
