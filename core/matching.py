"""Which generated face is which reference person (IdGlow, eq. 2).

References and faces are assigned one to one so that the sum of their similarities is largest (Hungarian
algorithm). What does not fit such an assignment is said explicitly: nobody disappears from a measurement
because a face is missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class FacePair:
    """Reference and face, as row and column of the similarity matrix, and their similarity."""

    reference: int
    face: int
    similarity: float


@dataclass(frozen=True)
class FaceMatch:
    """The assignment of N references to M generated faces.

    pairs: min(N, M) of them, by reference. A weak pair is listed too: a face that resembles
        nobody is still a face.
    missing: references for which no face was left.
    surplus: faces for which no reference was left.
    duplicates: references that two or more faces claim. A face claims the reference that it is most
        similar to, when that similarity reaches the threshold.
    swapped: (a, b) where a was expected to stand left of b and stands right of b. Only people whose
        similarity reaches the threshold can be swapped: faces that resemble nobody have no place to be in.
    """

    pairs: tuple[FacePair, ...]
    missing: tuple[int, ...]
    surplus: tuple[int, ...]
    duplicates: tuple[int, ...]
    swapped: tuple[tuple[int, int], ...]


def match_faces(
    similarity: ArrayLike,
    *,
    threshold: float,
    expected_order: Sequence[int] | None = None,
    face_centers: Sequence[float] | None = None,
) -> FaceMatch:
    """Assigns generated faces to reference people.

    Args:
        similarity: (N references, M faces), cosine similarities; either side may be empty.
        threshold: similarity from which two pictures show the same person; a property of the face model.
        expected_order: references from left to right as they should stand; people whose place is free may be
            left out.
        face_centers: horizontal position of each of the M faces, in any unit. Without it the faces are taken
            to be listed from left to right, as `core.faces.FaceAnalyzer` lists them.

    Raises:
        ValueError: a similarity is NaN or infinite, or an argument is not as above.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    if similarity.ndim != 2:
        raise ValueError(f"similarity has the shape {similarity.shape}, but must be (references, faces).")
    if not np.isfinite(similarity).all():
        row, column = np.argwhere(~np.isfinite(similarity))[0].tolist()
        raise ValueError(
            f"The similarity of reference {row} and face {column} is {similarity[row, column]}; an embedding is broken."
        )
    if not math.isfinite(threshold):
        raise ValueError(f"threshold is {threshold!r}, but must be a finite similarity.")

    references, faces = similarity.shape
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    pairs = tuple(
        FacePair(int(row), int(column), float(similarity[row, column]))
        for row, column in zip(rows, columns, strict=True)
    )
    return FaceMatch(
        pairs=pairs,
        missing=tuple(sorted(set(range(references)) - set(rows.tolist()))),
        surplus=tuple(sorted(set(range(faces)) - set(columns.tolist()))),
        duplicates=_claimed_twice(similarity, threshold),
        swapped=_swapped(pairs, threshold, references, faces, expected_order, face_centers),
    )


def _claimed_twice(similarity: np.ndarray, threshold: float) -> tuple[int, ...]:
    if similarity.size == 0:
        return ()
    claims = (similarity >= threshold) & (similarity == similarity.max(axis=0))
    return tuple(np.flatnonzero(claims.sum(axis=1) >= 2).tolist())


def _swapped(
    pairs: Sequence[FacePair],
    threshold: float,
    references: int,
    faces: int,
    expected_order: Sequence[int] | None,
    face_centers: Sequence[float] | None,
) -> tuple[tuple[int, int], ...]:
    centers = np.arange(faces) if face_centers is None else np.asarray(face_centers, dtype=np.float64)
    if centers.shape != (faces,) or not np.isfinite(centers).all():
        raise ValueError(
            f"face_centers is {face_centers!r}, but must hold one finite number for each of the {faces} faces."
        )
    if expected_order is None:
        return ()
    order = list(expected_order)
    if len(set(order)) != len(order) or not set(order) <= set(range(references)):
        raise ValueError(f"expected_order is {order}, but must name each of the {references} references at most once.")
    position = {pair.reference: centers[pair.face] for pair in pairs if pair.similarity >= threshold}
    found = [reference for reference in order if reference in position]
    return tuple((left, right) for left, right in combinations(found, 2) if position[left] > position[right])
