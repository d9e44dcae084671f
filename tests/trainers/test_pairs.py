"""Pairs from the picks of a real store, group pictures, the command."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from core.backbones.bundles import load_bundle
from core.faces import FaceAnalyzer
from studio.store import NewCandidate, NewGeneration, NewPick, NewPortrait, Store
from studio.store.models import PortraitOrigin, new_id
from tests.core.face_models import write_pack
from tests.studio.picture_bytes import png
from tests.tiny_bundles import write_tiny_bundle
from trainers.pairs import PairConfig, collect_pairs, load_training_pairs
from trainers.pairs.__main__ import main
from trainers.pairs.filter import BOTH_BAD, NO_METRICS, TIE
from trainers.pairs.groups import group_pairs, real_groups
from trainers.training_pairs import read_pairs

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


class Studio:
    """A store with two people, and short words for what happens in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.portraits = [self._portrait(number) for number in range(2)]
        self._pictures = iter(range(100, 1000))
        self.annotators = {name: store.people.annotator(name, origin="typed").id for name in ("Ada", "Bob")}

    def _portrait(self, number: int):
        person = self.store.people.add_person(f"Person {number}")
        sha256 = self.store.media.add(png(number, 48), ".png")
        landmarks = [(15, 15), (33, 15), (24, 25), (17, 35), (31, 35)]
        new = NewPortrait(
            picture_sha256=sha256,
            crop_sha256=sha256,
            box=(5, 5, 43, 43),
            landmarks=landmarks,
            origin=PortraitOrigin.EXAMPLE,
        )
        return self.store.people.add_portrait(person.id, new)

    def generate(self, similarities: list[float], **settings):
        """A finished generation whose candidates have these FaceSims for both people."""
        values = {
            "task": "group", "prompt": "image 1 and image 2 laugh", "schedule": "constant", "strength": 1.0, "steps": 2,
            "guidance": 1.0, "identity_guidance": 1.0,
            "width": WIDTH, "height": HEIGHT, "seeds": list(range(len(similarities))),
            "bundle": "tiny", "portrait_ids": [portrait.id for portrait in self.portraits],
        }  # fmt: skip
        generation = self.store.generations.create(NewGeneration(**(values | settings)))
        self.store.generations.start(generation.id)
        made = [self._candidate(position, value, values | settings) for position, value in enumerate(similarities)]
        self.store.generations.finish(generation.id, made)
        return self.store.generations.get(generation.id).candidates

    def _candidate(self, position: int, similarity: float, settings: dict) -> NewCandidate:
        rows = [
            {
                "reference": k,
                "face": k,
                "similarity": similarity,
                "covered": True,
                "duplicated": False,
                "box": (9, 9, 30, 30),
            }
            for k in range(2)
        ]
        report = {
            "face_sim": similarity, "coverage": 1.0, "duplicates": 0, "swaps": None, "face_count": 2,
            "count_correct": True, "threshold": 0.25, "rows": rows, "pack": "tiny", "width": WIDTH, "height": HEIGHT,
        }  # fmt: skip
        size = (settings["width"], settings["height"])
        sha256 = self.store.media.add(png(next(self._pictures), *size), ".png")
        return NewCandidate(
            position=position, seed=position, media_sha256=sha256, width=size[0], height=size[1], face_report=report
        )

    def pick(self, candidates, outcome: str, *, by: str = "Ada", ranking=None) -> str:
        comparison = self.store.comparisons.create([candidate.id for candidate in candidates])
        pick = NewPick(
            request_id=new_id(),
            comparison_id=comparison.id,
            annotator_id=self.annotators[by],
            outcome=outcome,
            shown=[candidate.id for candidate in candidates],
            ranking=ranking,
        )
        return self.store.picks.save(pick).id


@pytest.fixture
def studio(tmp_path):
    store = Store.open(tmp_path / "data")
    yield Studio(store)
    store.close()


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory):
    pack = write_pack(tmp_path_factory.mktemp("packs") / "tiny", manifest=True)
    return FaceAnalyzer(pack, threads=1, detection_sizes=[(128, 128)])


def collected(studio: Studio, analyzer=None, **options):
    return collect_pairs(studio.store, "tiny", analyzer=analyzer, **options)


