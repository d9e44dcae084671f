"""Exports and imports: what goes out comes back, and what others send cannot do harm."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from studio.store import StoreError
from studio.store.archive import export_archive, import_archive
from studio.store.exports import export_csv, export_jsonl, export_parquet
from studio.store.imports import import_jsonl, import_parquet
from studio.store.models import Base, Standing
from tests.studio.conftest import opened
from tests.studio.store_samples import add_generation, add_person, new_pick, png
from tests.studio.test_store_rounds import run_round

NAME = "=HYPERLINK(1)"


@pytest.fixture
def full(store):
    """A store with a little of everything."""
    fill(store)
    return store


@pytest.fixture(scope="module")
def exported(place_in, tmp_path_factory):
    """The archive of such a store."""
    folder = tmp_path_factory.mktemp("exported")
    with place_in(folder / "data") as place, opened(place) as store:
        fill(store)
        export_archive(store, folder / "all.zip")
    return folder / "all.zip"


def fill(store):
    ada, bob = store.people.annotator("Ada").id, store.people.annotator(NAME).id
    _, portrait = add_person(store, content=png(100))
    one = add_generation(store, [portrait], content=[png(1), png(2)], prompt='image 1 laughs, "loudly"\n+cmd')
    three = add_generation(store, candidates=3, content=[png(n) for n in (3, 4, 5)], schedule="gate-0.3-0.6")
    pair = store.comparisons.create([c.id for c in one.candidates])
    triple = store.comparisons.create([c.id for c in three.candidates])
    session = store.sessions.create("Evening", guidelines="Look at the faces.")
    store.sessions.add(session.id, [pair.id])
    (assignment,) = store.sessions.claim(session.id, ada)
    store.picks.save(new_pick(pair, ada, lease_id=assignment.lease_id, reasons=["light"], note="-1+1", latency_ms=900))
    store.picks.save(new_pick(pair, bob, "tie"))
    a, b, c = (candidate.id for candidate in triple.candidates)
    store.picks.save(new_pick(triple, ada, "ranking", ranking=[[b], [a, c]]))
    store.picks.undo(store.picks.save(new_pick(triple, bob, "both_bad")).id)
    run_round(store)
    store.preferences.set("seen", True)


@pytest.fixture
def other(tmp_path):
    """Another studio, on SQLite."""
    with opened((tmp_path / "other", None)) as store:
        yield store


def everything(store):
    with store.database.read() as session:
        return {
            table.name: sorted(map(repr, session.execute(sa.select(table)).mappings()))
            for table in Base.metadata.sorted_tables
        }


def test_the_archive_is_lossless(full, other, tmp_path):
    path = tmp_path / "all.zip"
    rows = export_archive(full, path)
    assert rows == sum(map(len, everything(full).values()))
    report = import_archive(other, path)
    before, after = everything(full), everything(other)
    # Settings stay with their studio, files are added anew, and nothing else differs.
    assert before.pop("preferences") != after.pop("preferences") == []
    assert len(before.pop("media")) == len(after.pop("media")) == report.files
    assert after == before
    assert report.left_out == {} or set(report.left_out.values()) == {0}
    for candidate in full.generations.gallery():
        assert other.media.read(candidate.media_sha256) == full.media.read(candidate.media_sha256)


def test_importing_twice_or_into_itself_adds_nothing(full, other, tmp_path):
    path = tmp_path / "all.zip"
    export_archive(full, path)
    import_archive(other, path)
    before = everything(other)
    before.pop("media")
    for store in (other, full):
        report = import_archive(store, path)
        assert sum(report.added.values()) == 0
    after = everything(other)
    after.pop("media")
    assert after == before


def test_an_archive_joins_a_studio_that_has_its_own(full, other, tmp_path):
    """What was decided here in the meantime stays."""
    path = tmp_path / "all.zip"
    export_archive(full, path)
    pair = full.picks.counted()[0].comparison
    import_archive(other, path)
    ada = next(person for person in other.people.annotators() if person.name == "Ada")
    other.picks.undo_last(ada.id)
    first = next(pick for pick in full.picks.counted() if pick.comparison_id == pair.id)
    other.picks.undo(first.id)
    mine = other.picks.save(new_pick(pair, ada.id, "right"))
    other.adapters.activate("mini", None, note="mine")
    report = import_archive(other, path)
    assert sum(report.added.values()) == 0
    assert other.adapters.active("mini") is None
    assert mine.id in {pick.id for pick in other.picks.counted()}


def test_what_contradicts_is_left_out_with_all_below_it(full, other, tmp_path):
    """A studio that shares comparisons and annotators by name, but in which Ada decided otherwise."""
    path = tmp_path / "all.zip"
    old = tmp_path / "old.zip"
    for pick in full.picks.standing():
        full.picks.undo(pick.id)
    export_archive(full, old)
    pair = full.picks.of_comparison(_pair(full))[0]
    full.picks.save(new_pick(full.comparisons.get(pair.comparison_id), pair.annotator_id, "right"))
    export_archive(full, path)
    import_archive(other, old)
    own = other.picks.save(new_pick(other.comparisons.get(pair.comparison_id), pair.annotator_id, "left"))
    report = import_archive(other, path)
    assert report.left_out["picks"] == 1
    assert report.left_out["pick_pairs"] == 1
    assert [pick.id for pick in other.picks.counted()] == [own.id]


def test_second_thoughts_follow(full, other, tmp_path):
    path = tmp_path / "all.zip"
    export_archive(full, path)
    import_archive(other, path)
    first = next(pick for pick in full.picks.counted() if pick.reasons)
    second = full.picks.save(new_pick(first.comparison, first.annotator_id, "right"))
    export_archive(full, path)
    report = import_archive(other, path)
    assert report.added["picks"] == 1
    assert sum(report.left_out.values()) == 0
    assert {pick.id for pick in other.picks.counted()} == {pick.id for pick in full.picks.counted()}
    assert pair_scores(other) == pair_scores(full)
    assert other.picks.get(first.id).superseded_by == second.id
    session_id = full.sessions.list()[0].id
    assert other.sessions.progress(session_id) == full.sessions.progress(session_id)


def _pair(store):
    with store.database.read() as session:
        return session.scalar(sa.text("SELECT comparison_id FROM picks WHERE size = 2 LIMIT 1"))


def test_annotators_are_joined_by_name_and_rounds_renumbered(full, other, tmp_path):
    path = tmp_path / "all.zip"
    export_archive(full, path)
    ada = other.people.annotator("Ada")
    _, mine = run_round(other, name="mine")
    import_archive(other, path)
    assert [person.name for person in other.people.annotators()].count("Ada") == 1
    assert other.picks.count() == full.picks.count()
    assert len(other.picks.latest(annotator_id=ada.id)) == 2
    assert [row.number for row in other.rounds.list()] == [2, 1]
    assert other.adapters.active("mini").id == mine.id


def test_a_running_round_comes_in_stopped_and_without_paths(full, other, tmp_path):
    running = full.rounds.create("mini")
    full.rounds.claim("w")
    full.rounds.heartbeat(running.id, "w", checkpoint_path="../../etc/passwd", log_path="/etc/passwd")
    path = tmp_path / "all.zip"
    export_archive(full, path)
    import_archive(other, path)
    found = other.rounds.get(running.id)
    assert (found.state, found.checkpoint_path, found.log_path) == ("cancelled", None, None)
    assert "queued" in found.message
    assert other.rounds.claim("w") is None


def rewrite(source, target, change):
    """Copy a zip, with `change(name, content)` giving new (name, content) pairs."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            for changed, content in change(name, old.read(name)):
                new.writestr(changed, content)
    return target


