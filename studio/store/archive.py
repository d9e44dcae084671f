"""The studio's own archive: a zip of every table as JSON lines and every file, which another studio reads back.

    manifest.json
    tables/<name>.jsonl      one row a line, bytes as base64, times in ISO 8601
    media/<sha256>.<ending>

Importing adds what is missing and leaves what is there as it is, but for picks that were taken back; it can be repeated
and interrupted. What an archive may not do in another studio: switch the active adapter, change settings, point to
paths, or start training rounds.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    String,
    Table,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.images import PictureError, read_picture
from studio.store.checked_zip import read_zip, write_atomically
from studio.store.engine import StoreError
from studio.store.media import SUFFIXES
from studio.store.models import (
    Activation,
    Annotator,
    Base,
    Lease,
    Media,
    Pick,
    PickPair,
    Preference,
    QueueItem,
    Round,
    RoundState,
    Standing,
    utc_now,
)
from studio.store.picks import supersede
from studio.store.rounds import LIVE

if TYPE_CHECKING:
    from studio.store import Store

FORMAT = 1
MAX_BYTES = 200 << 30
ROWS_AT_ONCE = 500
MAX_LINE = 16 << 20
TABLES: dict[str, Table] = {table.name: table for table in Base.metadata.sorted_tables}
"""Parents before children."""
LOCAL_ONLY = {Media.__tablename__, Preference.__tablename__}
"""Tables whose rows are not taken over: files bring their own rows, settings belong to a studio."""
_ENDINGS = "|".join(suffix[1:] for suffix in SUFFIXES)
NAMES = re.compile(rf"manifest\.json|tables/({'|'.join(TABLES)})\.jsonl|media/[0-9a-f]{{64}}\.({_ENDINGS})")


@dataclass(frozen=True, kw_only=True)
class ArchiveReport:
    """What an import did; rows by table."""

    added: Mapping[str, int]
    present: Mapping[str, int]
    left_out: Mapping[str, int]
    """Rows that contradict what is here, such as a second pick of the same person on the same comparison."""
    files: int


def export_archive(store: Store, path: Path) -> int:
    """Write everything into one zip. Returns the number of rows. Portraits are in it: keep it as safe as the studio."""
    rows = 0
    with (
        write_atomically(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive,
    ):
        with store.database.snapshot() as session:
            manifest = {
                "format": FORMAT,
                "revision": MigrationContext.configure(session.connection()).get_current_revision(),
                "created_at": utc_now().isoformat(),
                "rows": {name: session.scalar(select(func.count()).select_from(t)) for name, t in TABLES.items()},
            }
            archive.writestr("manifest.json", json.dumps(manifest, indent=1))
            for name, table in TABLES.items():
                with archive.open(f"tables/{name}.jsonl", "w", force_zip64=True) as file:
                    for row in session.execute(select(table).order_by(*table.primary_key)).mappings():
                        file.write(json.dumps(_to_json(row), ensure_ascii=False).encode() + b"\n")
                        rows += 1
            files = session.execute(select(Media.sha256, Media.suffix)).all()
        for sha256, suffix in files:
            # Pictures and weights do not compress.
            archive.write(store.media.path(sha256), f"media/{sha256}{suffix}", zipfile.ZIP_STORED)
    return rows


def import_archive(store: Store, path: Path, *, max_bytes: int = MAX_BYTES) -> ArchiveReport:
    """Add what an archive holds and this studio does not. Raises StoreError when it is damaged, hostile or newer."""
    with read_zip(path, names=NAMES, max_bytes=max_bytes) as archive:
        _check_manifest(store, archive, path.name)
        files = _import_files(store, archive)
        importer = _Importer(store, path.name)
        for name, table in TABLES.items():
            if name not in LOCAL_ONLY and f"tables/{name}.jsonl" in archive.namelist():
                importer.add_table(table, _rows(archive, table, path.name))
    _count_queues(store)
    return ArchiveReport(
        added=dict(importer.added), present=dict(importer.present), left_out=dict(importer.left_out), files=files
    )


def _check_manifest(store: Store, archive: zipfile.ZipFile, name: str) -> None:
    try:
        manifest = json.loads(archive.read("manifest.json"))
        found, revision = manifest["format"], manifest["revision"]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{name} is no archive of the studio: its manifest.json is missing or unreadable.") from error
    with store.database.read() as session:
        own = MigrationContext.configure(session.connection()).get_current_revision()
    if found != FORMAT or revision != own:
        raise StoreError(
            f"{name} has format {found!r} at revision {revision!r}; this studio reads format {FORMAT} at {own!r}. "
            "Open it with the version that wrote it, update that data folder, and export again."
        )


def _import_files(store: Store, archive: zipfile.ZipFile) -> int:
    count = 0
    for entry in archive.namelist():
        if not entry.startswith("media/"):
            continue
        sha256, suffix = Path(entry).stem, Path(entry).suffix
        if suffix != ".safetensors":
            try:
                read_picture(archive.read(entry), name=entry)
            except PictureError as error:
                raise StoreError(f"The archive holds a file that is no picture: {error}") from error
        with archive.open(entry) as stream:
            store.media.add_stream(stream, suffix, expected=sha256)
        count += 1
    return count


def _rows(archive: zipfile.ZipFile, table: Table, name: str) -> Iterator[dict[str, Any]]:
    with archive.open(f"tables/{table.name}.jsonl") as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            try:
                yield _from_json(json.loads(line), table)
            except (ValueError, TypeError, LookupError) as error:
                raise StoreError(f"{name}, {table.name}, line {number}: {error}") from error


def _count_queues(store: Store) -> None:
    made = (
        select(func.count())
        .select_from(Pick)
        .join(Lease, Lease.id == Pick.lease_id)
        .where(Lease.item_id == QueueItem.id, Pick.standing.in_((Standing.COUNTED, Standing.GOLD)))
        .scalar_subquery()
    )
    with store.database.write() as session:
        session.execute(update(QueueItem).values(done=made), execution_options={"synchronize_session": False})


class _Importer:
    """Adds rows table by table, parents first, each batch in a short transaction of its own."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._insert = sqlite.insert if store.database.is_sqlite else postgresql.insert
        self._annotators: dict[str, str] = {}
        self._missing: dict[str, set[Any]] = defaultdict(set)
        self.added: dict[str, int] = defaultdict(int)
        self.present: dict[str, int] = defaultdict(int)
        self.left_out: dict[str, int] = defaultdict(int)

    def add_table(self, table: Table, rows: Iterator[dict[str, Any]]) -> None:
        if table is Activation.__table__ and self._has_activations():
            # What is active was decided here; a history from elsewhere would decide it anew.
            return
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS_AT_ONCE:
                self._add(table, batch)
                batch = []
        if batch:
            self._add(table, batch)

    def _add(self, table: Table, rows: list[dict[str, Any]]) -> None:
        try:
            with self._store.database.write() as session:
                rows = [self._fit(session, table, row) for row in rows]
                known = self._known(session, table, rows)
                if table is Pick.__table__:
                    self._supersede(session, rows)
                if table is PickPair.__table__:
                    rows = self._of_counted_picks(session, rows)
                fresh = [row for row in rows if _key(table, row) not in known and not self._orphan(table, row)]
                if fresh:
                    session.execute(self._insert(table).on_conflict_do_nothing(), fresh)
                now_known = self._known(session, table, rows)
        except IntegrityError as error:
            raise StoreError(
                f"{self._name} contradicts itself in {table.name} ({error.orig}); tables before it were imported."
            ) from error
        self.present[table.name] += len(known)
        self.added[table.name] += len(now_known) - len(known)
        lost = {_key(table, row) for row in rows} - now_known
        self.left_out[table.name] += len(lost)
        self._missing[table.name] |= {key[0] for key in lost}

    def _fit(self, session: Session, table: Table, row: dict[str, Any]) -> dict[str, Any]:
        """Give people their ids here, and take out what another studio must not decide."""
        for column in table.columns:
            if any(key.column is Annotator.__table__.c.id for key in column.foreign_keys):
                row[column.name] = self._annotators.get(row[column.name], row[column.name])
        if table is Annotator.__table__:
            here = session.scalar(
                select(Annotator.id).where(Annotator.name == row["name"], Annotator.origin == row["origin"])
            )
            if here is not None:
                self._annotators[row["id"]] = here
                row["id"] = here
        if table is Round.__table__:
            row |= {"checkpoint_path": None, "log_path": None, "lease_owner": None, "lease_expires_at": None}
            if row["state"] in LIVE:
                row |= {"state": RoundState.CANCELLED, "message": f"Imported while it was {row['state']}."}
            if session.get(Round, row["id"]) is None:
                taken = session.scalar(select(Round.id).where(Round.number == row["number"]))
                last = session.scalar(select(func.max(Round.number))) or 0
                row["number"] = last + 1 if taken is not None else row["number"]
        return row

    @staticmethod
    def _supersede(session: Session, rows: list[dict[str, Any]]) -> None:
        """What was taken back there is taken back here, so that the decision that followed finds its place."""
        by = {row["id"]: row["superseded_by"] for row in rows if row["standing"] is Standing.SUPERSEDED}
        for pick in session.scalars(select(Pick).where(Pick.id.in_(by), Pick.standing != Standing.SUPERSEDED)):
            supersede(session, pick, by[pick.id])

    @staticmethod
    def _of_counted_picks(session: Session, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Without the pairs of picks that were taken back here since."""
        picks = {row["pick_id"] for row in rows}
        superseded = set(
            session.scalars(select(Pick.id).where(Pick.id.in_(picks), Pick.standing == Standing.SUPERSEDED))
        )
        return [row for row in rows if row["pick_id"] not in superseded]

    def _known(self, session: Session, table: Table, rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
        columns = list(table.primary_key)
        keys = [_key(table, row) for row in rows]
        among = tuple_(*columns).in_(keys) if len(columns) > 1 else columns[0].in_([key[0] for key in keys])
        query = select(*columns).where(among)
        return {tuple(row) for row in session.execute(query)}

    def _orphan(self, table: Table, row: dict[str, Any]) -> bool:
        return any(
            row[column.name] in self._missing[key.column.table.name]
            for column in table.columns
            for key in column.foreign_keys
        )

    def _has_activations(self) -> bool:
        with self._store.database.read() as session:
            return session.scalar(select(Activation.id).limit(1)) is not None


def _key(table: Table, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in table.primary_key)


def _to_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value_to_json(value) for name, value in row.items()}


def _value_to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, StrEnum) else value


def _from_json(line: Any, table: Table) -> dict[str, Any]:
    if not isinstance(line, dict) or set(line) != set(table.columns.keys()):
        raise ValueError(f"a row needs exactly the columns {', '.join(table.columns.keys())}")
    return {column.name: _value_from_json(line[column.name], column) for column in table.columns}


def _value_from_json(value: Any, column: Column[Any]) -> Any:
    kind = getattr(column.type, "impl_instance", column.type)
    if value is None:
        if not column.nullable:
            raise ValueError(f"{column.name} is empty")
        return None
    if isinstance(kind, Enum):
        return kind.enum_class(value)
    if isinstance(kind, String):
        return _checked(value, str, column, most=kind.length)
    if isinstance(kind, Boolean):
        return _checked(value, bool, column)
    if isinstance(kind, Integer):
        return _checked(value, int, column)
    if isinstance(kind, Float):
        return float(_checked(value, int | float, column))
    if isinstance(kind, DateTime):
        return datetime.fromisoformat(_checked(value, str, column))
    if isinstance(kind, LargeBinary):
        try:
            return base64.b64decode(_checked(value, str, column), validate=True)
        except binascii.Error as error:
            raise ValueError(f"{column.name} is no base64") from error
    return value


def _checked(value: Any, kind: Any, column: Column[Any], *, most: int | None = None) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{column.name} is {str(value)[:40]!r}, which is of the wrong kind")
    if most is not None and len(value) > most:
        raise ValueError(f"{column.name} has {len(value)} characters; {most} are the most")
    return value
