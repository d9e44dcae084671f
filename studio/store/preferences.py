"""Settings changed in the app."""

from __future__ import annotations

from typing import Any

from studio.store.engine import Database
from studio.store.models import Preference, utc_now


class Preferences:
    """Small JSON values by name, kept over restarts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` where nothing was set."""
        with self._database.read() as session:
            row = session.get(Preference, key)
        return default if row is None else row.value

    def set(self, key: str, value: Any) -> None:
        """Keep a JSON value under `key`."""
        with self._database.write() as session:
            session.merge(Preference(key=key, value=value, updated_at=utc_now()))
