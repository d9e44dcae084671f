"""Rounds and adapters: each round is done once, an adapter appears whole, and it knows where it came from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from studio.store import LeaseLost, NewAdapter, NewRoundPair, StoreError
from studio.store.models import Round, RoundState, utc_now
from studio.store.rounds import PairCounts
from tests.studio.store_samples import add_comparison, add_generation, add_person, new_pick

PATH = ("collecting", "training", "evaluating")


def new_adapter(store, name="first", **fields):
    return NewAdapter(name=name, media_sha256=store.media.add(name.encode(), ".safetensors"), **fields)


def run_round(store, pairs=(), *, state="promoted", parent=None, name="first"):
    """A round from queue to end; returns it and its adapter."""
    made = store.rounds.create("mini", {"beta": 2000}, parent_adapter_id=parent)
    store.rounds.claim("worker")
    for step in PATH:
        store.rounds.advance(made.id, "worker", step)
    store.rounds.save_pairs(made.id, "worker", pairs, snapshot_at=utc_now())
    adapter = store.rounds.finish(
        made.id, "worker", state, message="measured", adapter=new_adapter(store, name), metrics={"face_sim": 0.5}
    )
    return store.rounds.get(made.id), adapter


def silence(store, round_id):
    """Let the worker's lease run out."""
    with store.database.write() as session:
        values = {"lease_expires_at": utc_now() - timedelta(seconds=1)}
        session.execute(sa.update(Round).where(Round.id == round_id).values(**values))


def test_rounds_are_numbered_and_taken_up_in_order(store):
    first, second = store.rounds.create("mini"), store.rounds.create("mini")
    assert (first.number, second.number) == (1, 2)
    assert [store.rounds.claim(f"w{number}").id for number in range(2)] == [first.id, second.id]
    assert store.rounds.claim("w3") is None
    assert [row.id for row in store.rounds.live(bundle="mini")] == [first.id, second.id]
    assert [row.id for row in store.rounds.list()] == [second.id, first.id]


def test_many_workers_take_a_round_once(store):
    made = [store.rounds.create("mini").id for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda number: store.rounds.claim(f"w{number}"), range(8)))
    assert sorted(row.id for row in claims if row is not None) == sorted(made)


def test_a_silent_workers_round_goes_on_where_it_was(store):
    made = store.rounds.create("mini", {"steps": 10})
    store.rounds.claim("first")
    store.rounds.advance(made.id, "first", "collecting")
    store.rounds.advance(made.id, "first", "training")
    store.rounds.heartbeat(
        made.id, "first", progress={"step": 4}, checkpoint_path="rounds/1/4", log_path="rounds/1/log"
    )
    assert store.rounds.claim("second") is None
    silence(store, made.id)
    taken = store.rounds.claim("second")
    assert (taken.id, taken.state, taken.attempts) == (made.id, "training", 2)
    assert (taken.progress, taken.checkpoint_path, taken.config) == ({"step": 4}, "rounds/1/4", {"steps": 10})
    for call in (
        lambda: store.rounds.heartbeat(made.id, "first"),
        lambda: store.rounds.advance(made.id, "first", "evaluating"),
        lambda: store.rounds.log_steps(made.id, "first", {1: {}}),
        lambda: store.rounds.finish(made.id, "first", "failed", message="x"),
    ):
        with pytest.raises(LeaseLost, match="belongs to 'second'"):
            call()


@pytest.mark.parametrize("skipped", ["training", "evaluating"])
def test_states_are_not_skipped(store, skipped):
    made = store.rounds.create("mini")
    store.rounds.claim("w")
    with pytest.raises(StoreError, match="cannot become"):
        store.rounds.advance(made.id, "w", skipped)
    with pytest.raises(StoreError, match="out of an evaluation"):
        store.rounds.finish(made.id, "w", "promoted", message="", adapter=new_adapter(store))


