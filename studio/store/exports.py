"""Picks for others: Pick-a-Pic-style Parquet, TRL-style JSONL with pictures, and a table for spreadsheets.

Portraits are personal data and stay out unless asked for; generated pictures show the same people, so an export is for
those who may see them.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from studio.store.checked_zip import write_atomically
from studio.store.models import Candidate, Pick, Standing
from studio.store.picks import places_of, scored_pairs

if TYPE_CHECKING:
    from studio.store import Store

ROWS_AT_ONCE = 64
"""Each row of the Parquet file carries two pictures."""

PARQUET_SCHEMA = pa.schema(
    [
        # the columns of Pick-a-Pic
        ("caption", pa.string()),
        ("jpg_0", pa.binary()),
        ("jpg_1", pa.binary()),
        ("label_0", pa.float64()),
        ("label_1", pa.float64()),
        ("has_label", pa.bool_()),
        ("are_different", pa.bool_()),
        ("best_image_uid", pa.string()),
        ("image_0_uid", pa.string()),
        ("image_1_uid", pa.string()),
        ("model_0", pa.string()),
        ("model_1", pa.string()),
        ("ranking_id", pa.string()),
        ("user_id", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        # our own: image 0 stood left of image 1
        ("pick_id", pa.string()),
        ("task", pa.string()),
        ("seed_0", pa.int64()),
        ("seed_1", pa.int64()),
        ("schedule_0", pa.string()),
        ("schedule_1", pa.string()),
        ("strength_0", pa.float64()),
        ("strength_1", pa.float64()),
        ("adapter_0", pa.string()),
        ("adapter_1", pa.string()),
        ("face_sim_0", pa.float64()),
        ("face_sim_1", pa.float64()),
        ("outcome", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("note", pa.string()),
        ("latency_ms", pa.int64()),
        ("blind", pa.bool_()),
        ("gold", pa.bool_()),
        ("repeat", pa.bool_()),
        ("reference_sha256", pa.list_(pa.string())),
        ("references", pa.list_(pa.binary())),
    ]
)
CSV_COLUMNS = tuple(
    name for name in PARQUET_SCHEMA.names if name not in ("jpg_0", "jpg_1", "has_label", "are_different", "references")
)


@dataclass(frozen=True)
class ComparedPair:
    """Two candidates of a pick from left to right; `left_score` is 1, 0 or 0.5."""

    pick: Pick
    left: Candidate
    right: Candidate
    left_score: float
    ranking_id: str
    """The pick's id; with a number behind it for the pairs of a ranking."""


def export_parquet(store: Store, path: Path, *, portraits: bool = False) -> int:
    """Write every pick that stands, a row for each pair of pictures, in the columns of Pick-a-Pic and our own.

    `jpg_*` hold the picture files as they are, PNG or JPEG. Returns the number of rows.
    """
    rows = 0
    with write_atomically(path) as temporary, pq.ParquetWriter(temporary, PARQUET_SCHEMA, compression="zstd") as writer:
        pairs = compared_pairs(store)
        while batch := list(itertools.islice(pairs, ROWS_AT_ONCE)):
            table = [
                {
                    **_row(store, pair),
                    "jpg_0": store.media.read(pair.left.media_sha256),
                    "jpg_1": store.media.read(pair.right.media_sha256),
                    "references": [store.media.read(sha256) for sha256 in _references(pair)] if portraits else [],
                }
                for pair in batch
            ]
            writer.write_table(pa.Table.from_pylist(table, PARQUET_SCHEMA))
            rows += len(table)
    return rows


