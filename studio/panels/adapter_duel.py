"""A new adapter as the B side of a blind comparison: at once with the pictures of evaluations, else on Create."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.adapter_choice import adapter_choices, bundle_name, choice_of
from studio.context import Studio
from studio.judging import comparison_of
from studio.panels.run_settings import BY_ADAPTER, SettingsPanel
from studio.store import Store
from studio.store.models import Candidate, ComparisonKind, Generation, GenerationState, Purpose


@dataclass(frozen=True, kw_only=True)
class Duel:
    """An adapter and what it is compared with: the one in use, or its parent when it is itself in use.

    old: None is the base model.
    """

    new: str
    old: str | None


def duel_of(store: Store, adapter_id: str) -> Duel:
    """The duel of an adapter; raises StoreError when it is gone."""
    adapter = store.adapters.get(adapter_id)
    active = store.adapters.active(adapter.bundle)
    current = None if active is None else active.id
    return Duel(new=adapter.id, old=adapter.parent_id if adapter.id == current else current)


def line_up(store: Store, duel: Duel, author_id: str) -> tuple[str, ...]:
    """Blind comparisons of evaluation pictures that both adapters made from the same seeds; empty without any."""
    return tuple(
        comparison_of(store, [new.id, old.id], kind=ComparisonKind.ADAPTER, author_id=author_id)
        for new, old in _matched(store, duel)
    )


def as_side_b(studio: Studio, panel: SettingsPanel, duel: Duel) -> dict[Any, Any]:
    """Values of the Create page's controls for a run of both adapters."""
    choices = adapter_choices(studio.store, bundle_name(studio))
    return {
        panel.adapter: gr.update(choices=choices, value=choice_of(duel.old)),
        panel.compare_with: True,
        panel.side_b: gr.update(visible=True),
        panel.differs: BY_ADAPTER,
        panel.other_timing: gr.update(visible=False),
        panel.other_adapter: gr.update(choices=choices, value=choice_of(duel.new), visible=True),
    }


def before_and_after(store: Store, round_id: str) -> list[tuple[Generation, Generation]]:
    """The evaluation's finished cases of a round: side A before, side B after."""
    sides: dict[str, dict[str, Generation]] = {}
    for row in _evaluated(store, round_id):
        sides.setdefault(row.ab_group, {})[row.ab_side] = row
    return [(side["A"], side["B"]) for side in sides.values() if {"A", "B"} <= side.keys()]


def _matched(store: Store, duel: Duel) -> Iterator[tuple[Candidate, Candidate]]:
    adapters = [store.adapters.get(adapter_id) for adapter_id in (duel.new, duel.old) if adapter_id is not None]
    rounds = dict.fromkeys(adapter.round_id for adapter in adapters if adapter.round_id is not None)
    rows = [row for round_id in rounds for row in _evaluated(store, round_id)]
    old = {(_conditions(row), one.seed): one for row in rows if row.adapter_id == duel.old for one in row.candidates}
    met = set()
    for row in rows:
        for new in row.candidates if row.adapter_id == duel.new else ():
            key = _conditions(row), new.seed
            # The same picture twice, as of an adapter that changed nothing here, cannot be compared.
            if key in old and key not in met and old[key].media_sha256 != new.media_sha256:
                met.add(key)
                yield new, old[key]


def _evaluated(store: Store, round_id: str) -> list[Generation]:
    return [
        row
        for row in store.generations.of_round(round_id)
        if row.purpose is Purpose.EVALUATION and row.state is GenerationState.DONE
    ]


def _conditions(row: Generation) -> tuple[Any, ...]:
    """What two pictures have in common besides the adapter."""
    made_with = row.schedule, row.strength, row.steps, row.guidance, row.identity_guidance, row.width, row.height
    return row.options.get("case"), row.prompt.text, row.bundle_revision, *made_with