def test_an_end_fits_its_adapter(store):
    made = store.rounds.create("mini")
    store.rounds.claim("w")
    with pytest.raises(StoreError, match="has an adapter"):
        store.rounds.finish(made.id, "w", "rejected", message="")
    with pytest.raises(StoreError, match="has no adapter"):
        store.rounds.finish(made.id, "w", "failed", message="", adapter=new_adapter(store))
    with pytest.raises(StoreError, match="use advance"):
        store.rounds.finish(made.id, "w", "training", message="")
    store.rounds.finish(made.id, "w", "failed", message="the disk is full")
    ended = store.rounds.get(made.id)
    assert (ended.state, ended.message, ended.lease_owner) == ("failed", "the disk is full", None)
    with pytest.raises(LeaseLost, match="ended as failed"):
        store.rounds.heartbeat(made.id, "w")


@pytest.mark.parametrize(("state", "active"), [("promoted", True), ("candidate", False), ("rejected", False)])
def test_only_a_promoted_adapter_becomes_active(store, state, active):
    ended, adapter = run_round(store, state=state)
    assert (ended.state, adapter.state, ended.metrics) == (state, state, {"face_sim": 0.5})
    assert (store.adapters.active("mini") is not None) is active
    assert (store.adapters.get(adapter.id).promoted_at is not None) is active


def test_a_failed_end_leaves_nothing_behind(store):
    made = store.rounds.create("mini")
    store.rounds.claim("w")
    for step in PATH:
        store.rounds.advance(made.id, "w", step)
    unknown = NewAdapter(name="x", media_sha256="0" * 64)
    with pytest.raises(sa.exc.IntegrityError):
        store.rounds.finish(made.id, "w", "promoted", message="", adapter=unknown)
    assert store.rounds.get(made.id).state is RoundState.EVALUATING
    assert store.adapters.list() == []
    assert store.adapters.active("mini") is None


def test_cancel_pause_and_go_on(store):
    waiting, running = store.rounds.create("mini"), store.rounds.create("mini")
    assert store.rounds.ask(waiting.id, "cancel").state == "cancelled"
    assert store.rounds.claim("w").id == running.id
    store.rounds.ask(running.id, "pause")
    assert store.rounds.heartbeat(running.id, "w") == "pause"
    store.rounds.release(running.id, "w", message="paused")
    assert store.rounds.claim("w") is None
    store.rounds.ask(running.id, "run")
    assert store.rounds.claim("w").id == running.id
    assert store.rounds.ask(running.id, "cancel").state == "queued"
    assert store.rounds.heartbeat(running.id, "w") == "cancel"
    store.rounds.finish(running.id, "w", "cancelled", message="asked to")
    with pytest.raises(StoreError, match="nothing to pause"):
        store.rounds.ask(running.id, "pause")


def test_a_round_knows_the_tasks_it_trains_on(store):
    made = store.rounds.create("mini")
    store.rounds.claim("w")
    pairs = []
    for task, kept in (("group", True), ("child", True), ("child", True), ("group", False)):
        generation = add_generation(store, task=task)
        a, b = (candidate.media_sha256 for candidate in generation.candidates)
        pairs.append(
            NewRoundPair(origin="pick", chosen_sha256=a, rejected_sha256=b, kept=kept, generation_id=generation.id)
        )
    rendered = NewRoundPair(origin="rendered", chosen_sha256=a, rejected_sha256=b, kept=True)
    for snapshot, tasks in ((pairs, ["child", "group"]), (pairs[1:], ["child"]), ([rendered], [])):
        store.rounds.save_pairs(made.id, "w", snapshot, snapshot_at=utc_now())
        assert store.rounds.tasks(made.id) == tasks


def test_steps_logged_again_replace_the_old_ones(store):
    made = store.rounds.create("mini")
    store.rounds.claim("w")
    store.rounds.log_steps(made.id, "w", {step: {"loss": step} for step in range(5)})
    store.rounds.log_steps(made.id, "w", {step: {"loss": -step} for step in (3, 4, 5)})
    assert [row.metrics["loss"] for row in store.rounds.steps(made.id)] == [0, 1, 2, -3, -4, -5]
    assert [row.step for row in store.rounds.steps(made.id, after=3)] == [4, 5]


