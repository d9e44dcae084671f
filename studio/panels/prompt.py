"""The prompt: task, scene words, the writer's text, its open questions, and the person's own history."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from core.prompts import Ambiguity, PromptRefused, Task, Writing, find_ambiguities, refuse_unsafe, static_prompt
from studio.context import Studio
from studio.draft import Draft
from studio.model_host import ModelsNotReady
from studio.panels import people
from studio.store import StoreError
from studio.zero_gpu import on_gpu

TASKS = [("Group picture", Task.GROUP.value), ("The same people at another age", Task.CHILD.value)]
WRITTEN, TEMPLATE = "written", "template"
OUTDATED = "People, task or scene have changed since; Template takes them up."
LONGEST_WRITING_ON_ZERO_GPU = 60
"""Seconds."""


@dataclass(frozen=True, eq=False)
class PromptPanel:
    task: gr.Radio
    scene: gr.Textbox
    write: gr.Button
    stop: gr.Button
    template: gr.Button
    text: gr.Textbox
    origin: gr.State
    questions: gr.HTML
    history: gr.Dropdown


def build() -> PromptPanel:
    gr.Markdown("### 2 · Prompt")
    task = gr.Radio(
        TASKS,
        value=Task.GROUP.value,
        label="Task",
        info="At another age: as children of about eight, or at the age you give each person above.",
        elem_id="task",
    )
    scene = gr.Textbox(label="Scene", placeholder="in a park at sunset", max_lines=2, elem_id="scene")
    with gr.Row():
        write = gr.Button("Write prompt", variant="primary", elem_id="write-prompt")
        stop = gr.Button("Stop", visible=False, elem_id="stop-writing")
        template = gr.Button("Template", elem_id="template-prompt")
    text = gr.Textbox(
        label="Prompt",
        info="Edit freely: this text is what the model gets. Portrait k is “image k”.",
        placeholder="Left empty, the template is taken.",
        lines=4,
        max_lines=12,
        elem_id="prompt",
    )
    questions = gr.HTML(elem_id="prompt-questions")
    with gr.Accordion("Your earlier prompts", open=False):
        history = gr.Dropdown([], label="Take one back", value=None, elem_id="prompt-history")
    return PromptPanel(task, scene, write, stop, template, text, gr.State(TEMPLATE), questions, history)


def wire(panel: PromptPanel, studio: Studio, draft: gr.BrowserState) -> None:
    def write_pieces(
        crops: list[np.ndarray], task: str, scene: str, ages: list[int | None], seed: int
    ) -> Iterator[str]:
        yield from studio.host.writer().write(crops, task, scene, ages=ages, writing=Writing(seed=seed))

    pieces = on_gpu(write_pieces, seconds=LONGEST_WRITING_ON_ZERO_GPU)

    def write(task: str, scene: str, state: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        current = Draft.read(state)
        if not current.portraits:
            raise gr.Error("Add a portrait first: the writer describes the people it sees.")
        working = gr.update(visible=True), gr.update(interactive=False)
        written = ""
        try:
            with studio.host.turn() as bundle:
                crops = people.crops(studio, current, bundle.card.reference_side)
                for piece in pieces(crops, task, scene, current.target_ages, secrets.randbelow(2**31)):
                    written += piece
                    yield written, WRITTEN, *working
        except (PromptRefused, ModelsNotReady, StoreError) as error:
            gr.Warning(str(error))
        yield written or gr.skip(), WRITTEN, gr.update(visible=False), gr.update(interactive=True)

    def from_template(task: str, scene: str, state: dict[str, Any]) -> tuple[str, str]:
        return template(task, scene, Draft.read(state)), TEMPLATE

    def review(text: str, task: str, scene: str, origin: str, state: dict[str, Any]) -> str:
        current = Draft.read(state)
        outdated = text and origin == TEMPLATE and current.portraits and text != template(task, scene, current)
        note = f'<p class="note">{OUTDATED}</p>' if outdated else ""
        return note + questions_html(text, task, len(current.portraits))

    def earlier(state: dict[str, Any]) -> Any:
        owner = Draft.read(state).owner(studio.store)
        prompts = studio.store.generations.prompt_history(owner.id)
        return gr.update(choices=[(_short(prompt.text), prompt.text) for prompt in prompts])

    private = {"api_visibility": "private"}
    idle = lambda: (gr.update(visible=False), gr.update(interactive=True))  # noqa: E731
    writing = panel.write.click(
        write,
        [panel.task, panel.scene, draft],
        [panel.text, panel.origin, panel.stop, panel.write],
        show_progress="hidden",
        **private,
    )
    panel.stop.click(idle, outputs=[panel.stop, panel.write], cancels=[writing], **private)
    panel.template.click(from_template, [panel.task, panel.scene, draft], [panel.text, panel.origin], **private)
    panel.text.input(lambda: "edited", outputs=panel.origin, show_progress="hidden", **private)
    for changed in (panel.text.change, panel.task.change, panel.scene.change, draft.change):
        changed(
            review,
            [panel.text, panel.task, panel.scene, panel.origin, draft],
            panel.questions,
            show_progress="hidden",
            trigger_mode="always_last",
            **private,
        )
    panel.history.focus(earlier, [draft], panel.history, show_progress="hidden", **private)
    panel.history.input(lambda text: (text, "edited"), panel.history, [panel.text, panel.origin], **private)


def template(task: str, scene: str, draft: Draft) -> str:
    """The template's words for the people of a draft."""
    return static_prompt(task, max(1, len(draft.portraits)), scene or "", draft.target_ages)


def questions_html(text: str | None, task: str, number: int) -> str:
    """The prompt with its open questions underlined and their reasons below; nothing when there are none."""
    if not text or not text.strip():
        return ""
    try:
        refuse_unsafe(text, children=Task(task) is Task.CHILD)
    except PromptRefused as refusal:
        return f'<p class="problem" role="alert">{escape(str(refusal))}</p>'
    found = find_ambiguities(text, max(1, number))
    if not found:
        return '<p class="no-questions">Nothing open: everybody is bound to an image, clothes and light are said.</p>'
    reasons = "".join(f"<li><b>{escape(item.kind.value)}</b> {escape(item.reason)}</li>" for item in found)
    placed = any(item.start < item.end for item in found)
    underlined = f'<p class="underlined">{_underlined(text, found)}</p>' if placed else ""
    return f'{underlined}<ul class="questions">{reasons}</ul>'


def _underlined(text: str, found: list[Ambiguity]) -> str:
    pieces, end = [], 0
    for item in sorted(found, key=lambda item: (item.start, -item.end)):
        if item.start < end or item.start == item.end:
            continue
        pieces.append(escape(text[end : item.start]))
        words = escape(text[item.start : item.end])
        pieces.append(f'<mark title="{escape(item.kind.value)}: {escape(item.reason)}">{words}</mark>')
        end = item.end
    return "".join([*pieces, escape(text[end:])])


def _short(text: str) -> str:
    return text if len(text) <= 90 else f"{text[:87]}…"
