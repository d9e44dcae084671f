"""The pictures of a run as cards, while they form and when they are there.

The value is ``{"cards": [{"url": address, "label": words, "below": HTML, "forming": bool}, ...], "chosen": index}``.
What is `below` comes from `studio.words`, escaped. A choice arrives as an event with `index`; a click on the chosen
picture opens it in full size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

_SCRIPT = Path(__file__).with_suffix(".js")


def picture_cards(**kwargs: Any) -> gr.HTML:
    """The control; its `act` event carries `index`, the place of the chosen picture."""
    return gr.HTML(
        value={"cards": [], "chosen": None},
        html_template='<div class="cards" data-zoom-group role="group" aria-label="Pictures"></div>',
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        **kwargs,
    )
