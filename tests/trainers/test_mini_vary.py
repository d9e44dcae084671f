"""More people out of the same cut-outs: what moves, and that a person stays one person in all pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainers.test_mini_compose import LANDMARKS, cutouts
from trainers.mini import vary
from trainers.mini.cutouts import landmarks_of
from trainers.mini.vary import APART, vary_people

SPOT = 2
"""Half the side of the white square that marks a landmark."""


def marked():
    """Grey cut-outs with a white square on each landmark, and nothing else to see."""
    plain = cutouts()
    rgba = plain.rgba.copy()
    for row in range(len(rgba)):
        for x, y in landmarks_of(plain, row).round().astype(int):
            rgba[row, y - SPOT : y + SPOT + 1, x - SPOT : x + SPOT + 1, :3] = 255
    rgba[..., 3] = 255
    return type(plain)(**{**vars(plain), "rgba": rgba})


@pytest.mark.parametrize("seed", range(4))
def test_landmarks_lie_where_the_parts_of_the_face_went(seed):
    varied = vary_people(marked(), 1, np.random.default_rng(seed))
    for row, picture in enumerate(varied.rgba):
        for x, y in landmarks_of(varied, row):
            left, top = round(x) - 4, round(y) - 4
            patch = picture[top : top + 9, left : left + 9, 0].astype(float) - 128
            rows, columns = np.mgrid[top : top + 9, left : left + 9]
            found = np.array([(columns * patch).sum(), (rows * patch).sum()]) / patch.sum()
            assert np.abs(found - (x, y)).max() < 1.2


def test_a_person_moves_alike_in_all_pictures_and_unlike_others():
    before, after = cutouts(), vary_people(cutouts(), 2, np.random.default_rng(0))
    moved = np.array([landmarks_of(after, row) - landmarks_of(before, row) for row in range(len(before.people))])
    for person in np.unique(before.people):
        rows = before.people == person
        assert np.abs(moved[rows] - moved[rows][0]).max() < 1e-9  # the same landmarks in all of these pictures
    first, second = (moved[before.people == person][0] for person in np.unique(before.people))
    assert np.abs(first - second).max() > 0.5
    assert (after.people == before.people + 2 * APART).all()
    assert after.looks[0].hair == before.looks[0].hair


def test_half_of_the_people_are_mirrored(monkeypatch):
    monkeypatch.setattr(vary, "STRETCHED", 0.0)
    monkeypatch.setattr(vary, "MOVED", 0.0)
    original = marked()
    width = original.rgba.shape[2]
    seen = set()
    for seed in range(8):
        varied = vary_people(original, 1, np.random.default_rng(seed))
        mirrored = bool(np.array_equal(varied.rgba[0], original.rgba[0][:, ::-1]))
        assert mirrored or np.array_equal(varied.rgba[0], original.rgba[0])
        wanted = np.array(LANDMARKS)
        if mirrored:
            wanted = np.column_stack([width - wanted[:, 0], wanted[:, 1]])[[1, 0, 2, 4, 3]]
        assert np.allclose(np.array(varied.looks[0].landmarks), wanted)
        seen.add(mirrored)
    assert seen == {True, False}
