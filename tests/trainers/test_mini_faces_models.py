import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from insightface.model_zoo.scrfd import distance2bbox, distance2kps

from tests.trainers.mini_faces_portraits import write_portraits
from trainers.mini.faces.detector import (
    STRIDES,
    Detector,
    anchor_table,
    assign,
    box_overlap,
    detection_loss,
)
from trainers.mini.faces.measure import area_under_curve, as_table, best_accuracy, measure_scenes, overlap
from trainers.mini.faces.portraits import PortraitSet
from trainers.mini.faces.recogniser import AngularMargin, Recogniser, trait_loss
from trainers.mini.faces.scenes import Scene, random_scene


def scene_of(boxes, size=160):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    middle, extent = (
        (boxes[:, None, :2] + boxes[:, None, 2:]) / 2,
        (boxes[:, None, 2:] - boxes[:, None, :2]) / 2,
    )
    points = np.array([[-0.4, -0.3], [0.4, -0.3], [0, 0.1], [-0.3, 0.5], [0.3, 0.5]], np.float32)
    picture = np.zeros((size, size, 3), np.uint8)
    return Scene(picture, boxes, (middle + points * extent).astype(np.float32), np.zeros(len(boxes), np.int64))


def perfect_output(scene):
    """What the detector would have to say, from the definition of its outputs."""
    centres, strides, sizes = anchor_table(*scene.picture.shape[:2])
    face, _ = assign(torch.from_numpy(scene.box), centres, strides, sizes)
    scores = torch.where(face >= 0, 12.0, -12.0)[None, :, None]
    box, points = torch.from_numpy(scene.box)[face], torch.from_numpy(scene.landmarks)[face]
    stride = strides[:, None]
    boxes = torch.cat([centres - box[:, :2], box[:, 2:] - centres], 1) / stride
    landmarks = ((points - centres[:, None]) / stride[..., None]).flatten(1)
    return scores, boxes[None], landmarks[None], face


def test_rows_are_decoded_by_insightface_to_the_true_boxes_and_landmarks():
    scene = scene_of([[10, 12, 40, 50], [60, 30, 150, 150]])
    scores, boxes, landmarks, face = perfect_output(scene)
    start = 0
    for stride in STRIDES:
        cells = 160 // stride
        rows = slice(start, start + 2 * cells * cells)
        start = rows.stop
        # As SCRFD.forward builds its anchor centres.
        centres = np.stack(np.mgrid[:cells, :cells][::-1], axis=-1).astype(np.float32)
        centres = np.stack([(centres * stride).reshape(-1, 2)] * 2, axis=1).reshape(-1, 2)
        found = distance2bbox(centres, boxes[0, rows].numpy() * stride)
        points = distance2kps(centres, landmarks[0, rows].numpy() * stride).reshape(-1, 5, 2)
        for row in np.flatnonzero(scores[0, rows, 0].numpy() > 0):
            true = int(face[rows][row])
            np.testing.assert_allclose(found[row], scene.box[true], atol=1e-3)
            np.testing.assert_allclose(points[row], scene.landmarks[true], atol=1e-3)
    assert start == len(face)


def test_every_face_has_an_anchor_and_anchors_know_one_face():
    rng = np.random.default_rng(0)
    centres, strides, sizes = anchor_table(256, 256)
    for _ in range(300):
        height = np.exp(rng.uniform(np.log(12), np.log(300)))
        middle = rng.uniform(20, 236, 2)
        extent = np.array([0.4, 0.5]) * height
        box = np.concatenate([middle - extent, middle + extent])
        face, ignored = assign(torch.from_numpy(box[None].astype(np.float32)), centres, strides, sizes)
        answering = face >= 0
        assert answering.any()
        assert not (answering & ignored).any()
        # Nobody answers from outside the face.
        assert ((centres[answering] - torch.from_numpy(middle)).abs() <= max(0.5 * height, 24)).all()


def test_no_face_means_no_answer():
    face, ignored = assign(torch.zeros(0, 4), *anchor_table(64, 64))
    assert (face == -1).all()
    assert not ignored.any()


def test_loss_of_a_perfect_answer_is_almost_nothing_and_of_a_wrong_one_is_not():
    scene = scene_of([[10, 12, 40, 50], [60, 30, 150, 150]])
    scores, boxes, landmarks, _ = perfect_output(scene)
    assert max(term.item() for term in detection_loss(scores, boxes, landmarks, [scene])) < 1e-2
    for wrong in (
        detection_loss(-scores, boxes, landmarks, [scene])[0],
        detection_loss(scores, boxes + 1, landmarks, [scene])[1],
        detection_loss(scores, boxes, landmarks + 1, [scene])[2],
    ):
        assert wrong.item() > 0.1


