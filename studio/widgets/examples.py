"""A strip of example portraits to choose from.

The value is ``[{"picture": address, "name": words}, ...]``. A choice goes to the list of people of
`studio.widgets.portraits`, which sends it on as its own action, so that changes of the list come one after the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

_SCRIPT = Path(__file__).with_suffix(".js")


def example_strip(value: list[dict[str, str]], **kwargs: Any) -> gr.HTML:
    """The control; the list of people hears `index`, the place of the chosen example in the value."""
    return gr.HTML(
        value=value,
        html_template='<div class="examples" role="group" aria-label="Example people"></div>',
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        **kwargs,
    )
