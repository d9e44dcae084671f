"""Planned scenes: functions of their seed, people in order, held-out people apart, faces large enough."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from trainers.people.places import PLACES
from trainers.people.record import Face, SceneRecord, article, describe, hair_words, noun, overlap
from trainers.people.scene import (
    ASPECTS,
    HELD_OUT_IDENTITIES,
    SMALLEST_FACE,
    Build,
    derived_seed,
    identity_seed,
    plan_group,
    plan_portrait,
    plan_reference,
)

GROUPS = [plan_group(seed) for seed in range(120)]
PORTRAITS = [plan_portrait(seed) for seed in range(120)]


def described(scene, height=256):
    face = Face(box=(10.0, 10.0, 80.0, 90.0), landmarks=((30.0, 40.0),) * 5, visible=0.97)
    return describe(scene, [face] * len(scene.members), height)


def test_a_scene_is_a_function_of_its_seed():
    assert plan_group(5) == plan_group(5)
    assert plan_portrait(5) == plan_portrait(5)
    assert plan_group(5) != plan_group(6)


def test_splits_share_nobody():
    train = {identity_seed("train", i) for i in (0, 1, HELD_OUT_IDENTITIES - 1)}
    held_out = {identity_seed("held-out", i) for i in (0, 1, HELD_OUT_IDENTITIES - 1)}
    assert max(train) < min(held_out)
    for seed in range(20):
        assert all(m.identity < HELD_OUT_IDENTITIES for m in plan_group(seed).members)
        assert all(m.identity >= HELD_OUT_IDENTITIES for m in plan_group(seed, split="held-out").members)
        assert plan_portrait(seed, split="held-out").members[0].identity >= HELD_OUT_IDENTITIES
    with pytest.raises(ValueError, match="outside"):
        identity_seed("train", HELD_OUT_IDENTITIES)
    with pytest.raises(ValueError, match="'train' or 'held-out'"):
        identity_seed("test", 0)


def test_groups_stand_from_left_to_right_without_hiding_each_other():
    for scene in GROUPS:
        x = [m.appearance.position[0] for m in scene.members]
        builds = [Build.of(m.person.identity, m.appearance.age) for m in scene.members]
        for (left, right), (a, b) in zip(pairwise(x), pairwise(builds), strict=True):
            assert right - left > a.face + b.face
            assert right - left < a.shoulder + b.shoulder + 0.6, "shoulders overlap or nearly touch"


def test_faces_are_large_enough():
    least = []
    for scene in GROUPS:
        camera = scene.camera
        widths = []
        for m in scene.members:
            depth = camera.distance + camera.target[2] - m.appearance.position[2] - 0.8
            widths.append(1.8 * Build.of(m.person.identity, m.appearance.age).face * camera.focal / depth)
        least.append(min(widths))
        assert scene.aspect in ASPECTS
    assert min(least) > 0.9 * SMALLEST_FACE
    assert (np.array(least) >= SMALLEST_FACE).mean() > 0.97


def test_groups_vary():
    assert {len(s.members) for s in GROUPS} == {1, 2, 3, 4}
    assert {s.setting.place for s in GROUPS} == set(PLACES)
    assert {s.interaction for s in GROUPS} > {"together", "heads", "looking"}
    ages = np.array([m.appearance.age for s in GROUPS for m in s.members])
    assert (ages < 13).any()
    assert (ages > 70).any()


def test_children_are_shorter_than_adults_beside_them():
    for seed in range(30):
        child, adult = plan_group(seed, ages=[6, 35]).members
        crowns = [
            m.appearance.position[1] + Build.of(m.person.identity, m.appearance.age).crown for m in (child, adult)
        ]
        assert crowns[0] < crowns[1] - 0.5


def test_heads_incline_to_each_other_and_eyes_meet():
    heads = [s for s in GROUPS if s.interaction == "heads" and len(s.members) == 2]
    lean = np.array([[m.appearance.roll for m in s.members] for s in heads])
    # a positive roll tilts the head to the picture's left
    assert (lean[:, 0] < lean[:, 1]).mean() > 0.9
    looking = [s for s in GROUPS if s.interaction == "looking"]
    assert looking
    for scene in looking:
        left, right = (m.appearance for m in scene.members)
        assert left.yaw > 0.3
        assert right.yaw < -0.3


def test_portraits_face_the_camera():
    yaw = np.degrees([abs(s.members[0].appearance.yaw) for s in PORTRAITS])
    assert (yaw < 35).mean() > 0.9
    assert yaw.max() < 45


def test_a_reference_shows_the_same_person_otherwise():
    scene = next(s for s in GROUPS if len(s.members) == 2)
    member = scene.members[0]
    references = [plan_reference(seed, member.identity, member.appearance.age) for seed in range(8)]
    assert {r.members[0].identity for r in references} == {member.identity}
    assert {r.members[0].appearance.age for r in references} == {member.appearance.age}
    looks = [r.members[0].appearance for r in references]
    assert len({look.clothes for look in looks}) > 4
    assert len({r.setting.place for r in references}) > 3
    assert all(look.hat is None for look in looks)
    assert not any(look.glasses and look.glasses.dark for look in looks)
    assert {look.hair_style for look in looks} == {member.appearance.hair_style}


def test_given_people_and_ages_are_kept():
    scene = plan_group(1, identities=[4, 9, 2], ages=[5, 40, 70])
    assert [m.identity for m in scene.members] == [4, 9, 2]
    assert [m.appearance.age for m in scene.members] == [5, 40, 70]
    assert plan_group(1, people=4, aspect=1.5).aspect == 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"people": 5}, "1 to 4 people, not 5"), ({"identities": [1, 2], "ages": [3.0]}, "1 ages for 2 people")],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_group(0, **arguments)


def test_record_survives_json():
    for scene in [*GROUPS[:20], *PORTRAITS[:5]]:
        record = described(scene)
        assert SceneRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_record_says_what_was_planned():
    scene = plan_group(2, identities=[1, 2, 3], ages=[8, 30, 79])
    record = described(scene, 128)
    assert (record.height, record.width) == (128, round(128 * scene.aspect))
    assert [p.position for p in record.people] == ["on the left", "in the middle", "on the right"]
    for person, member in zip(record.people, scene.members, strict=True):
        look = member.appearance
        assert person.clothes == look.clothes
        assert person.clothes_words == look.clothes.words
        assert person.yaw == pytest.approx(np.degrees(look.yaw), abs=0.06)
        assert (person.glasses is None) == (look.glasses is None)
        assert person.hair_colour in person.hair or person.hair == "no hair"
        assert person.visible == 0.97


def test_gaze_is_told_from_where_the_eyes_end_up():
    scene = plan_portrait(0)
    member = scene.members[0]
    for yaw, gaze, expected in ((0.4, None, "camera"), (0.4, (-0.4, 0.0), "camera"), (0.3, (0.1, 0.0), "right")):
        look = replace(member.appearance, yaw=yaw, gaze=gaze)
        record = described(replace(scene, members=(replace(member, appearance=look),)))
        assert record.people[0].gaze == expected


@pytest.mark.parametrize(
    ("female", "age", "word"),
    [(True, 2, "toddler"), (True, 7, "girl"), (False, 15, "teenage boy"), (True, 22, "young woman"),
     (False, 40, "man"), (True, 70, "elderly woman")],
)  # fmt: skip
def test_nouns(female, age, word):
    assert noun(female=female, age=age) == word


def test_hair_words_put_the_colour_where_it_belongs():
    assert hair_words("long wavy hair", "black") == "long wavy black hair"
    assert hair_words("a bob", "auburn") == "an auburn bob"
    assert hair_words("hair tied in a bun", "grey") == "grey hair tied in a bun"
    assert hair_words("no hair", "red") == "no hair"
    assert article("orange") == "an"


def test_overlap_is_intersection_over_union():
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert overlap((0, 0, 4, 4), (0, 0, 4, 4)) == 1


def test_derived_seeds_fit_into_json_and_differ():
    seeds = {derived_seed(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert max(seeds) < 2**53