def test_picks_say_what_they_say(studio):
    a, b, c, d = studio.generate([0.5] * 4)
    studio.pick([a, b], "right")
    studio.pick([c, d], "tie")
    studio.pick([a, c], "both_bad")
    found = {(pair.chosen_candidate_id, pair.rejected_candidate_id): pair for pair in collected(studio)}
    kept = found[(b.id, a.id)]
    assert (kept.kept, kept.drop_reason, kept.origin) == (True, "", "pick")
    assert (kept.chosen_sha256, kept.generation_id) == (b.media_sha256, b.generation_id)
    reasons = [pair.drop_reason for pair in found.values() if not pair.kept]
    assert sorted(reasons) == sorted([TIE, BOTH_BAD])


def test_a_ranking_makes_a_pair_of_every_two_places(studio):
    a, b, c = studio.generate([0.5] * 3)
    studio.pick([a, b, c], "ranking", ranking=[[b.id], [a.id, c.id]])
    pairs = collected(studio)
    assert {(p.chosen_candidate_id, p.rejected_candidate_id) for p in pairs if p.kept} == {(b.id, a.id), (b.id, c.id)}
    assert [p.drop_reason for p in pairs if not p.kept] == [TIE]


def test_annotators_meet_over_different_comparisons(studio):
    a, b, c = studio.generate([0.5] * 3)
    studio.pick([a, b], "left")
    studio.pick([a, b, c], "ranking", by="Bob", ranking=[[b.id], [a.id], [c.id]])
    pairs = collected(studio)
    assert [p.drop_reason for p in pairs if {p.chosen_candidate_id, p.rejected_candidate_id} == {a.id, b.id}] == [
        "annotators contradict each other 1 to 1"
    ] * 2
    assert sum(p.kept for p in pairs) == 2


def test_undone_picks_other_bundles_and_what_came_later_are_not_looked_at(studio):
    a, b = studio.generate([0.5, 0.5])
    pick = studio.store.picks.get(studio.pick([a, b], "left"))
    others = studio.generate([0.5, 0.5], bundle="another")
    studio.pick(others, "left")
    assert len(collected(studio)) == 1
    later = studio.generate([0.5, 0.5])
    studio.pick(later, "left")
    assert len(collected(studio)) == 2
    assert len(collected(studio, until=pick.created_at)) == 1
    studio.store.picks.undo(pick.id)
    assert len(collected(studio)) == 1


def test_what_cannot_be_compared_by_a_model_is_dropped(studio):
    (a,), (b,) = studio.generate([0.5]), studio.generate([0.5], prompt="image 1 frowns at image 2")
    studio.pick([a, b], "left")
    (c,), (d,) = studio.generate([0.5]), studio.generate([0.5], width=64)
    studio.pick([c, d], "left")
    (e,), (f,) = studio.generate([0.5]), studio.generate([0.5])
    studio.pick([e, f], "left")
    assert [pair.drop_reason for pair in collected(studio)] == [
        "made for different prompts or portraits",
        "pictures of different sizes",
        "",
    ]
    held_out = [studio.portraits[1].picture_sha256]
    assert collected(studio, held_out=held_out)[2].drop_reason == "held out for evaluation"


def test_picks_pass_against_the_metrics_which_are_recorded(studio, analyzer):
    a, b = studio.generate([0.2, 0.9])
    studio.pick([a, b], "left")
    (pair,) = collected(studio, analyzer)
    assert pair.kept
    assert pair.deltas == {"identity": pytest.approx(-0.7)}
    assert collected(studio)[0].deltas == {}  # nothing is invented without a face pack


def test_generated_pictures_are_told_apart_by_the_metrics(studio, analyzer):
    a, b, c = studio.generate([0.5, 0.52, 0.8])
    studio.pick([a, b], "both_bad")
    found = [p for p in collected(studio, analyzer, config=PairConfig(generated=5)) if p.origin == "generated"]
    assert [(p.chosen_candidate_id, p.rejected_candidate_id, p.kept) for p in found] == [
        (c.id, a.id, True),
        (c.id, b.id, True),
    ]
    assert found[0].deltas == {"identity": pytest.approx(0.3)}
    d, e = studio.generate([0.5, 0.52])
    found = collected(studio, analyzer, config=PairConfig(generated=5))
    (close,) = [p for p in found if {p.chosen_candidate_id, p.rejected_candidate_id} == {d.id, e.id}]
    assert close.drop_reason == "no metric sees a difference"


