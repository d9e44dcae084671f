"""The Create page in a real browser on the real application: from portraits to pictures, and back after a reload."""

from __future__ import annotations

import pytest

from tests.browser.acts import HOSTILE, generate, portrait, redrawn, slide, upload
from tests.browser.conftest import LONG_RUN_STEPS

pytestmark = pytest.mark.browser


def prompt_of(page) -> str:
    return page.locator("#prompt textarea").input_value()


def test_people_are_added_named_ordered_and_removed_and_one_of_several_faces_is_chosen(visit, server, tmp_path):
    page = visit()
    page.locator("#header .ready").wait_for()
    # Nothing is taken before somebody has agreed.
    page.locator("#portrait-files input[type=file]").set_input_files([portrait(tmp_path, "Ada.png")])
    page.get_by_text("Tick the line above first").wait_for()
    assert page.locator("#people li").count() == 0

    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    hostile = portrait(tmp_path, f"{HOSTILE.replace('/', '')}.png")
    upload(page, portrait(tmp_path, "Ada.png"), hostile)
    page.locator("#portrait-files input[type=file]").set_input_files([broken, portrait(tmp_path, "Grace.png", 60)])
    page.locator("#people li").nth(2).wait_for()
    assert "broken.jpg" in page.locator("#people-notice").inner_text()  # one sentence, and the others are kept
    names = page.locator("#people .middle > input")
    assert names.nth(0).input_value() == "Ada"
    assert "onerror" in names.nth(1).input_value()
    assert names.nth(2).input_value() == "Grace"

    page.locator("#people li").nth(2).drag_to(page.locator("#people li").nth(0))
    page.wait_for_function("document.querySelector('#people .middle > input').value === 'Grace'")
    assert names.nth(1).input_value() == "Ada"
    page.get_by_role("button", name="remove Grace").click()
    page.locator("#people li").nth(2).wait_for(state="detached")
    page.get_by_role("button", name="move up").nth(1).click()
    page.wait_for_function("document.querySelector('#people .middle > input').value !== 'Ada'")
    names.nth(0).fill("Lin")
    names.nth(0).press("Enter")
    faces = page.locator("#people li").nth(0).locator(".choice-faces button")
    other = 1 if faces.nth(0).get_attribute("aria-pressed") == "true" else 0
    faces.nth(other).click()
    page.wait_for_function(
        f"document.querySelectorAll('#people li:first-child .choice-faces button')[{other}].ariaPressed === 'true'"
    )
    page.reload()
    page.locator("#people li").nth(1).wait_for()
    assert [names.nth(number).input_value() for number in range(2)] == ["Lin", "Ada"]
    person = next(one for one in server.store.people.list() if one.name == "Lin")
    first, second = person.portraits
    assert first.box != second.box


def test_the_prompt_is_written_reviewed_edited_and_found_again(visit, tmp_path):
    page = visit()
    upload(page, portrait(tmp_path, "Ada.png"), portrait(tmp_path, "Grace.png", 60))
    page.locator("#scene textarea").fill("in a park")
    page.locator("#template-prompt").click()
    page.locator(".no-questions").wait_for()
    page.get_by_label("The same people at another age").check()
    page.get_by_text("Template takes them up").wait_for()
    page.locator("#people .age input").nth(1).fill("70")
    with redrawn(page, "#people li"):
        page.locator("#people .age input").nth(1).press("Enter")
    page.locator("#template-prompt").click()
    page.wait_for_function(
        "document.querySelector('#prompt textarea').value.includes('70-year-old person from image 2')"
    )

    page.locator("#prompt textarea").fill(f"Two women {HOSTILE}")
    page.locator(".underlined mark").first.wait_for()
    assert HOSTILE in page.locator(".underlined").inner_text()
    generate(page)
    page.locator("#template-prompt").click()
    page.wait_for_function("!document.querySelector('#prompt textarea').value.includes('Two women')")
    page.get_by_text("Your earlier prompts").click()
    page.locator("#prompt-history input").click()
    page.get_by_role("option", name="Two women").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.startsWith('Two women')")
    page.locator("#write-prompt").click()
    page.wait_for_function("!document.querySelector('#prompt textarea').value.startsWith('Two women')")


