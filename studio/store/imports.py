"""Picks from elsewhere: Pick-a-Pic-style Parquet and TRL-style JSONL with pictures.

Importing the same file again adds nothing: rows that carry our ids keep them, others get ids made from their content.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sqlalchemy.orm import Session

from core.images import PictureError, read_picture
from studio.store.checked_zip import read_zip
from studio.store.comparisons import add_comparison
from studio.store.engine import StoreError
from studio.store.generations import SCHEDULE_MODES
from studio.store.models import (
    AnnotatorOrigin,
    Candidate,
    ComparisonKind,
    Generation,
    GenerationState,
    Outcome,
    Pick,
    Prompt,
    PromptOrigin,
    Purpose,
    Task,
    utc_now,
)
from studio.store.picks import NewPick, save_pick

if TYPE_CHECKING:
    from studio.store import Store

MAX_BYTES = 20 << 30
MAX_REASONS = 20
OUR_ID = re.compile(r"[0-9a-f]{32}")
JSONL_NAMES = re.compile(r"data\.jsonl|images/|images/[\w-]{1,100}\.(png|jpe?g|webp)")
NEEDED = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
SETTINGS = {"model": str, "seed": int, "schedule": str, "strength": float, "adapter": str, "face_sim": float}
SUFFIX_OF_FORMAT = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of the rows of a file."""

    added: int
    present: int
    """In the studio already."""
    unlabelled: int
    refused: int
    reasons: tuple[str, ...]
    """Why rows were refused, the first few."""


@dataclass(frozen=True, kw_only=True)
class ForeignPicture:
    content: bytes
    uid: str
    settings: Mapping[str, Any]
    """Those of SETTINGS the row has."""


@dataclass(frozen=True, kw_only=True)
class ForeignPick:
    """One decision of an imported file."""

    prompt: str
    left: ForeignPicture
    right: ForeignPicture
    left_score: float
    uid: str
    annotator: str
    created_at: datetime | None
    known_order: bool
    """Whether left was on the left."""
    row: Mapping[str, Any] = field(default_factory=dict)


class _Refused(ValueError):
    """A row that cannot be imported; the message is the reason."""


