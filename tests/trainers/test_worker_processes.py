"""Workers and the application as real processes: killed, doubled, and ended with the studio."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
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
"""Of a worker during one round, each costs about two seconds; a fifth as many of the application."""


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


def progress(store: Store, row: Round) -> int:
    """Steps and evaluation pictures so far; 0 until the first step."""
    return len(store.rounds.steps(row.id)) + len(store.generations.of_round(row.id))


def test_a_worker_killed_again_and_again_loses_nothing(store, place, nursery):
    picks = add_picks(store, 4)
    steps, pictures = 20, 10
    row = store.rounds.create("tiny", {"training": {"steps": steps}})
    arguments = place.worker_arguments(store.folder, "--once", "--lease-seconds", "0.5")
    chance, states = random.Random(0), []
    # Spread over the whole round: some before its first step, the last while its last pictures are made.
    moments = [chance.uniform(-5, steps + pictures - 1) for _ in range(KILLS)]
    for moment in sorted(moments):
        before = store.rounds.get(row.id).attempts
        pid = _taken_up(store, row, nursery, arguments, before)
        wait_for(lambda pid=pid, moment=moment: nursery.has_ended(pid) or progress(store, row) >= moment)
        time.sleep(chance.uniform(0, 0.5))
        states.append(store.rounds.get(row.id).state.value)
        if nursery.has_ended(pid):
            break  # the round was faster than its murderer
        os.kill(pid, signal.SIGKILL)
        assert nursery.wait(pid) == -signal.SIGKILL
        assert store.adapters.active("tiny") is None or store.rounds.get(row.id).state is RoundState.PROMOTED
        time.sleep(0.5)  # until the lease has run out
    wait_for(lambda: _finished(store, row, nursery, arguments))
    row = store.rounds.get(row.id)
    print(f"killed while it was {dict(Counter(states))}")
    assert row.attempts > 1
    assert_whole(store, row, picks, steps)


def _taken_up(store: Store, row: Round, nursery: Nursery, arguments: list[str], attempts: int) -> int:
    """Start workers until one finds the lease run out and takes the round up; returns its process id."""
    while True:
        pid = nursery.start(arguments)
        wait_for(lambda pid=pid: nursery.has_ended(pid) or store.rounds.get(row.id).attempts > attempts)
        if store.rounds.get(row.id).attempts > attempts:
            return pid


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
    steps = 40
    row = store.rounds.create("tiny", {"training": {"steps": steps}})
    chance = random.Random(1)
    for moment in sorted(chance.uniform(3, steps + 5) for _ in range(max(1, KILLS // 5))):
        app = _start_application(store, place)
        try:
            wait_for(lambda app=app, moment=moment: app.poll() is not None or progress(store, row) >= moment)
            owner = store.rounds.get(row.id).lease_owner
            assert owner is not None, (store.folder.parent / "app.log").read_text()[-3000:]
        finally:
            app.kill()
            app.wait(30)
        wait_for(lambda owner=owner: not _runs(int(owner.split(":")[1])))
        given_back = store.rounds.get(row.id)
        print(f"killed while it was {given_back.state.value}")
        assert given_back.lease_owner is None
        assert given_back.state in (RoundState.TRAINING, RoundState.EVALUATING)
    nursery.wait(nursery.start(place.worker_arguments(store.folder, "--once")))
    assert_whole(store, store.rounds.get(row.id), picks, steps)


def _start_application(store: Store, place: Place) -> subprocess.Popen:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "--data": store.folder, "--bundle": place.bundle, "--face-pack": place.pack, "--port": port, "--device": "cpu",
        "--round-config": place.config, "--evaluation-portraits": place.evaluation, "--picks-per-round": 0,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "app.py", *(str(part) for option in options.items() for part in option)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(store.folder.parent / "served")},
        stdout=(store.folder.parent / "app.log").open("w"),
        stderr=subprocess.STDOUT,
    )


def _runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