def test_spoilt_copies_say_how_and_go_to_the_store(studio, analyzer):
    a, b = studio.generate([0.5, 0.5])
    studio.pick([a, b], "left")
    config = PairConfig(perturbed=4, thresholds={"identity": 0.01})
    found = [pair for pair in collected(studio, analyzer, config=config) if pair.origin != "pick"]
    assert [pair.origin for pair in found] == [
        "perturbed-noise",
        "perturbed-saturation",
        "perturbed-duplicate",
        "perturbed-noise",
    ]  # nobody is a stranger here, and nobody's place was said
    for pair in found:
        assert (pair.chosen_candidate_id, pair.rejected_candidate_id) == (a.id, None)
        spoilt = np.asarray(Image.open(studio.store.media.path(pair.rejected_sha256)))
        assert spoilt.shape == (HEIGHT, WIDTH, 3)
    again = [pair for pair in collected(studio, analyzer, config=config) if pair.origin != "pick"]
    assert [pair.rejected_sha256 for pair in found] == [pair.rejected_sha256 for pair in again]


def test_pairs_of_a_round_are_loaded_as_they_were_generated(studio, folder):
    a, b = studio.generate([0.5, 0.5])
    studio.pick([a, b], "left")
    bundle = load_bundle(folder)
    store = studio.store
    row = store.rounds.create("tiny")
    store.rounds.claim("me")
    store.rounds.save_pairs(row.id, "me", collected(studio), snapshot_at=row.created_at)
    (pair,) = load_training_pairs(store, store.rounds.pairs(row.id, kept=True), bundle, analyzer=None)
    assert pair.id == store.rounds.pairs(row.id)[0].id
    assert pair.prompt == "image 1 and image 2 laugh"
    assert [reference.shape for reference in pair.references] == [(64, 64, 3)] * 2
    assert np.array_equal(pair.chosen, np.asarray(Image.open(store.media.path(a.media_sha256)).convert("RGB")))
    assert np.array_equal(pair.rejected, np.asarray(Image.open(store.media.path(b.media_sha256)).convert("RGB")))


# --- group pictures and the command


def write_groups(folder) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("group", (150, 200, 3)), ("one", (64, 64, 3)), ("two", (64, 64, 3))):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{name}.png")
    line = {"picture": "group.png", "portraits": ["one.png", "two.png"], "prompt": "image 1 and image 2 in a park"}
    (folder / "groups.jsonl").write_text(json.dumps(line) + "\n")


def test_group_pictures_are_preferred_to_generated_ones(tmp_path, folder):
    write_groups(tmp_path / "groups")
    (judged,) = group_pairs(
        real_groups(tmp_path / "groups"),
        load_bundle(folder),
        origin="real",
        analyzer=None,
        clip=None,
        thresholds={"identity": 0.1},
        limit=5,
    )
    assert (judged.pair.id, judged.origin, judged.drop_reason) == ("real-group.png", "real", NO_METRICS)
    assert judged.pair.chosen.shape == judged.pair.rejected.shape == (HEIGHT, WIDTH, 3)
    true = np.asarray(Image.open(tmp_path / "groups" / "group.png"))
    assert abs(float(judged.pair.chosen.mean()) - float(true.mean())) < 2


def test_the_command_counts_draws_and_writes(studio, folder, tmp_path, monkeypatch, capsys):
    a, b, c = studio.generate([0.5] * 3)
    studio.pick([a, b], "left")
    studio.pick([b, c], "tie")
    files = len(list((tmp_path / "data" / "media").rglob("*.png")))
    options = ["--data", tmp_path / "data", "--bundle", folder, "--face-pack", tmp_path / "no-pack"]
    options += ["--preview", tmp_path / "sheet.png", "--out", tmp_path / "pairs"]
    monkeypatch.setattr(sys, "argv", ["trainers.pairs", *map(str, options)])
    main()
    said = capsys.readouterr()
    assert "2 pairs, 1 kept, 1 dropped" in said.out
    assert f"pick: {TIE}" in said.out
    assert "not measured" in said.err
    sheet = Image.open(tmp_path / "sheet.png").convert("RGB")
    assert sheet.height > 2 * 160
    assert sheet.getpixel((1, 80)) != sheet.getpixel((1, 80 + 166))  # a kept row and a dropped one
    (pair,) = read_pairs(tmp_path / "pairs")
    assert np.array_equal(pair.chosen, np.asarray(Image.open(studio.store.media.path(a.media_sha256)).convert("RGB")))
    assert len(list((tmp_path / "data" / "media").rglob("*.png"))) == files
    options = ["--data", tmp_path / "nowhere", "--bundle", folder, "--out", tmp_path / "x"]
    monkeypatch.setattr(sys, "argv", ["trainers.pairs", *map(str, options)])
    with pytest.raises(SystemExit, match="There is no data folder"):
        main()
