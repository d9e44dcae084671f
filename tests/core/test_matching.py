"""Oracle: every possible assignment, tried one after the other."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.matching import FaceMatch, FacePair, match_faces

sizes = st.tuples(st.integers(0, 5), st.integers(0, 5))
# Distinct values, so that the best assignment is the only one.
similarities = sizes.flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-1, 1).map(lambda x: round(x, 9)), unique=True)
)


def best_total(similarity: np.ndarray) -> float:
    """The largest sum over all one-to-one assignments of the smaller side."""
    if similarity.shape[0] > similarity.shape[1]:
        similarity = similarity.T
    rows, columns = similarity.shape
    return max(similarity[range(rows), list(order)].sum() for order in permutations(range(columns), rows))


@given(similarities)
def test_the_assignment_is_the_best_of_all(similarity: np.ndarray):
    match = match_faces(similarity, threshold=0.4)
    assert sum(pair.similarity for pair in match.pairs) == pytest.approx(best_total(similarity))
    assert all(pair.similarity == similarity[pair.reference, pair.face] for pair in match.pairs)


@given(similarities)
def test_everybody_is_paired_or_named(similarity: np.ndarray):
    references, faces = similarity.shape
    match = match_faces(similarity, threshold=0.4)
    assert len(match.pairs) == min(references, faces)
    assert sorted([pair.reference for pair in match.pairs] + list(match.missing)) == list(range(references))
    assert sorted([pair.face for pair in match.pairs] + list(match.surplus)) == list(range(faces))


@given(similarities, st.randoms(use_true_random=False), st.floats(-1, 1))
def test_renumbering_people_and_faces_renumbers_the_result(similarity: np.ndarray, random, threshold: float):
    references, faces = similarity.shape
    rows, columns = list(range(references)), list(range(faces))
    random.shuffle(rows)
    random.shuffle(columns)
    centers = np.arange(faces) * 10.0
    match = match_faces(similarity, threshold=threshold, expected_order=range(references), face_centers=centers)
    moved = match_faces(
        similarity[rows][:, columns],
        threshold=threshold,
        expected_order=[rows.index(i) for i in range(references)],
        face_centers=centers[columns],
    )
    total = sum(pair.similarity for pair in match.pairs)
    assert sum(pair.similarity for pair in moved.pairs) == pytest.approx(total)
    assert {rows[i] for i in moved.duplicates} == set(match.duplicates)
    if sum(abs(s - total) < 1e-9 for s in all_totals(similarity)) == 1:
        assert {(rows[p.reference], columns[p.face]) for p in moved.pairs} == {
            (p.reference, p.face) for p in match.pairs
        }
        assert {rows[i] for i in moved.missing} == set(match.missing)
        assert {columns[i] for i in moved.surplus} == set(match.surplus)
        assert {(rows[a], rows[b]) for a, b in moved.swapped} == set(match.swapped)


def all_totals(similarity: np.ndarray) -> list[float]:
    if similarity.shape[0] > similarity.shape[1]:
        similarity = similarity.T
    rows, columns = similarity.shape
    return [similarity[range(rows), list(order)].sum() for order in permutations(range(columns), rows)]


def test_a_greedy_choice_would_lose():
    match = match_faces([[0.9, 0.8], [0.8, 0.1]], threshold=0.4)
    assert match.pairs == (FacePair(0, 1, 0.8), FacePair(1, 0, 0.8))


def test_a_missing_face_and_a_surplus_face():
    similarity = np.array([[0.1, 0.7], [0.0, 0.2], [0.8, 0.1]])
    assert match_faces(similarity, threshold=0.4).missing == (1,)
    assert match_faces(similarity.T, threshold=0.4).surplus == (1,)


@pytest.mark.parametrize(
    ("shape", "missing", "surplus"), [((0, 0), (), ()), ((2, 0), (0, 1), ()), ((0, 3), (), (0, 1, 2))]
)
def test_an_empty_side(shape: tuple[int, int], missing: tuple, surplus: tuple):
    assert match_faces(np.zeros(shape), threshold=0.4) == FaceMatch((), missing, surplus, (), ())


def test_one_person_twice_is_a_duplicate():
    match = match_faces([[0.8, 0.7], [0.1, 0.2]], threshold=0.4)
    assert match.duplicates == (0,)
    assert [(pair.reference, pair.face) for pair in match.pairs] == [(0, 0), (1, 1)]


def test_faces_below_the_threshold_claim_nobody():
    assert match_faces([[0.39, 0.3], [0.1, 0.2]], threshold=0.4).duplicates == ()
    assert match_faces([[0.4, 0.4], [0.1, 0.2]], threshold=0.4).duplicates == (0,)


def test_a_face_claims_only_the_person_it_resembles_most():
    assert match_faces([[0.9, 0.6], [0.5, 0.8]], threshold=0.4).duplicates == ()


def test_three_of_one_and_two_of_another():
    similarity = [[0.9, 0.8, 0.7, 0.1, 0.0], [0.1, 0.2, 0.1, 0.6, 0.7]]
    match = match_faces(similarity, threshold=0.5)
    assert match.duplicates == (0, 1)
    assert match.surplus == (1, 2, 3)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_swapped_are_all_pairs_out_of_the_expected_order(order: tuple[int, ...]):
    similarity = np.eye(3)[:, list(order)]  # reference order[k] stands at place k
    match = match_faces(similarity, threshold=0.5, expected_order=[0, 1, 2])
    expected = {(a, b) for a, b in combinations(range(3), 2) if order.index(a) > order.index(b)}
    assert set(match.swapped) == expected


def test_places_come_from_the_face_centers_when_given():
    similarity = np.eye(2)
    assert match_faces(similarity, threshold=0.5, expected_order=[0, 1], face_centers=[90, 20]).swapped == ((0, 1),)
    assert match_faces(similarity, threshold=0.5, expected_order=[1, 0], face_centers=[90, 20]).swapped == ()
    assert match_faces(similarity, threshold=0.5, expected_order=[0, 1], face_centers=[50, 50]).swapped == ()


def test_nobody_is_swapped_without_an_expected_order_or_with_a_stranger():
    swapped = np.eye(2)[::-1]
    assert match_faces(swapped, threshold=0.5).swapped == ()
    assert match_faces(swapped * [[1.0], [0.4]], threshold=0.5, expected_order=[0, 1]).swapped == ()


def test_people_whose_place_is_free_are_left_out_of_the_order():
    reversed_three = np.eye(3)[::-1]
    assert match_faces(reversed_three, threshold=0.5, expected_order=[0, 2]).swapped == ((0, 2),)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_similarity_is_refused_and_named(bad: float):
    with pytest.raises(ValueError, match="reference 1 and face 0"):
        match_faces([[0.1, 0.2], [bad, 0.3]], threshold=0.4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"similarity": [0.1, 0.2]}, "must be .references, faces."),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"expected_order": [0, 0]}, "at most once"),
        ({"expected_order": [0, 2]}, "at most once"),
        ({"expected_order": [-1, 0]}, "at most once"),
        ({"face_centers": [1.0]}, "each of the 2 faces"),
        ({"face_centers": [1.0, float("nan")], "expected_order": [0, 1]}, "finite number"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        match_faces(**{"similarity": np.eye(2), "threshold": 0.4, **arguments})