def test_pairs_are_a_snapshot_with_reasons(store):
    made = store.rounds.create("mini")
    store.rounds.claim("w")
    a, b = (candidate.media_sha256 for candidate in add_generation(store).candidates)
    kept = NewRoundPair(
        origin="perturbed-noise", chosen_sha256=a, rejected_sha256=b, kept=True, deltas={"identity": 0.2}
    )
    dropped = NewRoundPair(origin="pick", chosen_sha256=b, rejected_sha256=a, kept=False, drop_reason="too close")
    at = utc_now()
    store.rounds.save_pairs(made.id, "w", [dropped], snapshot_at=at)
    store.rounds.save_pairs(made.id, "w", [kept, dropped, dropped], snapshot_at=at)
    assert [row.kept for row in store.rounds.pairs(made.id)] == [True, False, False]
    assert [row.deltas for row in store.rounds.pairs(made.id, kept=True)] == [{"identity": 0.2}]
    assert store.rounds.dropped(made.id) == {"too close": 2}
    assert store.rounds.pair_counts([made.id]) == {made.id: PairCounts(kept=1, dropped=2, picks=0)}
    assert store.rounds.get(made.id).snapshot_at == at


def test_new_picks_are_those_no_round_has_looked_at(store):
    ada = store.people.annotator("Ada").id
    for _ in range(3):
        store.picks.save(new_pick(add_comparison(store), ada))
    assert store.rounds.new_picks("mini") == 3
    made = store.rounds.create("mini")
    store.rounds.claim("w")
    store.rounds.save_pairs(made.id, "w", [], snapshot_at=utc_now())
    assert store.rounds.new_picks("mini") == 0
    store.picks.save(new_pick(add_comparison(store), ada))
    assert store.rounds.new_picks("mini") == 1
    store.rounds.finish(made.id, "w", "failed", message="x")
    assert store.rounds.new_picks("mini") == 4


def test_a_round_is_due_once_and_not_again_after_it_failed(store):
    ada = store.people.annotator("Ada").id
    _, active = run_round(store)
    for _ in range(3):
        store.picks.save(new_pick(add_comparison(store), ada))
    assert store.rounds.create_when_due("mini", 4) is None
    with ThreadPoolExecutor(8) as pool:
        made = [row for row in pool.map(lambda _: store.rounds.create_when_due("mini", 3), range(8)) if row]
    assert [row.parent_adapter_id for row in made] == [active.id]
    store.rounds.claim("w")
    store.rounds.finish(made[0].id, "w", "failed", message="the disk was full")
    assert store.rounds.new_picks("mini") == 3
    assert store.rounds.create_when_due("mini", 1) is None
    store.picks.save(new_pick(add_comparison(store), ada))
    assert store.rounds.create_when_due("mini", 1).number == made[0].number + 1


def test_a_worker_takes_up_rounds_of_its_own_models(store):
    store.rounds.create("other")
    assert store.rounds.claim("w", bundle="mini") is None
    assert store.rounds.claim("w", bundle="other").bundle == "other"


def test_an_evaluation_goes_back_to_training_and_its_pictures_get_the_adapter(store):
    made = store.rounds.create("mini")
    store.rounds.claim("w")
    for step in (*PATH, *PATH[1:]):
        store.rounds.advance(made.id, "w", step)
    pictures = {
        side: add_generation(store, purpose="evaluation", round_id=made.id, ab_side=side, options={"key": side})
        for side in ("A", "B")
    }
    adapter = store.rounds.finish(made.id, "w", "candidate", message="", adapter=new_adapter(store))
    assert store.generations.get(pictures["A"].id).adapter_id is None
    assert store.generations.get(pictures["B"].id).adapter_id == adapter.id
    assert store.generations.evaluated("B").id == pictures["B"].id
    assert store.generations.evaluated("C") is None


