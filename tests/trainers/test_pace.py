"""What is said of the time that is left, on a clock that the test turns."""

import pytest

from trainers import pace
from trainers.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    return now


def test_one_slow_part_does_not_count_and_a_change_of_pace_does(clock):
    timed = Pace()
    for seconds in (60, 2, 2, 2):  # the first one warms up
        clock[0] += seconds
        timed.lap()
    assert timed.left(10) == 20
    for seconds in (4, 4, 4):
        clock[0] += seconds
        timed.lap()
    assert timed.left(10) == 40


def test_what_happens_between_two_parts_does_not_count(clock):
    timed = Pace()
    for _ in range(3):
        clock[0] += 30
        timed.start()
        clock[0] += 2
        timed.lap()
    assert timed.left(1) == 2
