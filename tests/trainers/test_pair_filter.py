"""Which votes count and which differences suffice, by hand."""

from __future__ import annotations

import pytest

from trainers.pairs import PairConfig
from trainers.pairs.filter import BOTH_BAD, NO_METRICS, TIE, Vote, objection, settle

DECIDED_ANEW = "the same annotator decided anew later"
CONTRADICTION = ["annotators contradict each other 1 to 1"] * 2


def votes(*said: tuple[str, int | None]) -> list[Vote]:
    return [Vote(annotator=name, time=f"{time:03d}", winner=winner) for time, (name, winner) in enumerate(said)]


@pytest.mark.parametrize(
    ("said", "reasons"),
    [
        ([("Ada", 0)], [""]),
        ([("Ada", None)], [TIE]),
        ([("Ada", 0), ("Bob", 0)], ["duplicate: another annotator said the same", ""]),
        ([("Ada", 0), ("Bob", 1)], CONTRADICTION),
        ([("Ada", 0), ("Bob", 1), ("Cyd", 1)], ["outvoted 2 to 1", "duplicate: another annotator said the same", ""]),
        ([("Ada", 0), ("Bob", None)], ["", TIE]),
        ([("Ada", 0), ("Ada", 1)], [DECIDED_ANEW, ""]),
        # Ada's first vote would have made it two to one
        ([("Ada", 0), ("Bob", 0), ("Ada", 1)], [DECIDED_ANEW, *CONTRADICTION]),
    ],
)  # fmt: skip
def test_votes_are_settled(said, reasons):
    assert settle(votes(*said)) == reasons


def test_both_bad_is_no_tie():
    assert settle([Vote(annotator="Ada", time="1", winner=None, both_bad=True)]) == [BOTH_BAD]


@pytest.mark.parametrize(
    ("deltas", "reason"),
    [
        ({"identity": 0.11, "object": 0.0}, ""),
        ({"identity": 0.10}, "no metric sees a difference"),  # does not exceed its threshold
        ({"identity": 0.5, "object": -0.2}, ""),  # not below minus its threshold
        ({"identity": 0.5, "object": -0.21}, "object prefers the rejected picture"),
        ({"identity": -0.5, "object": 0.5}, "identity prefers the rejected picture"),
        ({"aesthetic": 3.0}, NO_METRICS),  # has no threshold here
        ({}, NO_METRICS),
    ],
)
def test_the_thresholds_of_equation_nine(deltas, reason):
    assert objection(deltas, {"identity": 0.1, "object": 0.2}) == reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thresholds": {"beauty": 1.0}}, "no metric 'beauty'"),
        ({"thresholds": {"identity": -0.1}}, "threshold of identity is -0.1"),
        ({"thresholds": {"identity": float("nan")}}, "threshold of identity is nan"),
        ({"perturbed": -1}, "perturbed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PairConfig(**settings)
