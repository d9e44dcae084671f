"""Blind judging in real browsers, several at once, through reloads and a server that is killed."""

from __future__ import annotations

import pytest

from studio.store.models import SessionState
from tests.browser.acts import (
    HOSTILE,
    generate,
    join,
    little_pictures,
    open_compare,
    portrait,
    prepared_session,
    saved,
    shown,
    upload,
)

pytestmark = pytest.mark.browser


def picks_that_stand(store):
    return store.picks.latest(limit=1000)


def test_own_pictures_are_ranked_by_keyboard_undone_and_found_again_after_a_reload(visit, server, tmp_path):
    page = visit()
    page.get_by_role("button", name="Sampling").click()
    upload(page, portrait(tmp_path, "Ada.png"), portrait(tmp_path, "Grace.png", 60))
    page.locator("#size input").click()
    page.get_by_role("option", name="64 × 64").click()
    generate(page)
    page.locator("#compare-blind").click()
    page.locator(".stage-pictures.upright .stage-picture").nth(3).wait_for()
    heights = {picture.bounding_box()["y"] for picture in page.locator(".stage-picture").all()}
    assert len(heights) == 1  # four square pictures are seen side by side
    before = len(picks_that_stand(server.store))
    page.keyboard.press("z")
    page.locator("dialog.zoom[open]").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("z")
    page.locator("dialog.zoom[open]").wait_for(state="hidden")
    for key in "3", "1", "Enter":
        page.keyboard.press(key)
    saved(page)
    newest = picks_that_stand(server.store)
    assert len(newest) == before + 1  # on the disk when the page says so
    pick = newest[0]
    assert pick.latency_ms is not None
    assert pick.comparison.blind
    assert pick.ranking[:2] == [[pick.shown[2]], [pick.shown[0]]]
    page.locator(".reveal-card").first.wait_for()
    assert "anneal-hold-0.4" in page.locator("#reveal").inner_text()

    page.reload()
    page.locator("#pictures .faces").first.wait_for()  # judged, so nothing is hidden any more
    open_compare(page)
    page.get_by_text("Everything here is judged").wait_for()
    page.keyboard.press("u")
    page.locator(".stage-picture").first.wait_for()
    assert len(picks_that_stand(server.store)) == before


def test_two_annotators_at_once_get_different_pairs_and_every_key_works(visit, server):
    session = prepared_session(server.store, "Side by side", 12)
    ada, grace = visit(), visit()
    join(ada, session, f"Ada {HOSTILE}")
    join(grace, session, "Grace")
    assert shown(ada) != shown(grace)
    assert HOSTILE in ada.locator("#compare-status").inner_text()
    for key, outcome in (("ArrowLeft", "left"), ("2", "right"), ("t", "tie"), ("b", "both_bad")):
        ada.keyboard.press(key)
        saved(ada)
        assert server.store.picks.latest(limit=1)[0].outcome == outcome
    ada.keyboard.press("s")
    ada.keyboard.press("r")
    ada.keyboard.press("Shift+Digit1")
    ada.keyboard.press("1")
    assert ada.locator('.stage-picture[aria-pressed="true"]').count() == 1
    ada.keyboard.press("Enter")
    saved(ada)
    grace.keyboard.press("1")
    saved(grace)
    assert server.store.sessions.progress(session.id).picks_made == 6
    by_name = {pick.annotator.name: pick for pick in reversed(picks_that_stand(server.store))}
    assert by_name[f"Ada {HOSTILE}"].reasons == ["identity_lost"]
    assert by_name["Grace"].session_id == session.id
    server.store.sessions.set_state(session.id, SessionState.CLOSED)


def test_keys_pressed_faster_than_the_server_answers_are_all_kept(visit, server):
    session = prepared_session(server.store, "In a hurry", 3)
    page = visit()
    join(page, session, "Lee")
    for key in "1", "2", "1":
        page.keyboard.press(key)
    page.get_by_text("Nothing is left for you").wait_for()
    assert server.store.sessions.progress(session.id).picks_made == 3
    assert page.locator(".stage-undo").is_enabled()


def test_known_answers_and_repeats_are_mixed_in_and_sources_stay_hidden(visit, server):
    session = prepared_session(server.store, "Watched", 16, gold_share=0.45, repeat_share=0.54)
    better, worse = little_pictures(server.store, 2000)
    gold = server.store.comparisons.create([better, worse], kind="gold", gold_winner_id=better)
    server.store.sessions.add(session.id, [gold.id])
    page = visit()
    join(page, session, "Kay")
    seen = []
    while pair := page.locator(".stage-picture img").evaluate_all("images => images.map(image => image.src)"):
        seen.append(pair)
        page.keyboard.press("1")
        page.wait_for_function(
            """last => {
              const now = [...document.querySelectorAll('.stage-picture img')].map(image => image.src);
              const words = document.querySelector('.stage').innerText;
              return now.length ? now.join() !== last : words.includes('Nothing is left');
            }""",
            arg=",".join(pair),
        )
    repeated = [pair for number, pair in enumerate(seen) if pair[::-1] in seen[:number]]
    assert repeated
    assert len(seen) == 16 + 1 + len(repeated)
    kay = server.store.people.annotator("Kay").id
    progress = server.store.sessions.progress(session.id, kay)
    assert (progress.picks_made, progress.gold_seen) == (16, 1)
    assert "Sources stay hidden" in page.locator("#reveal").inner_text()


def test_a_pick_outlives_the_server(visit, server):
    session = prepared_session(server.store, "Before the crash", 3)
    page = visit()
    join(page, session, "Mo")
    page.keyboard.press("1")
    saved(page)
    server.kill()
    server.start()
    (pick,) = [one for one in picks_that_stand(server.store) if one.annotator.name == "Mo"]
    assert pick.session_id == session.id
    # the old page loads itself anew when the server answers again, whenever that is
    page = page.context.new_page()
    page.goto(server.url)
    open_compare(page)
    page.locator("#compare-status", has_text="1 by Mo").wait_for()
    page.keyboard.press("2")
    saved(page)
    assert server.store.sessions.progress(session.id).picks_made == 2
