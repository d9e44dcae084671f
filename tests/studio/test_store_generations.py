"""Generations: states, prompts, gallery."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from studio.store import GalleryFilter, NewAdapter, NewGeneration, StoreError
from studio.store.models import Generation, new_id, utc_now
from tests.studio.store_samples import add_generation, add_person, add_picture

SETTINGS = {
    "task": "group",
    "prompt": "image 1 waves",
    "schedule": "gate-0.3-0.6",
    "strength": 0.8,
    "steps": 8,
    "guidance": 1.0,
    "identity_guidance": 1.0,
    "width": 128,
    "height": 96,
    "seeds": [7, 8],
    "bundle": "mini",
}


def test_a_generation_keeps_everything_needed_to_repeat_it(store):
    portraits = [add_person(store, name)[1] for name in ("Ada", "Bob")]
    ids = [portraits[1].id, portraits[0].id]
    made = store.generations.create(
        NewGeneration(**SETTINGS, portrait_ids=ids, target_ages=(6, None), options={"negative_prompt": "blur"})
    )
    found = store.generations.get(made.id)
    assert [reference.portrait_id for reference in found.references] == ids
    assert [reference.portrait.person.name for reference in found.references] == ["Bob", "Ada"]
    assert [reference.target_age for reference in found.references] == [6, None]
    kept = {name: getattr(found, name) for name in SETTINGS if name != "prompt"}
    assert kept == {name: value for name, value in SETTINGS.items() if name != "prompt"}
    assert (found.prompt.text, found.schedule_mode, found.state) == ("image 1 waves", "gate", "queued")
    assert found.options == {"negative_prompt": "blur"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": "sometimes"}, "sometimes"),
        ({"seeds": []}, "seed"),
        ({"prompt": "  "}, "prompt"),
        ({"portrait_ids": ["gone"]}, "gone"),
        ({"target_ages": (3,)}, "target ages"),
    ],
)
def test_settings_that_make_no_sense_are_refused_and_leave_nothing(store, change, words):
    with pytest.raises(StoreError, match=words):
        store.generations.create(NewGeneration(**(SETTINGS | change)))
    assert store.generations.latest() == []
    assert store.generations.prompt_history(None) == []


def test_a_generation_goes_one_way(store):
    done = add_generation(store)
    assert (done.state, [candidate.seed for candidate in done.candidates]) == ("done", [0, 1])
    for move in (store.generations.start, store.generations.cancel):
        with pytest.raises(StoreError, match="is done and cannot become"):
            move(done.id)
    with pytest.raises(StoreError, match="cannot become done"):
        store.generations.finish(done.id, [])
    with pytest.raises(StoreError, match="does not exist"):
        store.generations.start("absent")


def test_only_runs_nobody_works_on_are_recovered(store):
    silent, alive, waiting = (store.generations.create(NewGeneration(**SETTINGS)).id for _ in range(3))
    for generation_id in (silent, alive):
        store.generations.start(generation_id)
    with store.database.write() as session:
        session.execute(
            sa.update(Generation).where(Generation.id == silent).values(heartbeat_at=utc_now() - timedelta(hours=1))
        )
    assert store.generations.somebody_generates()
    store.generations.heartbeat(alive)
    assert store.generations.recover_interrupted() == 1
    states = {row.id: row.state for row in store.generations.latest()}
    assert states == {silent: "failed", alive: "running", waiting: "queued"}
    assert "stopped" in store.generations.get(silent).message
    store.generations.cancel(alive)
    store.generations.cancel(waiting, "not needed")
    assert not store.generations.somebody_generates()
    store.generations.create(NewGeneration(**SETTINGS, purpose="evaluation"))
    assert not store.generations.somebody_generates()


def test_another_adapter_than_the_one_asked_for(store):
    adapter = store.adapters.add(NewAdapter(name="one", media_sha256=add_picture(store)), bundle="mini")
    made = store.generations.create(NewGeneration(**SETTINGS, adapter_id=adapter.id))
    store.generations.set_adapter(made.id, None)
    assert store.generations.get(made.id).adapter_id is None


def test_prompt_history_has_each_text_once_newest_first(store):
    ada = store.people.annotator("Ada")
    for prompt in ("first", "second", "first"):
        store.generations.create(NewGeneration(**(SETTINGS | {"prompt": prompt, "author_id": ada.id})))
    assert [prompt.text for prompt in store.generations.prompt_history(ada.id)] == ["first", "second"]
    assert store.generations.prompt_history(store.people.annotator("Bob").id) == []


def test_ab_run_gives_both_sides_in_order(store):
    group = new_id()
    for side in ("B", "A"):
        add_generation(store, ab_group=group, ab_side=side)
    assert [row.ab_side for row in store.generations.ab_group(group)] == ["A", "B"]


def test_gallery_pages_through_everything_once(store):
    made = [candidate.id for _ in range(3) for candidate in add_generation(store, candidates=3).candidates]
    add_generation(store, purpose="evaluation")
    seen, before = [], None
    while page := store.generations.gallery(before=before, limit=4):
        seen += [candidate.id for candidate in page]
        before = page[-1].id
    assert sorted(seen) == sorted(made)
    assert seen == sorted(made, reverse=True)
    assert store.generations.count() == len(made)


def test_gallery_filters(store):
    ada = store.people.annotator("Ada")
    person, portrait = add_person(store)
    plain = add_generation(store, prompt="image 1 by the sea, 100% calm")
    shown = add_generation(store, [portrait], task="child", schedule="gate-0.3-0.6", author_id=ada.id)
    star = shown.candidates[1].id
    store.generations.set_favourite(star, True)

    def found(**wanted: object) -> set[str]:
        rows = store.generations.gallery(GalleryFilter(**wanted))
        assert len(rows) == store.generations.count(GalleryFilter(**wanted))
        return {candidate.id for candidate in rows}

    of_plain, of_shown = ({candidate.id for candidate in row.candidates} for row in (plain, shown))
    assert found() == of_plain | of_shown
    assert found(task="child") == found(person_id=person.id) == found(author_id=ada.id) == of_shown
    assert found(schedule_mode="anneal") == found(words="CALM Sea") == found(words="100%") == of_plain
    assert found(words="%") == of_plain
    assert found(words="_") == set()
    assert found(favourites=True) == {star}
    assert found(since=utc_now()) == set()
    assert found(until=utc_now()) == of_plain | of_shown


def test_the_bin_hides_and_gives_back(store):
    first, second = add_generation(store).candidates
    store.generations.hide([first.id])
    assert [candidate.id for candidate in store.generations.gallery()] == [second.id]
    assert [candidate.id for candidate in store.generations.gallery(GalleryFilter(deleted=True))] == [first.id]
    store.generations.restore([first.id])
    assert store.generations.count() == 2


def test_measurements_made_later_add_to_the_others(store):
    candidate = add_generation(store).candidates[0]
    store.generations.save_metrics(candidate.id, metrics={"clip": 0.3}, aesthetic=5.5)
    store.generations.save_metrics(candidate.id, metrics={"object": 0.4})
    found = store.generations.candidate(candidate.id)
    assert (found.metrics, found.aesthetic, found.face_sim) == ({"clip": 0.3, "object": 0.4}, 5.5, 0.5)
