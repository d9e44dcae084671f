"""Identities of rendered people: the prior is even, correlated and bounded, and ages change what age changes."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from trainers.people.identity import EXPRESSIONS, Appearance, Person, sample_identity
from trainers.people.shape import SHAPE_TARGETS

COLUMN = {target.name: k for k, target in enumerate(SHAPE_TARGETS)}


@pytest.fixture(scope="module")
def crowd() -> list:
    return [sample_identity(seed) for seed in range(900)]


def test_a_seed_is_always_the_same_person_and_seeds_are_different_people(crowd):
    assert sample_identity(7) == crowd[7]
    assert len({identity.shape for identity in crowd}) == len(crowd)


def test_sexes_and_ancestries_come_evenly(crowd):
    assert 0.45 < np.mean([identity.female for identity in crowd]) < 0.55
    shares = np.array([identity.ethnicity for identity in crowd])
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    main = np.bincount(shares.argmax(1), minlength=3) / len(crowd)
    assert main.min() > 0.28, main
    # Sex and ancestry are drawn apart.
    for group in range(3):
        assert 0.38 < np.mean([i.female for i in crowd if np.argmax(i.ethnicity) == group]) < 0.62


def test_skin_covers_the_whole_range_of_tones(crowd):
    melanin = np.array([identity.melanin for identity in crowd])
    assert ((melanin >= 0) & (melanin <= 1)).all()
    assert (np.histogram(melanin, bins=5, range=(0, 1))[0] > 20).all()


def test_shape_has_the_stated_spread_and_no_outliers(crowd):
    shape = np.array([identity.shape for identity in crowd])
    assert np.abs(shape).max() <= 1
    deviations = np.array([target.deviation for target in SHAPE_TARGETS])
    two_sided = np.array([bool(target.negative) for target in SHAPE_TARGETS])
    measured = shape.std(0)[two_sided] / deviations[two_sided]
    assert 0.8 < measured.min() < measured.max() < 1.15
    assert (shape[:, ~two_sided] >= 0).all()
    distance = np.sqrt(((shape / deviations)[:, two_sided] ** 2).mean(1))
    assert distance.max() < 1.35  # nobody is extreme in everything


@pytest.mark.parametrize(
    ("first", "second", "sign"),
    [
        ("mouth/mouth-lowerlip-volume", "mouth/mouth-upperlip-volume", 1),
        ("nose/nose-width2", "nose/nose-width3", 1),
        ("cheek/cheek-volume", "head/head-fat", 1),
        ("chin/chin-width", "chin/chin-triangle", -1),
    ],
)
def test_related_features_grow_together(crowd, first, second, sign):
    shape = np.array([identity.shape for identity in crowd])
    correlation = np.corrcoef(shape[:, COLUMN[first]], shape[:, COLUMN[second]])[0, 1]
    assert sign * correlation > 0.25


def test_unrelated_features_do_not(crowd):
    shape = np.array([identity.shape for identity in crowd])
    pair = shape[:, [COLUMN["ears/ear-scale"], COLUMN["nose/nose-hump"]]]
    assert abs(np.corrcoef(pair.T)[0, 1]) < 0.12


def test_adults_have_their_whole_shape_and_children_less_of_nose_and_jaw(crowd):
    identity = crowd[0]
    assert identity.shape_at(30) == pytest.approx(list(identity.shape))
    nose, ears = COLUMN["nose/nose-hump"], COLUMN["ears/ear-wing"]
    child = identity.shape_at(3)
    assert child[nose] / identity.shape[nose] < child[ears] / identity.shape[ears] < 1


def test_hair_turns_grey_with_age_and_never_back(crowd):
    for identity in crowd[:40]:
        grey = [identity.grey_at(age) for age in range(1, 81)]
        assert grey[:36] == [0] * 36
        assert all(later >= earlier for earlier, later in pairwise(grey))
        assert grey[-1] > 0.8
        assert np.ptp(identity.hair_colour_at(79)) < np.ptp(identity.hair_colour) + 0.05


def test_women_have_no_beard(crowd):
    assert {identity.beard for identity in crowd if identity.female} == {"none"}
    assert len({identity.beard for identity in crowd if not identity.female}) > 3


def test_an_appearance_refuses_what_cannot_be_rendered():
    with pytest.raises(ValueError, match=r"age 0\.5 is outside 1\.\.80"):
        Appearance(age=0.5)
    with pytest.raises(ValueError, match=r"unknown expression 'smirk'.*neutral"):
        Appearance(age=30, expression="smirk")


def test_intensity_scales_the_expression():
    person = Person(sample_identity(1), Appearance(age=30, expression="grin", intensity=0.5))
    assert person.expression_units == {name: 0.5 * weight for name, weight in EXPRESSIONS["grin"].items()}


def test_people_are_plain_values():
    person = Person(sample_identity(3), Appearance(age=30))
    assert dataclasses.asdict(person)["identity"]["seed"] == 3
    assert hash(person) == hash(Person(sample_identity(3), Appearance(age=30)))
