"""Parquet, JSONL and tables: what goes out comes back, and what others send cannot do harm."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studio.store import StoreError
from studio.store.archive import export_archive
from studio.store.exports import export_csv, export_jsonl, export_parquet
from studio.store.imports import import_jsonl, import_parquet
from tests.studio.full_store import NAME, pair_scores
from tests.studio.store_samples import png


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
