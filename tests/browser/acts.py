"""What a person does on the page, each ending when the page says it is done: conditions, never times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from tests.studio.picture_bytes import png
from tests.studio.store_samples import add_generation

HOSTILE = "<img src=x onerror=alert(1)>"


def portrait(folder: Path, name: str, shade: int = 0) -> Path:
    """A file in which the constant face pack finds its three faces."""
    path = folder / name
    Image.effect_noise((128, 128), 40).point(lambda value: min(255, value + shade)).convert("RGB").save(path)
    return path


def upload(page, *paths: Path) -> None:
    page.locator("#header .ready").wait_for()
    count = page.locator("#people li").count()
    if page.locator("#consent input").is_visible():
        page.locator("#consent input").check()
    page.locator("#portrait-files input[type=file]").set_input_files(list(paths))
    page.locator("#people li").nth(count + len(paths) - 1).wait_for()


def generate(page) -> None:
    """Press Generate and wait for the pictures of this run."""
    shown = page.evaluate("[...document.querySelectorAll('#pictures img.zoomable')].map(image => image.src)")
    page.locator("#generate").click()
    page.wait_for_function(
        """before => {
          const now = [...document.querySelectorAll('#pictures img.zoomable')].map(image => image.src);
          return now.length > 0 && now.every(one => !before.includes(one));
        }""",
        arg=shown,
    )
    page.locator("#generate").wait_for()


@contextmanager
def redrawn(page, selector: str) -> Iterator[None]:
    """Wait until the page has drawn anew what matches, in answer to what is done inside."""
    page.locator(selector).first.evaluate("element => element.dataset.before = 'yes'")
    yield
    page.locator(f"{selector}[data-before]").wait_for(state="detached")
    page.locator(selector).first.wait_for()


def slide(page, field: str, value: str) -> None:
    """Move a slider of the timing editor and let go."""
    page.locator(f'#timing [data-field="{field}"]').evaluate(
        """(input, value) => {
          input.value = value;
          for (const kind of ["input", "change"]) input.dispatchEvent(new Event(kind, { bubbles: true }));
        }""",
        value,
    )


def open_compare(page) -> None:
    """Open the page and wait until it says what there is to judge."""
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function(
        """document.querySelector('.stage .stage-picture')
           || document.querySelector('.stage .nothing-yet p:nth-child(2)')?.textContent"""
    )


def log_in(page) -> None:
    """As the one user of the `locked_server`."""
    page.get_by_label("username").fill("grace")
    page.get_by_label("password").fill("hopper")
    page.get_by_role("button", name="Login").click()
    # The page is loaded anew; what is pressed before it is at work is lost.
    page.locator("body.draft-is-here").wait_for()


def join(page, session, name: str) -> None:
    open_compare(page)
    page.locator("#labelling > button").click()
    page.locator("#annotator").locator("input, textarea").fill(name)
    page.locator("#session input").click()
    page.get_by_role("option", name=session.name).click()
    page.locator("#join-session").click()
    page.locator("#compare-status", has_text=session.name).wait_for()
    page.locator(".stage-picture").first.wait_for()


def saved(page) -> None:
    page.wait_for_function("document.querySelector('.stage-line')?.textContent === 'Saved.'")


def shown(page) -> list[str]:
    """Addresses of the pictures being judged, whatever their order."""
    return sorted(page.locator(".stage-picture img").evaluate_all("images => images.map(image => image.src)"))


def prepared_session(store, name: str, pairs: int, **options):
    """A labelling session over pairs of real little pictures."""
    session = store.sessions.create(name, guidelines=f"Look closely. {HOSTILE}", **options)
    made = [store.comparisons.create(little_pictures(store, 1000 + 2 * number)).id for number in range(pairs)]
    store.sessions.add(session.id, made)
    return session


def little_pictures(store, shade: int) -> list[str]:
    """Ids of two candidates whose files a browser can show."""
    generation = add_generation(store, content=[png(shade), png(shade + 1)])
    with store.database.write() as rows:
        for candidate in generation.candidates:
            rows.get(type(candidate), candidate.id).face_report = None
    return [candidate.id for candidate in generation.candidates]
