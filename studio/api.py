"""Named endpoints, for programs: generate, write_prompt, pick, export. README.md shows how to call them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from core.images import PictureError, read_picture
from core.portraits import prepare_person
from core.prompts import PromptRefused, Task, refuse_unsafe, static_prompt
from core.schedule import IdentitySchedule
from studio.adapter_choice import CURRENT, chosen_adapter
from studio.context import Studio
from studio.draft import Draft
from studio.generation import run_options
from studio.judging import REASONS, comparison_of
from studio.model_host import ModelsNotReady
from studio.panels import people
from studio.store import NewGeneration, NewPick, StoreError
from studio.store.models import Annotator, GenerationState, new_id
from studio.transfer import export_file
from studio.visitors import login_of

REFUSALS = (StoreError, PictureError, PromptRefused, ModelsNotReady, ValueError)


def add_endpoints(studio: Studio) -> None:
    """Add the endpoints to the page being built."""
    store, settings = studio.store, studio.settings

    def generate(
        portraits: list[dict],
        prompt: str = "",
        scene: str = "",
        task: str = "group",
        ages: list[int | None] | None = None,
        schedule: str = "anneal-hold-0.4",
        strength: float = 1.0,
        identity_guidance: float = 0.0,
        candidates: int = 2,
        seed: int = 0,
        steps: int = 0,
        width: int = 0,
        height: int = 0,
        consent: bool = False,
        annotator: str = "api",
        face_detail: bool = True,
        request: gr.Request = None,
    ) -> dict:
        """Make pictures of the people in the portraits, and wait for them.

        Args:
            portraits: files, one for each person, in the order of the prompt.
            prompt: in which portrait k is "image k"; empty for the template with `scene`.
            scene: where and how, for the template.
            task: "group", or "child" for the same people at another age.
            ages: years, one for each portrait, for "child"; null for a child of about eight, as without them.
            schedule: "off", "constant", "anneal-hold-0.4", "anneal-ramp-0.4" or "gate-0.3-0.6".
            strength: of the schedule, 0 to 1.
            identity_guidance: how much further than by itself the model goes towards the portraits, 1 for not at
                all; 0 for the model's own.
            candidates: how many pictures, seeds counted up from `seed`.
            seed: of the first picture.
            steps: of denoising; 0 for the model's own.
            width: in pixels; 0 for the model's own.
            height: in pixels; 0 for the model's own.
            consent: must be true: you may use these portraits.
            annotator: the name all this is kept under; not needed where one logs in.
            face_detail: paint the faces once more at twice their size, where the model can.
        """
        try:
            if not consent:
                raise ValueError(f"Set consent to true to say: {people.CONSENT}")
            owner = _annotator(studio, annotator, request)
            if not portraits:
                raise ValueError("Give a portrait of each person.")
            if not 1 <= candidates <= settings.max_candidates:
                raise ValueError(f"{candidates} candidates were asked for; 1 to {settings.max_candidates} can be made.")
            draft = Draft(visitor=owner.name)
            target_ages = _target_ages(task, ages, len(portraits))
            bundle = studio.host.wait()
            card = bundle.card
            wanted = NewGeneration(
                task=Task(task).value,
                prompt=prompt.strip() or static_prompt(task, len(portraits), scene, target_ages),
                prompt_origin="edited" if prompt.strip() else "template",
                scene_words=scene,
                schedule=str(IdentitySchedule.parse(schedule)),
                strength=float(strength),
                steps=_within(steps or card.steps, settings.max_steps, "steps"),
                guidance=card.guidance_of(task),
                identity_guidance=identity_guidance or card.identity_guidance,
                width=_within(width or card.width, settings.max_side, "pixels of width"),
                height=_within(height or card.height, settings.max_side, "pixels of height"),
                seeds=[seed + number for number in range(candidates)],
                target_ages=target_ages,
                bundle=card.name,
                bundle_revision=bundle.revision,
                adapter_id=chosen_adapter(store, card.name, CURRENT),
                options=run_options(len(portraits), by_template=not prompt.strip(), face_detail=face_detail),
                author_id=owner.id,
            )
            refuse_unsafe(wanted.prompt, children=Task(task) is Task.CHILD)
            limits = bundle.backbone.limits
            limits.check_references(len(portraits))
            limits.check_size(wanted.height, wanted.width)
            for portrait in portraits:
                draft = people.add_file(studio, draft, _uploaded(portrait))
            generation_id = studio.jobs.submit(replace(wanted, portrait_ids=draft.portraits))
            for progress in studio.jobs.watch(generation_id):
                last = progress
            if last.state is not GenerationState.DONE:
                raise ValueError(last.message or f"The generation was {last.state.value}.")
            row = store.generations.get(generation_id)
        except REFUSALS as error:
            raise gr.Error(str(error)) from error
        return {
            "generation": row.id,
            "prompt": row.prompt.text,
            "schedule": row.schedule,
            "candidates": [
                {
                    "id": candidate.id,
                    "seed": candidate.seed,
                    "picture": _file(store.media.path(candidate.media_sha256)),
                    "face_sim": candidate.face_sim,
                    "coverage": candidate.coverage,
                    "face_pack": candidate.face_report and candidate.face_report["pack"],
                }
                for candidate in row.candidates
            ],
        }

    def write_prompt(
        portraits: list[dict], task: str = "group", scene: str = "", ages: list[int | None] | None = None
    ) -> str:
        """The model's prompt for these portraits, to read and edit. Nothing is kept.

        Args:
            portraits: files, one for each person, in the order of the prompt.
            task: "group", or "child" for the same people at another age.
            scene: where and how.
            ages: as for generate.
        """
        try:
            target_ages = _target_ages(task, ages, len(portraits))
            pictures = [read_picture(_uploaded(portrait)) for portrait in portraits]
            if not pictures:
                raise ValueError("Give a portrait of each person.")
            with studio.host.turn() as bundle:
                side = bundle.card.reference_side
                crops = [
                    prepare_person(picture, number, studio.host.analyzer, side).crop
                    for number, picture in enumerate(pictures, start=1)
                ]
                return "".join(studio.host.writer().write(crops, task, scene, ages=target_ages))
        except REFUSALS as error:
            raise gr.Error(str(error)) from error

    def pick(
        candidates: list[str],
        outcome: str,
        ranking: list[list[str]] | None = None,
        reasons: list[str] | None = None,
        note: str = "",
        blind: bool = False,
        annotator: str = "api",
        request_id: str = "",
        request: gr.Request = None,
    ) -> dict:
        """Keep a decision between two to four candidates; it is on the disk when this returns.

        Args:
            candidates: their ids, from left to right as they were shown.
            outcome: "left", "right", "tie", "both_bad" or "ranking".
            ranking: for "ranking": ids, best first, those that share a place together.
            reasons: what was wrong with those not chosen, such as "identity_lost".
            note: a remark.
            blind: whether nobody could know where the pictures came from; only then win rates count it.
            annotator: the name it is kept under; not needed where one logs in.
            request_id: anything unique; the same again keeps one decision.
        """
        try:
            unknown = set(reasons or ()) - set(REASONS)
            if unknown:
                raise ValueError(f"Reasons {sorted(unknown)} are not known; known are {', '.join(REASONS)}.")
            if not candidates:
                raise ValueError("Name the candidates that were shown.")
            owner = _annotator(studio, annotator, request)
            comparison_id = comparison_of(store, candidates, blind=blind, author_id=owner.id)
            saved = store.picks.save(
                NewPick(
                    request_id=request_id or new_id(),
                    comparison_id=comparison_id,
                    annotator_id=owner.id,
                    outcome=outcome,
                    shown=candidates,
                    ranking=ranking,
                    reasons=reasons or (),
                    note=note,
                )
            )
        except REFUSALS as error:
            raise gr.Error(str(error)) from error
        return {"pick": saved.id, "comparison": saved.comparison_id}

    def export(kind: str = "parquet", portraits: bool = False) -> dict:
        """All decisions as a file.

        Args:
            kind: "parquet" (Pick-a-Pic), "jsonl" (TRL, a zip with pictures), "csv", or "archive" (everything).
            portraits: whether the reference portraits are in it; an archive always holds them.
        """
        if not studio.sees_everything:
            raise gr.Error("Here each visitor sees their own pictures only, so nothing can be exported.")
        try:
            path, rows = export_file(store, kind, portraits=portraits)
        except StoreError as error:
            raise gr.Error(str(error)) from error
        return {"file": _file(path), "rows": rows}

    for endpoint in (generate, write_prompt, pick, export):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=None)


def _annotator(studio: Studio, name: str, request: gr.Request | None) -> Annotator:
    login = login_of(request)
    return studio.store.people.annotator(*login) if login is not None else studio.store.people.annotator(name)


def _target_ages(task: str, ages: list[int | None] | None, people_count: int) -> list[int | None]:
    """One for each portrait, or none at all."""
    if not ages:
        return []
    if Task(task) is not Task.CHILD:
        raise ValueError(f"Ages {ages} were given for task {task!r}; only 'child' makes people another age.")
    if len(ages) != people_count:
        raise ValueError(f"{len(ages)} ages were given for {people_count} portraits; give one for each, or null.")
    return [people.read_age(age) for age in ages]


def _within(value: int, most: int, what: str) -> int:
    if not 1 <= value <= most:
        raise ValueError(f"{value} {what} were asked for; 1 to {most} can be had here.")
    return int(value)


def _uploaded(file: dict[str, Any]) -> Path:
    """The path of a file the caller has uploaded, and of no other file of this machine."""
    path = Path(str(file.get("path", "") if isinstance(file, dict) else file)).resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()) or not path.is_file():
        raise ValueError("A portrait is no uploaded file; with gradio_client, wrap its path in handle_file().")
    return path


def _file(path: Path) -> dict[str, Any]:
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