def swap(name, content):
    """A change that replaces one file and leaves the others."""
    return lambda found, old: [(found, content(old) if found == name else old)]


HOSTILE = {
    "climbs out": (lambda name, old: [("../outside.png" if name == "manifest.json" else name, old)], "does not belong"),
    "absolute": (lambda name, old: [("/" + name if name.startswith("media/") else name, old)], "does not belong"),
    "other file": (lambda name, old: [(name.replace(".safetensors", ".html"), old)], "does not belong"),
    "no manifest": (lambda name, old: [] if name == "manifest.json" else [(name, old)], "no archive"),
    "newer": (swap("manifest.json", lambda old: old.replace(b'"format": 1', b'"format": 2')), "format 2"),
    "no json": (swap("tables/people.jsonl", lambda old: b"{"), "people, line 1"),
    "unknown column": (
        swap("tables/people.jsonl", lambda old: old.replace(b'"name"', b'"nom"')),
        "exactly the columns",
    ),
    "wrong kind": (swap("tables/people.jsonl", lambda old: old.replace(b'"Ada"', b"7")), "wrong kind"),
    "too long": (swap("tables/people.jsonl", lambda old: old.replace(b"Ada", b"A" * 300)), "300 characters"),
    "unknown state": (swap("tables/generations.jsonl", lambda old: old.replace(b'"done"', b'"gone"')), "gone"),
    "dangling": (swap("tables/comparisons.jsonl", lambda old: b""), "contradicts itself"),
    "bomb": (
        lambda name, old: [(name, old + b"\n" * (4 << 20) if name == "tables/people.jsonl" else old)],
        "zip bomb",
    ),
    "false name": (
        lambda name, old: [(name, png(77) if name.startswith("media/") and name.endswith("png") else old)],
        "damaged",
    ),
    "no picture": (
        lambda name, old: [(name, b"<svg/>" if name.endswith(".png") else old)],
        "no picture",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_and_damaged_archives_are_refused(exported, other, tmp_path, kind):
    change, words = HOSTILE[kind]
    with pytest.raises(StoreError, match=words):
        import_archive(other, rewrite(exported, tmp_path / "hostile.zip", change))
    assert not (tmp_path / "outside.png").exists()
    # The good one still comes in whole, whatever the bad one had left.
    import_archive(other, exported)
    assert other.picks.count() == 3


def test_archives_that_are_none_or_too_large_are_refused(exported, other, tmp_path):
    with pytest.raises(StoreError, match="are the most"):
        import_archive(other, exported, max_bytes=1000)
    path = tmp_path / "cut.zip"
    path.write_bytes(exported.read_bytes()[:500])
    with pytest.raises(StoreError, match="cannot be read as a zip"):
        import_archive(other, path)


def test_parquet_has_the_columns_of_pick_a_pic(full, tmp_path):
    path = tmp_path / "picks.parquet"
    assert export_parquet(full, path) == 2 + 3
    table = pq.read_table(path)
    wanted = (
        "caption jpg_0 jpg_1 label_0 label_1 has_label are_different best_image_uid image_0_uid image_1_uid "
        "model_0 model_1 ranking_id user_id created_at"
    )
    assert table.column_names[:15] == wanted.split()
    rows = table.to_pylist()
    (decided,) = [row for row in rows if row["outcome"] == "left"]
    assert (decided["label_0"], decided["label_1"], decided["best_image_uid"]) == (1, 0, decided["image_0_uid"])
    assert (decided["reasons"], decided["latency_ms"], decided["user_id"]) == (["light"], 900, "Ada")
    assert decided["jpg_0"] in (png(1), png(2))
    assert decided["references"] == []
    (tie,) = [row for row in rows if row["outcome"] == "tie"]
    assert (tie["label_0"], tie["label_1"], tie["best_image_uid"]) == (0.5, 0.5, "")
    assert export_parquet(full, path, portraits=True) == 5
    assert [row["references"] for row in pq.read_table(path).to_pylist() if row["outcome"] == "tie"] == [[png(100)]]


def test_parquet_comes_back(full, other, tmp_path):
    path = tmp_path / "picks.parquet"
    export_parquet(full, path)
    report = import_parquet(other, path)
    assert (report.added, report.refused, report.reasons) == (5, 0, ())
    assert import_parquet(other, path).present == 5
    # A ranking comes back as its pairs, so compare those.
    assert pair_scores(other) == pair_scores(full)
    (pick,) = [pick for pick in other.picks.counted() if pick.reasons]
    assert (pick.note, pick.latency_ms, pick.annotator.name, pick.annotator.origin) == ("-1+1", 900, "Ada", "imported")
    schedules = {candidate.generation.schedule for candidate in other.generations.gallery()}
    assert schedules == {"anneal-hold-0.4", "gate-0.3-0.6"}
    assert import_parquet(full, path).added == 3  # the ranking's pairs; picks of two are known by their ids


def pair_scores(store):
    scores = set()
    for pick in store.picks.counted():
        for pair in pick.pairs:
            left, right = sorted([(pair.left_id, pair.left_score), (pair.right_id, 1 - pair.left_score)])
            scores.add((left, right))
    return scores


def pick_a_pic(path, **changes):
    """Two rows as the public data set has them, without any of our columns."""
    row = {
        "caption": "a cat",
        "jpg_0": png(11),
        "jpg_1": png(12),
        "label_0": 1.0,
        "label_1": 0.0,
        "has_label": True,
        "are_different": True,
        "best_image_uid": "u0",
        "image_0_uid": "u0",
        "image_1_uid": "u1",
        "model_0": "dreamlike",
        "model_1": "sdxl",
        "ranking_id": 17,
        "user_id": 5,
        "created_at": "2023-01-05T10:00:00",
    }
    rows = [row, row | {"ranking_id": 18, "label_0": 0.5, "label_1": 0.5}]
    pq.write_table(pa.Table.from_pylist([r | changes for r in rows]), path)
    return path


def test_the_public_data_set_can_be_imported(store, tmp_path):
    path = pick_a_pic(tmp_path / "pap.parquet")
    assert import_parquet(store, path).added == 2
    assert import_parquet(store, path).present == 2
    decided, tie = sorted(store.picks.counted(), key=lambda pick: pick.outcome)
    assert (decided.outcome, tie.outcome) == ("left", "tie")
    assert decided.created_at.isoformat() == "2023-01-05T10:00:00+00:00"
    assert {c.generation.bundle for c in decided.comparison.candidates} == {"dreamlike", "sdxl"}
    assert store.generations.count() == 2
    # Nobody recorded where the pictures stood.
    assert store.insights.position_bias() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jpg_0": b"no picture"}, "damaged"),
        ({"jpg_0": b"<svg/>"}, "SVG"),
        ({"caption": " "}, "no caption"),
        ({"label_0": 0.7}, "label 0.7"),
        ({"schedule_0": "sometimes"}, "schedule"),
        ({"seed_0": "many"}, "seed"),
        ({"image_1_uid": "u0"}, "another one|itself"),
        ({"created_at": "yesterday"}, "yesterday"),
    ],
)
def test_bad_rows_are_refused_with_a_reason_and_leave_nothing(store, tmp_path, changes, words):
    report = import_parquet(store, pick_a_pic(tmp_path / "pap.parquet", **changes))
    assert (report.added, report.refused) == (0, 2)
    assert report.reasons[0].startswith("pap.parquet, row 1: ")
    assert re.search(words, report.reasons[0])
    assert store.picks.count() == store.generations.count() == 0


