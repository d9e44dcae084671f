"""Places and colours of clothes are told from pictures by discriminants, on pictures painted for this."""

from __future__ import annotations

import numpy as np
import pytest

from core.colours import COLOURS
from trainers.mini.data import Example, Shard
from trainers.mini.obedience import Discriminant, Obedience, colours_worn, light_said, place_said

SIZE = (64, 96)
FACE = (36.0, 8.0, 60.0, 32.0)
PLACES = {"in a snowy landscape": (235, 240, 250), "in a park": (60, 120, 40), "in a library": (90, 60, 40)}
CLOTHES = ("red", "teal", "light blue", "blue")


def example(scene: str, colour: str, picture: int) -> Example:
    clothes = f"{colour} T-shirt"
    return Example(
        task="group",
        people=(0,),
        references=(0,),
        picture=picture,
        size=SIZE,
        boxes=(FACE,),
        landmarks=(),
        scene=scene,
        prompt=f"The person from image 1 in a {clothes} stands {scene}.",
        attributes=({"clothes": clothes},),
    )


def painted(scene: str, colour: str, rng: np.random.Generator) -> np.ndarray:
    """The place behind, clothes below the face, both in light of a random strength and tint."""
    picture = np.full((*SIZE, 3), PLACES[scene], np.float64)
    picture[34:, 30:66] = COLOURS[colour]
    light = rng.uniform(0.55, 1.0) * rng.uniform(0.9, 1.0, 3)
    return np.clip(picture * light + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def shard(seed: int, count: int) -> Shard:
    rng = np.random.default_rng(seed)
    said = [(str(rng.choice(list(PLACES))), str(rng.choice(CLOTHES))) for _ in range(count)]
    portraits = np.zeros((1, 32, 32, 3), np.uint8)
    return Shard(
        portraits=portraits,
        portrait_people=np.zeros(1, np.int64),
        portrait_boxes=np.zeros((1, 4), np.float32),
        pictures={SIZE: np.stack([painted(*words, rng) for words in said])},
        examples=tuple(example(*words, number) for number, words in enumerate(said)),
    )


def test_places_and_colours_are_told_in_any_light():
    obedience = Obedience([shard(0, 150)], SIZE)
    held_out = shard(1, 100)
    pictures = held_out.pictures[SIZE]
    right = [
        (obedience.place(picture) == place_said(row.prompt), obedience.colour(picture, FACE) == colours_worn(row)[0])
        for picture, row in zip(pictures, held_out.examples, strict=True)
    ]
    places, colours = np.mean(right, axis=0)
    assert places > 0.95
    assert colours > 0.9
    wrong = [
        obedience.colour(picture, FACE) == colours_worn(row)[0]
        for picture, row in zip(np.roll(pictures, 1, axis=0), held_out.examples, strict=True)
    ]
    assert np.mean(wrong) < 0.5  # chance: one in four
    assert obedience.colour(pictures[0][:34], FACE) is None


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("us in a snowy landscape", "snow"),
        ("The people stand close together on a sandy beach, at sunset.", "beach"),
        ("in front of a grey studio backdrop", "studio"),
        ("On a beach, overcast", "beach"),
        ("on the moon", None),
    ],
)
def test_the_place_that_words_name(words, place):
    assert place_said(words) == place


@pytest.mark.parametrize(
    ("words", "light"),
    [
        ("park, golden sunset light", "sunset"),
        ("in a park at sunset", "sunset"),
        ("In the evening sun, beach", "sunset"),  # and not the evening of lamps
        ("in a cafe in the evening", "lamp"),
        ("in a city at night, under street lamps", "night"),
        ("in a park", None),
    ],
)
def test_the_light_that_words_name(words, light):
    assert light_said(words) == light


def test_clothes_of_two_colours_have_none():
    worn = [{"clothes": "light blue T-shirt"}, {"clothes": "navy jacket over a white shirt"}, {"hair": "red hair"}]
    people = example("in a park", "red", 0)
    several = Example(**{**vars(people), "attributes": tuple(worn)})
    assert colours_worn(several) == ["light blue", None, None]


def test_discriminant_equals_the_posterior_of_gaussians():
    """Oracle: for two Gaussians of one covariance the border is a line, known in closed form."""
    rng = np.random.default_rng(3)
    covariance = np.array([[1.0, 0.6], [0.6, 2.0]])
    means = np.array([[0.0, 0.0], [2.0, 1.0]])
    draws = np.concatenate([rng.multivariate_normal(mean, covariance, 4000) for mean in means])
    told = Discriminant(draws, ["a"] * 4000 + ["b"] * 4000)
    weights = np.linalg.solve(covariance, means[1] - means[0])
    points = rng.uniform(-3, 4, (500, 2))
    distance = points @ weights - weights @ means.mean(0)
    clear = np.abs(distance) > 0.5  # shrinkage and sampling move the border a little
    assert [told(point) for point in points[clear]] == ["b" if d > 0 else "a" for d in distance[clear]]
