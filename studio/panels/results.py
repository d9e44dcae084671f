"""What was made: the pictures, who is in them, and how to make them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from core.images import PictureError
from studio.adapter_choice import adapter_name
from studio.context import Studio
from studio.draft import Draft
from studio.generation import Progress
from studio.inline_pictures import data_url
from studio.model_host import ModelsNotReady
from studio.people_shown import people_shown
from studio.similarity import similarity_html
from studio.store import StoreError
from studio.store.models import Candidate, Generation, GenerationState, Task
from studio.widgets.pictures import picture_cards
from studio.words import face_strip

EMPTY = (
    '<div class="nothing-yet"><p class="nothing-yet-title">Nothing made yet</p><ol class="first-steps">'
    "<li>Add a portrait of each person: your own, or click two of the example people.</li>"
    "<li>Say where they are, and let the model write the prompt.</li>"
    "<li>Press Generate. The pictures, and who is recognised in them, appear here.</li></ol></div>"
)
BLIND = (
    "<p>Who is recognised is hidden for now, so that it does not sway you: compare the pictures blind first, or look "
    "now; picks made after that are kept, but win rates leave them out.</p>"
)
BLIND_SIDES = (
    "<p>Which pictures are A and which are B is hidden, and so is who is recognised: compare them blind first, or look "
    "now; picks made after that are kept, but win rates leave them out.</p>"
)
FORMING_SIDES = "<p>A and B form in turn. Their previews stay hidden, so that you can compare them blind.</p>"


@dataclass(frozen=True, eq=False)
class ResultsPanel:
    status: gr.HTML
    cards: gr.HTML
    hidden: gr.Row
    hidden_words: gr.HTML
    blind: gr.Button
    reveal: gr.Button
    pair: gr.State
    tools: gr.Row
    reuse: gr.Button
    favourite: gr.Button
    download: gr.DownloadButton
    measure: gr.Button
    again: gr.Button
    matrix: gr.HTML
    details: gr.HTML
    compare: gr.Accordion
    slider: gr.ImageSlider

    @property
    def outputs(self) -> list[Any]:
        """What a run changes."""
        return [self.status, self.hidden, self.hidden_words, self.compare, self.again, *self.selection]

    @property
    def selection(self) -> list[Any]:
        """What choosing a picture changes."""
        return [
            self.cards, self.pair, self.tools, self.favourite, self.download, self.measure, self.matrix, self.details,
            self.slider,
        ]  # fmt: skip


def build() -> ResultsPanel:
    status = gr.HTML(EMPTY, elem_id="status")
    with gr.Row(visible=False, elem_id="hidden-evidence") as hidden:
        hidden_words = gr.HTML(elem_id="hidden-words")
        blind = gr.Button("Compare blind", variant="primary", min_width=140, elem_id="compare-blind")
        reveal = gr.Button("Look now", min_width=120, elem_id="reveal-evidence")
    cards = picture_cards(elem_id="pictures")
    with gr.Row(visible=False, elem_id="picture-tools") as tools:
        reuse = gr.Button("Use these settings", size="sm", min_width=150, elem_id="use-settings")
        favourite = gr.Button("Favourite", size="sm", min_width=110, elem_id="favourite")
        download = gr.DownloadButton("Download PNG", size="sm", min_width=130, elem_id="download")
        measure = gr.Button("Similarity matrix", size="sm", min_width=140, elem_id="similarity-matrix")
        again = gr.Button("Compare", size="sm", min_width=110, visible=False, elem_id="compare-again")
    matrix = gr.HTML(elem_id="matrix")
    details = gr.HTML(elem_id="candidate")
    with gr.Accordion("Two pictures over each other", open=False, visible=False, elem_id="over-each-other") as compare:
        gr.HTML('<p class="note">The last two pictures you chose.</p>')
        slider = gr.ImageSlider(show_label=False, interactive=False, elem_id="image-slider")
    return ResultsPanel(
        status, cards, hidden, hidden_words, blind, reveal, gr.State(()), tools, reuse, favourite, download, measure,
        again, matrix, details, compare, slider,
    )  # fmt: skip


def wire(panel: ResultsPanel, studio: Studio, draft: gr.BrowserState) -> None:
    store = studio.store

    def choose(state: dict[str, Any], pair: tuple[str, ...], event: gr.EventData) -> dict[Any, Any]:
        current = Draft.read(state)
        found = candidates(studio, current)
        if not 0 <= int(event.index) < len(found):
            return {panel.matrix: gr.skip()}
        return selected(panel, studio, current, (*pair[-1:], found[int(event.index)][1].id))

    def reveal(state: dict[str, Any]) -> dict[Any, Any]:
        current = replace(Draft.read(state), revealed=True)
        return {draft: current.write(), **finished(panel, studio, current, [])}

    def mark(pair: tuple[str, ...]) -> Any:
        if not pair:
            return gr.skip()
        candidate = store.generations.candidate(pair[-1])
        store.generations.set_favourite(candidate.id, not candidate.favourite)
        return favourite_label(not candidate.favourite)

    def measure(pair: tuple[str, ...]) -> str:
        return matrix_html(studio, pair[-1]) if pair else ""

    private = {"api_visibility": "private"}
    panel.cards.act(choose, [draft, panel.pair], panel.selection, show_progress="hidden", **private)
    panel.reveal.click(reveal, [draft], [draft, *panel.outputs], show_progress="hidden", **private)
    panel.favourite.click(mark, [panel.pair], [panel.favourite], show_progress="hidden", **private)
    panel.measure.click(measure, [panel.pair], [panel.matrix], **private)


def forming(panel: ResultsPanel, progress: Sequence[Progress]) -> dict[Any, Any]:
    """Values while a run goes on, without the pictures; `progress` of its one or two generations."""
    running = _running(progress)
    sides = len(progress) > 1
    side = f"{'AB'[list(progress).index(running)]}: " if sides else ""
    nothing = gr.update(visible=False)
    return {
        panel.status: progress_html(running, side) + (FORMING_SIDES if sides else ""),
        panel.pair: (),
        panel.hidden: nothing,
        panel.tools: nothing,
        panel.compare: nothing,
        panel.matrix: "",
        panel.details: "",
    }


def previews(progress: Sequence[Progress]) -> Sequence[np.ndarray]:
    """The pictures as they form, none while A and B do: which is which would be seen."""
    return _running(progress).previews if len(progress) == 1 else ()


def forming_pictures(panel: ResultsPanel, pictures: Sequence[np.ndarray]) -> dict[Any, Any]:
    """Values that show previews."""
    cards = [{"url": data_url(picture), "label": "forming …", "below": "", "forming": True} for picture in pictures]
    return {panel.cards: {"cards": cards, "chosen": None}}


def _running(progress: Sequence[Progress]) -> Progress:
    return next(one for one in progress if not one.ended)


def finished(panel: ResultsPanel, studio: Studio, draft: Draft, progress: Sequence[Progress]) -> dict[Any, Any]:
    """Values once the draft's run has ended, and when a page comes back to it."""
    found = candidates(studio, draft)
    several, hidden = len(found) > 1, evidence_hidden(draft, found)
    status = "".join(progress_html(one) for one in progress) or ("" if found else EMPTY)
    return {
        panel.status: status,
        panel.hidden: gr.update(visible=hidden),
        panel.hidden_words: BLIND_SIDES if len(draft.generations) > 1 else BLIND,
        panel.compare: gr.update(visible=several and not _sides_hidden(draft, found)),
        panel.again: gr.update(visible=several and not hidden),
        **selected(panel, studio, draft, tuple(one.id for _, one in found[1::-1])),
    }


