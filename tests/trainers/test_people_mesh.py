"""The mesh of rendered people: found or explained, morphed by age as anatomy does, posed rigidly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainers.people_mesh import shared_renderer
from trainers.people.identity import Appearance, Person, sample_identity
from trainers.people.mesh import MESH_VARIABLE, Body, MeshMissing, PeopleMesh, find_mesh
from trainers.people.shape import SHAPE_TARGETS

AVERAGE = replace(sample_identity(0), shape=(0.0,) * len(SHAPE_TARGETS), weight=0.0, muscle=0.0)


@pytest.fixture(scope="module")
def mesh() -> PeopleMesh:
    return shared_renderer().mesh


def body(mesh: PeopleMesh, seed: int = 3, **look) -> Body:
    return mesh.body(Person(sample_identity(seed), Appearance(**{"age": 30.0} | look)))


def test_a_missing_file_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv(MESH_VARIABLE, str(tmp_path / "nowhere.npz"))
    with pytest.raises(MeshMissing, match=rf"nowhere\.npz.*extract.*{MESH_VARIABLE}"):
        find_mesh()


@pytest.mark.mesh
def test_between_key_ages_the_shape_is_in_between(mesh):
    child, adult = mesh.morph(AVERAGE, 11.0), mesh.morph(AVERAGE, 25.0)
    torch.testing.assert_close(mesh.morph(AVERAGE, 18.0), (child + adult) / 2, atol=1e-4, rtol=0)


@pytest.mark.mesh
def test_a_shape_value_moves_the_face_in_proportion_and_a_negative_one_elsewhere(mesh):
    nose = next(k for k, target in enumerate(SHAPE_TARGETS) if target.name == "nose/nose-hump")

    def moved(value: float) -> torch.Tensor:
        shape = [0.0] * len(SHAPE_TARGETS)
        shape[nose] = value
        return mesh.morph(replace(AVERAGE, shape=tuple(shape)), 30.0) - mesh.morph(AVERAGE, 30.0)

    torch.testing.assert_close(2 * moved(0.4), moved(0.8), atol=1e-4, rtol=0)
    assert float(moved(0.8).norm(dim=1).amax()) > 0.02
    assert float(moved(0.8)[:, 2].sum()) > 0 > float(moved(-0.8)[:, 2].sum())


@pytest.mark.mesh
@pytest.mark.parametrize("seed", range(6))
def test_children_have_large_heads_and_low_eyes(mesh, seed):
    def proportions(age: float) -> tuple[float, float, float]:
        one = mesh.body(Person(replace(sample_identity(seed), masculinity=0.1), Appearance(age=age)))
        outline = one.vertices[mesh.face_outline]
        crown, chin = float(one.joint("head-2")[1]), float(outline[:, 1].min())
        eyes = float((one.eyes["l"][0][1] + one.eyes["r"][0][1]) / 2)
        shoulders = float((one.joint("l-shoulder") - one.joint("r-shoulder")).norm())
        radius = float(one.eyes["l"][1])
        height = crown - chin
        return (eyes - chin) / height, height / shoulders, radius / height

    small, grown = proportions(3.0), proportions(30.0)
    assert small[0] < grown[0]  # eyes lower in the head
    assert small[1] > 1.25 * grown[1]  # the head large against the shoulders
    assert small[2] > 1.05 * grown[2]  # and the eyes large against the head


@pytest.mark.mesh
def test_what_makes_a_face_its_own_is_there_at_every_age(mesh):
    """A child's deviation from the average child points the way of the adult's from the average adult, more than the
    way of any other adult's."""
    face = mesh.face_outline
    deviation = {
        (seed, age): (mesh.morph(replace(AVERAGE, shape=sample_identity(seed).shape), age) - mesh.morph(AVERAGE, age))[
            face
        ].flatten()
        for seed in range(8)
        for age in (6.0, 30.0)
    }
    alike = torch.tensor(
        [[torch.cosine_similarity(deviation[a, 6.0], deviation[b, 30.0], 0) for b in range(8)] for a in range(8)]
    )
    assert (alike.argmax(1) == torch.arange(8)).all()
    assert float(alike.diag().min()) > 0.8


@pytest.mark.mesh
def test_without_a_pose_the_head_is_where_it_was(mesh):
    one = body(mesh)
    head = mesh.face_outline
    torch.testing.assert_close(one.vertices[head], (one.rest - one.rest_joint("neck"))[head], atol=1e-5, rtol=0)
    torch.testing.assert_close(one.head_rotation, torch.eye(3))


@pytest.mark.mesh
def test_the_head_turns_as_one_piece(mesh):
    still, turned = body(mesh), body(mesh, yaw=0.5, pitch=0.2, roll=0.1)
    upper = (mesh.template[:, 1] > 0.1).nonzero()[:, 0][::40]
    torch.testing.assert_close(
        torch.cdist(turned.vertices[upper], turned.vertices[upper]),
        torch.cdist(still.vertices[upper], still.vertices[upper]),
        atol=5e-3,
        rtol=0,
    )
    forward = turned.head_rotation[:, 2]
    assert math.atan2(forward[0], forward[2]) == pytest.approx(0.5, abs=0.06)
    assert float(turned.landmarks[2, 0]) > float(still.landmarks[2, 0])  # the nose moves to the picture's right
    assert float(body(mesh, pitch=0.3).landmarks[2, 1]) < float(still.landmarks[2, 1])  # chin down


@pytest.mark.mesh
def test_landmarks_lie_on_the_face_in_order(mesh):
    right_eye, left_eye, nose, right_corner, left_corner = body(mesh).landmarks.numpy()
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_corner[0] < nose[0] < left_corner[0]
    assert min(right_eye[1], left_eye[1]) > nose[1] > max(right_corner[1], left_corner[1])
    assert nose[2] > max(right_eye[2], left_eye[2], right_corner[2])
    template = mesh.template.numpy()
    mirrored = template[mesh.vertex(7185)] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, template[mesh.vertex(425)], atol=1e-3)


@pytest.mark.mesh
def test_arms_hang_and_can_be_raised(mesh):
    def steepness(raised: float) -> float:
        one = body(mesh, arms=(raised, raised))
        arm = one.joint("l-elbow") - one.joint("l-shoulder")
        return math.degrees(math.atan2(float(arm[0]), -float(arm[1])))

    assert -5 < steepness(0.0) < 15
    assert steepness(0.8) == pytest.approx(steepness(0.0) + math.degrees(0.8), abs=6)


@pytest.mark.mesh
def test_folds_of_the_face_see_less_sky_than_the_forehead(mesh):
    index, _ = mesh.bare_skin
    fields, place = mesh.skin_fields, mesh.template[index]
    sky = fields[:, 4]
    assert float(sky.min()) >= 0
    assert float(sky.max()) <= 1 + 1e-5
    forehead = (place[:, 1] > 0.7) & (place[:, 2] > 0.7)
    mouth = fields[:, 3] > 0.9
    assert float(sky[forehead].mean()) > 0.9
    assert float(sky[mouth].mean()) < 0.4
