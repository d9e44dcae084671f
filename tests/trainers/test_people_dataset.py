"""Data sets of rendered people: the same bytes however they are made, whole after a kill, readable back."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.people.captions import facts_of, read_facts
from trainers.people.dataset import CONFIG_NAME, DatasetConfig, make_dataset, plan_shards, read_samples
from trainers.people.examples import group_examples, plan_portrait_set
from trainers.people.mesh import MeshMissing, PeopleMesh, find_mesh
from trainers.people.photograph import photograph
from trainers.people.record import SceneRecord
from trainers.people.renderer import Renderer
from trainers.people.scene import HELD_OUT_IDENTITIES, plan_group

pytestmark = pytest.mark.mesh
ROOT = Path(__file__).parents[2]
CONFIG = DatasetConfig(identities=2, groups=3, size=48, portrait_size=32, seed=4, samples_per_shard=1)
OPTIONS = [
    *("--identities", "2", "--groups", "3", "--size", "48", "--portrait-size", "32"),
    *("--seed", "4", "--samples-per-shard", "1", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def renderer():
    try:
        find_mesh()
    except MeshMissing as missing:
        pytest.skip(str(missing))
    torch.set_num_threads(1)
    return Renderer(PeopleMesh())


@pytest.fixture(scope="module")
def folder(renderer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    make_dataset(CONFIG, folder)
    return folder


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))}


def command(folder, *options):
    return [sys.executable, "-m", "trainers.people.dataset", "--out", str(folder), *OPTIONS, *options]


def test_shards_cover_all_samples_once():
    plans = plan_shards(DatasetConfig(identities=7, groups=5, samples_per_shard=3))
    assert [(p.kind, p.first, p.last) for p in plans] == [
        ("identity", 0, 3), ("identity", 3, 6), ("identity", 6, 7), ("group", 0, 3), ("group", 3, 5),
    ]  # fmt: skip
    assert len({p.name for p in plans}) == 5


def test_samples_come_back_with_pictures_and_records(folder):
    groups = list(read_samples(folder, "group"))
    assert [s.key for s in groups] == [f"group-{k:08d}" for k in range(3)]
    for sample in groups:
        target = SceneRecord.from_json(sample.record["target"])
        assert sample.pictures["target"].shape == (target.height, target.width, 3)
        assert sample.pictures["target"].dtype == np.uint8
        assert len(sample.record["references"]) == len(target.people) == len(sample.record["order"])
        for image, reference in enumerate(sample.record["references"], 1):
            person = target.people[sample.record["order"].index(image)]
            (shown,) = SceneRecord.from_json(reference).people
            assert shown.identity == person.identity
            assert sample.pictures[f"reference{image}"].shape == (32, 32, 3)
            if sample.record["task"] == "group":
                assert shown.age == person.age
            else:
                assert shown.age >= 20 > person.age
        facts = facts_of(target, sample.record["order"], as_children=sample.record["task"] == "child")
        assert all(read_facts(text) == facts for text in sample.record["captions"]["rich"])
        assert {c["fault"] for c in sample.record["captions"]["bad"]} >= {"lighting inconsistency", "detail omission"}


def test_portrait_sets_show_one_person_at_three_ages(folder):
    sets = list(read_samples(folder, "identity"))
    assert [s.record["identity"] for s in sets] == [0, 1]
    for sample in sets:
        people = [SceneRecord.from_json(r).people[0] for r in sample.record["portraits"]]
        assert {p.identity for p in people} == {sample.record["identity"]}
        ages = [p.age for p in people]
        assert len(set(ages[:4])) == 1
        assert ages[4] < 13 < 20 <= ages[0] < 65 < ages[5]
        pictures = [sample.pictures[f"portrait{k}"] for k in range(1, 7)]
        assert all(p.std() > 10 for p in pictures)
        assert len({p.tobytes() for p in pictures}) == 6


def test_groups_show_people_of_the_portrait_sets(folder):
    identities = {s.record["identity"] for s in read_samples(folder, "identity")}
    shown = {p["identity"] for s in read_samples(folder, "group") for p in s.record["target"]["people"]}
    assert shown <= identities


def test_two_workers_make_the_same_bytes_after_a_kill(folder, tmp_path):
    process = subprocess.Popen(command(tmp_path, "--workers", "2"), cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("*.tar")):
        assert process.poll() is None, "the job ended before its first shard"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    assert 0 < len(done) < 5
    (tmp_path / "group-00002.tar.1.partial").write_bytes(b"half of a shard")
    subprocess.run(command(tmp_path, "--workers", "2"), cwd=ROOT, check=True)
    assert digests(tmp_path) == digests(folder)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in done} == done, "a finished shard was made again"
    assert not list(tmp_path.glob("*.partial"))


def test_other_options_do_not_mix_into_a_folder(folder):
    with pytest.raises(ValueError, match=r"holds another data set \(seed 4 there, 5 asked\)"):
        make_dataset(
            DatasetConfig(identities=2, groups=3, size=48, portrait_size=32, seed=5, samples_per_shard=1), folder
        )
    assert json.loads((folder / CONFIG_NAME).read_text())["seed"] == 4


def test_held_out_people_are_others(renderer, tmp_path):
    make_dataset(DatasetConfig(identities=1, groups=1, size=32, portrait_size=24, held_out=True), tmp_path)
    (group,), (portraits,) = read_samples(tmp_path, "group"), read_samples(tmp_path, "identity")
    assert portraits.record["identity"] >= HELD_OUT_IDENTITIES
    assert all(p["identity"] >= HELD_OUT_IDENTITIES for p in group.record["target"]["people"])


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No group shards in .* trainers\.people\.dataset"):
        next(read_samples(tmp_path, "group"))


@pytest.mark.parametrize("wrong", [{"identities": 0}, {"groups": -1}, {"picture_format": "gif"}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=r"identities is 0|groups is -1|picture_format is 'gif'"):
        DatasetConfig(**{"identities": 1, "groups": 1, **wrong})


def test_examples_stream_without_a_disk(renderer):
    stream = group_examples(renderer, 9, height=32, portrait_height=24, start=3, people=2, aspect=1.25)
    first, second = next(stream), next(stream)
    assert first.target.picture.shape == (32, 40, 3)
    assert [r.picture.shape for r in first.references] == [(24, 24, 3)] * 2
    assert first.target.record != second.target.record
    again = next(group_examples(renderer, 9, height=32, portrait_height=24, start=3, people=2, aspect=1.25))
    assert torch.equal(again.target.picture, first.target.picture)
    assert again.to_json() == first.to_json()


def test_photographed_people_are_where_the_record_says(renderer):
    shot = photograph(renderer, plan_group(3, people=3), 64)
    assert shot.picture.shape == (64, shot.record.width, 3)
    middles = [(p.box[0] + p.box[2]) / 2 for p in shot.record.people]
    assert middles == sorted(middles)
    for index, person in enumerate(shot.record.people):
        x, y = (round(v) for v in person.landmarks[2])
        assert shot.people[y, x] == index, "the nose belongs to its person"
        assert person.visible > 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_picture_up_to_rounding(renderer):
    scene = plan_group(3)
    here = photograph(renderer, scene, 96).picture.float()
    there = photograph(Renderer(PeopleMesh(device="cuda")), scene, 96).picture.cpu().float()
    difference = (here - there).abs()
    assert difference.mean() < 1
    assert (difference > 24).float().mean() < 0.01


def test_portrait_sets_are_functions_of_seed_and_identity():
    assert plan_portrait_set(1, 2) == plan_portrait_set(1, 2)
    assert plan_portrait_set(1, 2)[0] != plan_portrait_set(2, 2)[0]
    assert plan_portrait_set(1, 2)[0].members[0].identity == 2
