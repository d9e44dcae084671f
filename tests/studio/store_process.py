"""An annotator as a process of its own: claims, picks, and says so only after the store has said so.

    python -m tests.studio.store_process FOLDER URL SESSION ANNOTATOR

Prints `claimed COMPARISON` and `kept PICK` lines until the queue is empty. URL may be `sqlite`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from studio.store import Store
from tests.studio.store_samples import new_pick

ROOT = Path(__file__).resolve().parents[2]


def start_annotator(place: tuple[Path, str | None], session_id: str, annotator_id: str) -> subprocess.Popen[str]:
    folder, url = place
    command = [sys.executable, "-m", __name__, str(folder), url or "sqlite", session_id, annotator_id]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def main(folder: str, url: str, session_id: str, annotator_id: str) -> None:
    store = Store.open(Path(folder), database_url=None if url == "sqlite" else url)
    while assignments := store.sessions.claim(session_id, annotator_id):
        first = assignments[0]
        print("claimed", first.comparison.id, flush=True)
        pick = store.picks.save(new_pick(first.comparison, annotator_id, lease_id=first.lease_id))
        print("kept", pick.id, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