def import_parquet(store: Store, path: Path) -> ImportReport:
    """Import Pick-a-Pic's columns, and our own where they are. Raises StoreError when the file is something else."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path.name} cannot be read as Parquet ({error}); download it again.") from error
    with file:
        missing = [name for name in NEEDED if name not in file.schema_arrow.names]
        if missing:
            raise StoreError(f"{path.name} has no column {missing[0]!r}; Pick-a-Pic's columns are needed.")
        try:
            rows = (row for batch in file.iter_batches(batch_size=16) for row in batch.to_pylist())
            return _import(store, path.name, rows, _from_parquet)
        except pa.ArrowException as error:
            raise StoreError(f"{path.name} is damaged ({error}); what came before the damage was imported.") from error


def import_jsonl(store: Store, path: Path, *, max_bytes: int = MAX_BYTES) -> ImportReport:
    """Import a zip of `data.jsonl` and `images/` as `export_jsonl` writes it; prompt, chosen, rejected suffice."""
    with read_zip(path, names=JSONL_NAMES, max_bytes=max_bytes) as archive:
        if "data.jsonl" not in archive.namelist():
            raise StoreError(f"{path.name} holds no data.jsonl.")

        def picture(name: Any) -> bytes:
            try:
                return archive.read(name)
            except KeyError:
                raise _Refused(f"its picture {str(name)[:100]!r} is not in the file") from None

        def rows() -> Iterator[Any]:
            with archive.open("data.jsonl") as lines:
                for line in lines:
                    if line.strip():
                        yield line

        return _import(store, path.name, rows(), lambda line: _from_jsonl(line, picture))


def _import(store: Store, name: str, rows: Iterator[Any], convert: Callable[[Any], ForeignPick | None]) -> ImportReport:
    counts = {"added": 0, "present": 0, "unlabelled": 0, "refused": 0}
    reasons: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            foreign = convert(row)
            outcome = "unlabelled" if foreign is None else _add(store, foreign)
        except (_Refused, PictureError, StoreError) as error:
            outcome = "refused"
            if len(reasons) < MAX_REASONS:
                reasons.append(f"{name}, row {number}: {error}")
        counts[outcome] += 1
    return ImportReport(**counts, reasons=tuple(reasons))


def _from_parquet(row: Mapping[str, Any]) -> ForeignPick | None:
    if row.get("has_label") is False or row["label_0"] is None:
        return None
    left, right = (_picture(row, f"_{side}", row[f"jpg_{side}"], row.get(f"image_{side}_uid")) for side in (0, 1))
    created = row.get("created_at")
    return ForeignPick(
        prompt=str(row["caption"] or ""),
        left=left,
        right=right,
        left_score=_score(row["label_0"]),
        uid=str(row.get("ranking_id") or _digest(str(row["caption"]), left.uid, right.uid)),
        annotator=str(row.get("user_id") or "unknown"),
        created_at=_moment(created),
        known_order=bool(row.get("pick_id")),
        row=row,
    )


def _from_jsonl(line: bytes, picture: Callable[[Any], bytes]) -> ForeignPick:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _Refused(f"is no JSON ({error})") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("prompt", "chosen", "rejected")):
        raise _Refused("has not the texts prompt, chosen and rejected")
    chosen_first = row.get("chosen_first")
    sides = {"chosen": "_0", "rejected": "_1"} if chosen_first is not False else {"chosen": "_1", "rejected": "_0"}
    chosen, rejected = (
        _picture(row, sides[key], picture(row[key]), row.get(f"{key}_id")) for key in ("chosen", "rejected")
    )
    left, right = (chosen, rejected) if chosen_first is not False else (rejected, chosen)
    return ForeignPick(
        prompt=row["prompt"],
        left=left,
        right=right,
        left_score=1.0 if left is chosen else 0.0,
        uid=str(row.get("ranking_id") or _digest(row["prompt"], chosen.uid, rejected.uid)),
        annotator=str(row.get("user_id") or "unknown"),
        created_at=_moment(row.get("created_at")),
        known_order=isinstance(chosen_first, bool),
        row=row,
    )


def _picture(row: Mapping[str, Any], side: str, content: Any, uid: Any) -> ForeignPicture:
    if not isinstance(content, bytes):
        raise _Refused("has no picture bytes; the file may hold addresses only")
    settings = {}
    for key, kind in SETTINGS.items():
        value = row.get(f"{key}{side}")
        if value is not None:
            settings[key] = _converted(key, value, kind)
    return ForeignPicture(content=content, uid=str(uid or hashlib.sha256(content).hexdigest()), settings=settings)


def _converted(key: str, value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise _Refused(f"has {key} {str(value)[:40]!r}") from error


def _score(label: Any) -> float:
    if label not in (0, 0.5, 1):
        raise _Refused(f"has the label {label!r}; 0, 0.5 and 1 are known")
    return float(label)


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise _Refused(f"has the time {value[:40]!r}") from error
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _own_id(kind: str, uid: str, moment: datetime | None = None) -> str:
    """The id itself where it is one of ours, otherwise one that is always the same for this uid and sorts by time."""
    if OUR_ID.fullmatch(uid):
        return uid
    milliseconds = 0 if moment is None else max(0, int(moment.timestamp() * 1000))
    return f"{milliseconds:012x}{_digest(kind, uid)[:20]}"


def _add(store: Store, foreign: ForeignPick) -> str:
    pick_id = _own_id("pick", foreign.uid, foreign.created_at)
    created_at = foreign.created_at or utc_now()
    with store.database.read() as session:
        if session.get(Pick, pick_id) is not None:
            return "present"
    if not foreign.prompt.strip():
        raise _Refused("has no caption")
    # Slow work first: pictures are checked and on the disk before the transaction begins.
    files = [_store_picture(store, picture) for picture in (foreign.left, foreign.right)]
    annotator = store.people.annotator(foreign.annotator[:200], AnnotatorOrigin.IMPORTED)
    with store.database.write() as session:
        if session.get(Pick, pick_id) is not None:
            return "present"
        shown = [
            _candidate(session, foreign, picture, created_at, *file)
            for picture, file in zip((foreign.left, foreign.right), files, strict=True)
        ]
        if shown[0] == shown[1]:
            raise _Refused("compares a picture with itself")
        comparison = add_comparison(session, shown, ComparisonKind.IMPORTED, blind=True)
        save_pick(
            session,
            NewPick(
                request_id=f"import-{pick_id}",
                comparison_id=comparison.id,
                annotator_id=annotator.id,
                outcome={1.0: Outcome.LEFT, 0.0: Outcome.RIGHT, 0.5: Outcome.TIE}[foreign.left_score],
                shown=shown,
                reasons=_converted("reasons", foreign.row.get("reasons") or (), list),
                note=str(foreign.row.get("note") or ""),
                latency_ms=_converted("latency_ms", foreign.row.get("latency_ms") or 0, int) or None,
            ),
            known_order=foreign.known_order,
            pick_id=pick_id,
            created_at=created_at,
        )
    return "added"


def _store_picture(store: Store, picture: ForeignPicture) -> tuple[str, int, int]:
    height, width = read_picture(picture.content, name=picture.uid).shape[:2]
    with Image.open(io.BytesIO(picture.content)) as opened:
        suffix = SUFFIX_OF_FORMAT.get(opened.format or "")
    if suffix is None:
        raise _Refused("has a picture that is neither PNG, JPEG nor WebP")
    return store.media.add(picture.content, suffix), width, height


def _candidate(
    session: Session,
    foreign: ForeignPick,
    picture: ForeignPicture,
    created_at: datetime,
    sha256: str,
    width: int,
    height: int,
) -> str:
    candidate_id = _own_id("candidate", picture.uid)
    known = session.get(Candidate, candidate_id)
    if known is not None:
        if known.media_sha256 != sha256:
            raise _Refused(f"names the picture {picture.uid!r}, which is another one here")
        return candidate_id
    schedule = picture.settings.get("schedule") or "off"
    if schedule.partition("-")[0] not in SCHEDULE_MODES:
        raise _Refused(f"has the schedule {schedule[:40]!r}")
    task = foreign.row.get("task")
    prompt = Prompt(
        text=foreign.prompt,
        task=Task(task) if task in set(Task) else Task.GROUP,
        origin=PromptOrigin.IMPORTED,
        created_at=created_at,
        last_used_at=created_at,
    )
    session.add(prompt)
    session.flush()
    seed = picture.settings.get("seed", 0)
    generation = Generation(
        purpose=Purpose.IMPORTED,
        task=prompt.task,
        prompt_id=prompt.id,
        schedule=schedule,
        schedule_mode=schedule.partition("-")[0],
        strength=picture.settings.get("strength", 0.0),
        # What the file does not say: nobody can repeat this generation anyway.
        steps=0,
        guidance=0.0,
        identity_guidance=0.0,
        width=width,
        height=height,
        seeds=[seed],
        bundle=picture.settings.get("model", "unknown")[:200],
        options={"imported_adapter": picture.settings.get("adapter", "")},
        state=GenerationState.DONE,
        created_at=created_at,
        finished_at=created_at,
    )
    session.add(generation)
    session.flush()
    session.add(
        Candidate(
            id=candidate_id,
            generation_id=generation.id,
            position=0,
            seed=seed,
            media_sha256=sha256,
            width=width,
            height=height,
            face_sim=picture.settings.get("face_sim"),
            created_at=created_at,
        )
    )
    session.flush()
    return candidate_id
