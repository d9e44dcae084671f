"""The list of people: numbered crops with names, order, quality hints; a choice where a picture shows several faces.

The value is ``[{"id", "name", "picture", "width", "height", "boxes", "chosen", "hints", "age"}, ...]``: `picture` is an
address and crops are cut out of it by the browser. A person's action arrives as an event with `action` and `id`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

_SCRIPT = Path(__file__).with_suffix(".js")


def portrait_list(**kwargs: Any) -> gr.HTML:
    """The control; its `act` event carries `action` and its details, each sent when the one before it was answered.

    rename: id, name. move: id, to (new index). remove: id. choose: id, face (index from left to right). age: id, age as
    typed; these fields are hidden unless the class `with-ages` is set. example: index in `studio.widgets.examples`.
    """
    return gr.HTML(
        value=[],
        html_template='<ol class="portraits" aria-label="People in the picture, from image 1 on"></ol>',
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        **kwargs,
    )
