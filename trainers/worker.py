"""The background worker: waits for rounds, or starts one when enough new picks are there, and brings them to their end.

    python -m trainers.worker --data data --bundle mini

Any number of workers may run on one data folder: each round is done once. One that is killed loses nothing; its round
is taken up again when its lease has run out. The studio starts a worker by itself.

`--config` names a TOML file with the tables `training` (fields of `trainers.dpo.DpoConfig`), `pairs` (of
`trainers.pairs.PairConfig`) and `evaluation` (`seeds`: pictures of each held-out case; `steps`: of denoising).
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core.backbones.cards import BundleError, find_card
from studio.store import Store, StoreError
from trainers.held_out import PORTRAITS
from trainers.lease import Lease
from trainers.round_config import Models, RoundConfig
from trainers.rounds import run_round, tidy

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds until a worker tries again what has failed: a full disk, a bundle that is not there yet."""


class Worker:
    """One worker on a data folder.

    Args:
        picks_per_round: new picks that start a round; 0 starts none.
        config: settings of rounds that say nothing else, as `RoundConfig.read` takes them.
        lease_seconds: after so long a silence another worker takes its round up.
        shutdown: set to end it; a round under way is given back with a checkpoint.
    """

    def __init__(
        self,
        store: Store,
        models: Models,
        *,
        picks_per_round: int = 0,
        config: Mapping[str, Any] | None = None,
        lease_seconds: float = 60,
        shutdown: threading.Event | None = None,
    ) -> None:
        self.shutdown = shutdown or threading.Event()
        self._store, self._models = store, models
        self._picks, self._config, self._lease_seconds = picks_per_round, config or {}, lease_seconds
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    def run(self, *, poll_seconds: float = 2.0) -> None:
        """Work until `shutdown` is set."""
        while not self.shutdown.is_set():
            try:
                pause = 0.0 if self.work_once() else poll_seconds
            except (BundleError, OSError, StoreError) as error:
                logger.error("Nothing can be done now, trying again in %.0f s: %s", PATIENCE, error)
                pause = PATIENCE
            self.shutdown.wait(pause)

    def work_once(self) -> bool:
        """Take up one round, if there is one or one is due; whether there was."""
        tidy(self._store)
        bundle = find_card(self._models.bundle).name
        if self._picks:
            self._store.rounds.create_when_due(bundle, self._picks)
        row = self._store.rounds.claim(self._owner, bundle=bundle, lease_seconds=self._lease_seconds)
        if row is None:
            return False
        with Lease(self._store, row, self._owner, seconds=self._lease_seconds, shutdown=self.shutdown) as lease:
            run_round(self._store, row, lease, self._models, self._config)
        # The models of a round are large and end in reference cycles; people generate with the same memory.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tidy(self._store)
        return True


def main(arguments: Sequence[str] | None = None) -> None:
    options = argument_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    torch.set_num_threads(options.threads)
    if hasattr(os, "nice"):
        os.nice(options.nice)
    shutdown = threading.Event()
    for wish in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wish, lambda *_: shutdown.set())
    if options.end_with_stdin:
        threading.Thread(target=_end_with_stdin, args=[shutdown], name="stdin", daemon=True).start()
    try:
        config = tomllib.loads(options.config.read_text()) if options.config else {}
        RoundConfig.read(config)
        store = Store.open(options.data, database_url=options.database_url)
    except (OSError, StoreError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    worker = Worker(
        store,
        Models(
            bundle=options.bundle,
            face_pack=options.face_pack,
            device=options.device,
            evaluation_portraits=options.evaluation_portraits,
        ),
        picks_per_round=options.picks_per_round,
        config=config,
        lease_seconds=options.lease_seconds,
        shutdown=shutdown,
    )
    if options.once:
        worker.work_once()
    else:
        worker.run()
    store.close()


def argument_parser() -> argparse.ArgumentParser:
    """The command line; `studio.worker_process` speaks it."""
    parser = argparse.ArgumentParser(prog="python -m trainers.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the studio's data folder")
    parser.add_argument(
        "--database-url",
        default=os.environ.get("IDGLOW_DATABASE_URL"),
        help="where it is not SQLite in --data; better given as IDGLOW_DATABASE_URL",
    )
    parser.add_argument("--bundle", default="mini", help="name, or a diffusers folder")
    parser.add_argument("--face-pack", type=Path, help="folder of an InsightFace pack; the bundle's own if absent")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--nice", type=int, default=10, help="by how much less urgent than its caller it is on CPUs")
    parser.add_argument("--picks-per-round", type=int, default=40, help="new picks that start a round; 0: on request")
    parser.add_argument("--config", type=Path, help="TOML file with the settings of rounds")
    parser.add_argument("--evaluation-portraits", type=Path, default=PORTRAITS, help="folder of people to measure on")
    parser.add_argument("--lease-seconds", type=float, default=60, help="silence after which another takes a round up")
    parser.add_argument("--once", action="store_true", help="take up one round if there is one, and end")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input closes")
    return parser


def _end_with_stdin(shutdown: threading.Event) -> None:
    # A pipe from the studio closes however the studio ends, also when it is killed.
    sys.stdin.buffer.read()
    shutdown.set()


if __name__ == "__main__":
    main()