def test_rolling_back_and_forth_is_history(store):
    ada = store.people.annotator("Ada").id
    _, first = run_round(store)
    _, second = run_round(store, parent=first.id, name="second")
    assert store.adapters.active("mini").id == second.id
    store.adapters.activate("mini", first.id, by_id=ada, note="looks better")
    assert store.adapters.active("mini").id == first.id
    store.adapters.activate("mini", None)
    assert store.adapters.active("mini") is None
    assert [row.adapter_id for row in store.adapters.activations("mini")] == [None, first.id, second.id, first.id]
    with pytest.raises(StoreError, match="belongs to mini"):
        store.adapters.activate("other", first.id)


def test_a_person_may_promote_against_the_rule(store):
    _, rejected = run_round(store, state="rejected")
    store.adapters.activate("mini", rejected.id, note="I looked")
    active = store.adapters.active("mini")
    assert (active.id, active.state) == (rejected.id, "promoted")


def test_a_broken_adapter_gives_way_to_the_one_before(store):
    _, first = run_round(store)
    _, second = run_round(store, parent=first.id, name="second")
    assert store.adapters.mark_broken(second.id, "its file is damaged").id == first.id
    assert store.adapters.active("mini").id == first.id
    with pytest.raises(StoreError, match="its file is damaged"):
        store.adapters.activate("mini", second.id)
    assert store.adapters.mark_broken(first.id, "gone too") is None
    assert store.adapters.active("mini") is None


def test_an_adapter_traces_back_to_picks_seeds_schedules_and_portraits(store):
    ada = store.people.annotator("Ada").id
    _, portrait = add_person(store)
    generation = add_generation(store, [portrait], schedule="gate-0.3-0.6")
    chosen, rejected = generation.candidates
    pick = store.picks.save(new_pick(store.comparisons.create([chosen.id, rejected.id]), ada))
    of_pick = NewRoundPair(
        origin="pick",
        chosen_sha256=chosen.media_sha256,
        rejected_sha256=rejected.media_sha256,
        chosen_candidate_id=chosen.id,
        rejected_candidate_id=rejected.id,
        generation_id=generation.id,
        pick_id=pick.id,
        kept=True,
    )
    other = add_generation(store, schedule="off").candidates
    unused = NewRoundPair(
        origin="generated",
        chosen_sha256=other[0].media_sha256,
        rejected_sha256=other[1].media_sha256,
        chosen_candidate_id=other[0].id,
        rejected_candidate_id=other[1].id,
        kept=False,
        drop_reason="too close",
    )
    _, first = run_round(store, [of_pick, unused])
    _, second = run_round(store, parent=first.id, name="second")
    assert store.rounds.pair_counts([first.round_id]) == {first.round_id: PairCounts(kept=1, dropped=1, picks=1)}
    newest, oldest = store.adapters.lineage(second.id)
    assert (newest.adapter.id, newest.pick_ids, newest.round.number) == (second.id, (), 2)
    assert (oldest.adapter.id, oldest.pick_ids) == (first.id, (pick.id,))
    assert (oldest.seeds, oldest.schedules, oldest.portrait_ids) == ((0, 1), ("gate-0.3-0.6",), (portrait.id,))
    assert oldest.candidate_ids == tuple(sorted((chosen.id, rejected.id)))


def test_notes_and_evaluations(store):
    adapter = store.adapters.add(new_adapter(store, config={"rank": 8}), bundle="mini")
    store.adapters.set_note(adapter.id, "warm light")
    store.adapters.save_evaluation(adapter.id, {"face_sim": [0.4, 0.5]})
    (found,) = store.adapters.list(bundle="mini")
    assert (found.note, found.evaluation, found.config) == ("warm light", {"face_sim": [0.4, 0.5]}, {"rank": 8})
    assert found.round is None
