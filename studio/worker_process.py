"""The training worker that the studio keeps running beside itself."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from studio.settings import Settings

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
SECONDS_BETWEEN_STARTS = 10.0
"""A worker that ends at once must not be started in a tight circle."""
SECONDS_TO_END = 60.0
"""Until a worker that was asked to end has written its checkpoint."""


class WorkerProcess:
    """`python -m trainers.worker` with the studio's settings: started again when it ends, gone when the studio goes.

    The worker ends when its standard input closes, which happens also when the studio is killed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._changing = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Begin to keep a worker running; returns at once."""
        threading.Thread(target=self._keep_running, name="worker-process", daemon=True).start()

    def stop(self) -> None:
        """Let the worker write its checkpoint and end."""
        self._ended.set()
        with self._changing:
            process = self._process
        if process is None:
            return
        process.stdin.close()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()

    def _keep_running(self) -> None:
        while not self._ended.is_set():
            with self._changing:
                if self._ended.is_set():
                    return
                self._process = subprocess.Popen(
                    self.command(), cwd=ROOT, stdin=subprocess.PIPE, env=self.environment()
                )
            status = self._process.wait()
            if not self._ended.wait(SECONDS_BETWEEN_STARTS):
                logger.warning("The training worker ended with status %d and is started again", status)

    def command(self) -> list[str]:
        """The worker's command line; secrets travel in its environment."""
        settings = self._settings
        options = {
            "--data": settings.data,
            "--bundle": settings.bundle,
            "--face-pack": settings.face_pack,
            "--device": None if settings.device == "auto" else settings.device,
            "--threads": settings.worker_threads,
            "--picks-per-round": settings.picks_per_round,
            "--config": settings.round_config,
            "--evaluation-portraits": settings.evaluation_portraits,
        }
        given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
        return [sys.executable, "-m", "trainers.worker", "--end-with-stdin", *given]

    def environment(self) -> dict[str, str]:
        """The worker's environment, with the password of the database where there is one."""
        url = self._settings.database_url
        secrets = {} if url is None else {"IDGLOW_DATABASE_URL": url.get_secret_value()}
        return {**os.environ, **secrets, "OMP_NUM_THREADS": str(self._settings.worker_threads)}
