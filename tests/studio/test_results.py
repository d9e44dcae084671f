"""What the Create page shows of a run, before and after anybody may see who is recognised."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr
import pytest

from studio.context import Studio
from studio.draft import Draft
from studio.generation import GenerationJobs
from studio.model_host import ModelHost
from studio.panels import results
from studio.settings import Settings
from studio.store.models import new_id
from tests.studio.store_samples import add_generation, add_person
from tests.studio.test_panels_compare import report


@pytest.fixture
def studio(store):
    host = ModelHost("nowhere")
    return Studio(Settings(data=store.folder), store, host, GenerationJobs(store, host))


@pytest.fixture
def panel():
    with gr.Blocks():
        return results.build()


def measured(store, **settings):
    _, portrait = add_person(store)
    generation = add_generation(store, [portrait], **settings)
    for candidate in generation.candidates:
        store.generations.save_metrics(candidate.id, face_report=report(1))
    return generation


def shown(panel, studio, draft):
    values = results.finished(panel, studio, draft, [])
    return values, values[panel.cards]["cards"]


def test_similarities_stay_hidden_until_this_browser_has_judged_or_looked(panel, studio, store):
    draft = Draft(visitor="v", generations=(measured(store).id,))
    values, cards = shown(panel, studio, draft)
    assert values[panel.hidden]["visible"]
    assert [card["below"] for card in cards] == ["", ""]
    values, cards = shown(panel, studio, replace(draft, revealed=True))
    assert not values[panel.hidden]["visible"]
    assert all("0.70" in card["below"] for card in cards)


def test_one_picture_alone_has_nothing_to_hide(panel, studio, store):
    draft = Draft(visitor="v", generations=(measured(store, candidates=1).id,))
    values, cards = shown(panel, studio, draft)
    assert not values[panel.hidden]["visible"]
    assert "0.70" in cards[0]["below"]


def test_nothing_tells_the_sides_of_an_ab_run_apart(panel, studio, store):
    group = new_id()
    sides = [
        measured(store, ab_group=group, ab_side=side, schedule=schedule)
        for side, schedule in (("A", "constant"), ("B", "gate-0.3-0.6"))
    ]
    draft = Draft(visitor="v", generations=tuple(side.id for side in sides))
    values, cards = shown(panel, studio, draft)
    said = str([values[part] for part in values if part is not panel.pair]) + str(cards)
    for secret in ("constant", "gate", "A ·", "B ·", "seed"):
        assert secret not in said
    assert not values[panel.tools]["visible"]
    values, cards = shown(panel, studio, replace(draft, revealed=True))
    assert {card["label"][0] for card in cards} == {"A", "B"}
    assert "gate-0.3-0.6" in values[panel.details] or "constant" in values[panel.details]
