"""The mini bundle's cut-outs as portraits of the face pack."""

import numpy as np
import pytest

from trainers.mini.cutouts import HELD_OUT_PEOPLE, Cutouts
from trainers.mini.faces.cutouts import gather_portraits
from trainers.mini.faces.portraits import PortraitSet
from trainers.mini.faces.render import traits_of
from trainers.mini.render import CANVAS, plan_cutout
from trainers.people.identity import sample_identity
from trainers.people.record import Face, describe

PEOPLE = (3, HELD_OUT_PEOPLE + 50)
# Pixels (x, y) that carry the landmarks' colours; the renderer counts from their outer edge.
PIXELS = np.array([[80, 70], [110, 71], [96, 85], [84, 100], [107, 101]])


def cutouts_of(people):
    looks, rgba, lights = [], [], []
    for person in people:
        for number in range(2):
            scene, light = plan_cutout(person, number)
            landmarks = tuple((float(x), float(y)) for x, y in PIXELS + 0.5)
            face = Face(box=(70.5, 60.5, 120.5, 110.5), landmarks=landmarks, visible=1.0)
            looks.append(describe(scene, [face], CANVAS[0]).people[0])
            lights.append(light)
            picture = np.zeros((*CANVAS, 4), np.uint8)
            picture[..., 3] = 255
            for index, (x, y) in enumerate(PIXELS):
                picture[y, x, :3] = 50 * (index + 1)
            rgba.append(picture)
    return Cutouts(
        rgba=np.stack(rgba),
        boxes=np.array([look.box for look in looks], np.float32),
        people=np.repeat(np.array(people), 2),
        lights=np.array(lights),
        wide=np.zeros(len(looks), bool),
        looks=tuple(looks),
    )


@pytest.fixture
def gathered(tmp_path):
    cutouts_of(PEOPLE).save(tmp_path / "cutouts" / "cutouts-00007")
    gather_portraits(tmp_path / "cutouts", tmp_path / "portraits")
    return tmp_path


def test_landmarks_stay_on_their_pixels(gathered):
    portraits = PortraitSet.open([gathered / "portraits"], held_out=False)
    portrait = portraits[1]
    assert portrait.rgba.shape == (min(CANVAS), min(CANVAS), 4)
    for index, (x, y) in enumerate(portrait.landmarks):
        assert portrait.rgba[round(float(y)), round(float(x)), 0] == 50 * (index + 1)
    # From mid-forehead: a tenth of its height above the renderer's box.
    left = (CANVAS[1] - min(CANVAS)) // 2
    np.testing.assert_allclose(portrait.box, [70 - left, 55, 120 - left, 110], atol=1e-4)


def test_people_keep_who_they_are_and_are_held_out_in_both_trainings(gathered):
    for held_out, person in ((True, PEOPLE[0]), (False, PEOPLE[1])):
        portraits = PortraitSet.open([gathered / "portraits"], held_out=held_out)
        scenes = [plan_cutout(person, number)[0] for number in range(2)]
        identity = scenes[0].members[0].identity
        assert portraits.identity.tolist() == [identity] * 2
        np.testing.assert_allclose(portraits.age, [s.members[0].appearance.age for s in scenes], atol=0.06)
        assert portraits.female.tolist() == [sample_identity(identity).female] * 2
        np.testing.assert_array_equal(portraits.traits[0], traits_of(sample_identity(identity)))


def test_finished_shards_are_kept_and_new_ones_added(gathered):
    written = (gathered / "portraits" / "0000007.npz").stat().st_mtime_ns
    cutouts_of([HELD_OUT_PEOPLE + 80]).save(gathered / "cutouts" / "cutouts-00008")
    gather_portraits(gathered / "cutouts", gathered / "portraits")
    assert (gathered / "portraits" / "0000007.npz").stat().st_mtime_ns == written
    assert len(PortraitSet.open([gathered / "portraits"], held_out=False)) == 4


def test_no_cutouts_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"trainers\.mini\.render --out"):
        gather_portraits(tmp_path, tmp_path / "out")
