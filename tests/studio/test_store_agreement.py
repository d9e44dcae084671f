"""Agreement and intervals against published examples."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from studio.store.agreement import krippendorff_alpha, wilson_share


def units(*observers: str) -> list[tuple[list[int], int]]:
    """Rows of labels, one character for each unit, `.` for a missing one, as counts by category."""
    categories = sorted({label for row in observers for label in row} - {"."})
    return [([Counter(column)[category] for category in categories], 1) for column in zip(*observers, strict=True)]


@pytest.mark.parametrize(
    ("observers", "alpha"),
    [
        pytest.param(("0100000010", "1110010000"), 0.095, id="A: two observers, binary"),
        pytest.param(("aabbdcccedda", "babbbccceddd"), 0.692, id="B: two observers, nominal"),
        pytest.param(
            ("123321412...", "1233224125.3", ".3332342251.", "12332441251."),
            0.743,
            id="C: four observers, labels missing",
        ),
    ],
)
def test_examples_of_krippendorff_2011(observers, alpha):
    assert krippendorff_alpha(units(*observers)) == pytest.approx(alpha, abs=5e-4)


def by_pairs(labels: list[list[str]]) -> float | None:
    """Alpha from its definition: disagreeing ordered pairs within units against pairs of all pairable labels."""
    pairable = [unit for unit in labels if len(unit) > 1]
    pool = [label for unit in pairable for label in unit]
    within = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in pairable) / max(
        len(pool), 1
    )
    expected = sum(a != b for a, b in permutations(pool, 2)) / max(len(pool) * (len(pool) - 1), 1)
    return None if expected == 0 else 1 - within / expected


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=8))
def test_alpha_equals_its_definition(labels):
    counted = [([unit.count(category) for category in "abc"], 1) for unit in labels]
    expected = by_pairs(labels)
    assert krippendorff_alpha(counted) == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=3, max_size=3), st.integers(1, 4)), max_size=6))
def test_multiplicity_means_repetition(patterns):
    repeated = [(counts, 1) for counts, times in patterns for _ in range(times)]
    expected = krippendorff_alpha(repeated)
    assert krippendorff_alpha(patterns) == (None if expected is None else pytest.approx(expected))


def test_nothing_to_compare_has_no_alpha():
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha([([1, 0], 5)]) is None
    assert krippendorff_alpha([([2, 0], 5)]) is None


@pytest.mark.parametrize(("hits", "total"), [(0, 1), (5, 5), (7, 20), (500, 1000)])
def test_wilson_interval_is_scipys(hits, total):
    share = wilson_share(hits, total)
    interval = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    assert (share.low, share.high) == (pytest.approx(interval.low, abs=1e-12), pytest.approx(interval.high))
    assert share.value == hits / total


def test_an_empty_share_is_absent_and_nonsense_is_refused():
    assert wilson_share(0, 0).value is None
    with pytest.raises(ValueError, match="between"):
        wilson_share(3, 2)
