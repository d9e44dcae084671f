"""Workers and the application as real processes: killed, doubled, and ended with the studio."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.adapters import read_adapter
from studio.store import Store
from studio.store.models import Round, RoundState
from tests.trainers.round_scenario import Place, add_picks, make_place
from tests.trainers.worker_nursery import PATIENCE, ROOT, Nursery
from trainers.stored_adapters import stored_adapter

ENDS = (RoundState.PROMOTED, RoundState.CANDIDATE, RoundState.REJECTED)
KILLS = int(os.environ.get("IDGLOW_TEST_KILLS", "5"))
"""Of a worker during one round. Each costs about two seconds."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery") / "output")
    yield nursery
    nursery.close()


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    store = Store.open(tmp_path / "data")
    yield store
    store.close()


def wait_for(what: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def assert_whole(store: Store, row: Round, picks: list[str], steps: int) -> None:
    """The round has ended, used every pick once, and left one whole adapter with its pictures."""
    assert row.state in ENDS, row.message
    assert [pair.pick_id for pair in store.rounds.pairs(row.id, kept=True)] == sorted(picks)
    assert sorted(pick.id for pick in store.picks.counted()) == sorted(picks)
    assert [step.step for step in store.rounds.steps(row.id)] == list(range(1, steps + 1))
    (adapter,) = [one for one in store.adapters.list() if one.round_id == row.id]
    read_adapter(*stored_adapter(store, adapter))
    sides = [made.ab_side for made in store.generations.of_round(row.id)]
    assert sorted(sides) == ["A"] * 5 + ["B"] * 5
    assert [path.name for path in (store.folder / "rounds" / str(row.number)).iterdir()] == ["log.txt"]


def test_a_worker_killed_again_and_again_loses_nothing(store, place, nursery):
    picks = add_picks(store, 4)
    steps = 30
    row = store.rounds.create("tiny", {"training": {"steps": steps}})
    arguments = place.worker_arguments(store.folder, "--once", "--lease-seconds", "0.5")
    chance, killed, states = random.Random(0), 0, []
    while killed < KILLS:
        pid = nursery.start(arguments)
        wait_for(lambda pid=pid, before=killed: nursery.has_ended(pid) or store.rounds.get(row.id).attempts > before)
        time.sleep(chance.uniform(0, 3))
        states.append(store.rounds.get(row.id).state)
        if nursery.has_ended(pid):
            if states[-1] in ENDS:
                break  # the round was faster than its murderer
            continue  # it came before the lease had run out
        os.kill(pid, signal.SIGKILL)
        assert nursery.wait(pid) == -signal.SIGKILL
        killed += 1
        assert store.adapters.active("tiny") is None or store.rounds.get(row.id).state is RoundState.PROMOTED
        time.sleep(0.5)  # until the lease has run out
    wait_for(lambda: _finished(store, row, nursery, arguments))
    row = store.rounds.get(row.id)
    print(f"killed {killed} times in {[state.value for state in states]}")
    assert killed
    assert_whole(store, row, picks, steps)


def _finished(store: Store, row: Round, nursery: Nursery, arguments: list[str]) -> bool:
    if store.rounds.get(row.id).state in ENDS:
        return True
    nursery.wait(nursery.start(arguments))
    return False


def test_two_workers_do_each_round_once(store, place, nursery):
    picks = add_picks(store, 4)
    rows = [store.rounds.create("tiny") for _ in range(2)]
    workers = [nursery.start(place.worker_arguments(store.folder, "--lease-seconds", "30")) for _ in range(2)]
    wait_for(lambda: all(store.rounds.get(row.id).finished_at for row in rows))
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        assert nursery.wait(pid) == 0
    ended = [store.rounds.get(row.id) for row in rows]
    assert [row.attempts for row in ended] == [1, 1]
    for row in ended:
        assert_whole(store, row, picks, 6)


def test_a_worker_that_is_told_to_end_gives_its_round_back(store, place, nursery):
    add_picks(store, 4)
    row = store.rounds.create("tiny", {"training": {"steps": 2000}})
    pid = nursery.start(place.worker_arguments(store.folder))
    wait_for(lambda: len(store.rounds.steps(row.id)) > 2)
    os.kill(pid, signal.SIGTERM)
    assert nursery.wait(pid) == 0
    row = store.rounds.get(row.id)
    assert (row.state, row.lease_owner) == (RoundState.TRAINING, None)
    assert (store.folder / "rounds" / str(row.number) / "run" / "checkpoint.pt").exists()
    store.rounds.ask(row.id, "cancel")


@pytest.mark.slow
def test_the_application_is_killed_and_its_worker_gives_the_round_back(store, place, nursery):
    """The worker that app.py starts ends with it; the round goes on in the next one."""
    picks = add_picks(store, 4)
    row = store.rounds.create("tiny", {"training": {"steps": 60}})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "--data": store.folder, "--bundle": place.bundle, "--face-pack": place.pack, "--port": port, "--device": "cpu",
        "--round-config": place.config, "--evaluation-portraits": place.evaluation, "--picks-per-round": 0,
    }  # fmt: skip
    app = subprocess.Popen(
        [sys.executable, "app.py", *(str(part) for option in options.items() for part in option)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(store.folder.parent / "served")},
        stdout=(store.folder.parent / "app.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for(lambda: app.poll() is not None or len(store.rounds.steps(row.id)) > 2)
        owner = store.rounds.get(row.id).lease_owner
        assert owner is not None, (store.folder.parent / "app.log").read_text()[-3000:]
    finally:
        app.kill()
        app.wait(30)
    wait_for(lambda: not _runs(int(owner.split(":")[1])))
    given_back = store.rounds.get(row.id)
    assert (given_back.state, given_back.lease_owner) == (RoundState.TRAINING, None)
    nursery.wait(nursery.start(place.worker_arguments(store.folder, "--once")))
    assert_whole(store, store.rounds.get(row.id), picks, 60)


def _runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
