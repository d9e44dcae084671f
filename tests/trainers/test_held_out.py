"""Held-out cases: who is in them, and that nobody is asked about twice."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import pytest

from core.backbones.cards import MINI
from core.prompts import Task
from tests.studio.picture_bytes import png
from trainers.held_out import PORTRAITS, NoCases, held_out_cases, portrait_files


def people(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(png(number, 32))
    return folder


def test_one_picture_of_each_person_is_taken(tmp_path):
    names = ["person-1-a.png", "person-1-b.png", "person-2-a.png", "person-3.png", "anna-maria.png", "anna-lena.png"]
    folder = people(tmp_path / "people", [*names, "notes.txt"])
    found = [path.name for path in portrait_files(folder)]
    assert found == ["anna-lena.png", "anna-maria.png", "person-1-a.png", "person-2-a.png", "person-3.png"]


def test_everybody_is_in_one_pair_one_trio_and_once_a_child():
    cases = held_out_cases(PORTRAITS, MINI)
    assert (MINI.max_references, len(portrait_files(PORTRAITS))) == (3, 24)
    by_kind: dict[tuple[Task, int], list[set[str]]] = {}
    for case in cases:
        by_kind.setdefault((case.task, len(case.portraits)), []).append(set(case.name.split()[1].split("+")))
    assert {kind: len(groups) for kind, groups in by_kind.items()} == {
        (Task.GROUP, 2): 12,
        (Task.GROUP, 3): 8,
        (Task.CHILD, 2): 12,
    }
    everybody = {str(number) for number in range(1, 25)}
    for groups in by_kind.values():
        assert set.union(*groups) == everybody
        assert all(not one & other for one, other in combinations(groups, 2))
    # No two people of a pair meet again in a trio.
    assert all(len(pair & trio) < 2 for pair in by_kind[Task.GROUP, 2] for trio in by_kind[Task.GROUP, 3])
    assert len({case.name for case in cases}) == len(cases)
    assert len({seed for case in cases for seed in case.seeds}) == len(cases)
    assert {case.steps for case in cases} == {MINI.steps}
    assert all(("children" in case.prompt) is (case.task is Task.CHILD) for case in cases)


def test_seeds_steps_and_guidance_can_be_chosen_and_trios_need_a_model_for_them(tmp_path):
    folder = people(tmp_path / "people", [f"{name}.png" for name in ("ada", "bob", "cleo", "dan", "eve")])
    card = dataclasses.replace(MINI, max_references=2, identity_guidance=3.0)
    cases = held_out_cases(folder, card, seeds=3, steps=7, identity_guidance=1.5)
    assert [(case.name, len(case.seeds), case.steps) for case in cases] == [
        ("group 1+2", 3, 7), ("group 3+4", 3, 7), ("child 1+2", 3, 7), ("child 3+4", 3, 7),
    ]  # fmt: skip
    assert len({seed for case in cases for seed in case.seeds}) == 12
    assert {case.identity_guidance for case in cases} == {1.5}
    assert {case.identity_guidance for case in held_out_cases(folder, card)} == {3.0}


def test_each_task_has_the_timing_that_people_begin_with(tmp_path):
    folder = people(tmp_path / "people", ["ada.png", "bob.png"])
    group, child = held_out_cases(folder, dataclasses.replace(MINI, child_schedule="gate-0.2-0.9"))
    assert (str(group.schedule), str(child.schedule)) == ("anneal-hold-0.4", "gate-0.2-0.9")


def test_without_two_people_there_is_nothing_to_evaluate_on(tmp_path):
    with pytest.raises(NoCases, match="no folder"):
        held_out_cases(tmp_path / "absent", MINI)
    with pytest.raises(NoCases, match="1 people"):
        held_out_cases(people(tmp_path / "people", ["ada-a.png", "ada-b.png"]), MINI)
