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
  <svg class="timing-curve" viewBox="0 0 400 150" role="img" aria-label="Identity weight over denoising time"></svg>
  <p class="timing-words"></p>
  <div class="timing-fields"></div>
  <p class="timing-note" role="status" aria-live="polite"></p>
</div>
"""

from gradio.events import Dependency

class TimingEditor(gr.HTML):
    """`change` fires when the person lets go of a handle, a slider or a button."""

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(
            value=dict(value or DEFAULT_TIMING),
            html_template=_TEMPLATE,
            js_on_load=_SCRIPT.read_text(encoding="utf-8"),
            apply_default_css=False,
            **kwargs,
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": "object", "description": "mode, form, threshold, start, end, strength"}
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

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
