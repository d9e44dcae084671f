"""The database behind the store: one engine, short read and write transactions, migrations at start-up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 30_000
POSTGRES_MIGRATION_LOCK = 0x1D610
"""Any number that no other program on the same PostgreSQL database uses for pg_advisory_xact_lock."""


class StoreError(Exception):
    """The store cannot do what was asked; the message says what, why and what to do."""


class Database:
    """An engine and its two kinds of transaction. Safe to share between threads; open one per process.

    `read()` and `write()` give a session, close it at the end, and roll back when the block raises. A write takes
    SQLite's write lock at its first statement (BEGIN IMMEDIATE), so what it reads is still true when it writes. Keep
    both short.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options = {} if self.is_sqlite else {"pool_pre_ping": True}
        self.engine = create_engine(self.url, pool_size=16, max_overflow=32, **options)
        if self.is_sqlite:
            _configure_sqlite(self.engine)
        self._reads = sessionmaker(self.engine, expire_on_commit=False)
        self._writes = sessionmaker(self.engine.execution_options(sqlite_begin="IMMEDIATE"), expire_on_commit=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent look at the database; nothing done with the session is kept."""
        with _explained(), self._reads() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """All of the block or nothing; on disk when the block has ended."""
        with _explained(), self._writes.begin() as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Like `read()`, with every query seeing the same moment. SQLite's reads always do."""
        with _explained(), self._reads() as session:
            if not self.is_sqlite:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    def serialise(self, session: Session, subject: str) -> None:
        """Let one write transaction at a time pass this point for `subject`, until it ends.

        SQLite has one writer anyway; PostgreSQL needs to be told where two must not decide at once.
        """
        if not self.is_sqlite:
            session.execute(select(func.pg_advisory_xact_lock(func.hashtext(subject))))

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        # Broken constraints and wrong statements are errors of the program, and stay what they are.
        if type(error) not in (DatabaseError, OperationalError):
            raise
        raise StoreError(
            f"The database cannot be used ({error.orig}); nothing was changed. If the disk is full, make room; "
            "if another program holds the database, end it; if it is damaged, restore a backup."
        ) from error


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def set_pragmas(dbapi_connection, _record) -> None:
        # sqlite3 must not begin transactions by itself, or BEGIN IMMEDIATE comes too late.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA foreign_keys = ON")
        # FULL fsyncs the log at every commit: an acknowledged pick survives a power cut, for about a millisecond each.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")


def migration_config() -> Config:
    """Alembic's configuration; the scripts are part of the package, there is no ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def migrate(database: Database, lock_path: Path) -> None:
    """Bring the tables to the newest revision, one process at a time.

    Raises StoreError when the database was written by a newer version of the studio.
    """
    with _explained(), FileLock(lock_path), database.engine.connect() as connection:
        if database.is_sqlite:
            _use_write_ahead_log(connection)
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRES_MIGRATION_LOCK})")
        _refuse_newer(connection)
        config = migration_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
        # This connection had foreign keys off and is not given back to the pool.
        connection.invalidate()


def _use_write_ahead_log(connection: Connection) -> None:
    # Below SQLAlchemy, because both pragmas are ignored inside a transaction. Foreign keys are off while tables are
    # rebuilt: dropping the old copy would cascade into every table that refers to it.
    driver = connection.connection.dbapi_connection
    mode = driver.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        logger.warning("SQLite keeps journal mode %r here: readers will wait while somebody writes.", mode)
    driver.execute("PRAGMA foreign_keys = OFF")


def _refuse_newer(connection: Connection) -> None:
    present = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(migration_config()).walk_revisions()}
    if present is not None and present not in known:
        raise StoreError(
            f"The database is at revision {present!r}, which this version of the studio does not know: "
            "it was written by a newer one. Update the studio, or choose another data folder."
        )
