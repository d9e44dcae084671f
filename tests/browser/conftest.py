"""The real application in a process of its own, with tiny random models, and headless Chromium to use it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from studio.store import Store
from tests.core.face_models import write_pack
from tests.tiny_bundles import write_tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000
"""A busy machine is not a broken page."""


@dataclass(frozen=True)
class Server:
    url: str
    store: Store
    """The same data folder, opened by the test."""


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """app.py on a free port; its store is open here as well, as the training worker's would be."""
    folder = tmp_path_factory.mktemp("app")
    bundle, pack, data = write_tiny_bundle(folder / "bundle"), face_pack(folder / "pack"), folder / "data"
    store = Store.open(data)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "log").open("w+")
    options = {"--data": data, "--bundle": bundle, "--face-pack": pack, "--port": str(port), "--device": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "app.py", "--no-worker", *(part for option in options.items() for part in option)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(folder / "served")},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: _answers(url) or process.poll() is not None, 180)
        if process.poll() is not None:
            log.seek(0)
            pytest.fail(f"app.py ended:\n{log.read()[-3000:]}")
        yield Server(url, store)
    finally:
        process.terminate()
        process.wait(20)
        store.close()
        log.close()


def face_pack(folder: Path) -> Path:
    """A pack that finds the same faces in every picture, whatever it shows."""
    manifest = write_pack(folder, manifest=True) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"detection_sizes": [[128, 128]]}))
    return folder


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (URLError, TimeoutError, ConnectionError):
        return False


def _wait(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened within {seconds} s")
        time.sleep(0.3)


@pytest.fixture(scope="session")
def chromium():
    """One headless browser for all tests."""
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed; `apt-get install chromium` brings it.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(server, chromium) -> Iterator[Callable]:
    """Open the page as a new visitor; fails the test when a script of the page raised an error."""
    contexts, errors = [], []

    def open_page(width: int = 1440, height: int = 900):
        context = chromium.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        page.goto(server.url)
        page.get_by_role("tab", name="Create").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
