"""A worker's hold on a round: kept by a thread while long steps run, given up when people or another worker say so."""

from __future__ import annotations

import logging
import threading
import time
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from studio.store import LeaseLost, Store, StoreError
from studio.store.models import Round, RoundRequest

logger = logging.getLogger(__name__)

LONGEST_SILENCE = 5.0
"""Seconds between two heartbeats at most: so long a wish to pause or cancel may take to arrive."""
SECONDS_BETWEEN_LOOKS = 0.2
"""While somebody generates."""


class Stop(StrEnum):
    """Why to stop working on a round."""

    LOST = "lost"
    CANCEL = "cancel"
    PAUSE = "pause"
    SHUTDOWN = "shutdown"
    DATA_DELETED = "data_deleted"


class Stopped(Exception):
    """The round has to be let go; `Lease.stop` says why."""


class Lease:
    """The hold on a claimed round; entering starts the heartbeat, leaving ends it.

    Args:
        owner: what the round was claimed with.
        seconds: how long the round stays with a worker that has fallen silent.
        shutdown: set when this process is to end.
    """

    def __init__(self, store: Store, row: Round, owner: str, *, seconds: float, shutdown: threading.Event) -> None:
        self.owner = owner
        self._store, self._id, self._seconds, self._shutdown = store, row.id, seconds, shutdown
        self._stop: Stop | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="round-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()

    @property
    def stop(self) -> Stop | None:
        """Why to stop; None to go on."""
        return self._stop or (Stop.SHUTDOWN if self._shutdown.is_set() else None)

    def should_stop(self) -> bool:
        """Asked between steps: waits while people generate, then says whether to stop."""
        while self.stop is None and self._somebody_generates():
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return self.stop is not None

    def check(self) -> None:
        """Between parts of a round: raises Stopped when it has to be let go."""
        if self.should_stop():
            raise Stopped

    def report(self, **facts: Any) -> None:
        """Show people progress, message or log path of the round (as `store.rounds.heartbeat`). Raises LeaseLost."""
        request = self._store.rounds.heartbeat(self._id, self.owner, lease_seconds=self._seconds, **facts)
        if request is not RoundRequest.RUN:
            self._stop = Stop(request.value)

    def _somebody_generates(self) -> bool:
        try:
            return self._store.generations.somebody_generates()
        except StoreError as error:
            logger.warning("Who generates is not known: %s", error)
            return False

    def _beat_on(self) -> None:
        while not self._left.wait(min(LONGEST_SILENCE, self._seconds / 4)):
            try:
                self._beat()
            except LeaseLost as error:
                self._stop = Stop.LOST
                logger.warning("%s", error)
                return
            except StoreError as error:  # a full disk or a locked database may pass
                logger.warning("No heartbeat: %s", error)

    def _beat(self) -> None:
        self.report()
        if self._store.rounds.get(self._id).data_deleted_at is not None:
            self._stop = Stop.DATA_DELETED
