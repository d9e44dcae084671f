"""Markup whose buttons act: `<button data-action="use" data-id="...">` sends an `act` event with both."""

from __future__ import annotations

from typing import Any

import gradio as gr

_SCRIPT = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (button) trigger("act", { action: button.dataset.action, id: button.dataset.id });
});
"""


def action_html(value: str = "", **kwargs: Any) -> gr.HTML:
    """HTML as `gr.HTML` shows it; its `act` event carries `action` and `id` of the button that was pressed."""
    return gr.HTML(value, js_on_load=_SCRIPT, **kwargs)
