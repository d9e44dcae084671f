"""A round from its pairs to its verdict on real tiny models, and every way it can be kept from it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.adapters import read_adapter
from core.provenance import read_settings
from studio.store import NewGeneration, NewPick, Store
from studio.store.models import AdapterState, Generation, Round, RoundRequest, RoundState, utc_now
from tests.trainers.round_scenario import CONFIG, Place, add_picks, add_portrait, at, make_place
from trainers.lease import Lease
from trainers.round_config import RoundConfig
from trainers.stored_adapters import stored_adapter
from trainers.worker import Worker

ENDS = (RoundState.PROMOTED, RoundState.CANDIDATE, RoundState.REJECTED)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    store = Store.open(tmp_path / "data")
    yield store
    store.close()


@pytest.fixture
def worker(store, place) -> Worker:
    return Worker(store, place.models, config=CONFIG)


@pytest.fixture
def when() -> Iterator[Callable[[str, Callable[[], None]], None]]:
    logger, listeners = logging.getLogger("trainers"), []

    def listen(message: str, act: Callable[[], None]) -> None:
        listeners.append(at(message, act))
        logger.addHandler(listeners[-1])

    yield listen
    for listener in listeners:
        logger.removeHandler(listener)
        assert listener.done


def end_of(store: Store, row: Round, worker: Worker) -> Round:
    assert worker.work_once()
    return store.rounds.get(row.id)


def test_a_round_makes_an_adapter_and_says_what_became_of_it(store, worker):
    add_picks(store, 4)
    row = end_of(store, store.rounds.create("tiny"), worker)

    assert row.state in ENDS, row.message
    assert row.message
    assert [step.step for step in store.rounds.steps(row.id)] == [1, 2, 3, 4, 5, 6]
    assert len(store.rounds.pairs(row.id, kept=True)) == 4
    (adapter,) = store.adapters.list(bundle="tiny")
    assert (adapter.name, adapter.round_id, adapter.state.value) == (f"Round {row.number}", row.id, row.state.value)
    assert (store.adapters.active("tiny") is not None) is (row.state is RoundState.PROMOTED)
    card, _, _ = read_adapter(*stored_adapter(store, adapter))
    assert card.training["config"]["steps"] == 6

    # Two pairs and a trio as groups is one trio of the four people, and the pairs again as children.
    made = store.generations.of_round(row.id)
    before, after = ([one for one in made if one.ab_side == side] for side in "AB")
    assert len(before) == len(after) == 5
    assert {one.ab_group for one in before} == {one.ab_group for one in after}
    assert {one.adapter_id for one in before} == {None}
    assert {one.adapter_id for one in after} == {adapter.id}
    for one, other in zip(before, after, strict=True):
        assert [c.seed for c in one.candidates] == [c.seed for c in other.candidates]
    assert not store.generations.somebody_generates()
    metrics = {change["metric"]: change for change in adapter.evaluation["changes"]}
    assert metrics["face_sim"]["cases"] == 3
    assert metrics["child_age_error"]["cases"] == 2
    assert "aesthetic" not in metrics
    assert adapter.evaluation["picture_distance"]["before"] == 0
    assert adapter.evaluation["picture_distance"]["after"] > 0
    assert adapter.evaluation["reason"] == row.message
    assert "Trained for 6 steps" in (store.folder / row.log_path).read_text()
    assert [path.name for path in (store.folder / "rounds" / str(row.number)).iterdir()] == ["log.txt"]


def test_the_next_round_starts_from_the_promoted_adapter_and_measures_against_it(store, worker):
    add_picks(store, 4)
    first = end_of(store, store.rounds.create("tiny"), worker)
    (adapter,) = store.adapters.list(bundle="tiny")
    store.adapters.activate("tiny", adapter.id, note="for the test")
    made_first = {(one.options["case"], one.candidates[0].media_sha256) for one in store.generations.of_round(first.id)}

    row = end_of(store, store.rounds.create("tiny", parent_adapter_id=adapter.id), worker)
    assert row.state in ENDS, row.message
    newest = store.adapters.list(bundle="tiny")[0]
    assert newest.parent_id == adapter.id
    assert stored_adapter(store, newest)[1].parent == adapter.media_sha256
    sides = {}
    for one in store.generations.of_round(row.id):
        sides.setdefault(one.ab_side, []).append((one.options["case"], one.candidates[0].media_sha256))
    assert {side: len(found) for side, found in sides.items()} == {"base": 5, "A": 5, "B": 5}
    # Pictures that an earlier round has made already are not made again.
    assert {*sides["base"], *sides["A"]} == made_first
    assert newest.evaluation["picture_distance"]["before"] > 0


def test_picks_on_pictures_of_an_evaluation_are_never_trained_on(store, worker):
    """A new adapter meets the old one in a blind comparison of just these pictures."""
    add_picks(store, 3)
    first = end_of(store, store.rounds.create("tiny"), worker)
    sides = {}
    for made in store.generations.of_round(first.id):
        sides.setdefault(made.ab_group, []).append(made.candidates[0].id)
    annotator = store.people.annotator("Ada")
    for number, shown in enumerate(sides.values()):
        comparison = store.comparisons.create(shown, kind="adapter")
        store.picks.save(
            NewPick(
                request_id=str(number),
                comparison_id=comparison.id,
                annotator_id=annotator.id,
                outcome="left",
                shown=shown,
            )
        )
    row = end_of(store, store.rounds.create("tiny"), worker)
    assert row.state in ENDS, row.message
    assert len(store.rounds.pairs(row.id, kept=True)) == 3
    assert store.rounds.dropped(row.id) == {"held out for evaluation": 5}


def test_pictures_that_measure_have_the_precision_of_the_training(store, place):
    add_picks(store, 2)
    config = {**CONFIG, "training": {**CONFIG["training"], "precision": "bfloat16"}}
    row = end_of(store, store.rounds.create("tiny"), Worker(store, place.models, config=config))
    assert row.state in ENDS, row.message
    pictures = [store.media.path(one.candidates[0].media_sha256) for one in store.generations.of_round(row.id)]
    assert {read_settings(picture)["precision"] for picture in pictures} == {"bfloat16"}


def test_enough_new_picks_start_a_round(store, place):
    worker = Worker(store, place.models, picks_per_round=3, config=CONFIG)
    add_picks(store, 2)
    assert not worker.work_once()
    add_picks(store, 1)
    assert worker.work_once()
    assert [row.state in ENDS for row in store.rounds.list()] == [True]
    assert not worker.work_once()


def test_a_round_says_why_there_is_nothing_to_train_on(store, worker, place):
    row = end_of(store, store.rounds.create("tiny"), worker)
    assert row.state is RoundState.FAILED
    assert "No pair can be trained on" in row.message

    file = next(place.evaluation.iterdir())
    held_out = add_portrait(store, 9, source_sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    add_picks(store, 2, portraits=[add_portrait(store, 8), held_out])
    row = end_of(store, store.rounds.create("tiny"), worker)
    assert row.state is RoundState.FAILED
    assert "2 dropped" in row.message


def test_the_settings_in_the_readme_can_be_read():
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```$", readme, flags=re.DOTALL | re.MULTILINE)
    assert RoundConfig.read(tomllib.loads(block)) != RoundConfig.read({})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"training": {"beta": -1}}, "beta is -1"),
        ({"training": {"speed": 3}}, "speed"),
        ({"dpo": {"beta": 1}}, "no settings 'dpo'"),
    ],
)
def test_settings_that_make_no_sense_fail_the_round(store, worker, config, words):
    row = end_of(store, store.rounds.create("tiny", config), worker)
    assert row.state is RoundState.FAILED
    assert words in row.message


def test_a_bundle_brings_its_settings_along_and_the_workers_own_change_them(store, place, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(place.bundle, bundle)
    (bundle / "round.toml").write_text("[training]\nsteps = 3\nbeta = -2.0\n")
    models = replace(place.models, bundle=str(bundle))
    assert place.models.round_settings() == {}
    assert RoundConfig.read(models.round_settings(), {"training": {"beta": 5.0}}).training.steps == 3
    row = end_of(store, store.rounds.create("tiny"), Worker(store, models))
    assert (row.state, row.message.startswith("beta is -2.0")) == (RoundState.FAILED, True), row.message


def test_models_that_cannot_be_loaded_fail_the_round(store, place, tmp_path):
    shutil.copytree(place.bundle, tmp_path / "bundle")
    for file in (tmp_path / "bundle" / "transformer").glob("*.safetensors"):
        file.write_bytes(b"not weights")
    add_picks(store, 2)
    models = type(place.models)(bundle=str(tmp_path / "bundle"), evaluation_portraits=place.evaluation)
    row = end_of(store, store.rounds.create("tiny"), Worker(store, models, config=CONFIG))
    assert row.state is RoundState.FAILED
    assert "cannot be loaded" in row.message


def test_a_damaged_parent_is_marked_and_the_round_fails(store, worker):
    add_picks(store, 2)
    end_of(store, store.rounds.create("tiny"), worker)
    (adapter,) = store.adapters.list(bundle="tiny")
    store.adapters.activate("tiny", adapter.id)
    store.media.path(adapter.media_sha256).write_bytes(b"not weights")
    row = end_of(store, store.rounds.create("tiny", parent_adapter_id=adapter.id), worker)
    assert row.state is RoundState.FAILED
    assert "parent adapter cannot be loaded" in row.message
    assert store.adapters.get(adapter.id).state is AdapterState.BROKEN
    assert store.adapters.active("tiny") is None


def test_a_paused_round_goes_on_from_its_checkpoint(store, place, when):
    row = _paused_in_training(store, place, when)
    assert (store.folder / "rounds" / "1" / "run" / "checkpoint.pt").exists()
    assert not Worker(store, place.models, config=CONFIG).work_once()
    store.rounds.ask(row.id, RoundRequest.RUN)
    row = end_of(store, row, Worker(store, place.models, config=CONFIG))
    assert row.state in ENDS
    assert row.attempts == 2
    assert "first step" not in (store.folder / row.log_path).read_text()


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_without_its_checkpoint_a_round_trains_again(store, place, when, damage):
    row = _paused_in_training(store, place, when)
    checkpoint = store.folder / "rounds" / "1" / "run" / "checkpoint.pt"
    checkpoint.unlink() if damage == "gone" else checkpoint.write_bytes(b"no checkpoint")
    store.rounds.ask(row.id, RoundRequest.RUN)
    row = end_of(store, row, Worker(store, place.models, config=CONFIG))
    assert row.state in ENDS, row.message
    assert "starts again from its first step" in (store.folder / row.log_path).read_text()
    assert [step.step for step in store.rounds.steps(row.id)] == [1, 2, 3, 4, 5, 6]


def _paused_in_training(store: Store, place: Place, when) -> Round:
    """A round that somebody paused at its first step."""
    add_picks(store, 3)
    row = store.rounds.create("tiny", {"training": {"steps": 6}})
    when("Prompts and pictures are encoded", lambda: store.rounds.ask(row.id, RoundRequest.PAUSE))
    assert Worker(store, place.models, config=CONFIG).work_once()
    row = store.rounds.get(row.id)
    assert (row.state, row.message) == (RoundState.TRAINING, "Paused.")
    return row


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_an_adapter_damaged_before_its_evaluation_is_trained_again(store, place, when, damage):
    add_picks(store, 3)
    row = store.rounds.create("tiny")
    when("Making pictures", lambda: store.rounds.ask(row.id, RoundRequest.PAUSE))
    assert Worker(store, place.models, config=CONFIG).work_once()
    assert store.rounds.get(row.id).state is RoundState.EVALUATING
    adapter = store.folder / "rounds" / "1" / "run" / "adapter"
    shutil.rmtree(adapter) if damage == "gone" else (adapter / "adapter.safetensors").write_bytes(b"no weights")
    store.rounds.ask(row.id, RoundRequest.RUN)
    row = end_of(store, row, Worker(store, place.models, config=CONFIG))
    assert row.state in ENDS, row.message
    assert "was damaged" in (store.folder / row.log_path).read_text()
    assert [one.ab_side for one in store.generations.of_round(row.id)].count("B") == 5


def test_a_cancelled_round_leaves_nothing_but_its_log(store, place, when):
    add_picks(store, 3)
    row = store.rounds.create("tiny")
    when("Training on", lambda: store.rounds.ask(row.id, RoundRequest.CANCEL))
    row = end_of(store, row, Worker(store, place.models, config=CONFIG))
    assert row.state is RoundState.CANCELLED
    assert store.adapters.list() == []
    assert [path.name for path in (store.folder / "rounds" / "1").iterdir()] == ["log.txt"]


def test_deleting_a_person_ends_the_round_that_trains_on_the_pictures(store, place, when):
    row = _paused_in_training(store, place, when)
    for person in store.people.list():
        store.deletions.delete_person(person.id)
    # What was cached of the pictures goes at once, also while the round pauses.
    assert not Worker(store, place.models, config=CONFIG).work_once()
    assert [path.name for path in (store.folder / "rounds" / "1").iterdir()] == ["log.txt"]
    store.rounds.ask(row.id, RoundRequest.RUN)
    row = end_of(store, row, Worker(store, place.models, config=CONFIG))
    assert row.state is RoundState.FAILED
    assert "was deleted" in row.message
    assert [path.name for path in (store.folder / "rounds" / "1").iterdir()] == ["log.txt"]


def test_a_full_disk_fails_the_round_and_nothing_else(store, worker, when):
    """/dev/full refuses every byte with the error of a full disk."""
    add_picks(store, 3)
    row = store.rounds.create("tiny")
    outcome = store.folder / "rounds" / "1" / f"outcome.json.{os.getpid()}.partial"
    when("Training on", lambda: outcome.symlink_to("/dev/full"))
    row = end_of(store, row, worker)
    assert row.state is RoundState.FAILED
    assert "The disk is full" in row.message
    assert store.adapters.list() == []
    assert store.picks.count() == 3
    row = end_of(store, store.rounds.create("tiny"), worker)
    assert row.state in ENDS, row.message


def test_a_round_that_never_ends_is_given_up(store, worker):
    add_picks(store, 2)
    row = store.rounds.create("tiny")
    with store.database.write() as session:
        session.execute(sa.update(Round).values(attempts=40))
    row = end_of(store, row, worker)
    assert row.state is RoundState.FAILED
    assert "taken up 40 times" in row.message


def test_nothing_is_promoted_over_what_people_put_to_use_meanwhile(store, worker, when):
    """Whatever the evaluation says: the round's parent is no longer what the studio generates with."""
    add_picks(store, 3)
    end_of(store, store.rounds.create("tiny"), worker)
    adapter = store.adapters.list(bundle="tiny")[0]
    store.adapters.activate("tiny", None)
    row = store.rounds.create("tiny")
    when("Making pictures", lambda: store.adapters.activate("tiny", adapter.id))
    row = end_of(store, row, worker)
    assert row.state in (RoundState.CANDIDATE, RoundState.REJECTED)
    assert store.adapters.active("tiny").id == adapter.id


