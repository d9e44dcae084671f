"""The stage on which two to four blind pictures are judged, by mouse, touch or keyboard.

The value holds the questions, nothing about where their pictures come from, and how the last action ended::

    {"questions": [{"comparison": id, "lease": id or None, "pictures": [{"id": id, "url": address}, ...]}, ...],
     "answered": request, "problem": sentence, "empty": sentence, "can_undo": bool}

The first question is shown; the pictures of the others are fetched meanwhile, so that the next one is there at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from studio.judging import LONGEST_NOTE, REASONS

_SCRIPT = Path(__file__).with_suffix(".js")


def compare_stage(**kwargs: Any) -> gr.HTML:
    """The control; its `act` event carries `action` ("decide", "skip", "undo") and `request`, which the value answers.

    decide: comparison, lease, shown, outcome, ranking (or None), reasons, note, latency in milliseconds.
    skip: comparison, lease. undo: nothing else. Actions are sent one after the other, each when the last was answered.
    """
    return gr.HTML(
        value={"questions": [], "empty": ""},
        html_template='<section class="stage" tabindex="-1" aria-label="Blind comparison"></section>',
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        reasons=[list(reason) for reason in REASONS.items()],
        longest_note=LONGEST_NOTE,
        **kwargs,
    )