def test_rows_without_label_are_counted_apart_and_other_files_refused(store, tmp_path):
    assert import_parquet(store, pick_a_pic(tmp_path / "pap.parquet", has_label=False)).unlabelled == 2
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(StoreError, match="no column 'caption'"):
        import_parquet(store, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="cannot be read as Parquet"):
        import_parquet(store, tmp_path / "b.parquet")


def test_jsonl_has_chosen_and_rejected_pictures_and_comes_back(full, other, tmp_path):
    path = tmp_path / "picks.zip"
    assert export_jsonl(full, path) == 1 + 2
    with zipfile.ZipFile(path) as archive:
        lines = [json.loads(line) for line in archive.read("data.jsonl").splitlines()]
        (first,) = [line for line in lines if line["reasons"]]
        assert first["prompt"].startswith("image 1 laughs")
        pick = next(pick for pick in full.picks.counted() if pick.reasons)
        chosen = next(c for c in pick.comparison.candidates if c.id == pick.winner_id)
        assert archive.read(first["chosen"]) == full.media.read(chosen.media_sha256)
        assert archive.read(first["rejected"]) != archive.read(first["chosen"])
        assert first["images"] == []
        # Pictures that several pairs share are there once.
        assert len(archive.namelist()) == 1 + 5
    assert import_jsonl(other, path).added == 3
    assert import_jsonl(other, path).present == 3
    decided = {score for score in pair_scores(full) if score[0][1] != 0.5}
    assert pair_scores(other) == decided
    positions = {(pick.id, pick.winner_position) for pick in other.picks.counted()}
    assert (pick.id, pick.winner_position) in positions
    export_jsonl(full, path, portraits=True)
    with zipfile.ZipFile(path) as archive:
        lines = [json.loads(line) for line in archive.read("data.jsonl").splitlines()]
        assert archive.read(next(line["images"][0] for line in lines if line["images"])) == png(100)