def test_loss_of_a_picture_without_faces_is_finite_and_has_a_gradient():
    scene = scene_of([], size=64)
    outputs = [torch.cat(parts, 1) for parts in Detector()(torch.zeros(1, 3, 64, 64))]
    terms = detection_loss(*outputs, [scene])
    sum(terms).backward()
    assert all(term.isfinite() for term in terms)
    assert terms[1] == terms[2] == 0


def test_hidden_faces_count_neither_for_nor_against():
    scene = scene_of([[10, 12, 40, 50]])
    half_hidden = replace(scene, hidden=np.array([[90, 90, 140, 150]], np.float32))
    scores, boxes, landmarks, face = perfect_output(scene)
    centres, _, _ = anchor_table(160, 160)
    inside = ((centres > 100) & (centres < 130)).all(1)
    assert inside.any()
    assert (face[inside] == -1).all()
    scores[0, inside] = 12.0  # found, though mostly hidden
    assert detection_loss(scores, boxes, landmarks, [scene])[0] > 0.1
    assert detection_loss(scores, boxes, landmarks, [half_hidden])[0] < 1e-2


def test_box_overlap_equals_counting_pixels():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 30, (50, 2, 2, 2)), axis=2).astype(np.float32)
    corners[:, :, 1] += 1
    first, second = corners[:, 0].reshape(-1, 4), corners[:, 1].reshape(-1, 4)
    expected = []
    for pair in zip(first.astype(int), second.astype(int), strict=True):
        masks = np.zeros((2, 40, 40), bool)
        for mask, (left, top, right, bottom) in zip(masks, pair, strict=True):
            mask[top:bottom, left:right] = True
        expected.append(masks.all(0).sum() / masks.any(0).sum())
    np.testing.assert_allclose(box_overlap(torch.from_numpy(first), torch.from_numpy(second)), expected, atol=1e-5)
    np.testing.assert_allclose([overlap(a, b) for a, b in zip(first, second, strict=True)], expected, atol=1e-5)


def test_detector_learns_one_scene(tmp_path):
    """Thirty steps on one drawn picture: the faces stand out from the background."""
    torch.manual_seed(0)
    portraits = PortraitSet.open([write_portraits(tmp_path)], held_out=False)
    candidates = (random_scene(np.random.default_rng(s), portraits, 96, damaged=False) for s in range(50))
    scene = next(scene for scene in candidates if len(scene.box) == 3)
    picture = torch.from_numpy(scene.picture).permute(2, 0, 1)[None] / 127.5 - 1
    model = Detector()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        terms = detection_loss(*(torch.cat(parts, 1) for parts in model(picture)), [scene])
        loss = terms[0] + 2 * terms[1] + 10 * terms[2]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    scores = torch.cat(model(picture)[0], 1)[0, :, 0].sigmoid()
    face, ignored = assign(torch.from_numpy(scene.box), *anchor_table(96, 96))
    assert scores[face >= 0].mean() > scores[(face < 0) & ~ignored].mean() + 0.2


def test_angular_margin_is_arcfaces_formula():
    generator = torch.Generator().manual_seed(0)
    head = AngularMargin(torch.randn(5, 3, generator=generator), scale=10.0).double()
    embeddings = torch.randn(8, 128, generator=generator, dtype=torch.float64)
    person = torch.arange(8) % 5
    unit = [torch.nn.functional.normalize(x) for x in (embeddings, head.centres)]
    angle = (unit[0] @ unit[1].T).clamp(-1, 1).arccos()
    for margin in (0.0, 0.4):
        shifted = angle.clone()
        shifted[torch.arange(8), person] += margin
        torch.testing.assert_close(head(embeddings, person, margin), 10 * shifted.cos())


def test_angular_margin_still_pushes_when_the_true_person_is_opposite():
    head = AngularMargin(torch.zeros(2, 3))
    with torch.no_grad():
        head.offsets.zero_()
        head.offsets[0, 0], head.offsets[1, 1] = 1, 1
    embedding = torch.zeros(1, 128)
    embedding[0, :2] = torch.tensor([-1.0, 0.02])
    embedding.requires_grad_()
    head(embedding, torch.tensor([0]), 0.5)[0, 0].backward()
    moved = embedding.detach() + 0.01 * embedding.grad
    assert moved[0, 1].abs() != embedding[0, 1].abs()
    assert embedding.grad.isfinite().all()
    assert head(moved, torch.tensor([0]), 0.5)[0, 0] > head(embedding, torch.tensor([0]), 0.5)[0, 0]


