"""Generation jobs on a real tiny bundle and a real store: what is kept, cancelled, refused and picked up again."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from core.faces import Face
from core.provenance import read_settings
from studio.generation import GenerationJobs
from studio.model_host import ModelHost, ModelsNotReady, Stage
from studio.store import NewGeneration, NewPortrait, Store, StoreError
from studio.store.models import GenerationState, PortraitOrigin
from tests.tiny_bundles import write_tiny_bundle


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ModelHost:
    # No face pack: what is not measured must be absent, and nothing else may break.
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundle"))
    host = ModelHost(folder, face_pack=folder / "no-pack", device="cpu", threads=1)
    host.start()
    host.wait(120)
    return host


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


@pytest.fixture
def jobs(store: Store, host: ModelHost) -> GenerationJobs:
    jobs = GenerationJobs(store, host)
    jobs.start()
    return jobs


def a_portrait(store: Store, seed: int) -> str:
    picture = np.random.default_rng(seed).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    sha256 = store.media.add(buffer.getvalue(), ".png")
    person = store.people.add_person(f"person {seed}")
    return store.people.add_portrait(
        person.id,
        NewPortrait(
            picture_sha256=sha256,
            crop_sha256=sha256,
            box=(20, 20, 70, 70),
            landmarks=[[30, 40]] * 5,
            origin=PortraitOrigin.EXAMPLE,
        ),
    ).id


def a_run(store: Store, **changes) -> NewGeneration:
    values = {
        "task": "group",
        "prompt": "The person in image 1 in a red coat, in soft light.",
        "schedule": "anneal-hold-0.4",
        "strength": 1.0,
        "steps": 3,
        "guidance": 1.0,
        "identity_guidance": 1.0,
        "width": 96,
        "height": 64,
        "seeds": [5, 6],
        "bundle": "tiny",
        "portrait_ids": [a_portrait(store, 1)],
    }
    return NewGeneration(**(values | changes))


def test_a_run_ends_with_pictures_that_say_how_they_were_made(store: Store, jobs: GenerationJobs):
    generation_id = jobs.submit(a_run(store))
    seen = list(jobs.watch(generation_id, every=0))

    assert seen[-1].state is GenerationState.DONE
    row = store.generations.get(generation_id)
    assert [candidate.seed for candidate in row.candidates] == [5, 6]
    assert all(candidate.face_report is None and candidate.face_sim is None for candidate in row.candidates)
    settings = read_settings(store.media.path(row.candidates[0].media_sha256))
    assert (settings["schedule"], settings["seed"], settings["steps"]) == ("anneal-hold-0.4", 5, 3)
    assert set(row.timings) == {"faces", "encode", "sample", "decode", "measure"}


def test_the_same_seed_gives_the_same_file_in_another_batch(store: Store, jobs: GenerationJobs):
    portrait = a_portrait(store, 2)
    first = jobs.submit(a_run(store, portrait_ids=[portrait], seeds=[5, 6]))
    second = jobs.submit(a_run(store, portrait_ids=[portrait], seeds=[6]))
    for generation_id in (first, second):
        list(jobs.watch(generation_id, every=0))
    pictures = [
        np.asarray(Image.open(store.media.path(store.generations.get(run).candidates[-1].media_sha256)))
        for run in (first, second)
    ]
    # Batched matrix products may round differently, never by more than a grey level.
    assert np.abs(pictures[0].astype(int) - pictures[1].astype(int)).max() <= 1


def test_a_running_generation_stops_when_told(store: Store, jobs: GenerationJobs):
    generation_id = jobs.submit(a_run(store, steps=1000))
    for progress in jobs.watch(generation_id, every=0):
        if progress.step:
            jobs.cancel(generation_id)
    row = store.generations.get(generation_id)
    assert row.state is GenerationState.CANCELLED
    assert row.candidates == []


def test_a_run_stops_when_told_while_faces_are_painted(store: Store, tmp_path: Path):
    host = ModelHost(write_tiny_bundle(tmp_path / "bundle", face_detail=True), device="cpu", threads=1)
    host.start()
    host.wait(120)
    found = Face(
        box=np.array([20.0, 20, 70, 70]),
        score=0.9,
        landmarks=np.array([[35.0, 35], [55, 35], [45, 45], [37, 57], [53, 57]]),
        embedding=np.array([1.0, 0.0]),
    )
    one_face = SimpleNamespace(name="one face", analyze=lambda picture: [found], same_person_threshold=0.5)
    host.bundle.__dict__["face_analyzer"] = one_face
    jobs = GenerationJobs(store, host)
    jobs.start()
    generation_id = jobs.submit(a_run(store))
    stages = []
    for progress in jobs.watch(generation_id, every=0):
        stages.append(progress.stage)
        if progress.stage == "faces":
            jobs.cancel(generation_id)
    assert "faces" in stages
    row = store.generations.get(generation_id)
    assert row.state is GenerationState.CANCELLED
    assert "of the faces" in row.message
    assert row.candidates == []


def test_a_waiting_generation_can_be_cancelled_and_the_others_go_on(store: Store, host: ModelHost):
    jobs = GenerationJobs(store, host)
    waiting, following = jobs.submit(a_run(store)), jobs.submit(a_run(store))
    assert [jobs.progress(run).waiting for run in (waiting, following)] == [0, 1]
    jobs.cancel(waiting)
    jobs.start()
    assert [progress.state for progress in jobs.watch(following, every=0)][-1] is GenerationState.DONE
    assert store.generations.get(waiting).state is GenerationState.CANCELLED


def test_a_refused_prompt_fails_with_its_sentence(store: Store, jobs: GenerationJobs):
    generation_id = jobs.submit(a_run(store, prompt="A naked person in image 1.", task="child"))
    last = list(jobs.watch(generation_id, every=0))[-1]
    assert last.state is GenerationState.FAILED
    assert store.generations.get(generation_id).message == last.message != ""


def test_any_number_of_pages_can_watch(store: Store, jobs: GenerationJobs):
    generation_id = jobs.submit(a_run(store))
    ends = []
    pages = [
        threading.Thread(target=lambda: ends.append(list(jobs.watch(generation_id, every=0))[-1].state))
        for _ in range(3)
    ]
    for page in pages:
        page.start()
    for page in pages:
        page.join(60)
    assert ends == [GenerationState.DONE] * 3


def test_deleting_a_person_during_the_run_leaves_nothing_behind(store: Store, jobs: GenerationJobs):
    portrait = a_portrait(store, 3)
    person = store.people.portraits([portrait])[0].person_id
    generation_id = jobs.submit(a_run(store, portrait_ids=[portrait], steps=60))
    deleted = False
    for progress in jobs.watch(generation_id, every=0):
        if progress.step >= 1 and not deleted:  # which steps a busy machine lets be seen is chance
            store.deletions.delete_person(person)
            deleted = True
    with pytest.raises(StoreError):
        store.generations.get(generation_id)


def test_a_turn_waits_for_models_that_are_still_being_read(bundle_folder: Path):
    host = ModelHost(bundle_folder, face_pack=bundle_folder / "no-pack", device="cpu", threads=1)
    host.start()
    with host.turn() as bundle:
        assert bundle.folder == bundle_folder
    assert host.state.stage is Stage.READY


def test_models_that_cannot_be_read_say_so(tmp_path: Path):
    host = ModelHost(tmp_path / "nothing-here", device="cpu")
    host.start()
    with pytest.raises(ModelsNotReady, match="nothing-here"):
        host.wait(30)
    assert host.state.stage is Stage.FAILED
    with pytest.raises(ModelsNotReady):
        _ = host.bundle
