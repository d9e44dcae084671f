"""A strip of example portraits to choose from.

The value is ``[{"picture": address, "name": words}, ...]``; a choice arrives as an event with `index`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

_SCRIPT = Path(__file__).with_suffix(".js")


def example_strip(value: list[dict[str, str]], **kwargs: Any) -> gr.HTML:
    """The control; its `act` event carries `index`, the place of the chosen example in the value."""
    return gr.HTML(
        value=value,
        html_template='<div class="examples" role="group" aria-label="Example people"></div>',
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        **kwargs,
    )
