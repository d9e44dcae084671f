"""The database: migrations build exactly the models, transactions keep or drop everything, two processes may start."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from studio.store import Store, StoreError
from studio.store.engine import Database
from studio.store.models import Annotator, Base, Person, Preference, utc_now
from tests.studio.store_samples import add_generation

ROOT = Path(__file__).resolve().parents[2]


def test_migrations_build_the_models(store, tmp_path):
    with store.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    if store.database.is_sqlite:
        # Alembic's comparison does not see checks; SQLite's own text of the tables does.
        straight = Database(f"sqlite:///{tmp_path / 'straight.db'}")
        Base.metadata.create_all(straight.engine)
        assert _schema(store.database) == _schema(straight)
        straight.close()


def test_data_of_the_first_version_is_updated_and_nothing_is_lost(store_place):
    """SQLite drops the rows that refer to a table with it, so an update must not build a table anew."""
    folder, url = store_place
    first = Store.open(folder, database_url=url)
    made = add_generation(first)
    with first.database.write() as session:
        session.execute(sa.text("ALTER TABLE generations DROP COLUMN identity_guidance"))
        session.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    first.close()

    updated = Store.open(folder, database_url=url)
    row = updated.generations.get(made.id)
    assert row.identity_guidance == 1
    assert [candidate.id for candidate in row.candidates] == [candidate.id for candidate in made.candidates]
    assert row.prompt.text == made.prompt.text
    updated.close()


def _schema(database: Database) -> dict[str, list[str]]:
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'"
    with database.engine.connect() as connection:
        return {name: sorted(re.split(r"[\s,]+", sql)) for name, sql in connection.exec_driver_sql(query)}


def test_sqlite_is_set_up(store):
    if not store.database.is_sqlite:
        pytest.skip("settings of SQLite")
    for session_of in (store.database.read, store.database.write):
        with session_of() as session:
            pragmas = {
                name: session.execute(sa.text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
            }
        assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 30_000}


def test_a_database_of_a_newer_version_is_refused(store_place):
    folder, url = store_place
    opened = Store.open(folder, database_url=url)
    with opened.database.write() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    opened.close()
    with pytest.raises(StoreError, match="newer"):
        Store.open(folder, database_url=url)


def test_processes_that_start_together_migrate_once(tmp_path):
    command = [sys.executable, "-c", f"from studio.store import Store; Store.open({str(tmp_path)!r})"]
    started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [("", 0)] * 3


def test_a_failed_write_leaves_nothing(store):
    def write_half():
        with store.database.write() as session:
            session.add(Person(name="Ada"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert store.people.list() == []


def test_what_a_read_session_changes_is_dropped(store):
    with store.database.read() as session:
        session.add(Person(name="Ada"))
        session.flush()
    assert store.people.list() == []


def test_a_snapshot_sees_one_moment(store):
    count = sa.select(sa.func.count()).select_from(Annotator)
    with store.database.snapshot() as session:
        before = session.scalar(count)
        store.people.annotator("Ada")
        assert session.scalar(count) == before
    with store.database.read() as session:
        assert session.scalar(count) == before + 1


def test_times_come_back_aware_and_naive_ones_are_refused(store):
    now = utc_now()
    with store.database.write() as session:
        session.add(Preference(key="a", value=1, updated_at=now))
    with store.database.read() as session:
        assert session.get(Preference, "a").updated_at == now
    naive = sa.insert(Preference).values(key="b", value=1, updated_at=datetime(2026, 1, 1))
    with pytest.raises(sa.exc.StatementError, match="time zone"), store.database.write() as session:
        session.execute(naive)


def test_preferences_outlive_the_process(store_place):
    folder, url = store_place
    first = Store.open(folder, database_url=url)
    first.preferences.set("picks_per_round", 12)
    first.preferences.set("picks_per_round", {"mini": 20})
    first.close()
    second = Store.open(folder, database_url=url)
    assert second.preferences.get("picks_per_round") == {"mini": 20}
    assert second.preferences.get("unset", "nothing") == "nothing"
    second.close()


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(store):
    if not store.database.is_sqlite:
        pytest.skip("SQLite can be told that its disk is full")
    store.people.add_person("Ada")
    with store.database.write() as session:
        pages = session.execute(sa.text("PRAGMA page_count")).scalar()
        session.execute(sa.text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StoreError, match="disk is full"):
        store.preferences.set("large", "x" * 1_000_000)
    assert [person.name for person in store.people.list()] == ["Ada"]


def test_a_database_held_by_another_program_is_one_sentence(store):
    if not store.database.is_sqlite:
        pytest.skip("a lock of SQLite")

    @sa.event.listens_for(store.database.engine, "checkout")
    def wait_briefly(connection, _record, _proxy):
        connection.execute("PRAGMA busy_timeout = 50")

    other = sqlite3.connect(store.folder / "studio.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.people.add_person("Ada")
    # Readers go on meanwhile.
    assert store.people.list() == []
    other.execute("COMMIT")
    other.close()
    assert store.people.add_person("Ada").name == "Ada"


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="choose another"):
        Store.open(tmp_path / "file" / "data")
    (tmp_path / "studio.db").write_text("not a database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(tmp_path)
