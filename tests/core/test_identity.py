from itertools import permutations

import numpy as np
import pytest
import torch

from core.face_encoder import FaceEncoder
from core.faces import Face, FaceAnalyzer
from core.identity import detect_landmarks, identity_loss, landmarks_from_boxes, measure_faces
from tests.core.face_models import arcface_model, write_pack

SIZE = 16  # of an embedding


@pytest.fixture(scope="module")
def encoder():
    return FaceEncoder(arcface_model(embedding_size=SIZE)).double()


def unit(count, seed):
    rows = torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def batch(seed=0):
    """Three 64x64 pictures with 2, 3 and 0 faces, and 2, 2 and 1 references."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(3, 3, 64, 64, generator=generator, dtype=torch.float64)
    boxes = [
        torch.tensor(b, dtype=torch.float64).reshape(-1, 4)
        for b in ([[2, 4, 30, 40], [33, 10, 60, 46]], [[0, 0, 20, 25], [22, 20, 44, 48], [40, 2, 63, 30]], [])
    ]
    landmarks = [landmarks_from_boxes(b) for b in boxes]
    references = [unit(2, seed + 1), unit(2, seed + 2), unit(1, seed + 3)]
    return pictures, references, landmarks


def similarities(encoder, pictures, references, landmarks, sample):
    index = torch.full((len(landmarks[sample]),), sample)
    return references[sample] @ encoder.embed_faces(pictures, landmarks[sample], picture_index=index).T


def test_loss_is_the_best_assignment_of_all_weighted_by_the_schedule(encoder):
    pictures, references, landmarks = batch()
    weights = torch.tensor([0.5, 2.0, 1.0])
    result = identity_loss(pictures, references, landmarks, encoder, weights=weights)

    expected = []
    for sample in (0, 1):
        similarity = similarities(encoder, pictures, references, landmarks, sample)
        best = max(
            permutations(range(similarity.shape[1]), 2),
            key=lambda p: sum(similarity[i, j] for i, j in enumerate(p)),
        )
        assert result.pairs[sample] == tuple(enumerate(best))
        expected.append(np.mean([1 - similarity[i, j].item() for i, j in enumerate(best)]))
    assert result.per_sample[:2].tolist() == pytest.approx(expected)
    assert result.per_sample[2].isnan()
    assert result.pairs[2] == ()
    assert result.loss.item() == pytest.approx((0.5 * expected[0] + 2 * expected[1]) / 3)


def test_given_pairs_are_used_as_they_are(encoder):
    pictures, references, landmarks = batch()
    pairs = [[(0, 1), (1, 0)], [(1, 2)], []]
    result = identity_loss(pictures, references, landmarks, encoder, pairs=pairs)
    similarity = similarities(encoder, pictures, references, landmarks, 1)
    assert result.pairs == (((0, 1), (1, 0)), ((1, 2),), ())
    assert result.per_sample[1].item() == pytest.approx(1 - similarity[1, 2].item())


def test_confidence_is_the_margin_over_the_best_other_reference(encoder):
    pictures, references, landmarks = batch()
    pairs = [[(0, 0)], [(0, 1), (1, 2)], []]
    result = identity_loss(pictures, references, landmarks, encoder, pairs=pairs)
    first = similarities(encoder, pictures, references, landmarks, 0)
    second = similarities(encoder, pictures, references, landmarks, 1)
    assert result.confidence[0].item() == pytest.approx((first[0, 0] - first[1, 0]).item())
    margins = (second[0, 1] - second[1, 1] + second[1, 2] - second[0, 2]) / 2
    assert result.confidence[1].item() == pytest.approx(margins.item())
    assert result.confidence[2].isnan()


def test_gradient_into_the_pixels_equals_finite_differences(encoder):
    pictures, references, landmarks = batch()
    weights = torch.tensor([1.0, 0.3, 1.0])
    pixels = pictures.clone().requires_grad_()
    identity_loss(pixels, references, landmarks, encoder, weights=weights).loss.backward()
    assert pixels.grad[:2].abs().amax((1, 2, 3)).min() > 1e-6
    assert pixels.grad[2].abs().max() == 0

    direction = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    step = 1e-7
    ends = [
        identity_loss(pictures + sign * step * direction, references, landmarks, encoder, weights=weights).loss
        for sign in (1, -1)
    ]
    torch.testing.assert_close((pixels.grad * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-8)


def test_gradient_steps_bring_the_faces_to_their_references(encoder):
    pictures, references, landmarks = batch()
    pixels = pictures.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=0.02)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = identity_loss(pixels, references, landmarks, encoder, pairs=[[(0, 0), (1, 1)], [(0, 0)], []]).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_samples_of_weight_zero_are_not_encoded(encoder):
    pictures, references, landmarks = batch()
    pixels = pictures.clone().requires_grad_()
    landmarks[1] = torch.zeros(1, 5, 2)  # no alignment exists: encoding it would raise
    result = identity_loss(pixels, references, landmarks, encoder, weights=torch.tensor([1.0, 0.0, 1.0]))
    result.loss.backward()
    assert result.per_sample[1].isnan()
    assert pixels.grad[1].abs().max() == 0


def test_nothing_to_compare_is_a_zero_that_can_go_backward(encoder):
    pictures, references, landmarks = batch()
    pixels = pictures.clone().requires_grad_()
    result = identity_loss(pixels, references, landmarks, encoder, weights=torch.zeros(3))
    result.loss.backward()
    assert result.loss.item() == 0
    assert pixels.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"references": []}, "as many reference sets"),
        ({"references": [torch.rand(1, 5)] * 3}, "embeddings of this encoder"),
        ({"weights": torch.tensor([1.0, -1.0, 0.0])}, "0 or more"),
        ({"weights": torch.tensor([1.0, float("nan"), 0.0])}, "0 or more"),
        ({"weights": torch.ones(2)}, "weights must be"),
        ({"pairs": [[(2, 0)], [], []]}, r"sample 0: pair \(2, 0\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(encoder, change, message):
    pictures, references, landmarks = batch()
    arguments = {"pictures": pictures, "references": references, "landmarks": landmarks} | change
    with pytest.raises(ValueError, match=message):
        identity_loss(**arguments, encoder=encoder)


def test_landmarks_from_boxes_lie_in_the_box_in_order():
    points = landmarks_from_boxes(torch.tensor([[10.0, 20.0, 50.0, 80.0]]))[0]
    left_eye, right_eye, nose, left_mouth, right_mouth = points
    assert 10 < left_eye[0] < nose[0] < right_eye[0] < 50
    assert 20 < left_eye[1] < nose[1] < left_mouth[1] < 80
    assert left_eye[1] == right_eye[1]
    assert left_mouth[0] + right_mouth[0] == pytest.approx(60)
    with pytest.raises(ValueError, match="right > left"):
        landmarks_from_boxes(torch.tensor([[10.0, 20.0, 5.0, 80.0]]))


def test_detected_landmarks_are_the_analyzers(tmp_path):
    analyzer = FaceAnalyzer(write_pack(tmp_path / "pack"), detection_sizes=((128, 128),), threads=1)
    pictures = torch.rand(2, 3, 128, 128).requires_grad_()
    found = detect_landmarks(pictures, analyzer)
    picture = (pictures[1].detach() * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found[1], np.stack([face.landmarks for face in analyzer.analyze(picture)]))
    assert not found[0].requires_grad


def face(embedding, x):
    return Face(
        box=np.array([x - 10, 0, x + 10, 20], np.float32),
        landmarks=np.zeros((5, 2), np.float32),
        embedding=np.asarray(embedding, np.float32),
        score=0.9,
    )


def mixture(*shares):
    """A unit vector whose cosine with the axes e_0, e_1, ... is as given; the rest lies on the last axis."""
    vector = np.zeros(8)
    vector[: len(shares)] = shares
    vector[7] = np.sqrt(1 - np.square(shares).sum())
    return vector


PEOPLE = np.eye(8)[:3]


def test_report_of_a_perfect_group():
    faces = [face(mixture(0.9), 10), face(mixture(0, 0.8), 50), face(mixture(0, 0, 0.7), 90)]
    report = measure_faces(PEOPLE, faces, threshold=0.35, expected_order=[0, 1, 2])
    assert report.face_sim == pytest.approx(0.8)
    assert (report.coverage, report.duplicates, report.swaps) == (1, 0, 0)
    assert (report.face_count, report.count_correct) == (3, True)
    assert [(row.reference, row.face, row.covered) for row in report.rows] == [
        (0, 0, True),
        (1, 1, True),
        (2, 2, True),
    ]


def test_missing_face_counts_zero():
    report = measure_faces(PEOPLE, [face(mixture(0, 0.9), 10)], threshold=0.35)
    assert report.face_sim == pytest.approx(0.3)
    assert report.coverage == pytest.approx(1 / 3)
    assert not report.count_correct
    assert [row.face for row in report.rows] == [None, 0, None]
    assert [row.similarity for row in report.rows] == pytest.approx([0, 0.9, 0])
    assert report.swaps is None


def test_no_face_at_all():
    report = measure_faces(PEOPLE, [], threshold=0.35)
    assert (report.face_sim, report.coverage, report.duplicates, report.face_count) == (0, 0, 0, 0)


def test_one_face_never_serves_two_people():
    """Peers take the best face of each reference: that would be .6 for both and a mean of .6."""
    report = measure_faces(PEOPLE[:2], [face(mixture(0.6, 0.6), 10)], threshold=0.35)
    assert report.face_sim == pytest.approx(0.3)
    assert report.coverage == 0.5


def test_duplicates_and_weak_faces():
    faces = [face(mixture(0.9), 10), face(mixture(0.8), 50), face(mixture(0, 0, 0.1), 90)]
    report = measure_faces(PEOPLE, faces, threshold=0.35)
    assert report.duplicates == 1
    assert report.coverage == pytest.approx(1 / 3)
    assert report.face_sim == pytest.approx((0.9 + 0 + 0.1) / 3)
    assert [row.covered for row in report.rows] == [True, False, False]


def test_swapped_places():
    faces = [face(mixture(0, 0.8), 10), face(mixture(0.9), 50)]
    assert measure_faces(PEOPLE[:2], faces, threshold=0.35, expected_order=[0, 1]).swaps == 1
    assert measure_faces(PEOPLE[:2], faces, threshold=0.35, expected_order=[1, 0]).swaps == 0


def test_measuring_refuses_embeddings_that_do_not_fit():
    with pytest.raises(ValueError, match="at least one"):
        measure_faces(np.zeros((0, 8)), [], threshold=0.35)
    with pytest.raises(ValueError, match="different packs"):
        measure_faces(np.eye(5), [face(mixture(0.9), 10)], threshold=0.35)
    with pytest.raises(ValueError, match="unit length"):
        measure_faces(2 * PEOPLE, [face(mixture(0.9), 10)], threshold=0.35)
    with pytest.raises(ValueError, match="unit length"):
        measure_faces(PEOPLE, [face(2 * mixture(0.9), 10)], threshold=0.35)
