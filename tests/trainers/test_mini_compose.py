"""Group pictures put together from cut-outs: who and what the references show."""

from dataclasses import replace

import numpy as np

from core.portraits import reference_landmarks
from trainers.mini import compose
from trainers.mini.compose import BELOW_MIDDLE, compose_shard
from trainers.mini.cutouts import HELD_OUT_PEOPLE, Cutouts
from trainers.mini.data import Shard
from trainers.mini.geometry import CENTRES, HEIGHT, REFERENCE_SIDE, SQUARE, WIDTH
from trainers.mini.render import ADULT_PICTURES, CANVAS, CHILD_PICTURES, plan_cutout
from trainers.people.record import Face, describe

PEOPLE = (HELD_OUT_PEOPLE + 50, HELD_OUT_PEOPLE + 53)  # seen in the same lights
PICTURES = ADULT_PICTURES + CHILD_PICTURES
GLASSES = ("round black glasses", None, "round black glasses", None)
LANDMARKS = ((80.5, 70.5), (110.5, 71.5), (96.5, 85.5), (84.5, 100.5), (107.5, 101.5))


def cutouts() -> Cutouts:
    """Grey rectangles, three adult ones and a child's for each person, the first and the third with glasses."""
    looks, lights = [], []
    for person in PEOPLE:
        for number in range(PICTURES):
            scene, light = plan_cutout(person, number)
            face = Face(box=(70.5, 60.5, 120.5, 110.5), landmarks=LANDMARKS, visible=1.0)
            looks.append(replace(describe(scene, [face], CANVAS[0]).people[0], glasses=GLASSES[number]))
            lights.append(light)
    return Cutouts(
        rgba=np.full((len(looks), *CANVAS, 4), 128, np.uint8),
        boxes=np.array([look.box for look in looks], np.float32),
        people=np.repeat(np.array(PEOPLE), PICTURES),
        lights=np.array(lights),
        wide=np.zeros(len(looks), bool),
        looks=tuple(looks),
    )


def test_references_show_the_people_of_the_picture_with_the_glasses_that_the_caption_names():
    shard = compose_shard(cutouts(), 30, np.random.default_rng(0))
    shown = {True: 0, False: 0}
    for example in shard.examples:
        for person, reference, said in zip(example.people, example.references, example.attributes, strict=True):
            assert shard.portrait_people[reference] == person
            assert reference % PICTURES < ADULT_PICTURES
            if example.task != "group":
                continue
            shown["glasses" in said] += 1
            # whoever wears glasses has another adult portrait with them; who wears none has no other without
            assert GLASSES[reference % PICTURES] == GLASSES[0]
    assert min(shown.values()) > 5


def test_examples_name_where_the_faces_lie():
    shard = compose_shard(cutouts(), 10, np.random.default_rng(0))
    wanted = reference_landmarks(REFERENCE_SIDE)
    for example in shard.examples:
        for centre, face in zip(CENTRES[len(example.people)], example.landmarks, strict=True):
            found = np.array(face)
            assert np.abs(found.mean(0) - (centre, example.size[0] / 2 + BELOW_MIDDLE)).max() < 5  # they are jittered
            assert np.isclose((found - found.mean(0)).std(), (wanted - wanted.mean(0)).std(), atol=0.05)


def test_pictures_are_wide_or_square_and_people_reach_down_to_their_edge():
    people = cutouts()
    people.rgba[:] = (255, 0, 255, 255)
    shard = compose_shard(people, 40, np.random.default_rng(0), squares=0.5)
    assert set(shard.pictures) == {(HEIGHT, WIDTH), (SQUARE, SQUARE)}
    for size, stack in shard.pictures.items():
        of_size = [example for example in shard.examples if example.size == size]
        assert [example.picture for example in of_size] == list(range(len(stack)))
        assert 10 <= len(stack) <= 30
        for example in of_size:
            for face in example.landmarks:
                assert stack[example.picture][-1, round(np.mean(face, axis=0)[0])].tolist() == [255, 0, 255]
    assert set(compose_shard(people, 5, np.random.default_rng(0), squares=0).pictures) == {(HEIGHT, WIDTH)}


def test_the_command_composes_everybody_again_as_other_people_but_never_those_held_out(tmp_path, monkeypatch):
    for number in (0, 7):
        cutouts().save(tmp_path / "cutouts" / f"cutouts-{number:05d}")
    written = {}
    for part in ("1/2", "2/2", "1/2"):  # the last finds its work done
        command = ["--cutouts", tmp_path / "cutouts", "--out", tmp_path / "out", "--per-person", 3, "--varied", 2]
        monkeypatch.setattr("sys.argv", ["compose", *map(str, command), "--part", part])
        compose.main()
        written |= {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path not in written}
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    names = sorted(path.stem for path in (tmp_path / "out").glob("*.json"))
    assert names == ["held_out-00000", "train-00007", "train-00007-1", "train-00007-2"]
    people = [set(Shard.load(tmp_path / "out" / name).portrait_people.tolist()) for name in names[1:]]
    assert people[0] == set(PEOPLE)
    assert not people[0] & people[1] | people[1] & people[2]