def test_sliders_correct_each_other_visibly_and_pictures_are_looked_at_closely(visit, server, tmp_path):
    page = visit()
    upload(page, portrait(tmp_path, "Ada.png"), portrait(tmp_path, "Grace.png", 60))
    page.locator('#timing [data-mode="gate"]').click()
    slide(page, "start", "0.8")
    assert "Gate end moved along to 0.80" in page.locator("#timing .timing-note").inner_text()
    slide(page, "end", "0.9")
    generate(page)  # the empty prompt is the template
    assert "image 2" in prompt_of(page)

    cards = page.locator("#pictures .card")
    assert cards.locator(".faces").count() == 0  # hidden until somebody has judged or looked
    page.locator("#reveal-evidence").click()
    cards.locator(".faces").nth(3).wait_for()
    page.locator("#pictures .card > img").nth(1).click()
    page.locator('#pictures .card:nth-child(2)[aria-current="true"]').wait_for()
    page.locator("#candidate summary", has_text=page.locator(".card-label").nth(1).inner_text()).wait_for()
    page.locator("#candidate summary").click()
    assert "gate-0.8-0.9" in page.locator("#candidate").inner_text()
    assert "face detail" in page.locator("#candidate").inner_text()
    page.locator("#similarity-matrix").click()
    page.locator("#matrix tbody tr").nth(1).wait_for()
    assert page.locator("#matrix tbody tr").nth(1).locator("td").count() == 3  # two people, three faces
    page.locator('#pictures .card[aria-current="true"] > img').click()
    page.locator("dialog.zoom[open]").wait_for()
    before = page.locator("dialog.zoom img").get_attribute("src")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog.zoom img").get_attribute("src") != before
    assert "scale(1.5)" in page.locator("dialog.zoom img").get_attribute("style")
    page.keyboard.press("Escape")
    page.locator("#favourite").click()
    page.locator("#favourite", has_text="★").wait_for()
    page.locator('#timing [data-mode="off"]').click()
    page.locator("#use-settings").click()
    page.locator('#timing [data-mode="gate"][aria-checked="true"]').wait_for()
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename.endswith(".png")
    page.locator("#over-each-other > button").click()
    page.locator("#image-slider img").nth(1).wait_for()


def test_a_run_is_cancelled_and_the_next_one_comes_to_its_end(visit, server, tmp_path):
    page = visit()
    # Opened long before anything is typed: a slider that is still being put on the page takes its default once more.
    page.get_by_text("Sampling", exact=True).click()
    upload(page, portrait(tmp_path, "Ada.png"))
    steps = page.locator("#steps input[type=number]")
    steps.fill(str(LONG_RUN_STEPS))
    steps.press("Enter")
    page.locator("#generate").click()
    page.locator("#status", has_text=f"of {LONG_RUN_STEPS}").wait_for()
    page.locator("#pictures .forming").first.wait_for()
    page.locator("#cancel").click()
    page.locator("#status", has_text="Cancelled").wait_for()
    page.locator("#generate").wait_for()
    steps.fill("2")
    steps.press("Enter")
    page.locator("#face-detail input").uncheck()
    generate(page)
    page.locator("#candidate summary").click()
    assert "decode" in page.locator("#candidate").inner_text()
    assert "face detail" not in page.locator("#candidate").inner_text()
    page.reload()
    page.locator("#pictures img.zoomable").first.wait_for()
    page.locator("#people li").first.wait_for()
    assert "image 1" in prompt_of(page)


def test_what_is_asked_while_the_models_are_being_read_waits_for_them(visit, server, tmp_path):
    server.kill()
    server.start()  # answers seconds before its models are read
    page = visit()
    page.locator("body.draft-is-here").wait_for()
    page.locator("#consent input").check()
    page.locator("#portrait-files input[type=file]").set_input_files(portrait(tmp_path, "Ada.png"))
    page.locator("#people li").first.wait_for()
    assert page.locator("#people-notice .problem").count() == 0
    generate(page)


def test_a_new_visitor_is_told_what_to_do(visit):
    page = visit()
    page.locator("body.draft-is-here").wait_for()  # what page load does must leave the page as it is
    assert page.locator("#generate").inner_text() == "Generate"
    page.locator("p.nothing-yet-title", has_text="Nothing made yet").wait_for()
    page.get_by_role("tab", name="Compare").click()
    page.locator("p.nothing-yet-title", has_text="Nothing to compare yet").wait_for()


def test_a_phone_scrolls_one_way_only(visit):
    page = visit(390, 844)
    page.locator("body.draft-is-here").wait_for()
    filled = {
        "Create": "#status p",
        "Compare": ".stage p",
        "Training": "#training-facts .fact",
        "Library": "#library-count p",
        "Insights": "#insights-summary p, #insights-summary .fact",
    }
    for tab, content in filled.items():
        page.get_by_role("tab", name=tab).click()
        page.locator(content).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab


def test_pictures_stay_in_sight_on_a_low_screen(visit, tmp_path):
    page = visit(1200, 420)
    upload(page, portrait(tmp_path, "Ada.png"), portrait(tmp_path, "Grace.png", 60))
    page.locator("#template-prompt").click()
    page.locator(".no-questions").wait_for()
    generate(page)
    page.get_by_role("button", name="Compare blind").wait_for()  # stands above them and leaves them too little height
    pictures = page.locator("#pictures img.zoomable").evaluate_all("all => all.map(one => one.getBoundingClientRect())")
    assert pictures
    assert all(picture["right"] <= 1200 and picture["width"] > 50 for picture in pictures)
