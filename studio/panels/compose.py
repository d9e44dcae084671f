"""The Create page: people, prompt, identity timing and sampling on one side, what comes of them on the other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from core.prompts import Task, refuse_unsafe
from studio.adapter_choice import CURRENT
from studio.context import Studio
from studio.draft import Draft
from studio.generation import run_options
from studio.model_host import ModelsNotReady
from studio.panels import people, prompt, results, run_settings
from studio.panels.people import PeoplePanel
from studio.panels.prompt import PromptPanel
from studio.panels.results import ResultsPanel
from studio.panels.run_settings import LARGEST_SEED, SettingsPanel
from studio.store import NewGeneration, StoreError
from studio.store.models import Generation
from studio.store.models.base import new_id

SECONDS_BETWEEN_LOOKS = 0.25
SHOW_RESULTS = """() => {
  const results = document.getElementById("compose-results");
  const steps = document.getElementById("compose-steps").getBoundingClientRect();
  if (results.getBoundingClientRect().top >= steps.bottom) results.scrollIntoView({ behavior: "smooth" });
}"""
"""On a phone the pictures form below the steps, out of sight of whoever pressed Generate."""


@dataclass(frozen=True, eq=False)
class ComposePage:
    people: PeoplePanel
    prompt: PromptPanel
    settings: SettingsPanel
    results: ResultsPanel

    @property
    def watched(self) -> list[Any]:
        """What changes while a run goes on."""
        return [*self.results.outputs, self.settings.generate, self.settings.cancel]


def build(studio: Studio) -> ComposePage:
    with gr.Row(equal_height=False, elem_id="compose"):
        with gr.Column(scale=5, min_width=340, elem_id="compose-steps"):
            with gr.Column(elem_classes="step"):
                people_panel = people.build(studio)
            with gr.Column(elem_classes="step"):
                prompt_panel = prompt.build()
            settings_panel = run_settings.build(studio)
        with gr.Column(scale=8, min_width=340, elem_id="compose-results"):
            results_panel = results.build()
    return ComposePage(people_panel, prompt_panel, settings_panel, results_panel)


def wire(page: ComposePage, studio: Studio, draft: gr.BrowserState, tab: gr.Tab) -> None:
    people.wire(page.people, studio, draft)
    prompt.wire(page.prompt, studio, draft)
    results.wire(page.results, studio, draft)
    run_settings.wire(page.settings, studio, page.prompt.task, tab)
    page.prompt.task.change(
        lambda task: gr.update(elem_classes=["with-ages"] if task == Task.CHILD.value else []),
        page.prompt.task,
        page.people.people,
        show_progress="hidden",
        api_visibility="private",
    )
    settings, shown = page.settings, page.results

    words = {page.prompt.task, page.prompt.scene, page.prompt.text, page.prompt.origin}
    exact = [
        settings.steps, settings.seed, settings.random_seed, settings.guidance, settings.identity_guidance,
        settings.face_detail,
    ]  # fmt: skip

    def start(values: dict[Any, Any]) -> dict[Any, Any]:
        """Store and queue the run; everything after that can be picked up again by a reloaded page."""
        current = Draft.read(values[draft])
        seed = secrets.randbelow(LARGEST_SEED) if values[settings.random_seed] else int(values[settings.seed] or 0)
        try:
            runs = _new_generations(studio, page, current, values, seed)
            submitted = tuple(studio.jobs.submit(run) for run in runs)
        except (ModelsNotReady, StoreError, ValueError) as error:
            raise gr.Error(str(error), title="Not started") from error
        current = replace(current, generations=submitted, revealed=False)
        return {draft: current.write(), settings.seed: seed, page.prompt.text: runs[0].prompt}

    def cancel(state: dict[str, Any]) -> None:
        for generation_id in Draft.read(state).generations:
            studio.jobs.cancel(generation_id)

    def reuse(pair: tuple[str, ...]) -> dict[Any, Any]:
        if not pair:
            return {settings.seed: gr.skip()}
        candidate = studio.store.generations.candidate(pair[-1])
        row = candidate.generation
        return {
            **run_settings.settings_of(studio, settings, [row]),
            settings.steps: row.steps,
            settings.seed: candidate.seed,
            settings.random_seed: False,
            settings.guidance: row.guidance,
            settings.identity_guidance: row.identity_guidance,
            settings.face_detail: row.options.get("face_detail", True),
            page.prompt.text: row.prompt.text,
        }

    private = {"api_visibility": "private"}

    def watch(state: dict[str, Any]) -> Iterator[dict[Any, Any]]:
        yield from _watch(page, studio, Draft.read(state))

    def look_again(state: dict[str, Any]) -> dict[Any, Any]:
        """What was judged or deleted elsewhere shows when one comes back; a run that goes on is watched already."""
        current = Draft.read(state)
        if not current.generations or not all(studio.jobs.progress(one).ended for one in current.generations):
            return {shown.matrix: gr.skip()}
        return results.finished(shown, studio, current, [])

    started = settings.generate.click(
        start,
        {draft, *words, *settings.inputs},
        [draft, settings.seed, page.prompt.text],
        show_progress="hidden",
        concurrency_limit=None,
        **private,
    )
    started.success(watch, [draft], page.watched, show_progress="hidden", concurrency_limit=None, **private)
    started.success(None, js=SHOW_RESULTS, **private)
    tab.select(look_again, [draft], shown.outputs, show_progress="hidden", **private)
    settings.cancel.click(cancel, [draft], show_progress="hidden", concurrency_limit=None, **private)
    shown.reuse.click(
        reuse,
        [shown.pair],
        [*settings.restored, *exact, page.prompt.text],
        show_progress="hidden",
        **private,
    )


def restore(page: ComposePage, studio: Studio, draft: gr.BrowserState, blocks: gr.Blocks) -> None:
    """On page load: people, pictures and a run that is still going come back from the database."""

    def begin(state: dict[str, Any]) -> dict[Any, Any]:
        current = Draft.read(state)
        return {
            draft: current.write(),
            page.people.people: people.listing(studio, current),
            page.people.consent: gr.update(visible=not people.consent_given(studio, current)),
            page.people.examples: gr.update(open=not current.portraits),
            **_settings_of(studio, page, results.load(studio, current)),
        }

    def watch(state: dict[str, Any]) -> Iterator[dict[Any, Any]]:
        current = Draft.read(state)
        if not current.generations:
            yield {page.results.matrix: gr.skip()}  # a generator that yields nothing empties its outputs
            return
        yield from _watch(page, studio, current)

    private = {"api_visibility": "private", "show_progress": "hidden"}
    words = [page.prompt.task, page.prompt.scene, page.prompt.text, page.prompt.origin, *page.settings.restored]
    outputs = [draft, page.people.people, page.people.consent, page.people.examples, *words]
    # Whoever acts before the draft is back would act on an empty one, so the steps wait for it; see the style sheet.
    blocks.load(begin, [draft], outputs, **private).then(
        None, js="() => { document.body.classList.add('draft-is-here'); }", **private
    ).then(watch, [draft], page.watched, concurrency_limit=None, **private)


def _settings_of(studio: Studio, page: ComposePage, rows: list[Generation]) -> dict[Any, Any]:
    """Task, prompt, timing and adapters of the run on show; where there is none, fresh choices of adapters."""
    settings = page.settings
    if not rows:
        return dict(zip(settings.adapters, run_settings.adapter_updates(studio, [CURRENT, CURRENT]), strict=True))
    row = rows[0]
    return {
        page.prompt.task: row.task.value,
        page.prompt.scene: row.prompt.scene_words,
        page.prompt.text: row.prompt.text,
        page.prompt.origin: row.prompt.origin.value,
        **run_settings.settings_of(studio, settings, rows),
    }


def _new_generations(
    studio: Studio, page: ComposePage, draft: Draft, values: dict[Any, Any], seed: int
) -> Sequence[NewGeneration]:
    settings = page.settings
    task, text, origin = values[page.prompt.task], values[page.prompt.text] or "", values[page.prompt.origin]
    if not draft.portraits:
        raise ValueError("Add a portrait of each person first.")
    if not text.strip():
        text, origin = prompt.template(task, values[page.prompt.scene], draft), prompt.TEMPLATE
    refuse_unsafe(text, children=task == Task.CHILD.value)
    bundle = studio.host.wait()
    bundle.backbone.limits.check_references(len(draft.portraits))
    width, height = (int(side) for side in values[settings.size].split(" × "))
    bundle.backbone.limits.check_size(height, width)
    by_template = origin == prompt.TEMPLATE
    sides = run_settings.sides_of(studio.store, bundle.card.name, settings, values)
    group = new_id() if len(sides) > 1 else None
    return [
        NewGeneration(
            task=task,
            prompt=text,
            prompt_origin=origin,
            scene_words=values[page.prompt.scene] or "",
            schedule=str(side.schedule),
            strength=side.strength,
            adapter_id=side.adapter_id,
            steps=int(values[settings.steps]),
            guidance=float(values[settings.guidance]),
            identity_guidance=float(values[settings.identity_guidance]),
            width=width,
            height=height,
            seeds=[(seed + number) % (LARGEST_SEED + 1) for number in range(int(values[settings.candidates]))],
            bundle=bundle.card.name,
            bundle_revision=bundle.revision,
            portrait_ids=draft.portraits,
            target_ages=draft.target_ages if task == Task.CHILD.value else (),
            options=run_options(
                len(draft.portraits), by_template=by_template, face_detail=bool(values[settings.face_detail])
            ),
            ab_group=group,
            ab_side=letter if group else None,
            author_id=draft.owner(studio.store).id,
        )
        for side, letter in zip(sides, "AB", strict=False)
    ]


def _watch(page: ComposePage, studio: Studio, draft: Draft) -> Iterator[dict[Any, Any]]:
    """Values of the watched components until the run has ended: progress and previews, then the pictures."""
    last, pictures = None, None
    while True:
        progress = [studio.jobs.progress(generation_id) for generation_id in draft.generations]
        if all(one.ended for one in progress):
            break
        now = [(one.state, one.waiting, one.stage, one.step) for one in progress]
        if now != last:
            values = {**results.forming(page.results, progress), **_buttons(page, running=True)}
            # Previews change less often than the line above them, and are a thousand times its size.
            latest = results.previews(progress)
            if latest is not pictures:
                values |= results.forming_pictures(page.results, latest)
            yield values
            pictures = latest
        last = now
        time.sleep(SECONDS_BETWEEN_LOOKS)
    yield {**results.finished(page.results, studio, draft, progress), **_buttons(page, running=False)}


def _buttons(page: ComposePage, *, running: bool) -> dict[Any, Any]:
    return {
        page.settings.generate: gr.update(visible=not running),
        page.settings.cancel: gr.update(visible=running),
    }
