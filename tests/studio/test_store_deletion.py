"""Deleting a person leaves nothing of them, and nobody else loses anything."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from studio.store import NewRoundPair, StoreError
from studio.store.models import Base, Media, utc_now
from tests.studio.store_samples import add_generation, add_person, new_pick
from tests.studio.test_store_rounds import new_adapter, run_round


def counts(store):
    with store.database.read() as session:
        return {
            table.name: session.scalar(sa.select(sa.func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
        }


def files(store):
    return {path.stem for path in store.media.folder.rglob("*") if path.suffix in (".png", ".safetensors")}


def live(store, portraits, ada, *, schedule="off", **settings):
    """Two compared generations with everything that can hang on them; returns one and a pair of its candidates."""
    generation = add_generation(store, portraits, schedule=schedule, **settings)
    chosen, rejected = generation.candidates
    comparison = store.comparisons.create([chosen.id, rejected.id])
    session = store.sessions.create("Evening")
    store.sessions.add(session.id, [comparison.id])
    (assignment,) = store.sessions.claim(session.id, ada)
    pick = store.picks.save(new_pick(comparison, ada, lease_id=assignment.lease_id))
    return generation, NewRoundPair(
        origin="pick",
        chosen_sha256=chosen.media_sha256,
        rejected_sha256=rejected.media_sha256,
        chosen_candidate_id=chosen.id,
        rejected_candidate_id=rejected.id,
        generation_id=generation.id,
        pick_id=pick.id,
        kept=True,
    )


def test_deleting_a_person_is_as_if_they_had_never_been(store):
    ada = store.people.annotator("judge").id
    _, portrait_of_bob = add_person(store, "Bob")
    live(store, [portrait_of_bob], ada, prompt="image 1 is Bob")
    before, files_before = counts(store), files(store)

    person, portrait = add_person(store, "Ada")
    live(store, [portrait], ada, prompt="image 1 is Ada")
    live(store, [portrait_of_bob, portrait], ada, prompt="image 1 is Bob, image 2 is Ada")
    store.generations.save_prompt("Ada alone", task="group", origin="written", person_ids=[person.id])
    alone = add_generation(store, [portrait]).candidates
    store.comparisons.create([alone[0].id, add_generation(store, [portrait_of_bob]).candidates[0].id])
    middle = counts(store)
    preview = store.deletions.preview_person(person.id)
    assert counts(store) == middle
    deleted = store.deletions.delete_person(person.id)
    assert deleted == preview

    left = counts(store)
    remaining = {"generations": 1, "candidates": 2, "generation_portraits": 1, "sessions": 2, "consents": 1}
    # The default prompt was used for Bob as well, and his plain generation stays.
    remaining |= {"media": 2, "prompts": 1, "prompt_people": 1}
    assert left == {name: before[name] + remaining.get(name, 0) for name in before}
    assert len(files(store)) == len(files_before) + 2
    assert files_before <= files(store)
    assert (deleted.portraits, deleted.generations, deleted.candidates, deleted.picks) == (1, 3, 6, 2)
    assert deleted.comparisons == 3
    assert deleted.prompts == 3
    assert [row.name for row in store.people.list()] == ["Bob"]
    with pytest.raises(StoreError, match="already"):
        store.deletions.delete_person(person.id)
    with store.database.read() as session:
        assert set(session.scalars(sa.select(Media.sha256))) == files(store)


def test_adapters_and_rounds_that_learned_from_a_person_are_marked(store):
    judge = store.people.annotator("judge").id
    (ada, of_ada), (_, of_bob) = add_person(store, "Ada"), add_person(store, "Bob")
    _, pair_of_ada = live(store, [of_ada], judge)
    _, pair_of_bob = live(store, [of_bob], judge)
    untouched, _ = run_round(store, [pair_of_bob], name="of Bob")
    touched, first = run_round(store, [pair_of_ada, pair_of_bob], name="of both")
    run_round(store, [pair_of_bob], parent=first.id, name="child")
    running = store.rounds.create("mini")
    store.rounds.claim("w")
    store.rounds.save_pairs(running.id, "w", [pair_of_ada], snapshot_at=utc_now())

    deleted = store.deletions.delete_person(ada.id)
    assert deleted.round_ids == tuple(sorted((touched.id, running.id)))
    assert deleted.adapter_names == ("of both", "child")
    assert deleted.pairs == 2
    marked = {row.name for row in store.adapters.list() if row.data_deleted_at is not None}
    assert marked == {"of both", "child"}
    assert store.rounds.get(untouched.id).data_deleted_at is None
    assert len(store.rounds.pairs(touched.id)) == 1
    assert store.rounds.pairs(running.id) == []
    # An adapter that comes out of the round afterwards is marked from the start.
    for state in ("collecting", "training", "evaluating"):
        store.rounds.advance(running.id, "w", state)
    late = store.rounds.finish(running.id, "w", "candidate", message="", adapter=new_adapter(store, "late"))
    assert late.data_deleted_at is not None


def test_a_picture_that_two_share_stays_until_both_are_gone(store):
    (ada, of_ada), (bob, of_bob) = add_person(store, "Ada"), add_person(store, "Bob")
    for portrait in (of_ada, of_bob):
        add_generation(store, [portrait], content=[b"the same", b"the same"])
    shared = store.media.add(b"the same", ".png")
    store.deletions.delete_person(ada.id)
    assert store.media.read(shared) == b"the same"
    store.deletions.delete_person(bob.id)
    assert files(store) == set()


def test_deleting_generations_and_candidates(store):
    judge = store.people.annotator("judge").id
    _, portrait = add_person(store)
    kept, _ = live(store, [portrait], judge)
    gone, _ = live(store, [portrait], judge)
    assert store.deletions.preview_generations([gone.id]) == store.deletions.delete_generations([gone.id])
    assert [row.id for row in store.generations.latest()] == [kept.id]
    assert store.picks.count() == 1
    first, second = kept.candidates
    deleted = store.deletions.delete_candidates([first.id])
    assert (deleted.candidates, deleted.picks, deleted.files, deleted.generations) == (1, 1, 1, 0)
    assert [candidate.id for candidate in store.generations.get(kept.id).candidates] == [second.id]
    assert store.picks.count() == 0
    assert store.deletions.delete_candidates(["absent"]).candidates == 0


def test_a_running_generation_of_a_deleted_person_cannot_end(store):
    person, portrait = add_person(store)
    running = add_generation(store, [portrait])
    store.deletions.delete_person(person.id)
    with pytest.raises(StoreError, match="deleted"):
        store.generations.finish(running.id, [])