def export_jsonl(store: Store, path: Path, *, portraits: bool = False) -> int:
    """Write decided pairs as TRL reads them: a zip of `data.jsonl` (prompt, chosen, rejected) and `images/`.

    Ties, both-bad, gold and repeated picks are left out. Returns the number of pairs.
    """
    rows = 0
    stored: set[str] = set()
    with (
        write_atomically(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        # Pictures go into the zip while the lines are made, and a zip takes one file at a time.
        tempfile.TemporaryFile() as lines,
    ):
        for pair in compared_pairs(store):
            if pair.left_score == 0.5 or pair.pick.standing is not Standing.COUNTED:
                continue
            chosen, rejected = (pair.left, pair.right) if pair.left_score == 1 else (pair.right, pair.left)
            references = _references(pair) if portraits else []
            names = {}
            for sha256 in (chosen.media_sha256, rejected.media_sha256, *references):
                source = store.media.path(sha256)
                names[sha256] = f"images/{source.name}"
                if sha256 not in stored:
                    archive.write(source, names[sha256])
                    stored.add(sha256)
            record = {
                "prompt": chosen.generation.prompt.text,
                "chosen": names[chosen.media_sha256],
                "rejected": names[rejected.media_sha256],
                "images": [names[sha256] for sha256 in references],
                "chosen_first": chosen is pair.left,
                "chosen_id": chosen.id,
                "rejected_id": rejected.id,
                **{key: value for key, value in _row(store, pair).items() if key not in ("caption", "created_at")},
                "created_at": pair.pick.created_at.isoformat(),
            }
            lines.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            rows += 1
        lines.seek(0)
        with archive.open("data.jsonl", "w", force_zip64=True) as entry:
            shutil.copyfileobj(lines, entry)
    return rows


def export_csv(store: Store, path: Path) -> int:
    """Write the picks as a table without pictures, for spreadsheets. Returns the number of rows."""
    rows = 0
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for pair in compared_pairs(store):
            row = _row(store, pair)
            writer.writerow([_cell(row[name]) for name in CSV_COLUMNS])
            rows += 1
    return rows


def compared_pairs(store: Store) -> Iterator[ComparedPair]:
    """Every pick that stands, taken apart into pairs, oldest first; one page in memory at a time."""
    after = None
    while page := store.picks.standing(after=after, limit=200):
        for pick in page:
            candidates = {candidate.id: candidate for candidate in pick.comparison.candidates}
            scored = scored_pairs(pick.shown, places_of(pick.outcome, pick.shown, pick.ranking))
            for number, (left, right, score) in enumerate(scored):
                ranking_id = pick.id if len(scored) == 1 else f"{pick.id}-{number}"
                yield ComparedPair(pick, candidates[left], candidates[right], score, ranking_id)
        after = page[-1].id


def _row(store: Store, pair: ComparedPair) -> dict[str, Any]:
    pick, left, right = pair.pick, pair.left, pair.right
    best = {1.0: left.id, 0.0: right.id}.get(pair.left_score, "")
    row: dict[str, Any] = {
        "caption": left.generation.prompt.text,
        "label_0": pair.left_score,
        "label_1": 1 - pair.left_score,
        "has_label": True,
        "are_different": left.media_sha256 != right.media_sha256,
        "best_image_uid": best,
        "ranking_id": pair.ranking_id,
        "user_id": pick.annotator.name,
        "created_at": pick.created_at,
        "pick_id": pick.id,
        "task": left.generation.task.value,
        "outcome": pick.outcome.value,
        "reasons": pick.reasons,
        "note": pick.note,
        "latency_ms": pick.latency_ms,
        "blind": pick.comparison.blind,
        "gold": pick.standing is Standing.GOLD,
        "repeat": pick.standing is Standing.REPEAT,
        "reference_sha256": _references(pair),
    }
    for side, candidate in (("0", left), ("1", right)):
        generation = candidate.generation
        row |= {
            f"image_{side}_uid": candidate.id,
            f"model_{side}": generation.bundle,
            f"seed_{side}": candidate.seed,
            f"schedule_{side}": generation.schedule,
            f"strength_{side}": generation.strength,
            f"adapter_{side}": generation.adapter_id or "",
            f"face_sim_{side}": candidate.face_sim,
        }
    return row


def _references(pair: ComparedPair) -> list[str]:
    return [reference.portrait.picture_sha256 for reference in pair.left.generation.references]


def _cell(value: Any) -> Any:
    """Spreadsheets run text that begins like a formula, also behind blanks; a quote in front keeps it text."""
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    if isinstance(value, str) and value.strip()[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
