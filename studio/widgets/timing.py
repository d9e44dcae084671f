"""The identity timing editor: mode, threshold, gate window and strength, and their curve over denoising time.

The value is a plain dictionary, so it travels through events, the database and the API unchanged:
``{"mode": "gate", "form": "hold", "threshold": 0.4, "start": 0.3, "end": 0.6, "strength": 1.0}``.
The curve is drawn in the browser while a handle is dragged; the server hears of it when it is let go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from core.schedule import IdentitySchedule

_SCRIPT = Path(__file__).with_suffix(".js")

DEFAULT_TIMING: dict[str, Any] = {
    "mode": "anneal",
    "form": "hold",
    "threshold": 0.4,
    "start": 0.3,
    "end": 0.6,
    "strength": 1.0,
}
GROUP_PRESET = DEFAULT_TIMING
AGE_PRESET = {**DEFAULT_TIMING, "mode": "gate"}

_TEMPLATE = """
<div class="timing" role="group" aria-label="Identity timing">
  <div class="timing-modes" role="radiogroup" aria-label="When identity is injected"></div>
  <svg class="timing-curve" viewBox="0 0 400 150" role="img" aria-label="Influence over denoising time"></svg>
  <p class="timing-words"></p>
  <div class="timing-fields"></div>
  <p class="timing-note" role="status" aria-live="polite"></p>
</div>
"""


def timing_editor(value: dict[str, Any] | None = None, **kwargs: Any) -> gr.HTML:
    """The control; its `change` event fires when the person lets go of a handle, a slider or a button.

    A function, because Gradio writes a stub file beside the source of every component subclass.
    """
    return gr.HTML(
        value=dict(value or DEFAULT_TIMING),
        html_template=_TEMPLATE,
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        **kwargs,
    )


def schedule_of(timing: dict[str, Any]) -> IdentitySchedule:
    """The schedule a timing value stands for; raises ValueError with a sentence on a bad one."""
    mode = timing.get("mode")
    if mode == "anneal":
        return IdentitySchedule.anneal(timing.get("threshold"), timing.get("form", "hold"))
    if mode == "gate":
        return IdentitySchedule.gate(timing.get("start"), timing.get("end"))
    return IdentitySchedule(mode=mode)


def timing_of(schedule: IdentitySchedule, strength: float) -> dict[str, Any]:
    """The timing value that shows `schedule`; fields its mode does not use keep their defaults."""
    return {**DEFAULT_TIMING, **schedule.to_json(), "strength": float(strength)}