def selected(panel: ResultsPanel, studio: Studio, draft: Draft, pair: tuple[str, ...]) -> dict[Any, Any]:
    """Values when the last of `pair` is the chosen candidate, and the one before it lies under it in the slider."""
    found = candidates(studio, draft)
    ids = [one.id for _, one in found]
    pair = tuple(known for known in pair if known in ids)
    hidden, blind_sides = evidence_hidden(draft, found), _sides_hidden(draft, found)
    cards = [
        {
            "url": studio.media_url(one.media_sha256),
            "label": f"picture {number}" if blind_sides else caption(row, one),
            "below": "" if hidden else strip_html(studio, row, one),
            "forming": False,
        }
        for number, (row, one) in enumerate(found, start=1)
    ]
    values = {
        panel.cards: {"cards": cards, "chosen": ids.index(pair[-1]) if pair else None},
        panel.pair: pair,
        panel.matrix: "",
        panel.tools: gr.update(visible=bool(pair) and not blind_sides),
        panel.details: "",
    }
    if not pair:
        return values
    row, candidate = found[ids.index(pair[-1])]
    files = {one.id: str(studio.store.media.path(one.media_sha256)) for _, one in found}
    return values | {
        panel.details: "" if blind_sides else settings_html(studio, row, candidate),
        panel.favourite: favourite_label(candidate.favourite),
        panel.download: files[candidate.id],
        panel.measure: gr.update(visible=not hidden),
        panel.slider: (files[pair[0]], files[pair[-1]]) if len(pair) > 1 and not blind_sides else gr.skip(),
    }


