"""What was made: the pictures, who is in them, and how to make them again."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from studio.adapter_choice import adapter_name
from studio.context import Studio
from studio.draft import Draft
from studio.generation import Progress
from studio.store import StoreError
from studio.store.models import Candidate, Generation, GenerationState, Task
from studio.words import face_strip

EMPTY = (
    '<div class="nothing-yet"><p class="nothing-yet-title">Nothing made yet</p><p>Add portraits, write a prompt, '
    "and press Generate. The pictures, and who is recognised in them, appear here.</p></div>"
)


@dataclass(frozen=True, eq=False)
class ResultsPanel:
    status: gr.HTML
    gallery: gr.Gallery
    chosen: gr.State
    details: gr.HTML
    tools: gr.Row
    reuse: gr.Button
    favourite: gr.Button
    download: gr.DownloadButton
    blind: gr.Button
    compare: gr.Accordion
    slider: gr.ImageSlider


def build() -> ResultsPanel:
    status = gr.HTML(EMPTY, elem_id="status")
    gallery = gr.Gallery(
        columns=2,
        height=620,
        object_fit="contain",
        show_label=False,
        visible=False,
        buttons=["fullscreen"],
        elem_id="gallery",
    )
    details = gr.HTML(elem_id="candidate")
    with gr.Row(visible=False) as tools:
        reuse = gr.Button("Use these settings", elem_id="use-settings")
        favourite = gr.Button("Favourite", elem_id="favourite")
        download = gr.DownloadButton("Download PNG", elem_id="download")
        blind = gr.Button("Compare blind", elem_id="compare-blind")
    with gr.Accordion("Two pictures over each other", open=False, visible=False) as compare:
        slider = gr.ImageSlider(show_label=False, interactive=False, elem_id="image-slider")
    return ResultsPanel(
        status, gallery, gr.State(None), details, tools, reuse, favourite, download, blind, compare, slider
    )


def progress_html(progress: Progress) -> str:
    """One line on how far a generation is, and a bar."""
    if progress.state is GenerationState.QUEUED:
        before = f"{progress.waiting} before it" if progress.waiting else "next in line"
        return f'<div class="progress"><p>Waiting: {before}.</p><progress></progress></div>'
    if progress.state is GenerationState.RUNNING:
        left = "" if progress.seconds_left is None else f", about {max(1, round(progress.seconds_left))} s left"
        words = f"Step {progress.step} of {progress.steps}{left}" if progress.step else "Reading prompt and portraits"
        value = f' value="{progress.step}" max="{progress.steps}"' if progress.step else ""
        return f'<div class="progress"><p>{words}</p><progress{value}></progress></div>'
    if progress.state is GenerationState.DONE:
        return ""
    kind = "note" if progress.state is GenerationState.CANCELLED else "problem"
    return f'<p class="{kind}" role="status">{escape(progress.message)}</p>'


def pictures(studio: Studio, generations: list[Generation]) -> list[tuple[str, str]]:
    """(file, caption) of every candidate that is still there, side A before side B."""
    return [
        (str(studio.store.media.path(candidate.media_sha256)), caption(row, candidate))
        for row, candidate in candidates(generations)
    ]


def candidates(generations: list[Generation]) -> list[tuple[Generation, Candidate]]:
    """Every candidate with its generation, in the order of the gallery."""
    return [(row, one) for row in generations for one in row.candidates if one.deleted_at is None]


def caption(row: Generation, candidate: Candidate) -> str:
    side = f"{row.ab_side} · " if row.ab_side else ""
    return f"{side}seed {candidate.seed}"


def details_html(studio: Studio, row: Generation, candidate: Candidate) -> str:
    """Face strip and settings of one candidate."""
    portraits = [reference.portrait for reference in row.references]
    strip = face_strip(
        candidate.face_report,
        [portrait.person.name for portrait in portraits],
        [studio.media_url(portrait.crop_sha256) for portrait in portraits],
        studio.media_url(candidate.media_sha256),
    )
    facts = {
        "Task": "group picture" if row.task is Task.GROUP else "as children",
        "Schedule": f"{row.schedule}, strength {row.strength:g}",
        "Seed": candidate.seed,
        "Steps": row.steps,
        "Size": f"{candidate.width} × {candidate.height}",
        "Guidance": f"{row.guidance:g}",
        "Model": f"{row.bundle} ({row.bundle_revision[:10]})",
        "Adapter": adapter_name(studio.store, row.adapter_id),
        "Time": ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in row.timings.items()),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return (
        f'<div class="candidate">{strip}<details><summary>Settings</summary><dl>{listed}</dl>'
        f'<p class="prompt-used">{escape(row.prompt.text)}</p></details></div>'
    )


def wire(panel: ResultsPanel, studio: Studio, draft: gr.BrowserState) -> None:
    def choose(state: dict[str, Any], event: gr.SelectData) -> tuple[Any, ...]:
        return shown(studio, Draft.read(state), event.index)

    def mark(chosen: str | None) -> Any:
        if chosen is None:
            return gr.skip()
        candidate = studio.store.generations.candidate(chosen)
        studio.store.generations.set_favourite(chosen, not candidate.favourite)
        return "Favourite" if candidate.favourite else "Favourite ✓"

    private = {"api_visibility": "private"}
    outputs = [panel.chosen, panel.details, panel.tools, panel.favourite, panel.download]
    panel.gallery.select(choose, [draft], outputs, show_progress="hidden", **private)
    panel.favourite.click(mark, [panel.chosen], [panel.favourite], show_progress="hidden", **private)


def shown(studio: Studio, draft: Draft, index: int) -> tuple[Any, ...]:
    """Values of chosen, details, tools, favourite and download for the candidate at `index` of the gallery."""
    found = candidates(load(studio, draft))
    if not 0 <= index < len(found):
        return None, "", gr.update(visible=False), "Favourite", None
    row, candidate = found[index]
    return (
        candidate.id,
        details_html(studio, row, candidate),
        gr.update(visible=True),
        "Favourite ✓" if candidate.favourite else "Favourite",
        str(studio.store.media.path(candidate.media_sha256)),
    )


def load(studio: Studio, draft: Draft) -> list[Generation]:
    """The generations on show; those deleted meanwhile are left out."""
    rows = []
    for generation_id in draft.generations:
        try:
            rows.append(studio.store.generations.get(generation_id))
        except StoreError:
            continue
    return rows


def previews(all_progress: list[Progress]) -> list[tuple[np.ndarray, str]]:
    """The forming pictures of all sides."""
    return [(picture, "forming …") for progress in all_progress for picture in progress.previews]
