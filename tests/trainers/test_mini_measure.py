"""The measure of the mini bundle, on the bundled portraits and face pack; the pictures are portraits side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.faces import FaceAnalyzer, default_pack
from trainers.mini.data import Example
from trainers.mini.measure import Held, embed_portrait, measure_identity

PORTRAITS = Path(__file__).parents[2] / "assets" / "portraits"
SIDE = 256
NAMES = ("person-01", "person-02", "person-03")


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return FaceAnalyzer(default_pack())


@pytest.fixture(scope="module")
def looks() -> dict[str, np.ndarray]:
    """Two looks, a and b, of each person."""
    names = [f"{name}-{look}" for name in NAMES for look in "ab"]
    return {n: np.asarray(Image.open(PORTRAITS / f"{n}.jpg").convert("RGB").resize((SIDE, SIDE))) for n in names}


def held(looks: dict[str, np.ndarray], given: tuple[str, str]) -> Held:
    """A case of two people, whose true picture is their portraits beside each other."""
    boxes = tuple((left + 64.0, 50.0, left + 192.0, 200.0) for left in (0, SIDE))
    example = Example(
        task="group",
        people=(0, 1),
        references=(0, 1),
        picture=0,
        size=(SIDE, 2 * SIDE),
        boxes=boxes,
        landmarks=(),
        scene="",
        prompt="",
        attributes=({}, {}),
    )
    picture = beside(looks, *given)
    return Held(example, [looks[name] for name in given], picture)


def beside(looks: dict[str, np.ndarray], *names: str) -> np.ndarray:
    return np.concatenate([looks[name] for name in names], axis=1)


def gallery(looks: dict[str, np.ndarray], analyzer: FaceAnalyzer, *names: str) -> dict[int, np.ndarray]:
    return {person: embed_portrait(looks[name], analyzer) for person, name in enumerate(names)}


def test_the_portraits_themselves_are_the_people_to_the_last_digit(looks, analyzer):
    case = held(looks, ("person-01-a", "person-02-a"))
    known = gallery(looks, analyzer, "person-01-b", "person-02-b", "person-03-b")
    found = measure_identity([case.picture], [case], known, analyzer)
    assert found["face_sim"] > 0.95
    assert found["gallery_face_sim"] < found["face_sim"]  # another look of the same people
    assert found["coverage"] == found["gallery_coverage"] == found["rank_1"] == found["order_kept"] == 1
    assert found["duplicates"] == 0


def test_coverage_is_of_the_portraits_given_and_rank_1_of_the_gallery(looks, analyzer):
    case = held(looks, ("person-01-a", "person-02-a"))
    strangers = gallery(looks, analyzer, "person-03-a", "person-03-b", "person-01-b", "person-02-b")
    found = measure_identity([case.picture], [case], strangers, analyzer)
    assert found["coverage"] == 1
    assert found["gallery_coverage"] == 0
    assert found["rank_1"] == 0


def test_people_in_each_others_places_are_covered_but_out_of_order(looks, analyzer):
    case = held(looks, ("person-01-a", "person-02-a"))
    known = gallery(looks, analyzer, "person-01-b", "person-02-b", "person-03-b")
    found = measure_identity([beside(looks, "person-02-a", "person-01-a")], [case], known, analyzer)
    assert found["coverage"] == 1
    assert found["order_kept"] == found["rank_1"] == 0


def test_a_missing_person_counts_with_similarity_0(looks, analyzer):
    case = held(looks, ("person-01-a", "person-02-a"))
    known = gallery(looks, analyzer, "person-01-b", "person-02-b", "person-03-b")
    alone = case.picture.copy()
    alone[:, SIDE:] = 110
    found = measure_identity([alone], [case], known, analyzer)
    assert found["coverage"] == found["rank_1"] == found["faces_found"] == 0.5
    assert 0.45 < found["face_sim"] <= 0.5
