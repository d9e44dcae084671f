"""Picks: kept once, superseded never overwritten, taken apart into the pairs they mean."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from studio.store import StoreError
from studio.store.models import Pick, new_id, utc_now
from tests.studio.store_samples import add_comparison, add_generation, new_pick


@pytest.fixture
def ada(store):
    return store.people.annotator("Ada").id


def pairs_of(store, pick):
    (found,) = [row for row in store.picks.standing() if row.id == pick.id]
    return {(pair.left_id, pair.right_id): pair.left_score for pair in found.pairs}


@pytest.mark.parametrize(
    ("outcome", "score", "winner"), [("left", 1, 0), ("right", 0, 1), ("tie", 0.5, None), ("both_bad", 0.5, None)]
)
def test_outcomes_of_two(store, ada, outcome, score, winner):
    comparison = add_comparison(store)
    shown = [candidate.id for candidate in reversed(comparison.candidates)]
    pick = store.picks.save(new_pick(comparison, ada, outcome, shown=shown, reasons=["light", "light"], note="x"))
    assert pairs_of(store, pick) == {tuple(shown): score}
    assert pick.winner_position == winner
    assert pick.winner_id == (None if winner is None else shown[winner])
    # The order on the screen was the reverse of the comparison's own.
    assert pick.choice == (outcome if winner is None else str(1 - winner))
    assert (pick.reasons, pick.note, pick.standing) == (["light"], "x", "counted")


def test_a_ranking_becomes_all_pairs(store, ada):
    a, b, c, d = (candidate.id for candidate in add_generation(store, candidates=4).candidates)
    comparison = store.comparisons.create([a, b, c, d])
    pick = store.picks.save(new_pick(comparison, ada, "ranking", shown=[d, c, b, a], ranking=[[b], [a, d], [c]]))
    assert pairs_of(store, pick) == {(d, c): 1, (d, b): 0, (d, a): 0.5, (c, b): 0, (c, a): 0, (b, a): 1}
    assert (pick.winner_id, pick.winner_position, pick.size) == (b, 2, 4)


def test_the_same_request_twice_is_one_pick(store, ada):
    new = new_pick(add_comparison(store), ada)
    with ThreadPoolExecutor(8) as pool:
        ids = {pick.id for pick in pool.map(store.picks.save, [new] * 16)}
    assert len(ids) == 1
    assert store.picks.count() == 1


def test_a_second_thought_supersedes_the_first(store, ada):
    comparison = add_comparison(store)
    first = store.picks.save(new_pick(comparison, ada, "left"))
    second = store.picks.save(new_pick(comparison, ada, "right"))
    history = store.picks.of_comparison(comparison.id)
    assert [(pick.id, pick.standing, pick.superseded_by) for pick in history] == [
        (first.id, "superseded", second.id),
        (second.id, "counted", None),
    ]
    assert [pick.id for pick in store.picks.counted()] == [second.id]
    assert store.picks.count() == 1


def test_two_people_may_pick_on_the_same_comparison(store, ada):
    comparison = add_comparison(store)
    store.picks.save(new_pick(comparison, ada))
    store.picks.save(new_pick(comparison, store.people.annotator("Bob").id))
    assert store.picks.count() == 2


def test_undo_keeps_history_and_counts_nothing(store, ada):
    first = store.picks.save(new_pick(add_comparison(store), ada))
    second = store.picks.save(new_pick(add_comparison(store), ada))
    assert store.picks.undo_last(ada).id == second.id
    assert store.picks.undo_last(ada).id == first.id
    assert store.picks.undo_last(ada) is None
    assert store.picks.undo(first.id).standing == "superseded"
    assert store.picks.count() == 0
    assert store.picks.standing() == []
    assert store.picks.get(first.id).outcome == "left"


def test_gold_answers_are_kept_apart(store, ada):
    generation = add_generation(store)
    good, bad = (candidate.id for candidate in generation.candidates)
    gold = store.comparisons.create([good, bad], kind="gold", gold_winner_id=good)
    pick = store.picks.save(new_pick(gold, ada))
    assert pick.standing == "gold"
    assert pairs_of(store, pick) == {}
    assert store.picks.count() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"comparison_id": "absent"}, "does not exist"),
        ({"shown": ["a", "b"]}, "not those of the comparison"),
        ({"outcome": "ranking"}, "exactly once"),
        ({"outcome": "ranking", "ranking": [["a"], []]}, "exactly once"),
        ({"ranking": [["a"], ["b"]]}, "outcome 'ranking'"),
        ({"lease_id": "absent"}, "not this annotator's lease"),
    ],
)
def test_answers_that_do_not_fit_are_refused(store, ada, change, words):
    new = replace(new_pick(add_comparison(store), ada), **change)
    with pytest.raises(StoreError, match=words):
        store.picks.save(new)
    assert store.picks.count() == 0


def test_left_of_three_means_nothing(store, ada):
    comparison = store.comparisons.create([c.id for c in add_generation(store, candidates=3).candidates])
    with pytest.raises(StoreError, match="send a ranking"):
        store.picks.save(new_pick(comparison, ada, "left"))


def test_comparisons_show_two_to_four_different_candidates(store):
    ids = [candidate.id for candidate in add_generation(store, candidates=5).candidates]
    for wrong in (ids[:1], ids, [ids[0], ids[0]], [ids[0], "absent"]):
        with pytest.raises(StoreError):
            store.comparisons.create(wrong)
    with pytest.raises(StoreError, match="gold"):
        store.comparisons.create(ids[:2], gold_winner_id=ids[3])


def test_a_comparison_brings_all_that_is_shown_after_the_vote(store):
    generation = add_generation(store)
    comparison = store.comparisons.create([candidate.id for candidate in generation.candidates])
    for candidate in comparison.candidates:
        assert candidate.generation.prompt.text == generation.prompt.text
    assert [row.id for row in store.comparisons.of_generation(generation.id)] == [comparison.id]


def test_order_within_comparisons_is_shuffled(store):
    ids = [candidate.id for candidate in add_generation(store).candidates]
    orders = {tuple(c.id for c in store.comparisons.create(ids).candidates) for _ in range(20)}
    assert len(orders) == 2


def test_prepare_pairs_neighbours_and_ab_counterparts_once(store):
    plain = [candidate.id for candidate in add_generation(store, candidates=3).candidates]
    group = new_id()
    sides = [add_generation(store, ab_group=group, ab_side=side).candidates for side in ("A", "B")]
    add_generation(store, purpose="evaluation")
    hidden = add_generation(store).candidates
    store.generations.hide([hidden[0].id])
    comparisons = store.comparisons.get_many(store.comparisons.prepare())
    found = {(row.kind.value, frozenset(c.id for c in row.candidates)) for row in comparisons}
    assert found == {
        ("generation", frozenset(plain[:2])),
        ("generation", frozenset(plain[1:])),
        ("ab", frozenset((sides[0][0].id, sides[1][0].id))),
        ("ab", frozenset((sides[0][1].id, sides[1][1].id))),
    }
    assert store.comparisons.prepare() == []


def test_picks_are_paged_for_training(store, ada):
    made = [store.picks.save(new_pick(add_comparison(store), ada)).id for _ in range(5)]
    foreign = add_generation(store, bundle="other")
    other = store.comparisons.create([candidate.id for candidate in foreign.candidates])
    until = utc_now()
    store.picks.save(new_pick(other, ada))
    seen, after = [], None
    while page := store.picks.counted(after=after, bundle="mini", limit=2):
        seen += [pick.id for pick in page]
        after = page[-1].id
    assert seen == made
    assert store.picks.count(bundle="mini") == 5
    assert store.picks.count(since=until) == store.picks.count(bundle="other") == 1
    assert len(store.picks.counted(until=until)) == 5
    pick = store.picks.latest(annotator_id=ada, limit=1)[0]
    assert pick.comparison.candidates[0].generation.bundle == "other"
    assert pick.annotator.name == "Ada"


def test_the_database_itself_allows_one_counted_pick_each(store, ada):
    comparison = add_comparison(store)
    first = store.picks.save(new_pick(comparison, ada))
    store.picks.save(new_pick(comparison, ada))
    with pytest.raises(sa.exc.IntegrityError), store.database.write() as session:
        session.execute(sa.update(Pick).where(Pick.id == first.id).values(standing="counted"))
