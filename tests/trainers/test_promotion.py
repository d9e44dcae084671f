"""The rule that promotes: better where it should be, nowhere worse beyond the interval, and seldom by chance."""

from __future__ import annotations

import numpy as np
import pytest

from core.prompts import Task
from studio.store.models import AdapterState
from trainers.promotion import changes, decide

PROMOTED, CANDIDATE, REJECTED = AdapterState.PROMOTED, AdapterState.CANDIDATE, AdapterState.REJECTED


def cases(**metrics) -> dict[str, dict[str, float]]:
    """Case -> metrics, from one list of values for each metric."""
    length = len(next(iter(metrics.values())))
    return {f"case {k}": {name: values[k] for name, values in metrics.items()} for k in range(length)}


def verdict(before, after, tasks=(Task.GROUP,)):
    return decide(changes(before, after), tasks)


def test_the_interval_is_that_of_the_paired_means():
    """Against the normal approximation, which a bootstrap of many cases approaches."""
    rng = np.random.default_rng(0)
    people = rng.normal(0.5, 0.2, 400)
    differences = rng.normal(0.02, 0.05, 400)
    (change,) = changes(cases(face_sim=people), cases(face_sim=people + differences))
    error = differences.std() / np.sqrt(400)
    assert change.difference == pytest.approx(differences.mean())
    assert (change.low, change.high) == pytest.approx(
        (differences.mean() - 1.96 * error, differences.mean() + 1.96 * error), abs=error / 10
    )
    # Unpaired, the spread of the people would hide the change.
    assert change.better
    assert 1.96 * people.std() / np.sqrt(400) > change.difference / 2


@pytest.mark.parametrize(
    ("after", "state", "words"),
    [
        ({}, CANDIDATE, "could be chance"),
        ({"face_sim": [0.5, 0.6, 0.7, 0.8]}, PROMOTED, "FaceSim"),
        (
            {"face_sim": [0.404, 0.503, 0.604, 0.703]},
            CANDIDATE,
            "could be chance",
        ),
        ({"face_sim": [0.3, 0.4, 0.5, 0.55]}, REJECTED, "FaceSim"),
        ({"face_sim": [0.6, 0.3, 0.8, 0.5]}, CANDIDATE, "could be chance"),
        ({"face_sim": [0.5, 0.6, 0.7, 0.8], "duplicates": [1.0, 1.0, 2.0, 1.0]}, REJECTED, "Duplicates"),
        ({"face_sim": [0.5, 0.6, 0.7, 0.8], "coverage": [0.5, 0.5, 0.5, 0.5]}, REJECTED, "Coverage"),
        ({"face_sim": [0.5, 0.6, 0.7, 0.8], "coverage": [1.0, 0.5, 1.0, 1.0]}, PROMOTED, "nothing measured got worse"),
        ({"duplicates": [0.0, 0.0, 0.0, 0.0]}, CANDIDATE, "could be chance"),
    ],
)
def test_the_rule(after, state, words):
    before = {"face_sim": [0.4, 0.5, 0.6, 0.7], "coverage": [1.0] * 4, "duplicates": [0.0] * 4}
    twice = [{name: values * 2 for name, values in side.items()} for side in (before, before | after)]
    found = verdict(*(cases(**side) for side in twice))
    assert found.state is state
    assert words in found.reason


@pytest.mark.parametrize(("count", "state"), [(5, CANDIDATE), (6, PROMOTED)])
def test_a_handful_of_cases_promotes_and_rejects_nothing(count, state):
    before = [0.1 * k for k in range(count)]
    found = verdict(cases(face_sim=before), cases(face_sim=[value + 0.1 for value in before]))
    assert found.state is state
    worse = verdict(cases(face_sim=before), cases(face_sim=[value - 0.1 for value in before]))
    assert worse.state is (REJECTED if state is PROMOTED else CANDIDATE)


CHILD = {"face_sim": [0.5] * 8, "child_face_sim": [0.4] * 8, "child_age_error": [6.0] * 8}


@pytest.mark.parametrize(
    ("tasks", "after", "state", "words"),
    [
        ((Task.CHILD,), {"child_age_error": [5.0] * 8}, PROMOTED, "child's age -1.000"),
        ((Task.CHILD,), {"child_age_error": [5.6] * 8}, CANDIDATE, "chance or drift"),
        ((Task.CHILD,), {"child_face_sim": [0.45] * 8}, PROMOTED, "FaceSim as children"),
        ((Task.CHILD,), {"face_sim": [0.6] * 8}, CANDIDATE, "as children"),
        ((Task.CHILD,), {"child_age_error": [5.0] * 8, "face_sim": [0.45] * 8}, REJECTED, "FaceSim -0.050"),
        ((Task.GROUP,), {"child_age_error": [5.0] * 8}, CANDIDATE, "FaceSim"),
        ((Task.CHILD, Task.GROUP), {"child_age_error": [5.0] * 8}, PROMOTED, "child's age"),
        ((Task.CHILD, Task.GROUP), {"face_sim": [0.6] * 8}, PROMOTED, "FaceSim"),
        ((Task.CHILD, Task.GROUP), {"face_sim": [0.6] * 8, "child_age_error": [6.5] * 8}, REJECTED, "child's age"),
    ],
)
def test_a_round_has_to_improve_what_was_judged(tasks, after, state, words):
    found = verdict(cases(**CHILD), cases(**CHILD | after), tasks)
    assert found.state is state
    assert words in found.reason


def test_what_was_not_measured_promotes_nothing():
    found = verdict(cases(aesthetic=[5.0, 5.0]), cases(aesthetic=[6.0, 6.5]))
    assert found.state is CANDIDATE
    assert "could not be measured" in found.reason
    assert verdict({"case 1": {}}, {"case 1": {}}).state is CANDIDATE


def test_cases_that_miss_a_metric_on_one_side_do_not_count():
    before = {"a": {"face_sim": 0.5}, "b": {"face_sim": 0.5}, "c": {}}
    after = {"a": {"face_sim": 0.6}, "b": {}, "c": {"face_sim": 0.9}}
    (change,) = changes(before, after)
    assert (change.cases, change.low, change.better, change.worse) == (1, None, False, False)


def test_an_adapter_that_learned_nothing_is_seldom_promoted():
    """Shuffled labels: the change of every case is as likely up as down. The rule may be fooled in about one of 40."""
    rng = np.random.default_rng(1)
    promoted = 0
    for _ in range(200):
        before = rng.normal(0.5, 0.15, 20)
        found = verdict(cases(face_sim=before), cases(face_sim=before + rng.normal(0, 0.05, 20)))
        promoted += found.state is PROMOTED
    assert promoted <= 14  # 5 expected; more than 14 has a chance below 1 in 1000
