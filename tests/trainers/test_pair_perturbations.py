"""Faults that are put into pictures on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from core.faces import Face
from trainers.pairs.perturb import Stranger, face_mask, perturb, put_face, saturate

HEIGHT, WIDTH = 64, 96


def face_at(x: float, y: float, size: float = 12) -> Face:
    points = np.array([[-0.4, -0.3], [0.4, -0.3], [0, 0.1], [-0.3, 0.5], [0.3, 0.5]]) * size + (x, y)
    box = np.array([x - size, y - size, x + size, y + size], np.float32)
    return Face(box=box, landmarks=points.astype(np.float32), embedding=np.ones(2, np.float32) / 2**0.5, score=0.9)


def two_faces() -> tuple[np.ndarray, list[Face]]:
    """Two discs with a bright left and a bright right half."""
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    faces = [face_at(24, 32), face_at(72, 32)]
    picture[20:48, 12:24], picture[20:48, 24:36] = 220, 60
    picture[20:48, 60:72], picture[20:48, 72:84] = 60, 220
    return picture, faces


def test_a_swap_changes_faces_and_a_duplicate_doubles_one():
    picture, faces = two_faces()
    left, right = (slice(28, 38), slice(18, 30)), (slice(28, 38), slice(66, 78))
    swapped = perturb(picture, "swap", np.random.default_rng(0), faces=faces).astype(int)
    assert np.abs(swapped[left] - picture[right]).mean() < 25
    assert np.abs(swapped[right] - picture[left]).mean() < 25
    doubled = perturb(picture, "duplicate", np.random.default_rng(0), faces=faces).astype(int)
    assert np.abs(doubled[left] - doubled[right]).mean() < 25
    far = face_mask(faces[0].landmarks, HEIGHT, WIDTH) + face_mask(faces[1].landmarks, HEIGHT, WIDTH) < 1e-6
    assert far.any()
    assert np.array_equal(swapped[far], picture[far])


def test_a_strangers_face_comes_in_the_light_of_the_place():
    picture, faces = two_faces()
    stranger = np.zeros((40, 40, 3), np.uint8)
    stranger[:, 20:] = 50
    spoilt = put_face(picture, faces[0].landmarks, stranger, face_at(20, 20).landmarks)
    inside = face_mask(faces[0].landmarks, HEIGHT, WIDTH) > 0.5
    assert spoilt[inside].mean() == pytest.approx(picture[inside].mean(), abs=12)
    assert spoilt[32, 18].mean() < spoilt[32, 30].mean()  # the stranger's sides, not those of the face before
    person = Stranger(stranger, face_at(20, 20).landmarks)
    made = perturb(picture, "wrong-face", np.random.default_rng(0), faces=faces[:1], stranger=person)
    assert np.array_equal(made, spoilt)


def test_a_face_put_where_it_is_changes_nothing():
    picture, faces = two_faces()
    again = put_face(picture, faces[0].landmarks, picture, faces[0].landmarks).astype(int)
    assert np.abs(again - picture).max() <= 1


def test_saturation_and_noise():
    picture, _ = two_faces()
    picture[..., 2] //= 2
    assert np.array_equal(saturate(picture, 1.0), picture)
    grey = saturate(picture, 0.0)
    assert np.ptp(grey, axis=2).max() == 0
    np.testing.assert_allclose(grey[..., 0], picture @ np.array([0.299, 0.587, 0.114]), atol=0.51)
    noisy = perturb(np.full((200, 200, 3), 128, np.uint8), "noise", np.random.default_rng(3)).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=1)
    assert 15 < noisy.std() < 47


def test_faults_need_their_faces():
    picture, faces = two_faces()
    rng = np.random.default_rng(0)
    assert perturb(picture, "swap", rng, faces=faces[:1]) is None
    assert perturb(picture, "wrong-face", rng, faces=faces) is None
    with pytest.raises(ValueError, match="'blur' is unknown"):
        perturb(picture, "blur", rng)
