"""A studio behind names and passwords."""

from __future__ import annotations

import pytest

from tests.browser.acts import join, log_in, prepared_session, saved

pytestmark = pytest.mark.browser


def test_picks_are_kept_under_the_name_one_logged_in_with(locked_server, open_page):
    session = prepared_session(locked_server.store, "Behind the door", 2)
    page = open_page(locked_server.url)
    page.get_by_label("username").fill("grace")
    page.get_by_label("password").fill("wrong")
    page.get_by_role("button", name="Login").click()
    page.get_by_text("Incorrect Credentials").wait_for()
    assert page.get_by_role("tab", name="Create").count() == 0
    log_in(page)
    join(page, session, "Somebody else")
    page.keyboard.press("1")
    saved(page)
    (pick,) = (pick for pick in locked_server.store.picks.latest(limit=10) if pick.session_id == session.id)
    assert (pick.annotator.name, pick.annotator.origin) == ("grace", "login")
