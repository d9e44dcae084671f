"""The Library page in a real browser: filters, bin, export and import, and the deletion of a person."""

from __future__ import annotations

import pytest

from studio.store import StoreError
from tests.browser.acts import HOSTILE, prepared_session
from tests.studio.store_samples import add_person, new_pick

pytestmark = pytest.mark.browser


def open_library(page):
    page.get_by_role("tab", name="Library").click()
    page.locator("#library-count p").first.wait_for()


def test_pictures_go_to_the_bin_and_come_back(visit, server):
    prepared_session(server.store, "To look at", 1)
    page = visit()
    open_library(page)
    page.locator("#library-gallery img").first.wait_for()
    page.locator("#library-gallery .thumbnail-item").first.click()
    page.locator(".library-picture").wait_for()
    page.locator("#library-hide").click()
    page.locator(".library-picture").wait_for(state="detached")
    page.locator("#library-bin input").check()
    page.locator("#library-count", has_text="1 picture").wait_for()
    page.locator("#library-gallery .thumbnail-item").first.click()
    page.locator("#library-hide", has_text="Take back").click()
    page.get_by_text("The bin is empty").wait_for()


def test_what_was_exported_can_be_imported(visit, server, tmp_path):
    session = prepared_session(server.store, "To send", 2)
    ada = server.store.people.annotator("Ada").id
    (given,) = server.store.sessions.claim(session.id, ada, count=1)
    server.store.picks.save(new_pick(given.comparison, ada, lease_id=given.lease_id))
    page = visit()
    open_library(page)
    page.locator("#library-data > button").click()
    page.get_by_label("Everything, to move to another studio").check()
    page.locator("#export").click()
    with page.expect_download() as download:
        page.locator("#exported").click()
    assert download.value.suggested_filename == "idglow-archive.zip"
    path = tmp_path / "archive.zip"
    download.value.save_as(path)
    before = server.store.picks.count()
    page.locator("#import input[type=file]").set_input_files(path)
    page.locator("#import-report", has_text="0 rows added").wait_for()
    assert server.store.picks.count() == before


def test_a_person_is_deleted_after_a_count_with_all_that_came_of_them(visit, server):
    person, _ = add_person(server.store, f"Mira {HOSTILE}")
    page = visit()
    open_library(page)
    page.locator("#library-people > button").click()
    page.locator("#people-gallery .thumbnail-item", has_text="Mira").click()
    page.locator("#deletion-preview", has_text="1 portrait").wait_for()  # counted before anything is asked
    assert server.store.people.get(person.id)
    page.locator("#delete-person").click()
    page.locator("#deletion-preview", has_text="is deleted").wait_for()
    with pytest.raises(StoreError):
        server.store.people.get(person.id)
