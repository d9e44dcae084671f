"""Faces painted once more: cut out, doubled and laid back where they were, each after its own portrait."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.protocol import Conditioning
from core.face_detail import (
    SIDE,
    STEPS,
    DetailTarget,
    FaceDetail,
    FaceDetailSettings,
    cut_face,
    cut_landmarks,
    detail_targets,
    double_reference,
    lay_back,
)
from core.faces import Face
from core.generate import GenerationRequest, generate
from core.pixels import to_uint8
from core.portraits import align_face, reference_landmarks
from core.schedule import IdentitySchedule
from tests.tiny_bundles import write_tiny_bundle


def smooth(seed: int, height: int = 200, width: int = 240) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def landmarks_at(x: float, y: float, *, degrees: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Of a face as large as in a reference of 128 px, turned and scaled about its middle."""
    points = reference_landmarks(128)
    points = points - points.mean(0)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + (x, y)


def face(landmarks: np.ndarray, embedding=(1.0, 0.0)) -> Face:
    box = np.concatenate([landmarks.min(0), landmarks.max(0)]).astype(np.float32)
    return Face(box, landmarks.astype(np.float32), np.array(embedding, np.float32), 0.9)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (12, 1), (-20, 0.8), (5, 1.3), (0, 2.5)])
def test_a_face_that_is_laid_back_unchanged_changes_nothing(degrees, scale):
    picture, landmarks = smooth(0, 320, 360), landmarks_at(170, 160, degrees=degrees, scale=scale)
    again = picture.copy()
    lay_back(again, landmarks, cut_face(picture, landmarks))
    assert np.abs(again.astype(int) - picture).mean() < 0.5
    assert np.abs(again.astype(int) - picture).max() < 16


def test_a_cut_out_goes_back_to_the_very_place():
    picture, landmarks = np.zeros((200, 240, 3), np.uint8), landmarks_at(130, 90, degrees=15)
    # a dot at the tip of the nose, in the doubled cut-out
    nose = _dot((SIDE, SIDE), cut_landmarks()[2])
    lay_back(picture, landmarks, nose)
    rows, columns = np.nonzero(picture[..., 0] > 60)
    assert np.hypot(columns.mean() - landmarks[2, 0], rows.mean() - landmarks[2, 1]) < 0.6


