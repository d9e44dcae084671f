"""The Library page in a real browser: filters, bin, export and import, and the deletion of a person."""

from __future__ import annotations

import pytest

from studio.store import StoreError
from studio.transfer import EXPORTS
from tests.browser.acts import HOSTILE, log_in, prepared_session
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


def test_everything_exported_can_be_imported_in_another_studio(visit, open_page, server, locked_server, tmp_path):
    session = prepared_session(server.store, "To send", 2)
    ada = server.store.people.annotator("Ada").id
    (given,) = server.store.sessions.claim(session.id, ada, count=1)
    pick = server.store.picks.save(new_pick(given.comparison, ada, lease_id=given.lease_id))
    page = visit()
    open_library(page)
    page.locator("#library-data > button").click()
    for label, name in EXPORTS.values():
        page.get_by_label(label).check()
        page.locator("#export").click()
        page.locator("#import-report", has_text=name).wait_for()
        with page.expect_download() as download:
            page.locator("#exported").click()
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)

    other = open_page(locked_server.url)
    log_in(other)
    open_library(other)
    other.locator("#library-data > button").click()
    with pytest.raises(StoreError):
        locked_server.store.picks.get(pick.id)
    for archive in (EXPORTS["archive"][1], EXPORTS["parquet"][1]):
        other.locator("#import input[type=file]").set_input_files(tmp_path / archive)
        other.locator("#import-report", has_text=archive).wait_for()
    assert "0 picks added" in other.locator("#import-report").inner_text()  # the archive brought them already
    arrived = locked_server.store.picks.get(pick.id)
    assert (arrived.winner_id, arrived.annotator.name) == (pick.winner_id, "Ada")
    assert all(locked_server.store.media.read(one.media_sha256) for one in arrived.comparison.candidates)


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
