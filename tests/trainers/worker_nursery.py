"""Workers as processes that start at once: the imports are done here, then each line of arguments becomes a fork.

    python -m tests.trainers.worker_nursery

Reads lines of JSON (the arguments of `python -m trainers.worker`), answers `started PID`, and says how each ended:
`ended PID STATUS`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600
"""Seconds: a busy machine is not a broken worker."""


class Nursery:
    """Starts workers in the nursery's process and waits for them."""

    def __init__(self, output: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output.open("w"),
            text=True,
        )
        self._started: Queue[int] = Queue()
        self._ended: dict[int, int] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, arguments: list[str]) -> int:
        """Start a worker; returns its process id."""
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return self._started.get(timeout=PATIENCE)

    def wait(self, pid: int) -> int:
        """Wait for the end of a worker; returns its status, negative for a signal."""
        with self._changed:
            if not self._changed.wait_for(lambda: pid in self._ended, timeout=PATIENCE):
                raise TimeoutError(f"worker {pid} has not ended")
            return self._ended[pid]

    def has_ended(self, pid: int) -> bool:
        return pid in self._ended

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)

    def _listen(self) -> None:
        for line in self._process.stdout:
            kind, *numbers = line.split()
            if kind == "started":
                self._started.put(int(numbers[0]))
            elif kind == "ended":
                with self._changed:
                    self._ended[int(numbers[0])] = int(numbers[1])
                    self._changed.notify_all()


def main() -> None:
    from trainers import worker

    running: set[int] = set()
    received, open_ = b"", True
    # One thread only: a fork would copy the locks that another one holds, but not the thread that gives them back.
    while open_ or running:
        if open_ and select.select([0], [], [], 0.02)[0]:
            piece = os.read(0, 1 << 16)
            open_ = bool(piece)
            *lines, received = (received + piece).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    _be_a_worker(worker.main, json.loads(line))
                running.add(pid)
                print("started", pid, flush=True)
        while running and (done := os.waitpid(-1, os.WNOHANG))[0]:
            running.remove(done[0])
            print("ended", done[0], os.waitstatus_to_exitcode(done[1]), flush=True)
        if not open_:
            time.sleep(0.02)


def _be_a_worker(work: Callable[[list[str]], None], arguments: list[str]) -> NoReturn:
    os.dup2(2, 1)  # what the worker prints must not be taken for the nursery's answers
    try:
        work(arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
