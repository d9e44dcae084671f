"""The third step of the Create page: identity timing, adapter, sampling, and what B does differently from A."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from core.backbones.cards import find_card
from core.prompts import Task
from core.schedule import IdentitySchedule
from studio.adapter_choice import CURRENT, adapter_choices, bundle_name, choice_of, chosen_adapter
from studio.context import Studio
from studio.store import Store
from studio.store.models import Generation
from studio.widgets.timing import AGE_PRESET, GROUP_PRESET, schedule_of, timing_editor, timing_of

LARGEST_SEED = 2**31 - 1
LARGEST_GUIDANCE = 8
BY_TIMING, BY_ADAPTER, BY_BOTH = "timing", "adapter", "both"


@dataclass(frozen=True, eq=False)
class SettingsPanel:
    timing: gr.HTML
    preset: gr.Button
    adapter: gr.Dropdown
    compare_with: gr.Checkbox
    side_b: gr.Column
    differs: gr.Radio
    other_timing: gr.HTML
    other_adapter: gr.Dropdown
    steps: gr.Slider
    candidates: gr.Slider
    seed: gr.Number
    random_seed: gr.Checkbox
    size: gr.Dropdown
    guidance: gr.Slider
    identity_guidance: gr.Slider
    face_detail: gr.Checkbox
    generate: gr.Button
    cancel: gr.Button

    @property
    def inputs(self) -> set[Any]:
        """What a run is made of."""
        return {
            self.timing, self.adapter, self.compare_with, self.differs, self.other_timing, self.other_adapter,
            self.steps, self.candidates, self.seed, self.random_seed, self.size, self.guidance,
            self.identity_guidance, self.face_detail,
        }  # fmt: skip

    @property
    def adapters(self) -> list[gr.Dropdown]:
        """Both choices of an adapter."""
        return [self.adapter, self.other_adapter]

    @property
    def restored(self) -> list[Any]:
        """What `settings_of` may set."""
        return [
            self.timing, self.adapter, self.compare_with, self.side_b, self.differs, self.other_timing,
            self.other_adapter,
        ]  # fmt: skip


@dataclass(frozen=True)
class ModelDefaults:
    """guidance: towards the prompt, by task. age_timing: timing of the age task. sizes: "width × height" in pixels, the
    bundle's own first."""

    steps: int = 20
    guidance: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(Task, 1.0))
    identity_guidance: float = 1.0
    has_face_detail: bool = False
    age_timing: Mapping[str, Any] = field(default_factory=lambda: AGE_PRESET)
    sizes: tuple[str, ...] = ("256 × 256",)


@dataclass(frozen=True, kw_only=True)
class Side:
    """What A and B of a run may differ in. adapter_id: None is the base model."""

    schedule: IdentitySchedule
    strength: float
    adapter_id: str | None


def build(studio: Studio) -> SettingsPanel:
    limits = studio.settings
    defaults = _model_defaults(limits.bundle, limits.max_side)
    with gr.Column(elem_classes="step"):
        gr.Markdown("### 3 · Identity timing\nWhen, while the picture forms, the portraits are looked at.")
        timing = timing_editor(elem_id="timing")
        preset = gr.Button("Preset for this task", size="sm", elem_id="timing-preset")
        identity_guidance = gr.Slider(
            1,
            LARGEST_GUIDANCE,
            value=defaults.identity_guidance,
            step=0.5,
            label="Identity guidance",
            info="Above 1 the portraits weigh more, for more time.",
            elem_id="identity-guidance",
        )
        adapter = _adapter_dropdown(studio, "Adapter", "The model as it is, or as picks have trained it.", "adapter")
        compare_with = gr.Checkbox(
            label="Run a second setting as B", info="Same seeds, side by side; then compare blind.", elem_id="ab"
        )
        with gr.Column(visible=False, elem_id="side-b") as side_b:
            differs = gr.Radio(
                [("Timing", BY_TIMING), ("Adapter", BY_ADAPTER), ("Both", BY_BOTH)],
                value=BY_TIMING,
                label="B differs by",
                elem_id="b-differs",
            )
            other_timing = timing_editor({**GROUP_PRESET, "mode": "constant"}, elem_id="timing-b")
            other_adapter = _adapter_dropdown(studio, "Adapter of B", None, "adapter-b", visible=False)
        with gr.Accordion("Sampling", open=False):
            number = gr.Slider(
                1,
                limits.max_candidates,
                value=min(4, limits.max_candidates),
                step=1,
                label="Candidates",
                elem_id="candidates",
            )
            step_count = gr.Slider(
                1, limits.max_steps, value=min(defaults.steps, limits.max_steps), step=1, label="Steps", elem_id="steps"
            )
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, elem_id="seed")
                random_seed = gr.Checkbox(True, label="New seed each time", elem_id="random-seed")
            size = gr.Dropdown(list(defaults.sizes), value=defaults.sizes[0], label="Size", elem_id="size")
            guidance = gr.Slider(
                1,
                LARGEST_GUIDANCE,
                value=defaults.guidance[Task.GROUP],
                step=0.5,
                label="Prompt guidance",
                info="Above 1 the text weighs more, for more time.",
            )
            face_detail = gr.Checkbox(
                True,
                label="Paint faces once more",
                info="At twice their size: sharper and more alike, for a little more time.",
                elem_id="face-detail",
                visible=defaults.has_face_detail,
            )
    with gr.Row(elem_id="generate-row"):
        generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
        cancel = gr.Button("Cancel", size="lg", visible=False, elem_id="cancel")
    return SettingsPanel(
        timing, preset, adapter, compare_with, side_b, differs, other_timing, other_adapter, step_count, number, seed,
        random_seed, size, guidance, identity_guidance, face_detail, generate, cancel,
    )  # fmt: skip


