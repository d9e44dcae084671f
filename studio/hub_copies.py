"""Keeps the copy of the picks on the hub fresh while the studio runs, where a repository is configured."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from huggingface_hub import HfApi

from studio.settings import Settings
from studio.store import Store, StoreError
from studio.store.sync import copy_picks_to_hub

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_COPIES = 300.0


@dataclass(frozen=True, kw_only=True)
class CopyState:
    """How the copy stands, as one sentence; `failed` where the last try did not succeed."""

    message: str
    failed: bool = False


class HubCopies:
    """Copies all picks to a private data set repository after some have changed, at most every few minutes."""

    def __init__(self, store: Store, api: HfApi, repo: str, *, every: float = SECONDS_BETWEEN_COPIES) -> None:
        self._store = store
        self._api = api
        self._repo = repo
        self._every = every
        self._copied: object = None
        self._lock = threading.Lock()
        self.state = CopyState(message=f"Picks are copied to {repo}; nothing has been copied since the start.")

    @classmethod
    def from_settings(cls, settings: Settings, store: Store) -> HubCopies | None:
        """None where no repository is configured."""
        if settings.dataset_repo is None:
            return None
        token = settings.dataset_token and settings.dataset_token.get_secret_value()
        return cls(store, HfApi(token=token), settings.dataset_repo)

    def start(self) -> None:
        """Begin copying in the background; a failure is tried again the next time."""
        threading.Thread(target=self._work, name="hub-copies", daemon=True).start()

    def copy_if_changed(self) -> bool:
        """Copy when picks were made, replaced or taken back since the last copy; whether anything was copied."""
        with self._lock:
            newest = self._store.picks.latest(limit=1)
            now = (self._store.picks.count(), newest[0].id if newest else None)
            if now == self._copied or not newest:
                return False
            try:
                rows = copy_picks_to_hub(self._store, self._api, self._repo)
            except StoreError as error:
                logger.warning("%s", error)
                self.state = CopyState(message=str(error), failed=True)
                return False
            self._copied = now
            self.state = CopyState(message=f"{rows:,} pairs copied to {self._repo} at {datetime.now(UTC):%H:%M} UTC.")
            return True

    def _work(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self.copy_if_changed()
            except Exception:  # the copy must not end because one try did
                logger.exception("The picks could not be copied to %s", self._repo)
            pause.wait(self._every)
