"""Labelling sessions: everybody gets something else, nothing is lost, nothing is asked too often."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.store import StoreError
from studio.store.models import Lease, LeaseState, QueueItem, Standing, utc_now
from tests.studio.store_process import start_annotator
from tests.studio.store_samples import add_comparison, add_generation, new_pick


def open_session(store, comparisons=4, **settings):
    """A session with comparisons of one generation (quick to make), and their ids in queue order."""
    candidates = [candidate.id for candidate in add_generation(store, candidates=comparisons + 1).candidates]
    ids = [store.comparisons.create(pair).id for pair in pairwise(candidates)]
    session = store.sessions.create("Evening", **settings)
    store.sessions.add(session.id, ids)
    return session.id, ids


def judge(store, assignment, annotator_id, outcome="left"):
    return store.picks.save(new_pick(assignment.comparison, annotator_id, outcome, lease_id=assignment.lease_id))


def expire_leases(store):
    with store.database.write() as session:
        session.execute(sa.update(Lease).values(expires_at=utc_now() - timedelta(seconds=1)))


@pytest.fixture
def ada(store):
    return store.people.annotator("Ada").id


@pytest.fixture
def bob(store):
    return store.people.annotator("Bob").id


def test_two_people_get_different_comparisons(store, ada, bob):
    session, ids = open_session(store)
    of_ada, of_bob = (store.sessions.claim(session, who) for who in (ada, bob))
    assert [a.comparison.id for a in (*of_ada, *of_bob)] == ids
    assert store.sessions.claim(session, store.people.annotator("Cleo").id) == []


def test_a_reloaded_page_shows_the_same_again(store, ada):
    session, _ = open_session(store)
    first, again = store.sessions.claim(session, ada), store.sessions.claim(session, ada)
    assert [(a.lease_id, a.shown) for a in first] == [(a.lease_id, a.shown) for a in again]


def test_the_next_is_what_was_loaded_ahead(store, ada):
    session, ids = open_session(store)
    seen = []
    while assignments := store.sessions.claim(session, ada, count=2):
        judge(store, assignments[0], ada)
        seen.append([a.comparison.id for a in assignments])
    assert seen == [ids[:2], ids[1:3], ids[2:4], ids[3:]]


def test_overlap_asks_so_many_different_people(store):
    session, ids = open_session(store, 3, overlap=2)
    people = [store.people.annotator(name).id for name in ("Ada", "Bob", "Cleo")]
    asked = Counter()
    while any(batches := [store.sessions.claim(session, who, count=1) for who in people]):
        for who, batch in zip(people, batches, strict=True):
            for assignment in batch:
                asked[assignment.comparison.id, who] += 1
                judge(store, assignment, who)
    assert set(asked.values()) == {1}
    assert Counter(comparison for comparison, _ in asked) == dict.fromkeys(ids, 2)
    assert store.sessions.progress(session).picks_made == store.sessions.progress(session).picks_wanted == 6


def test_an_expired_lease_goes_to_somebody_else(store, ada, bob):
    session, ids = open_session(store, 1)
    (held,) = store.sessions.claim(session, ada)
    assert store.sessions.claim(session, bob) == []
    expire_leases(store)
    (taken,) = store.sessions.claim(session, bob)
    assert taken.comparison.id == ids[0]
    # Ada comes back: the comparison is Bob's now, but an answer she had already given is kept.
    assert store.sessions.claim(session, ada) == []
    judge(store, taken, bob)
    with pytest.raises(StoreError, match="not this annotator's lease"):
        judge(store, held, ada)
    assert store.picks.count() == 1


def test_an_answer_after_the_lease_ran_out_is_kept(store, ada, bob):
    session, _ = open_session(store, 1)
    (held,) = store.sessions.claim(session, ada)
    expire_leases(store)
    (taken,) = store.sessions.claim(session, bob)
    judge(store, held, ada)
    judge(store, taken, bob)
    assert store.picks.count() == 2


def test_an_expired_lease_nobody_else_took_is_renewed(store, ada):
    session, _ = open_session(store, 1)
    (held,) = store.sessions.claim(session, ada)
    expire_leases(store)
    (again,) = store.sessions.claim(session, ada)
    assert again.lease_id == held.lease_id
    assert again.expires_at > utc_now()


def test_skipping_gives_it_to_others_only(store, ada, bob):
    session, ids = open_session(store, 2)
    store.sessions.skip(store.sessions.claim(session, ada)[0].lease_id, ada)
    assert [a.comparison.id for a in store.sessions.claim(session, ada)] == ids[1:]
    assert [a.comparison.id for a in store.sessions.claim(session, bob)] == ids[:1]
    assert store.sessions.progress(session, ada).skipped == 1
    with pytest.raises(StoreError, match="not one of this annotator's"):
        store.sessions.skip(store.sessions.claim(session, bob)[0].lease_id, ada)


def test_undo_brings_back_what_was_last_decided(store, ada, bob):
    session, ids = open_session(store, 3)
    judge(store, store.sessions.claim(session, ada)[0], ada)
    store.sessions.skip(store.sessions.claim(session, ada)[0].lease_id, ada)
    assert store.sessions.undo(session, ada).comparison.id == ids[1]
    assert store.sessions.undo(session, ada).comparison.id == ids[0]
    assert store.sessions.undo(session, ada) is None
    progress = store.sessions.progress(session, ada)
    assert (progress.picks_made, progress.mine, progress.skipped) == (0, 0, 0)
    assert [a.comparison.id for a in store.sessions.claim(session, ada)] == ids[:2]
    assert store.picks.count() == 0
    assert store.sessions.undo(session, bob) is None


def test_undo_of_a_pick_gives_its_place_back(store, ada):
    session, ids = open_session(store, 1)
    pick = judge(store, store.sessions.claim(session, ada)[0], ada)
    assert store.sessions.claim(session, ada) == []
    store.picks.undo(pick.id)
    assert store.sessions.claim(session, ada)[0].comparison.id == ids[0]
    judge(store, store.sessions.claim(session, ada)[0], ada, "right")
    assert store.sessions.progress(session, ada).picks_made == 1


def test_gold_comes_in_between_and_only_once(store, ada):
    session, ids = open_session(store, 12, gold_share=0.5)
    good, bad = (candidate.id for candidate in add_generation(store).candidates)
    gold = store.comparisons.create([good, bad], kind="gold", gold_winner_id=good).id
    store.sessions.add(session, [gold])
    seen = []
    while assignments := store.sessions.claim(session, ada, count=1):
        judge(store, assignments[0], ada)
        seen.append(assignments[0].comparison.id)
    assert Counter(seen) == dict.fromkeys([*ids, gold], 1)
    assert seen[-1] != gold
    progress = store.sessions.progress(session, ada)
    assert (progress.comparisons, progress.picks_made, progress.gold_seen) == (12, 12, 1)


def test_repeats_reverse_the_sides_and_come_late(store, ada):
    session, ids = open_session(store, 20, repeat_share=0.4)
    shown, standings = {}, Counter()
    order = []
    while assignments := store.sessions.claim(session, ada, count=1):
        (assignment,) = assignments
        pick = judge(store, assignment, ada)
        standings[pick.standing] += 1
        if pick.standing is Standing.REPEAT:
            assert assignment.shown == tuple(reversed(shown[assignment.comparison.id]))
            assert len(order) - order.index(assignment.comparison.id) > 5
        shown[assignment.comparison.id] = assignment.shown
        order.append(assignment.comparison.id)
    assert standings[Standing.COUNTED] == len(ids)
    assert standings[Standing.REPEAT] > 1
    assert max(Counter(order).values()) == 2
    assert store.sessions.progress(session, ada).picks_made == len(ids)


def test_sides_are_drawn_for_everybody_anew(store):
    session, _ = open_session(store, 1, overlap=20)
    people = [store.people.annotator(f"judge {number}").id for number in range(20)]
    assert len({store.sessions.claim(session, who)[0].shown for who in people}) == 2


def test_hidden_pictures_are_not_handed_out(store, ada):
    session, ids = open_session(store, 2)
    first, second = (comparison.candidates for comparison in store.comparisons.get_many(ids))
    (only_in_first,) = {c.id for c in first} - {c.id for c in second}
    store.generations.hide([only_in_first])
    assert [a.comparison.id for a in store.sessions.claim(session, ada)] == ids[1:]


def test_a_closed_session_hands_out_nothing_and_takes_answers(store, ada):
    session, _ = open_session(store)
    held = store.sessions.claim(session, ada)[0]
    store.sessions.set_state(session, "closed")
    assert store.sessions.claim(session, ada) == []
    judge(store, held, ada)
    assert store.picks.count() == 1
    assert store.sessions.list() == []
    assert [row.id for row in store.sessions.list(state=None)] == [session]


def test_adding_again_changes_nothing(store):
    session, ids = open_session(store)
    extra = add_comparison(store).id
    assert store.sessions.add(session, [*ids, extra, extra]) == 1
    assert store.sessions.progress(session).comparisons == len(ids) + 1
    with pytest.raises(StoreError, match="absent"):
        store.sessions.add(session, ["absent"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": " "},
        {"overlap": 0},
        {"gold_share": -0.1},
        {"gold_share": 0.6, "repeat_share": 0.4},
        {"lease_seconds": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(store, wrong):
    with pytest.raises(StoreError):
        store.sessions.create(**({"name": "Evening"} | wrong))


def test_many_threads_never_share_a_comparison(store):
    session, ids = open_session(store, 24)
    people = [store.people.annotator(f"judge {number}").id for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda who: store.sessions.claim(session, who, count=3), people))
    claimed = [assignment.comparison.id for claim in claims for assignment in claim]
    assert sorted(claimed) == sorted(ids)


def test_two_processes_share_the_queue(store, store_place, ada, bob):
    session, ids = open_session(store, 30)
    started = [start_annotator(store_place, session, who) for who in (ada, bob)]
    lines = [line.split() for process in started for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in started] == [0, 0]
    claimed = Counter(what for word, what in lines if word == "claimed")
    assert claimed == dict.fromkeys(ids, 1)
    assert store.picks.count() == len(ids)


def test_killed_annotators_lose_no_pick_that_was_kept(store, store_place, ada):
    session, ids = open_session(store, 120)
    rng = random.Random(1)
    kept = []
    for _ in range(3):
        process = start_annotator(store_place, session, ada)
        wanted = rng.randint(2, 8)
        mine = []
        while len(mine) < wanted:
            word, what = process.stdout.readline().split()
            if word == "kept":
                mine.append(what)
        # SIGKILL, somewhere in the next claim or pick.
        process.kill()
        rest = process.communicate()[0].splitlines()
        kept += mine + [line.split()[1] for line in rest if line.startswith("kept ") and len(line) == 37]
    found = {pick.id for pick in store.picks.counted()}
    assert set(kept) <= found
    # One pick may have been kept without having been said each time, and nothing is there by halves.
    assert len(kept) <= len(found) <= len(kept) + 3
    assert store.sessions.progress(session).picks_made == len(found)
    with store.database.read() as opened:
        done = opened.scalar(sa.select(sa.func.sum(QueueItem.done)))
        finished = opened.scalar(sa.select(sa.func.count()).where(Lease.state == LeaseState.PICKED))
        if store.database.is_sqlite:
            assert opened.execute(sa.text("PRAGMA integrity_check")).scalar() == "ok"
    assert done == finished == len(found)
    assert len(ids) > len(found)


ACTIONS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["pick", "skip", "undo", "expire"])), max_size=25)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS, st.integers(1, 3))
def test_whatever_people_do_the_counts_add_up(store, actions, overlap):
    session, ids = open_session(store, 4, overlap=overlap, repeat_share=0.3)
    people = [store.people.annotator(f"judge {number}").id for number in range(3)]
    for person, action in actions:
        who = people[person]
        if action == "expire":
            expire_leases(store)
        elif action == "undo":
            store.sessions.undo(session, who)
        else:
            for assignment in store.sessions.claim(session, who, count=1):
                if action == "pick":
                    judge(store, assignment, who)
                else:
                    store.sessions.skip(assignment.lease_id, who)
    with store.database.read() as opened:
        done = dict(
            opened.execute(
                sa.select(QueueItem.comparison_id, QueueItem.done).where(QueueItem.session_id == session)
            ).all()
        )
    standing = Counter(
        pick.comparison_id
        for comparison_id in ids
        for pick in store.picks.of_comparison(comparison_id)
        if pick.standing is Standing.COUNTED
    )
    assert done == {comparison_id: standing[comparison_id] for comparison_id in ids}
    # Taking a skip back may ask once more than needed.
    if "undo" not in {action for _, action in actions}:
        assert all(count <= overlap for count in done.values())