def evidence_hidden(draft: Draft, found: Sequence[Any]) -> bool:
    """Whether similarities stay out of sight: there is something to compare, and nobody here has seen them yet."""
    return len(found) > 1 and not draft.revealed


def _sides_hidden(draft: Draft, found: Sequence[Any]) -> bool:
    return len(draft.generations) > 1 and evidence_hidden(draft, found)


def candidates(studio: Studio, draft: Draft) -> list[tuple[Generation, Candidate]]:
    """Every candidate of the run on show with its generation, in the order of the cards; without those deleted."""
    found = [(row, one) for row in load(studio, draft) for one in row.candidates if one.deleted_at is None]
    if _sides_hidden(draft, found):
        # Side by side by seed, in an order that says nothing about the side.
        found.sort(key=lambda pair: (pair[1].seed, pair[1].media_sha256))
    return found


def load(studio: Studio, draft: Draft) -> list[Generation]:
    """The generations on show; those deleted meanwhile are left out."""
    rows = []
    for generation_id in draft.generations:
        try:
            rows.append(studio.store.generations.get(generation_id))
        except StoreError:
            continue
    return rows


def progress_html(progress: Progress, side: str = "") -> str:
    """One line on how far a generation is, and a bar."""
    if progress.state is GenerationState.QUEUED:
        before = f"{progress.waiting} before it" if progress.waiting else "next in line"
        return f'<div class="progress"><p>{side}Waiting: {before}.</p><progress></progress></div>'
    if progress.state is GenerationState.RUNNING:
        left = "" if progress.seconds_left is None else f", about {max(1, round(progress.seconds_left))} s left"
        step = "Faces once more: step" if progress.stage == "faces" else "Step"
        words = f"{step} {progress.step} of {progress.steps}{left}" if progress.step else "Reading prompt and portraits"
        value = f' value="{progress.step}" max="{progress.steps}"' if progress.step else ""
        return f'<div class="progress"><p>{side}{words}</p><progress{value}></progress></div>'
    if progress.state is GenerationState.DONE and not progress.message:
        return ""
    kind = "problem" if progress.state is GenerationState.FAILED else "note"
    return f'<p class="{kind}" role="status">{escape(progress.message)}</p>'


def caption(row: Generation, candidate: Candidate) -> str:
    side = f"{row.ab_side} · " if row.ab_side else ""
    return f"{side}seed {candidate.seed}"


def favourite_label(favourite: bool) -> str:
    return "Favourite ★" if favourite else "Favourite"


def strip_html(studio: Studio, row: Generation, candidate: Candidate) -> str:
    """Who is recognised in a candidate."""
    people = people_shown(studio, row)
    return face_strip(
        candidate.face_report,
        [person.name for person in people],
        [person.url for person in people],
        studio.media_url(candidate.media_sha256),
        order=row.options.get("expected_order", ()),
    )


def settings_html(studio: Studio, row: Generation, candidate: Candidate) -> str:
    """Everything a candidate was made with."""
    ages = [str(reference.target_age or "child") for reference in row.references]
    facts = {
        "Task": "group picture" if row.task is Task.GROUP else f"at another age ({', '.join(ages)})",
        "Schedule": f"{row.schedule}, strength {row.strength:g}",
        "Seed": candidate.seed,
        "Steps": row.steps,
        "Size": f"{candidate.width} × {candidate.height}",
        "Guidance": f"identity {row.identity_guidance:g}, prompt {row.guidance:g}",
        "Model": f"{row.bundle} ({row.bundle_revision[:10]})",
        "Adapter": adapter_name(studio.store, row.adapter_id),
        "Time": ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in row.timings.items()),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return (
        f'<details class="candidate"><summary>Settings of {escape(caption(row, candidate))}</summary>'
        f'<dl>{listed}</dl><p class="prompt-used">{escape(row.prompt.text)}</p></details>'
    )


def matrix_html(studio: Studio, candidate_id: str) -> str:
    """Every person against every face of a candidate, or why that cannot be said."""
    try:
        candidate = studio.store.generations.candidate(candidate_id)
        return similarity_html(studio, studio.store.generations.get(candidate.generation_id), candidate)
    except (StoreError, ModelsNotReady, PictureError) as error:
        return f'<p class="problem" role="status">{escape(str(error))}</p>'
