"""A studio behind names and passwords."""

from __future__ import annotations

import pytest

from tests.browser.acts import prepared_session, saved

pytestmark = pytest.mark.browser


def test_picks_are_kept_under_the_name_one_logged_in_with(locked_server, open_page):
    session = prepared_session(locked_server.store, "Behind the door", 2)
    page = open_page(locked_server.url)
    page.get_by_label("username").fill("grace")
    page.get_by_label("password").fill("wrong")
    page.get_by_role("button", name="Login").click()
    page.get_by_text("Incorrect Credentials").wait_for()
    page.get_by_label("password").fill("hopper")
    page.get_by_role("button", name="Login").click()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#labelling > button").click()
    page.locator("#session input").click()
    page.get_by_role("option", name=session.name).click()
    page.locator("#join-session").click()
    page.locator(".stage-picture").first.wait_for()
    page.keyboard.press("1")
    saved(page)
    (pick,) = locked_server.store.picks.latest(limit=10)
    assert (pick.annotator.name, pick.annotator.origin) == ("grace", "login")
