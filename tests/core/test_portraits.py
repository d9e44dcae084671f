"""The square around a face."""

from __future__ import annotations

import numpy as np
import pytest

from core.faces import FaceAnalyzer
from core.portraits import CROP_RISE, CROP_SCALE, align_face, crop_face, prepare_person, reference_landmarks
from tests.core.face_models import write_pack


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture whose red is the column and whose green is the row of each pixel."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def corners(crop: np.ndarray) -> tuple[float, float, float, float]:
    """left, top, right, bottom of a crop of `coordinates`."""
    return crop[..., 0].min(), crop[..., 1].min(), crop[..., 0].max() + 1, crop[..., 1].max() + 1


def test_the_square_has_the_face_in_its_middle_with_room_above():
    box = np.array([80, 90, 120, 140], np.float32)  # 40 x 50
    left, top, right, bottom = corners(crop_face(coordinates(240, 200), box, side=100))
    assert right - left == pytest.approx(CROP_SCALE * 50, abs=2)
    assert bottom - top == pytest.approx(right - left, abs=2)
    assert (left + right) / 2 == pytest.approx(100, abs=2)
    assert (top + bottom) / 2 == pytest.approx(115 - CROP_RISE * 50, abs=2)


@pytest.mark.parametrize("box", [(-5, -5, 35, 35), (170, 210, 210, 250), (0, 100, 30, 140)])
def test_at_an_edge_the_square_moves_instead_of_leaving_the_picture(box):
    crop = crop_face(coordinates(240, 200), np.array(box, np.float32), side=80)
    left, top, right, bottom = corners(crop)
    assert crop.shape == (80, 80, 3)
    assert right - left == pytest.approx(bottom - top, abs=2)
    assert right - left == pytest.approx(80, abs=2)


def test_a_face_larger_than_the_picture_takes_all_of_its_shorter_side():
    left, top, right, bottom = corners(crop_face(coordinates(100, 160), np.array([20, -10, 140, 120.0]), side=100))
    assert (bottom - top, right - left) == (100, 100)


def test_an_empty_box_is_an_error():
    with pytest.raises(ValueError, match="is empty"):
        crop_face(coordinates(10, 10), np.array([5, 5, 5, 8.0]), side=8)


def test_the_largest_face_of_a_portrait_is_the_person(tmp_path):
    analyzer = FaceAnalyzer(write_pack(tmp_path / "pack"), detection_sizes=((128, 128),), threads=1)
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    person = prepare_person(picture, 2, analyzer, 64)
    assert person.crop.shape == (64, 64, 3)
    assert any(np.array_equal(person.embedding, face.embedding) for face in analyzer.analyze(picture))
    assert person.note == "Portrait 2 shows 3 faces; the largest one is used."


def test_the_face_that_was_chosen_is_the_person(tmp_path):
    analyzer = FaceAnalyzer(write_pack(tmp_path / "pack"), detection_sizes=((128, 128),), threads=1)
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    for face in analyzer.analyze(picture):
        person = prepare_person(picture, 2, analyzer, 64, box=(face.box + 0.5).tolist())
        assert np.array_equal(person.embedding, face.embedding)
        assert person.note is None


def test_without_a_face_pack_the_middle_is_used_and_said():
    person = prepare_person(coordinates(100, 60), 1, None, 60)
    assert person.embedding is None
    assert "no face pack" in person.note
    assert corners(person.crop)[0] == 0
    assert corners(person.crop)[2] == 60


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.4, 1.0), (-0.3, 2.5), (0.2, 7.0), (0.0, 0.6)])
def test_the_parts_of_an_aligned_face_lie_where_every_reference_has_them(angle, scale):
    side = 64
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (reference_landmarks(side) - side / 2) @ turn.T * scale + np.array([310.0, 260.0])
    crop = align_face(blobs(landmarks, 600, 620, radius=max(3, 3 * scale)), landmarks, side)
    for index, (x, y) in enumerate(reference_landmarks(side)):
        channel = crop[..., index % 3].astype(float) * (crop[..., (index + 1) % 3] < 60)
        rows, columns = np.mgrid[:side, :side]
        near = channel * (np.hypot(columns - x, rows - y) < 5)
        assert (near * columns).sum() / near.sum() == pytest.approx(x, abs=0.6)
        assert (near * rows).sum() / near.sum() == pytest.approx(y, abs=0.6)


def blobs(landmarks: np.ndarray, height: int, width: int, *, radius: float) -> np.ndarray:
    """A black picture with a disc at each landmark, red, green and blue in turn."""
    rows, columns = np.mgrid[:height, :width]
    picture = np.zeros((height, width, 3), np.uint8)
    for index, (x, y) in enumerate(landmarks):
        picture[np.hypot(columns - x, rows - y) < radius, index % 3] = 255
    return picture


def test_beyond_the_edge_of_a_portrait_its_mirror_image_is_seen():
    landmarks = reference_landmarks(64) - np.array([20.0, 0.0])
    crop = align_face(coordinates(64, 60), landmarks, 64)
    assert np.array_equal(crop[:, 20, 0], np.zeros(64))
    assert np.allclose(crop[:, 10, 0], 10, atol=1)
    assert np.allclose(crop[:, 30, 0], 10, atol=1)


def test_landmarks_in_one_point_are_an_error():
    with pytest.raises(ValueError, match="in one point"):
        align_face(coordinates(64, 64), np.full((5, 2), 30.0), 64)
