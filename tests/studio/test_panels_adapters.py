"""Adapters on the Training page: their history, putting them to use, and blind comparisons between them."""

from functools import partial

import gradio as gr
import pytest

from studio.adapter_choice import BASE
from studio.judging import Judging
from studio.panels import run_settings
from studio.panels.adapter_duel import Duel, as_side_b, before_and_after, duel_of, line_up
from studio.panels.adapter_history import History, activations_html, duel_words, history_html, lineage_words
from studio.panels.reveal import reveal_html
from studio.round_control import use_adapter
from studio.store import NewAdapter
from studio.store.models import ComparisonKind, Outcome
from tests.studio.round_samples import WORKER, add_picks, finished_round, some_pairs, training_round
from tests.studio.store_samples import add_picture, new_pick

HOSTILE = "<img src=x onerror=alert(1)>"

finished = partial(finished_round, bundle="tiny")


@pytest.fixture
def ada(store):
    return store.people.annotator("Ada").id


def test_the_history_has_lineage_picks_and_win_rates(store):
    add_picks(store, 6, bundle="tiny")
    row, first = finished(store, name="first", pairs=some_pairs(store))
    _, second = finished(store, "candidate", name=HOSTILE)
    history = History.read(store, "tiny")
    html = history_html(history, shown=row.id, may_act=True)
    assert HOSTILE not in html
    assert "4 pairs from 4 picks, 2 dropped" in html
    assert lineage_words(history, history.adapters[second.id]) == f"base model → first → {HOSTILE}"
    assert "not yet compared blind" in html
    assert html.count("in use</span>") == 1
    assert f'data-action="use" data-id="{second.id}"' in html
    assert f'data-action="use" data-id="{first.id}"' not in html
    assert f'data-action="use" data-id="{BASE}"' in html
    assert f'data-id="{row.id}" aria-pressed="true"' in html
    assert 'data-action="use"' not in history_html(history, shown=None, may_act=False)


def test_rounds_without_an_adapter_and_adapters_without_a_round_are_in_the_history(store):
    row = training_round(store, bundle="tiny")
    store.rounds.finish(row.id, WORKER, "failed", message="The disk is full.")
    store.adapters.add(NewAdapter(name="brought along", media_sha256=add_picture(store)), bundle="tiny")
    broken = store.adapters.add(NewAdapter(name="broken", media_sha256=add_picture(store)), bundle="tiny")
    store.adapters.mark_broken(broken.id, "its file is damaged")
    html = history_html(History.read(store, "tiny"), shown=None, may_act=True)
    assert "The disk is full." in html
    assert "brought along" in html
    assert "its file is damaged" in html
    assert f'data-action="use" data-id="{broken.id}"' not in html


def test_promote_and_go_back_with_a_note(studio, store, ada):
    _, first = finished(store, name="first")
    _, second = finished(store, "candidate", name="second")
    said = use_adapter(studio, second.id, by_id=ada, note=f"looks {HOSTILE}  better ")
    assert said == "Second is in use from the next generation on."
    use_adapter(studio, first.id, by_id=ada, note="")
    use_adapter(studio, BASE, by_id=ada, note="")
    assert store.adapters.active("tiny") is None
    history = History.read(store, "tiny")
    assert [row.adapter_id for row in history.activations] == [None, first.id, second.id, first.id]
    html = activations_html(history, {ada: "Ada"})
    assert HOSTILE not in html
    assert [word in html for word in ("Ada", "by rule", "looks &lt;img")] == [True, True, True]
    assert "“looks &lt;img" in history_html(history, shown=None, may_act=True)


def test_a_new_adapter_meets_the_current_one_at_once_and_the_outcome_counts(studio, store, ada):
    _, first = finished(store, name="first")
    _, second = finished(store, "candidate", name="second")
    duel = duel_of(store, second.id)
    assert duel == Duel(new=second.id, old=first.id)
    lineup = line_up(store, duel, ada)
    assert len(lineup) == 3
    assert line_up(store, duel, ada) == lineup  # asked again, nothing is made twice
    for comparison in store.comparisons.get_many(lineup):
        assert (comparison.kind, comparison.blind) == (ComparisonKind.ADAPTER, True)
        assert {one.generation.adapter_id for one in comparison.candidates} == {first.id, second.id}
        assert len({one.seed for one in comparison.candidates}) == 1
        place = [one.generation.adapter_id for one in comparison.candidates].index(second.id)
        store.picks.save(new_pick(comparison, ada, Outcome.RIGHT if place else Outcome.LEFT))
    html = reveal_html(studio, Judging(lineup=lineup), store.picks.latest(limit=1)[0])
    assert [name in html for name in ("first", "second", "image 1", "0.48")] == [True] * 4
    history = History.read(store, "tiny")
    assert duel_words(history, second.id) == ["preferred 100% (44% to 100%) of 3 blind against first"]
    assert duel_words(history, first.id) == ["preferred 0% (0% to 56%) of 3 blind against second"]


def test_an_adapter_in_use_meets_the_one_it_came_from(store, ada):
    _, first = finished(store, name="first")
    _, second = finished(store, name="second")
    assert duel_of(store, first.id) == Duel(new=first.id, old=second.id)
    assert duel_of(store, second.id) == Duel(new=second.id, old=first.id)
    assert duel_of(store, second.id).old == first.id
    store.adapters.activate("tiny", first.id)
    assert duel_of(store, first.id) == Duel(new=first.id, old=None)
    assert len(line_up(store, duel_of(store, first.id), ada)) == 3


def test_without_common_pictures_the_create_page_is_set_up_for_both(studio, store, ada):
    one, other = (
        store.adapters.add(NewAdapter(name=name, media_sha256=add_picture(store)), bundle="tiny")
        for name in ("one", "other")
    )
    store.adapters.activate("tiny", one.id)
    duel = duel_of(store, other.id)
    assert line_up(store, duel, ada) == ()
    with gr.Blocks():
        panel = run_settings.build(studio)
    values = as_side_b(studio, panel, duel)
    assert (values[panel.adapter]["value"], values[panel.other_adapter]["value"]) == (one.id, other.id)
    assert (values[panel.compare_with], values[panel.differs]) == (True, "adapter")


def test_before_and_after_need_both_sides(store):
    row, _ = finished(store, name="first")
    assert [(one.ab_side, other.ab_side) for one, other in before_and_after(store, row.id)] == [("A", "B")] * 3
    assert before_and_after(store, training_round(store, bundle="tiny").id) == []