def _dot(shape: tuple[int, ...], at: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    near = np.hypot(columns - at[0], rows - at[1]) < 4
    return np.where(near[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)


def test_what_lies_outside_of_the_cut_out_stays_as_it_is():
    picture, landmarks = smooth(1), landmarks_at(120, 100)
    painted = picture.copy()
    lay_back(painted, landmarks, np.full((SIDE, SIDE, 3), 255, np.uint8))
    changed = np.argwhere((painted != picture).any(2))
    assert (np.ptp(changed, axis=0) <= SIDE / 2).all()
    assert (painted[100, 120] == 255).all()
    assert not np.array_equal(painted, picture)


def test_portrait_and_face_lie_alike_in_their_cut_outs():
    picture, landmarks = smooth(2), landmarks_at(118, 104, degrees=8)
    reference = align_face(picture, landmarks, 128)
    difference = np.abs(double_reference(reference).astype(int) - cut_face(picture, landmarks))
    assert difference.mean() < 3


PLAIN = FaceDetailSettings(prompt="", identity_guidance=1.0, share=0.75)


class PaintsThePortrait:
    """A backbone whose latents are pixels and whose velocity leads to the reference, as far as it is let in."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.weights: list[float] = []
        self.prompts: list[str] = []

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 3, height, width

    def sigmas(self, steps: int, height: int, width: int) -> torch.Tensor:
        return torch.linspace(1, 0, steps + 1)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures

    decode = encode

    def encode_prompt(self, prompt: str, references) -> Conditioning:
        self.prompts.append(prompt)
        slots = torch.ones(1, dtype=torch.bool)
        return Conditioning(embeddings=torch.zeros(1, 1, 1), picture_slots=slots, reference_latents=())

    def prefill(self, conditioning: Conditioning) -> torch.Tensor:
        return conditioning.reference_latents[0]

    def velocity(self, prefix, x_t, sigma, *, reference_weight=1.0):
        self.weights.append(float(reference_weight))
        return (x_t - prefix * reference_weight) / sigma[:, None, None, None]


def flat(value: int) -> np.ndarray:
    return np.full((128, 128, 3), value, np.uint8)


def test_everybody_is_painted_after_their_own_portrait_in_every_picture():
    pictures = [np.full((160, 260, 3), 100, np.uint8) for _ in range(3)]
    left, right = landmarks_at(70, 90), landmarks_at(190, 90)
    targets = [
        DetailTarget(0, face(left), 0),
        DetailTarget(0, face(right), 1),
        DetailTarget(2, face(left), 1),
    ]
    painted = FaceDetail(PaintsThePortrait())(
        pictures, targets, [flat(20), flat(220)], seeds=[1, 2, 3], settings=[PLAIN] * 2
    )
    dark, bright = (round(0.75 * value + 0.25 * 100) for value in (20, 220))
    assert [int(p[90, 70, 0]) for p in painted] == [dark, 100, bright]
    assert [int(p[90, 190, 0]) for p in painted] == [bright, 100, 100]
    assert all((picture == 100).all() for picture in pictures)  # those that were given stay as they are


def test_the_identity_schedule_holds_for_faces_too():
    picture, targets = flat(100), [DetailTarget(0, face(landmarks_at(64, 71)), 0)]
    backbone = PaintsThePortrait()
    FaceDetail(backbone)([picture], targets, [flat(20)], seeds=[1], settings=[PLAIN], schedule=IdentitySchedule.off())
    assert backbone.weights == [0.0] * STEPS
    backbone.weights.clear()
    FaceDetail(backbone)(
        [picture], targets, [flat(20)], seeds=[1], settings=[PLAIN], schedule=IdentitySchedule.gate(0.2, 1.0)
    )
    assert backbone.weights[0] == 1.0
    assert backbone.weights[-1] == 0.0


def test_steps_are_counted_over_everybody_and_previews_show_whose_faces_are_done():
    picture = np.full((160, 260, 3), 100, np.uint8)
    targets = [DetailTarget(0, face(landmarks_at(70, 90)), 0), DetailTarget(0, face(landmarks_at(190, 90)), 2)]
    heard = []
    FaceDetail(PaintsThePortrait())(
        [picture],
        targets,
        [flat(20), flat(50), flat(220)],
        seeds=[1],
        settings=[PLAIN] * 3,
        on_step=lambda report: heard.append((report, to_uint8(report.preview())[0])),
    )
    assert [(r.stage, r.step, r.total) for r, _ in heard] == [("faces", k, 2 * STEPS) for k in range(1, 2 * STEPS + 1)]
    first, second = heard[STEPS - 1][1], heard[STEPS][1]
    assert (first == picture).all()
    assert second[90, 70, 0] < 100
    assert second[90, 190, 0] == 100


def test_each_face_goes_to_the_person_it_is_most_like_and_strangers_are_left_alone():
    left, middle, right = (landmarks_at(x, 90) for x in (60, 130, 200))
    found = [face(left, (0.0, 1.0)), face(middle, (-0.6, -0.8)), face(right, (1.0, 0.0))]
    analyzer = SimpleNamespace(analyze=lambda picture: found, same_person_threshold=0.5)
    embeddings = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    targets = detail_targets([flat(0), flat(0)], embeddings, analyzer)
    assert [(t.picture, t.person) for t in targets] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [t.face for t in targets] == [found[2], found[0]] * 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    bundle = load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle"), face_detail=True))
    found = [face(landmarks_at(64, 71))]
    bundle.__dict__["face_analyzer"] = SimpleNamespace(analyze=lambda picture: found, same_person_threshold=0.5)
    return bundle


def test_a_bundle_with_a_transformer_for_faces_uses_it(bundle):
    portrait = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    request = GenerationRequest(prompt="a man", portraits=(portrait,), seeds=(3, 4), height=128, width=128)
    made = generate(bundle, request)
    without = generate(bundle, GenerationRequest(**{**vars(request), "face_detail": False}))
    assert [c.settings["face_detail"] for c in (made[0], without[0])] == [True, False]
    assert "face detail" in made[0].seconds
    heard = []
    generate(bundle, request, on_step=heard.append)
    assert [report.stage for report in heard] == ["picture"] * bundle.card.steps + ["faces"] * STEPS
    for candidate, plain in zip(made, without, strict=True):
        changed = (candidate.picture != plain.picture).any(2)
        assert changed[60:80, 50:80].mean() > 0.5
        assert not changed[:4].any()
    # a seed's picture does not depend on the others
    alone = generate(bundle, GenerationRequest(**{**vars(request), "seeds": (4,)}))[0]
    assert np.abs(alone.picture.astype(int) - made[1].picture).max() <= 1


def test_who_is_to_be_a_child_is_said_to_be_one_and_led_less_towards_the_grown_up_face(bundle, monkeypatch):
    heard = []
    paint = FaceDetail.__call__

    def listen(self, *arguments, settings, **options):
        heard.append(settings)
        return paint(self, *arguments, settings=settings, **options)

    monkeypatch.setattr(FaceDetail, "__call__", listen)
    for changes in ({}, {"task": "child"}, {"task": "child", "target_ages": (None, 70)}):
        size = {"height": 128, "width": 128}
        generate(bundle, GenerationRequest(prompt="two people", portraits=(flat(90), flat(120)), **size, **changes))
    same_age, child, mixed = heard
    assert [one.prompt for one in same_age] == ["", ""]
    assert [one.prompt for one in child] == ["a child", "a child"]
    assert [one.prompt for one in mixed] == ["a child", ""]
    # the portrait is as far from seventy as from childhood
    for other in (child[0], *mixed):
        assert same_age[0].identity_guidance > other.identity_guidance
        assert same_age[0].share > other.share


def test_everybody_is_painted_with_their_own_settings():
    picture = np.full((160, 260, 3), 100, np.uint8)
    targets = [DetailTarget(0, face(landmarks_at(70, 90)), 0), DetailTarget(0, face(landmarks_at(190, 90)), 1)]
    backbone = PaintsThePortrait()
    child = FaceDetailSettings(prompt="a child", identity_guidance=1.0, share=0.5)
    painted = FaceDetail(backbone)([picture], targets, [flat(20), flat(220)], seeds=[1], settings=[PLAIN, child])[0]
    assert backbone.prompts == ["", "a child"]
    assert int(painted[90, 70, 0]) == round(0.75 * 20 + 0.25 * 100)
    assert int(painted[90, 190, 0]) == round(0.5 * 220 + 0.5 * 100)


def test_at_weight_zero_the_portrait_does_not_reach_the_face(bundle):
    made = []
    for seed in (0, 1):
        portrait = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), np.uint8)
        request = GenerationRequest(
            prompt="a man", portraits=(portrait,), height=128, width=128, schedule=IdentitySchedule.off()
        )
        made.append(generate(bundle, request)[0])
    assert made[0].settings["face_detail"]
    assert np.array_equal(made[0].picture, made[1].picture)
