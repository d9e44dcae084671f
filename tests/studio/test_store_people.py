"""Annotators, consents, people and portraits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sqlalchemy as sa

from studio.store import NewPortrait, StoreError
from studio.store.models import Portrait
from tests.studio.store_samples import add_person, add_picture


def test_an_annotator_is_made_once_even_by_many_at_once(store):
    with ThreadPoolExecutor(8) as pool:
        ids = {annotator.id for annotator in pool.map(lambda _: store.people.annotator("  Ada  Lovelace "), range(16))}
    assert len(ids) == 1
    assert [annotator.name for annotator in store.people.annotators()] == ["Ada Lovelace"]


def test_a_typed_name_is_not_a_logged_in_one(store):
    assert store.people.annotator("Ada").id != store.people.annotator("Ada", "login").id


@pytest.mark.parametrize("name", ["", "  \n", "a" * 201])
def test_names_that_cannot_be_are_refused(store, name):
    with pytest.raises(StoreError):
        store.people.annotator(name)
    with pytest.raises(StoreError):
        store.people.add_person(name)


def test_a_portrait_comes_back_as_it_was(store):
    person, portrait = add_person(store)
    (found,) = store.people.portraits([portrait.id])
    assert found.person.name == "Ada"
    np.testing.assert_array_equal(found.embedding, np.array([0.6, 0.8], np.float32))
    assert found.box == [1, 2, 30, 40]
    assert found.landmarks[2] == [7, 8]
    assert [row.id for row in store.people.get(person.id).portraits] == [portrait.id]


def test_portraits_keep_the_order_asked_for(store):
    ids = [add_person(store, name)[1].id for name in ("Ada", "Bob", "Cleo")]
    wanted = [ids[2], ids[0], ids[1]]
    assert [portrait.id for portrait in store.people.portraits(wanted)] == wanted
    with pytest.raises(StoreError, match="absent"):
        store.people.portraits([ids[0], "absent"])


def test_an_upload_needs_a_consent(store):
    person = store.people.add_person("Ada")
    fields = {
        "picture_sha256": add_picture(store),
        "crop_sha256": add_picture(store),
        "box": (0, 0, 1, 1),
        "landmarks": [],
    }
    with pytest.raises(StoreError, match="consent"):
        store.people.add_portrait(person.id, NewPortrait(**fields))
    assert store.people.add_portrait(person.id, NewPortrait(**fields, origin="example")).consent_id is None
    # The database itself holds the rule, whoever writes.
    with pytest.raises(sa.exc.IntegrityError), store.database.write() as session:
        session.execute(sa.update(Portrait).values(origin="upload"))


def test_consent_is_to_one_sentence(store):
    ada = store.people.annotator("Ada")
    given = store.people.give_consent("These are mine.", ada.id)
    assert store.people.latest_consent(ada.id, "These are mine.").id == given.id
    assert store.people.latest_consent(ada.id, "Another sentence.") is None


def test_people_are_listed_by_owner(store):
    ada, bob = store.people.annotator("Ada"), store.people.annotator("Bob")
    add_person(store, "of Ada", owner_id=ada.id)
    add_person(store, "of Bob", owner_id=bob.id)
    assert [person.name for person in store.people.list(owner_id=ada.id)] == ["of Ada"]
    assert [person.name for person in store.people.list()] == ["of Bob", "of Ada"]


def test_renaming(store):
    person, _ = add_person(store)
    store.people.rename(person.id, " Grace  Hopper ")
    assert store.people.get(person.id).name == "Grace Hopper"
    with pytest.raises(StoreError, match="absent"):
        store.people.rename("absent", "x")


def test_what_was_not_loaded_says_so(store):
    person, _ = add_person(store)
    with pytest.raises(sa.exc.InvalidRequestError, match="lazy"):
        store.people.list()[0].portraits[0].person  # noqa: B018
    assert store.people.get(person.id)


def test_references_made_from_a_file_are_found(store):
    _, portrait = add_person(store)
    assert store.people.references_from(["0" * 64]) == {portrait.picture_sha256}
    assert store.people.references_from(["1" * 64]) == set()
