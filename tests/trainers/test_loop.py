"""The whole loop at tiny size: generate, pick by a rule, train, evaluate, and generate with what came of it."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from core.provenance import read_settings
from studio.generation import GenerationJobs
from studio.model_host import ModelHost
from studio.store import NewGeneration, NewPick, Store
from studio.store.models import GenerationState, RoundState, new_id
from tests.studio.picture_bytes import png
from tests.trainers.round_scenario import CONFIG, Place, add_portrait, make_place
from trainers.bench.loop import main, table
from trainers.worker import Worker


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


def test_picks_made_in_the_studio_change_its_next_generation(place, tmp_path):
    """One running studio: the adapter is on the model for the next generation, without a restart."""
    store = Store.open(tmp_path / "data")
    host = ModelHost(place.bundle, face_pack=place.pack, device="cpu", threads=1)
    host.start()
    host.wait(120)
    jobs = GenerationJobs(store, host)
    jobs.start()
    portraits = [add_portrait(store, 1), add_portrait(store, 2)]

    def generate(seeds: list[int]):
        active = store.adapters.active("tiny")
        made = jobs.submit(
            NewGeneration(
                task="group", prompt="Image 1 and image 2.", schedule="constant", strength=1.0, steps=2, guidance=1.0,
                identity_guidance=1.0,
                width=96, height=64, seeds=seeds, bundle="tiny", portrait_ids=portraits,
                adapter_id=active and active.id,
            )
        )  # fmt: skip
        assert list(jobs.watch(made, every=0))[-1].state is GenerationState.DONE
        return store.generations.get(made)

    annotator = store.people.annotator("rule", "simulated")
    for number in range(3):
        row = generate([2 * number, 2 * number + 1])
        shown = [candidate.id for candidate in row.candidates]
        first, second = (candidate.face_sim for candidate in row.candidates)
        outcome = "left" if first >= second else "right"
        comparison = store.comparisons.create(shown)
        store.picks.save(
            NewPick(
                request_id=new_id(),
                comparison_id=comparison.id,
                annotator_id=annotator.id,
                outcome=outcome,
                shown=shown,
            )
        )
    before = generate([0])

    assert Worker(store, place.models, picks_per_round=3, config=CONFIG).work_once()
    (round_,) = store.rounds.list()
    assert round_.state in (RoundState.PROMOTED, RoundState.CANDIDATE, RoundState.REJECTED), round_.message
    (adapter,) = store.adapters.list()
    if round_.state is not RoundState.PROMOTED:
        assert generate([0]).adapter_id is None
        store.adapters.activate("tiny", adapter.id, note="a person looked and decided")
    after = generate([0])
    paths = [store.media.path(row.candidates[0].media_sha256) for row in (before, after)]
    assert [(read_settings(path)["adapter"] or {}).get("digest") for path in paths] == [None, adapter.media_sha256]
    assert Image.open(paths[0]).tobytes() != Image.open(paths[1]).tobytes()
    store.close()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--shuffled", "--ranked", "--tasks", "group", "child"],
        ["--guidance", "1.5", "--other-guidance", "2", "--tasks", "child"],
    ],
    ids=["plain", "shuffled rankings", "a-b"],
)
def test_the_demonstration_as_a_command(place, tmp_path, capsys, options):
    portraits = tmp_path / "portraits"
    portraits.mkdir()
    for number in range(3):
        (portraits / f"person-{number}-a.png").write_bytes(png(200 + number, 96))
        (portraits / f"person-{number}-b.png").write_bytes(png(300 + number, 96))
    main(
        [
            "--bundle", str(place.bundle), "--face-pack", str(place.pack), "--portraits", str(portraits),
            "--evaluation-portraits", str(place.evaluation), "--config", str(place.config), "--picks", "3",
            "--steps", "2", "--out", str(tmp_path / "out"), *options,
        ]
    )  # fmt: skip
    (report,) = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["picks"], report["steps"]) == (3, 6)
    assert "simulated" in report["picked_by"]
    assert ("coin" in report["picked_by"]) is ("--shuffled" in options)
    assert {change["metric"] for change in report["evaluation"]["changes"]} >= {"face_sim", "coverage"}
    used = report["next_generation"]["adapter"]
    assert used == ("Round 1" if report["state"] == "promoted" else "base model")
    assert table([report]) in capsys.readouterr().out
    assert Image.open(tmp_path / "out" / "seed-0" / "before_after.png").size == (5 * 96, 2 * 64)
    store = Store.open(tmp_path / "out" / "seed-0")
    assert {person.name for person in store.people.list()} == {"person-0-a", "person-1-a", "person-2-a"}
    assert [one.origin.value for one in store.people.annotators()] == ["simulated"]
    made = [row for row in store.generations.latest(limit=100) if row.purpose == "studio"]
    tasks = options[options.index("--tasks") + 1 :] if "--tasks" in options else ["group"]
    assert {row.task for row in made} == set(tasks)
    assert {len(pick.shown) for pick in store.picks.latest(limit=9)} == ({4} if "--ranked" in options else {2})
    guided = {row.identity_guidance for row in made}
    assert report["evaluation"]["identity_guidance"] == (1.5 if "--guidance" in options else 1.0)
    assert guided == ({1.5, 2.0} if "--other-guidance" in options else {1.0})
    store.close()