def test_a_picture_of_one_person_teaches_about_people_of_like_traits():
    torch.manual_seed(0)
    traits = torch.tensor([[1.0, 0.0], [1.0, torch.nan], [0.0, 1.0]])
    head = AngularMargin(traits)
    embedding = torch.randn(1, 128)
    before = torch.nn.functional.cosine_similarity(head.centres, embedding)
    optimizer = torch.optim.SGD(head.of_traits.parameters(), 0.01)
    torch.nn.functional.cross_entropy(head(embedding, torch.tensor([0]), 0.0), torch.tensor([0])).backward()
    optimizer.step()
    after = torch.nn.functional.cosine_similarity(head.centres, embedding)
    # The second has the same known trait: drawn along, though it is a wrong answer. The third is not.
    assert after[0] > before[0]
    assert after[1] > before[1]
    assert after[2] < before[2]


def test_unknown_traits_cost_nothing():
    predicted = torch.tensor([[1.0, 5.0], [3.0, 0.0]], requires_grad=True)
    loss = trait_loss(predicted, torch.tensor([[2.0, torch.nan], [3.0, 2.0]]))
    loss.backward()
    assert loss.item() == pytest.approx((1 + 0 + 4) / 3)
    assert predicted.grad[0, 1] == 0


def test_models_have_the_sizes_the_pack_allows():
    def megabytes(model):
        return sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e6

    assert megabytes(Detector()) <= 4
    assert megabytes(Recogniser()) <= 7


def test_area_under_curve_equals_comparing_all_pairs():
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 8, 40) / 8 + 0.2, rng.integers(0, 8, 60) / 8
    brute = np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])
    assert area_under_curve(positive, negative) == pytest.approx(brute)
    assert math.isnan(area_under_curve(positive, negative[:0]))


def test_best_accuracy_equals_trying_every_threshold():
    rng = np.random.default_rng(1)
    positive, negative = rng.normal(1, 1, 30), rng.normal(0, 1, 50)
    brute = max(((positive >= t).mean() + (negative < t).mean()) / 2 for t in np.concatenate([positive, negative]))
    assert best_accuracy(positive, negative) == pytest.approx(brute)


class Oracle:
    """An analyser that says the truth about scenes it is told, with errors on demand."""

    def __init__(self, scenes, miss=0, invent=0, shift=0.0):
        self.scenes, self.miss, self.invent, self.shift = iter(scenes), miss, invent, shift

    def analyze(self, picture):
        from core.faces import Face

        scene = next(self.scenes)
        faces = [
            Face(box, points + self.shift, np.ones(1), 0.9)
            for box, points in zip(scene.box, scene.landmarks, strict=True)
        ]
        invented = Face(np.array([900, 900, 950, 950.0]), np.zeros((5, 2)), np.ones(1), 0.9)
        half_hidden = [Face(box, np.zeros((5, 2)), np.ones(1), 0.9) for box in scene.hidden]
        return faces[self.miss :] + [invented] * self.invent + half_hidden


def test_scene_measure_counts_missed_and_invented_faces(tmp_path):
    portraits = PortraitSet.open([write_portraits(tmp_path)], held_out=False)

    def scenes():
        from trainers.mini.faces.scenes import degrade

        rng = np.random.default_rng(1)
        for _ in range(20):
            scene = random_scene(rng, portraits, 256, damaged=False)
            degrade(rng, scene.picture, 0.4)
            yield scene

    total = sum(len(scene.box) for scene in scenes())
    perfect = {m.name: m for m in measure_scenes(Oracle(scenes()), portraits, count=20)}
    assert perfect["faces found in composed pictures"].value == 100
    assert perfect["faces found in composed pictures"].count == total
    assert perfect["false faces"].value == 0
    assert perfect["landmark error"].value == pytest.approx(0, abs=1e-6)

    with_errors = {
        m.name: m for m in measure_scenes(Oracle(scenes(), miss=1, invent=2, shift=1.0), portraits, count=20)
    }
    missed = sum(len(scene.box) > 0 for scene in scenes())
    assert with_errors["faces found in composed pictures"].value == pytest.approx(100 * (total - missed) / total)
    assert with_errors["false faces"].value == 2
    assert with_errors["landmark error"].value > 0


def test_table_has_a_column_for_each_pack():
    from trainers.mini.faces.measure import Measurement

    one = [Measurement(name="found", value=99.0, unit="%", count=10)]
    two = [*one, Measurement(name="age", value=1.5, unit="years", count=3)]
    table = as_table({"ours": one, "other": two})
    assert table.splitlines() == [
        "| measured | cases | ours | other |",
        "|---|---|---|---|",
        "| found | 10 | 99.0 % | 99.0 % |",
        "| age | 3 | - | 1.500 years |",
    ]
