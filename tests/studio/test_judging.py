"""Who is asked what next, on a real store."""

import pytest

from studio.judging import Judging, decide, known_answers, line_up, of_adapters, questions, skip, undo
from studio.store import StoreError
from studio.store.models import ComparisonKind, Standing, new_id
from tests.studio.store_samples import add_comparison, add_generation, new_pick


def answer(question, outcome="left", **more):
    shown = [candidate.id for candidate in question.candidates]
    values = {"request": new_id(), "comparison": question.comparison_id, "lease": question.lease_id, "shown": shown}
    return values | {"outcome": outcome} | more


@pytest.fixture
def ada(store):
    return store.people.annotator("Ada")


@pytest.mark.parametrize(("candidates", "sizes"), [(1, []), (2, [2]), (4, [4]), (5, [2, 3]), (9, [3, 3, 3])])
def test_candidates_of_a_generation_are_ranked_up_to_four_at_a_time(store, ada, candidates, sizes):
    made = line_up(store, [add_generation(store, candidates=candidates)], ada.id)
    assert [len(store.comparisons.get(one).candidates) for one in made] == sizes


def test_sides_of_an_ab_run_meet_seed_by_seed_and_lining_up_again_makes_nothing_new(store, ada):
    group = new_id()
    sides = [add_generation(store, ab_group=group, ab_side=side, candidates=3) for side in "AB"]
    made = line_up(store, sides, ada.id)
    for comparison in store.comparisons.get_many(made):
        assert comparison.kind is ComparisonKind.AB
        assert len({candidate.seed for candidate in comparison.candidates}) == 1
        assert {candidate.generation.ab_side for candidate in comparison.candidates} == {"A", "B"}
    assert line_up(store, sides, ada.id) == made


def test_what_was_judged_blind_stays_and_the_rest_is_asked_with_open_eyes(store, ada):
    """After the evidence was seen."""
    group = new_id()
    sides = [add_generation(store, ab_group=group, ab_side=side, candidates=2) for side in "AB"]
    judged, open_ = line_up(store, sides, ada.id)
    store.picks.save(new_pick(store.comparisons.get(judged), ada.id))
    again = line_up(store, sides, ada.id, blind=False)
    assert again[0] == judged
    assert again[1] != open_
    assert [store.comparisons.get(one).blind for one in again] == [True, False]
    assert line_up(store, sides, ada.id, blind=False) == again


def test_pictures_in_the_bin_are_not_lined_up_nor_asked(store, ada):
    generation = add_generation(store, candidates=3)
    made = tuple(line_up(store, [generation], ada.id))
    store.generations.hide([generation.candidates[0].id])
    assert questions(store, Judging(lineup=made), ada.id) == []
    remade = line_up(store, [store.generations.get(generation.id)], ada.id)
    assert len(store.comparisons.get(remade[0]).candidates) == 2


def test_a_lineup_is_worked_through_with_skip_and_undo(store, ada):
    made = tuple(add_comparison(store).id for _ in range(3))
    judging = Judging(lineup=made)
    first, second, third = questions(store, judging, ada.id)
    judging, pick = decide(store, judging, ada.id, answer(first, reasons=["light"], latency=1234))
    assert (pick.winner_id, pick.latency_ms, pick.reasons) == (first.candidates[0].id, 1234, ["light"])
    judging = skip(store, judging, ada.id, answer(second))
    assert [one.comparison_id for one in questions(store, judging, ada.id)] == [third.comparison_id]
    judging, undone = undo(store, judging, ada.id)  # the skip
    assert undone
    assert [one.comparison_id for one in questions(store, judging, ada.id)] == list(made[1:])
    judging, undone = undo(store, judging, ada.id)  # the pick
    assert [one.comparison_id for one in questions(store, judging, ada.id)] == list(made)
    assert store.picks.get(pick.id).standing is Standing.SUPERSEDED
    assert undo(store, judging, ada.id) == (judging, False)


def test_the_same_request_twice_is_one_pick_and_a_stale_page_is_not_asked_again(store, ada):
    judging = Judging(lineup=(add_comparison(store).id, add_comparison(store).id))
    first, second = questions(store, judging, ada.id)
    sent = answer(first)
    assert decide(store, judging, ada.id, sent)[1].id == decide(store, judging, ada.id, sent)[1].id
    assert [one.comparison_id for one in questions(store, judging, ada.id)] == [second.comparison_id]


@pytest.mark.parametrize("wrong", [{"outcome": "first"}, {"reasons": ["<script>"]}, {"shown": ["x", "y"]}])
def test_answers_that_do_not_fit_are_refused_and_nothing_is_kept(store, ada, wrong):
    judging = Judging(lineup=(add_comparison(store).id,))
    (question,) = questions(store, judging, ada.id)
    with pytest.raises((StoreError, ValueError)):
        decide(store, judging, ada.id, answer(question) | wrong)
    assert store.picks.count() == 0


def test_two_annotators_of_a_session_get_different_pairs(store):
    session = store.sessions.create("together")
    store.sessions.add(session.id, [add_comparison(store).id for _ in range(6)])
    judging = Judging(session=session.id)
    asked = [
        {one.comparison_id for one in questions(store, judging, store.people.annotator(name).id)}
        for name in ("Ada", "Grace")
    ]
    assert len(asked[0]) == len(asked[1]) == 3
    assert not asked[0] & asked[1]


def test_a_session_takes_picks_skips_and_undo(store, ada):
    session = store.sessions.create("alone")
    store.sessions.add(session.id, [add_comparison(store).id for _ in range(3)])
    judging = Judging(session=session.id)
    first, second, third = questions(store, judging, ada.id)
    decide(store, judging, ada.id, answer(first, "tie"))
    skip(store, judging, ada.id, answer(second))
    assert [one.lease_id for one in questions(store, judging, ada.id)] == [third.lease_id]
    assert undo(store, judging, ada.id)[1]
    assert questions(store, judging, ada.id)[0].lease_id == second.lease_id


def test_known_answers_come_from_clear_picks_and_are_made_once(store, ada):
    clear, tied = add_comparison(store), add_comparison(store)
    pick = store.picks.save(new_pick(clear, ada.id))
    store.picks.save(new_pick(tied, ada.id, "tie"))
    (gold,) = known_answers(store, ada.id, 5)
    assert store.comparisons.get(gold).gold_winner_id == pick.winner_id
    assert known_answers(store, ada.id, 5) == [gold]
    assert known_answers(store, ada.id, 0) == []


@pytest.mark.parametrize("state", [None, 3, {}, {"session": 5, "lineup": "abc", "done": [1], "annotator": ["x"]}])
def test_a_browser_may_send_anything(state):
    assert Judging.read(state) == Judging()


def test_a_place_survives_the_browser():
    judging = Judging(annotator="Ada", session="s", lineup=("a" * 32,), done=("b" * 32,))
    assert Judging.read(judging.write()) == judging


def test_a_line_up_of_adapters_is_told_from_one_of_pictures(store, ada):
    """Also when the pictures of its first comparison were deleted."""
    pictures = [add_comparison(store) for _ in range(2)]
    duels = [add_comparison(store, kind=ComparisonKind.ADAPTER) for _ in range(2)]
    assert not of_adapters(store, Judging(lineup=tuple(one.id for one in pictures)))
    assert of_adapters(store, Judging(lineup=tuple(one.id for one in duels)))
    store.deletions.delete_generations([duels[0].candidates[0].generation_id])
    assert of_adapters(store, Judging(lineup=tuple(one.id for one in duels)))
    assert not of_adapters(store, Judging())
