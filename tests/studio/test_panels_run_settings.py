"""The choice of an adapter, and what A and B of a run differ in."""

import dataclasses
import shutil

import gradio as gr
import pytest

from core.backbones.cards import find_card, write_card
from studio.adapter_choice import BASE, CURRENT, adapter_choices, chosen_adapter
from studio.context import Studio
from studio.generation import GenerationJobs
from studio.judging import line_up
from studio.model_host import ModelHost
from studio.panels import run_settings
from studio.panels.run_settings import adapter_updates, settings_of, sides_of
from studio.settings import Settings
from studio.store import NewAdapter, StoreError
from studio.store.models import ComparisonKind, new_id
from studio.widgets.timing import AGE_PRESET, DEFAULT_TIMING, GROUP_PRESET
from tests.studio.store_samples import add_generation, add_picture


@pytest.fixture
def panel(studio):
    with gr.Blocks():
        return run_settings.build(studio)


def adapter(store, name, bundle="tiny"):
    return store.adapters.add(NewAdapter(name=name, media_sha256=add_picture(store)), bundle=bundle)


def chosen(panel, **changes):
    values = {
        "timing": GROUP_PRESET, "adapter": CURRENT, "compare_with": False, "differs": "timing",
        "other_timing": AGE_PRESET, "other_adapter": BASE,
    }  # fmt: skip
    return {getattr(panel, name): value for name, value in (values | changes).items()}


def test_every_adapter_that_can_be_loaded_is_offered(store):
    first, second = adapter(store, "first"), adapter(store, "second")
    broken, foreign = adapter(store, "broken"), adapter(store, "foreign", bundle="other")
    store.adapters.activate("tiny", first.id)
    store.adapters.mark_broken(broken.id, "its file is damaged")
    assert adapter_choices(store, "tiny") == [
        ("Current (first)", CURRENT),
        ("Base model", BASE),
        ("second (candidate)", second.id),
        ("first", first.id),
    ]
    with pytest.raises(StoreError, match="damaged"):
        chosen_adapter(store, "tiny", broken.id)
    with pytest.raises(StoreError, match="belongs to other"):
        chosen_adapter(store, "tiny", foreign.id)


def test_current_is_what_is_active_when_the_run_begins(store, panel):
    def current():
        (side,) = sides_of(store, "tiny", panel, chosen(panel))
        return side.adapter_id

    made = adapter(store, "first")
    assert current() is None
    store.adapters.activate("tiny", made.id)
    assert current() == made.id
    store.adapters.activate("tiny", None)
    assert current() is None


@pytest.mark.parametrize(
    ("differs", "schedules", "uses_other"),
    [
        ("timing", ("anneal-hold-0.4", "gate-0.3-0.6"), False),
        ("adapter", ("anneal-hold-0.4", "anneal-hold-0.4"), True),
        ("both", ("anneal-hold-0.4", "gate-0.3-0.6"), True),
    ],
)
def test_b_differs_in_what_was_asked_for_and_in_nothing_else(store, panel, differs, schedules, uses_other):
    other = adapter(store, "other")
    values = chosen(panel, compare_with=True, differs=differs, other_adapter=other.id)
    first, second = sides_of(store, "tiny", panel, values)
    assert (str(first.schedule), str(second.schedule)) == schedules
    assert (first.adapter_id, second.adapter_id) == (None, other.id if uses_other else None)


def test_a_b_that_is_a_again_is_refused(store, panel):
    with pytest.raises(ValueError, match="same pictures"):
        sides_of(store, "tiny", panel, chosen(panel, compare_with=True, differs="adapter"))


def test_an_ab_run_comes_back_as_it_was(studio, store, panel):
    first, second = adapter(store, "first"), adapter(store, "second")
    store.adapters.activate("tiny", first.id)
    rows = [
        add_generation(store, bundle="tiny", adapter_id=made.id, schedule=schedule, strength=0.5)
        for made, schedule in ((first, "anneal-hold-0.3"), (second, "gate-0.2-0.7"))
    ]
    values = settings_of(studio, panel, rows)
    assert set(values) == set(panel.restored)
    assert values[panel.timing] == DEFAULT_TIMING | {"threshold": 0.3, "strength": 0.5}
    assert (values[panel.compare_with], values[panel.differs]) == (True, "both")
    assert values[panel.other_timing]["value"]["end"] == 0.7
    assert (values[panel.adapter]["value"], values[panel.other_adapter]["value"]) == (CURRENT, second.id)
    alone = settings_of(studio, panel, rows[1:])
    assert (alone[panel.adapter]["value"], alone[panel.compare_with]) == (second.id, False)


def test_a_choice_that_is_gone_becomes_the_current_adapter(studio, store):
    made = adapter(store, "first")
    kept, _ = adapter_updates(studio, [made.id, BASE])
    assert "value" not in kept
    store.adapters.mark_broken(made.id, "damaged")
    changed, base = adapter_updates(studio, [made.id, BASE])
    assert (changed["value"], "value" in base) == (CURRENT, False)


def test_two_adapters_meet_blind_seed_by_seed(store):
    made, group = adapter(store, "first", "mini"), new_id()
    sides = [
        add_generation(store, adapter_id=adapter_id, ab_group=group, ab_side=side)
        for side, adapter_id in (("A", None), ("B", made.id))
    ]
    pairs = store.comparisons.get_many(line_up(store, sides, store.people.annotator("Ada").id))
    assert [pair.kind for pair in pairs] == [ComparisonKind.AB] * 2
    for pair in pairs:
        assert len({candidate.seed for candidate in pair.candidates}) == 1
        assert {candidate.generation.adapter_id for candidate in pair.candidates} == {None, made.id}


def test_presets_and_sizes_are_the_bundles_own(store, bundle_folder, tmp_path):
    folder = shutil.copytree(bundle_folder, tmp_path / "early")
    own = {"child_schedule": "gate-0.2-1.0", "guidance": 3.0, "child_guidance": 1.5}
    own |= {"trained_sizes": ((64, 96), (96, 96), (4096, 4096))}
    write_card(folder, dataclasses.replace(find_card(folder), **own))
    host = ModelHost(folder)
    studio = Studio(Settings(data=store.folder, bundle=str(folder)), store, host, GenerationJobs(store, host))
    with gr.Blocks() as page:
        task, tab = gr.Radio(["group", "child"]), gr.Tab()
        panel = run_settings.build(studio)
        run_settings.wire(panel, studio, task, tab)
    preset = next(block for block in page.fns.values() if (panel.preset._id, "click") in block.targets)
    assert preset.fn("group") == GROUP_PRESET
    assert preset.fn("child") == {**AGE_PRESET, "start": 0.2, "end": 1.0}
    chosen = next(block for block in page.fns.values() if (task._id, "change") in block.targets)
    assert panel.guidance.value == 3.0
    size = next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == "size")
    assert [label for label, _ in size.choices] == ["96 × 64", "96 × 96"]  # the third passes the app's limit
    assert chosen.fn("group") == (GROUP_PRESET, 3.0)
    assert chosen.fn("child") == (preset.fn("child"), 1.5)
