"""The Training page in a real browser: a round that runs, its end, promotion, a blind comparison of two adapters."""

import pytest
from PIL import Image

from core.backbones.bundles import load_bundle
from core.provenance import read_settings
from tests.studio.round_samples import WORKER, add_picks, finished_round, log, some_pairs, training_round
from tests.tiny_adapters import write_tiny_adapter
from tests.tiny_bundles import write_tiny_bundle
from trainers.stored_adapters import keep_adapter

pytestmark = pytest.mark.browser

BUNDLE = "tiny"


def open_training(page):
    page.get_by_role("tab", name="Training").click()
    page.locator(".history li").first.wait_for()


def test_rounds_from_the_first_pick_to_the_way_back(visit, server):
    store, page = server.store, visit()
    page.locator("#header .ready").wait_for()
    open_training(page)
    page.get_by_text("No round yet").wait_for()

    # A round is asked for, and one that waits is cancelled at once.
    add_picks(store, 6, bundle=BUNDLE)
    page.locator("#start-round").click()
    page.get_by_text("Waiting for a worker.").wait_for()
    page.locator("#cancel-round").click()
    page.locator("#round .badge.cancelled").wait_for()

    # What another process does appears by itself, until nothing is going on any more.
    row = training_round(store, bundle=BUNDLE, pairs=some_pairs(store))
    page.locator("#training-refresh").click()
    page.locator(f'.history button[data-action="show"][data-id="{row.id}"]').click()
    page.get_by_text("Step 60 of 100").wait_for()
    page.locator("#curves .js-plotly-plot").nth(3).wait_for()
    log(store, row.id, range(61, 81))
    store.rounds.heartbeat(row.id, WORKER, progress={"step": 80, "steps": 100, "seconds_left": 61.0})
    page.get_by_text("Step 80 of 100, about 1 min left").wait_for()
    page.locator("#pause-round").click()
    page.locator("#resume-round").wait_for()
    assert store.rounds.get(row.id).request == "pause"
    page.reload()
    open_training(page)
    page.locator("#resume-round").click()
    page.locator("#pause-round").wait_for()
    store.rounds.finish(row.id, WORKER, "failed", message="The disk is full <b>here</b>.")
    page.locator("#round", has_text="The disk is full <b>here</b>.").wait_for()
    page.locator("#pause-round").wait_for(state="hidden")


def test_promote_compare_blind_and_go_back(visit, server):
    store, page = server.store, visit()
    _, first = finished_round(store, name="first", bundle=BUNDLE)
    _, second = finished_round(store, "candidate", name="second", bundle=BUNDLE)
    open_training(page)
    page.locator(".evaluation tbody tr").nth(3).wait_for()
    page.locator("#cases .case img").nth(1).wait_for()
    assert "Faces by tiny" in page.locator("#evaluation").inner_text()

    page.locator("#promotion-note").locator("input, textarea").fill("warmer light")
    page.locator(f'button[data-action="use"][data-id="{second.id}"]').click()
    page.get_by_text("Second is in use from the next generation on.").wait_for()
    assert store.adapters.active(BUNDLE).id == second.id
    assert store.adapters.activations(BUNDLE)[0].note == "warmer light"

    # The page of adapters to choose from follows.
    page.get_by_role("tab", name="Create").click()
    page.wait_for_function("document.querySelector('#adapter input').value === 'Current (second)'")

    page.get_by_role("tab", name="Training").click()
    page.locator(f'button[data-action="compare"][data-id="{first.id}"]').click()
    page.locator(".stage-picture").nth(1).wait_for()
    before = store.insights.adapter_duels().get((first.id, second.id))
    page.keyboard.press("1")
    page.wait_for_function("document.querySelector('.stage-line')?.textContent === 'Saved.'")
    after = store.insights.adapter_duels()[first.id, second.id]
    assert after.total == (before.total if before else 0) + 1

    page.get_by_role("tab", name="Training").click()
    page.get_by_text(f"of {after.total} blind against second").first.wait_for()
    page.locator('button[data-action="use"][data-id="base"]').click()
    page.get_by_text("Base model is in use from the next generation on.").wait_for()
    assert store.adapters.active(BUNDLE) is None


def test_a_run_of_two_adapters_is_made_with_both(visit, server, tmp_path):
    store = server.store
    # The same as the server's, by its seed.
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle", face_detail=True))
    folder = write_tiny_adapter(bundle, tmp_path / "adapter", name="other")
    other = store.adapters.add(keep_adapter(store, folder), bundle=BUNDLE)
    page = visit()
    page.locator("#header .ready").wait_for()
    page.locator("#consent input").check()
    Image.effect_noise((128, 128), 40).convert("RGB").save(tmp_path / "Ada.png")
    page.locator("#portrait-files input[type=file]").set_input_files(tmp_path / "Ada.png")
    page.locator("#people li").first.wait_for()
    page.locator("#template-prompt").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('image 1')")
    page.locator("#ab input").check()
    page.locator("#b-differs label", has_text="Adapter").click()
    page.locator("#timing-b").wait_for(state="hidden")
    page.locator("#adapter-b input").click()
    page.get_by_role("option", name="other").click()
    page.locator("#generate").click()
    page.locator("#compare-blind").wait_for()
    sides = {row.ab_side: row for row in store.generations.latest(limit=2)}
    assert (sides["A"].adapter_id, sides["B"].adapter_id) == (None, other.id)
    assert sides["A"].seeds == sides["B"].seeds
    used = [read_settings(store.media.path(sides[side].candidates[0].media_sha256))["adapter"] for side in "AB"]
    assert (used[0], used[1]["name"]) == (None, "other")

    page.reload()
    page.wait_for_function("document.querySelector('#adapter-b input')?.value.startsWith('other')")
    page.locator("#compare-blind").click()
    page.locator(".stage-picture").nth(1).wait_for()


def test_the_training_page_of_a_phone_scrolls_one_way_only(visit, server):
    finished_round(server.store, "rejected", name="a name that is long enough to need two lines", bundle=BUNDLE)
    page = visit(390, 844)
    open_training(page)
    page.locator(".evaluation tbody tr").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
