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
from contextlib import contextmanager
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
PATIENCE_MS = 120_000
"""A busy machine is not a broken page."""

LONG_RUN_STEPS = 100_000


@dataclass(eq=False)
class Server:
    """app.py in a process of its own, which a test may kill and start again on the same data and port.

    store: the same data folder, opened by the test as the training worker's would be.
    """

    url: str
    store: Store
    command: list[str]
    log: Path
    process: subprocess.Popen | None = None

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(self.log.with_name("served"))}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        _wait(lambda: _answers(self.url) or self.process.poll() is not None, 300)
        if self.process.poll() is not None:
            pytest.fail(f"app.py ended:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait(20)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Server]:
    """A studio with tiny random models and a data folder of its own."""
    bundle = write_tiny_bundle(folder / "bundle", face_detail=True)
    pack, data = face_pack(folder / "pack"), folder / "data"
    store = Store.open(data)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {"--data": data, "--bundle": bundle, "--face-pack": pack, "--port": port, "--device": "cpu"}
    # A run of so many steps takes longer than any wait here, however late a busy machine gets to a click on Cancel.
    command = [sys.executable, "app.py", "--no-worker", "--max-steps", str(LONG_RUN_STEPS)]
    command += [str(part) for place in places.items() for part in place] + list(options)
    server = Server(f"http://127.0.0.1:{port}", store, command, folder / "log")
    try:
        server.start()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)
        store.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("app")) as server:
        yield server


@pytest.fixture(scope="session")
def locked_server(tmp_path_factory) -> Iterator[Server]:
    """Another studio, empty at first, behind a login."""
    with running(tmp_path_factory.mktemp("locked"), "--auth", "grace:hopper") as server:
        yield server


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
def open_page(chromium) -> Iterator[Callable]:
    """Open an address as a new visitor; fails the test when a script of the page raised an error."""
    contexts, errors = [], []

    def open_page(url: str, width: int = 1440, height: int = 900):
        context = chromium.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def visit(server, open_page) -> Callable:
    """Open the studio as a new visitor."""

    def visit(width: int = 1440, height: int = 900):
        page = open_page(server.url, width, height)
        page.get_by_role("tab", name="Create").wait_for()
        return page

    return visit