def test_jsonl_of_others_needs_three_fields(store, tmp_path):
    path = tmp_path / "picks.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/a.png", png(1))
        archive.writestr("images/b.png", png(2))
        good = {"prompt": "two people", "chosen": "images/a.png", "rejected": "images/b.png"}
        lines = [good, good | {"chosen": "images/c.png"}, {"prompt": "x"}, ["a"]]
        archive.writestr("data.jsonl", "\n".join([*map(json.dumps, lines), "{"]))
    report = import_jsonl(store, path)
    assert (report.added, report.refused) == (1, 4)
    assert store.picks.counted()[0].outcome == "left"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images/../../up.png", png(1))
    with pytest.raises(StoreError, match="does not belong"):
        import_jsonl(store, path)


def test_spreadsheets_run_nothing(full, tmp_path):
    path = tmp_path / "picks.csv"
    assert export_csv(full, path) == 5
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))
    assert {row["user_id"] for row in rows} == {"Ada", f"'{NAME}"}
    assert {row["note"] for row in rows} == {"", "'-1+1"}
    assert {row["caption"] for row in rows} >= {'image 1 laughs, "loudly"\n+cmd'}
    assert {row["latency_ms"] for row in rows} == {"", "900"}


def test_an_export_that_breaks_leaves_the_old_file(full, tmp_path):
    path = tmp_path / "picks.parquet"
    path.write_bytes(b"the old one")
    full.media.path(full.generations.gallery()[0].media_sha256).unlink()
    for export in (export_parquet, export_jsonl, export_archive):
        with pytest.raises(StoreError, match="missing"):
            export(full, path)
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["picks.parquet"]


def test_standings_survive(full, other, tmp_path):
    good, bad = add_generation(full, content=[png(21), png(22)]).candidates
    gold = full.comparisons.create([good.id, bad.id], kind="gold", gold_winner_id=good.id)
    full.picks.save(new_pick(gold, full.people.annotator("Ada").id))
    path = tmp_path / "all.zip"
    export_archive(full, path)
    import_archive(other, path)
    assert [pick.standing for pick in other.picks.standing()].count(Standing.GOLD) == 1