def test_the_worker_makes_room_while_somebody_generates(store):
    row = store.rounds.create("tiny")
    store.rounds.claim("w")
    lease = Lease(store, row, "w", seconds=60, shutdown=threading.Event())
    assert not lease.should_stop()
    generation = _live_generation(store)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(lease.should_stop()))
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive()
    store.generations.cancel(generation)
    waiting.join(30)
    assert answers == [False]

    # Of a studio that was killed while it generated, nothing is heard any more.
    silent = _live_generation(store)
    with store.database.write() as session:
        values = {"created_at": utc_now() - timedelta(hours=1)}
        session.execute(sa.update(Generation).where(Generation.id == silent).values(**values))
    assert not lease.should_stop()


@pytest.mark.parametrize("stage", ["Collecting pairs", "Training on", "Making pictures"])
def test_a_round_makes_room_in_each_of_its_stages(store, worker, when, stage):
    """From the moment somebody generates, nothing of the round is measured, trained or made."""
    add_picks(store, 3)
    row = store.rounds.create("tiny", {"training": {"steps": 1}})
    generation = []
    when(stage, lambda: generation.append(_live_generation(store)))
    working = threading.Thread(target=worker.work_once)
    working.start()
    while not generation:
        working.join(0.1)
    working.join(2)
    collected, steps = len(store.rounds.pairs(row.id)), len(store.rounds.steps(row.id))
    expected = {"Collecting pairs": (0, 0), "Training on": (3, 0), "Making pictures": (3, 1)}
    assert (collected, steps) == expected[stage]
    assert store.generations.of_round(row.id) == []
    store.generations.cancel(*generation)
    working.join()
    assert store.rounds.get(row.id).state in ENDS


def _live_generation(store: Store) -> str:
    return store.generations.create(
        NewGeneration(
            task="group", prompt="Two people.", schedule="constant", strength=1.0, steps=2, guidance=1.0,
            identity_guidance=1.0, width=96,
            height=64, seeds=[1], bundle="tiny",
        )
    ).id  # fmt: skip
