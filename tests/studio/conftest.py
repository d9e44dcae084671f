"""A studio on a tiny bundle and a store for each test: SQLite in a folder of its own, or a database of its own on the
PostgreSQL server named by IDGLOW_TEST_DATABASE_URL.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from studio.context import Studio
from studio.generation import GenerationJobs
from studio.model_host import ModelHost
from studio.settings import Settings
from studio.store import Store
from studio.store.models import new_id
from tests.studio.full_store import fill
from tests.tiny_bundles import write_tiny_bundle

SERVER = os.environ.get("IDGLOW_TEST_DATABASE_URL")


def _on_server(statement: str) -> None:
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _url(name: str) -> str:
    return make_url(SERVER).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Iterator[Path | str]:
    """An empty database at the newest revision, to copy: migrating takes longer than most tests."""
    folder = tmp_path_factory.mktemp("migrated")
    if SERVER is None:
        Store.open(folder).close()
        yield folder / "studio.db"
        return
    name = f"idglow_template_{new_id()}"
    _on_server(f"CREATE DATABASE {name}")
    Store.open(folder, database_url=_url(name)).close()
    yield name
    _on_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def place_in(migrated) -> Callable[[Path], AbstractContextManager[tuple[Path, str | None]]]:
    """Makes an empty data folder, and the URL of its database (None: SQLite in the folder)."""

    @contextmanager
    def place(folder: Path) -> Iterator[tuple[Path, str | None]]:
        folder.mkdir()
        if SERVER is None:
            shutil.copy(migrated, folder / "studio.db")
            yield folder, None
            return
        name = f"idglow_test_{new_id()}"
        _on_server(f"CREATE DATABASE {name} TEMPLATE {migrated}")
        yield folder, _url(name)
        _on_server(f"DROP DATABASE {name} WITH (FORCE)")

    return place


@pytest.fixture
def store_place(place_in, tmp_path) -> Iterator[tuple[Path, str | None]]:
    """Folder and database URL, for tests that open the store themselves."""
    with place_in(tmp_path / "data") as place:
        yield place


@pytest.fixture
def store(store_place) -> Iterator[Store]:
    """An empty store whose chance is the same every time."""
    with opened(store_place) as store:
        yield store


@contextmanager
def opened(place: tuple[Path, str | None]) -> Iterator[Store]:
    store = Store.open(place[0], database_url=place[1], rng=random.Random(0))
    yield store
    store.close()


@pytest.fixture
def full(store) -> Store:
    """A store with a little of everything."""
    fill(store)
    return store


@pytest.fixture
def other(tmp_path) -> Iterator[Store]:
    """Another studio, on SQLite."""
    with opened((tmp_path / "other", None)) as store:
        yield store


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def studio(store, bundle_folder) -> Studio:
    """The card of its bundle is read from the folder; no model is loaded."""
    host = ModelHost(bundle_folder)
    return Studio(Settings(data=store.folder, bundle=str(bundle_folder)), store, host, GenerationJobs(store, host))