def wire(panel: SettingsPanel, studio: Studio, task: gr.Radio, tab: gr.Tab) -> None:
    private = {"api_visibility": "private", "show_progress": "hidden"}
    panel.compare_with.change(lambda on: gr.update(visible=on), panel.compare_with, panel.side_b, **private)
    panel.differs.change(
        lambda differs: (gr.update(visible=differs != BY_ADAPTER), gr.update(visible=differs != BY_TIMING)),
        panel.differs,
        [panel.other_timing, panel.other_adapter],
        **private,
    )
    defaults = _model_defaults(studio.settings.bundle, studio.settings.max_side)

    def timing_for(task: str) -> Mapping[str, Any]:
        return defaults.age_timing if task == Task.CHILD else GROUP_PRESET

    panel.preset.click(timing_for, task, panel.timing, **private)
    task.change(
        lambda task: (timing_for(task), defaults.guidance[task]), task, [panel.timing, panel.guidance], **private
    )
    # A round may have ended, or somebody promoted another adapter, while the page was elsewhere.
    tab.select(lambda *chosen: adapter_updates(studio, chosen), panel.adapters, panel.adapters, **private)


def adapter_updates(studio: Studio, chosen: Sequence[str | None]) -> list[Any]:
    """Fresh choices for each dropdown; a choice that is no longer there becomes the current adapter."""
    choices = adapter_choices(studio.store, bundle_name(studio))
    known = {value for _, value in choices}
    return [
        gr.update(choices=choices) if value in known else gr.update(choices=choices, value=CURRENT) for value in chosen
    ]


def sides_of(store: Store, bundle: str, panel: SettingsPanel, values: Mapping[Any, Any]) -> list[Side]:
    """A, and B where one is wanted.

    Raises:
        StoreError: an adapter cannot be used any more.
        ValueError: a timing makes no sense, or B would be the same as A.
    """
    first = _side(store, bundle, values[panel.timing], values[panel.adapter])
    if not values[panel.compare_with]:
        return [first]
    differs = values[panel.differs]
    second = _side(
        store,
        bundle,
        values[panel.timing if differs == BY_ADAPTER else panel.other_timing],
        values[panel.adapter if differs == BY_TIMING else panel.other_adapter],
    )
    if first == second:
        raise ValueError("A and B would be the same pictures; give B another timing or another adapter.")
    return [first, second]


def settings_of(studio: Studio, panel: SettingsPanel, rows: Sequence[Generation]) -> dict[Any, Any]:
    """Values of the controls that make these runs again: one generation, or the two sides of an A/B run."""
    first, *others = rows
    second = others[0] if others else first
    differs = _difference(first, second)
    choices = [_choice(studio, row) for row in (first, second)]
    adapter, other_adapter = (
        {"value": choice} | update for update, choice in zip(adapter_updates(studio, choices), choices, strict=True)
    )
    values = {
        panel.timing: _timing(first),
        panel.adapter: adapter,
        panel.compare_with: bool(others),
        panel.side_b: gr.update(visible=bool(others)),
    }
    if not others:
        return values
    return values | {
        panel.differs: differs,
        panel.other_timing: gr.update(value=_timing(second), visible=differs != BY_ADAPTER),
        panel.other_adapter: other_adapter | {"visible": differs != BY_TIMING},
    }


def _timing(row: Generation) -> dict[str, Any]:
    return timing_of(IdentitySchedule.parse(row.schedule), row.strength)


def _choice(studio: Studio, row: Generation) -> str:
    active = studio.store.adapters.active(row.bundle)
    return CURRENT if row.adapter_id == (active and active.id) else choice_of(row.adapter_id)


def _difference(first: Generation, second: Generation) -> str:
    if first.adapter_id == second.adapter_id:
        return BY_TIMING
    return BY_ADAPTER if _timing(first) == _timing(second) else BY_BOTH


def _side(store: Store, bundle: str, timing: Mapping[str, Any], adapter: str) -> Side:
    return Side(
        schedule=schedule_of(dict(timing)),
        strength=float(timing["strength"]),
        adapter_id=chosen_adapter(store, bundle, adapter),
    )


def _adapter_dropdown(studio: Studio, label: str, info: str | None, elem_id: str, **options: Any) -> gr.Dropdown:
    return gr.Dropdown(
        adapter_choices(studio.store, bundle_name(studio)),
        value=CURRENT,
        label=label,
        info=info,
        elem_id=elem_id,
        **options,
    )


def _model_defaults(bundle: str, max_side: int) -> ModelDefaults:
    """Defaults of a bundle, known from its card before anything is loaded."""
    try:
        card = find_card(bundle)
    except (ValueError, RuntimeError):  # the header says what is wrong with the bundle
        return ModelDefaults()
    wide = min(max_side, card.width * 3 // 2)
    common = [(card.height, card.width), (card.height, wide), (card.height, card.width * 3 // 4)]
    sizes = dict.fromkeys(
        f"{width // 32 * 32} × {height // 32 * 32}"
        for height, width in card.trained_sizes or common
        if max(width, height) <= max_side
    )
    sizes = tuple(sizes) or (f"{card.width} × {card.height}",)
    age_timing = timing_of(IdentitySchedule.parse(card.child_schedule), strength=1)
    guidance = {task: card.guidance_of(task) for task in Task}
    return ModelDefaults(card.steps, guidance, card.identity_guidance, card.has_face_detail, age_timing, sizes)
