"""The example portraits in the repository: complete, small, varied, and of people that nothing was trained on."""

from pathlib import Path

import numpy as np
from PIL import Image

from trainers.people.gallery import EVALUATION, EXAMPLES, plan_example
from trainers.people.identity import sample_identity
from trainers.people.scene import HELD_OUT_IDENTITIES

ASSETS = Path(__file__).parents[2] / "assets"
FOLDER = ASSETS / "portraits"


def test_every_example_has_two_pictures_and_the_note():
    expected = [f"person-{k:02d}-{letter}.jpg" for k in range(1, len(EXAMPLES) + 1) for letter in "ab"]
    assert sorted(path.name for path in FOLDER.glob("*.jpg")) == expected
    assert "Nobody in them exists" in (FOLDER / "README.md").read_text()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_000_000
    pictures = [np.asarray(Image.open(path)) for path in sorted(FOLDER.glob("*.jpg"))]
    assert {p.shape for p in pictures} == {(512, 512, 3)}
    assert len({p.tobytes() for p in pictures}) == 20


def test_examples_are_held_out_and_varied():
    people = [sample_identity(plan_example(e, 0).members[0].identity) for e in EXAMPLES]
    assert all(p.seed >= HELD_OUT_IDENTITIES for p in people)
    assert len({p.seed for p in people}) == 10
    assert {p.female for p in people} == {True, False}
    assert {int(np.argmax(p.ethnicity)) for p in people} == {0, 1, 2}
    ages = [e.age for e in EXAMPLES]
    assert min(ages) < 12
    assert max(ages) > 70


def test_the_two_pictures_of_somebody_differ_in_clothes_or_place():
    for example in EXAMPLES:
        first, second = (plan_example(example, number) for number in (0, 1))
        assert first.members[0].identity == second.members[0].identity
        assert first.members[0].appearance.age == second.members[0].appearance.age == example.age
        assert first.setting != second.setting
        assert first.members[0].appearance.clothes != second.members[0].appearance.clothes


def test_rounds_are_measured_on_other_held_out_people():
    people = {plan_example(person, 0).members[0].identity for person in EVALUATION}
    assert len(people) == len(EVALUATION)
    assert min(people) >= HELD_OUT_IDENTITIES
    assert not people & {plan_example(example, 0).members[0].identity for example in EXAMPLES}
    pictures = sorted((ASSETS / "evaluation").glob("*.jpg"))
    assert len(pictures) == len(EVALUATION)
    assert sum(path.stat().st_size for path in pictures) < 1_000_000
