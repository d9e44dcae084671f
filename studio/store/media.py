"""Files named by the SHA-256 of their content.

Plain paths on a local or mounted disk: Gradio serves paths, model loaders map them, and only a file system gives the
atomic rename that keeps half-written files out. Several machines share the folder through a mount. Backing up the
data folder backs up everything.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock
from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import Session

from studio.store.engine import Database, StoreError
from studio.store.models import Adapter, Candidate, Media, Portrait, RoundPair, utc_now

SUFFIXES = (".png", ".jpg", ".webp", ".safetensors")
"""What is kept. Nothing a browser would run: these files are served to people."""
PIECE = 1 << 20
REFERENCES = (
    Portrait.picture_sha256,
    Portrait.crop_sha256,
    Candidate.media_sha256,
    RoundPair.chosen_sha256,
    RoundPair.rejected_sha256,
    Adapter.media_sha256,
)
"""Every column that keeps a file alive."""


class MediaStore:
    """Content-addressed files under `folder`, each with a row in `media`."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes, suffix: str) -> str:
        """Store `content` and return its SHA-256. The same content twice is one file.

        `suffix` is one of SUFFIXES. On return the file is on the disk.
        """
        return self.add_stream(io.BytesIO(content), suffix)

    def add_file(self, source: Path) -> str:
        """Store a copy of the file `source` and return its SHA-256."""
        with source.open("rb") as stream:
            return self.add_stream(stream, source.suffix.lower())

    def add_stream(self, stream: BinaryIO, suffix: str, *, expected: str | None = None) -> str:
        """Store what `stream` gives, in pieces, and return its SHA-256.

        Raises StoreError when the disk refuses, or when `expected` is given and the content has another hash; then
        nothing is stored.
        """
        if suffix not in SUFFIXES:
            raise StoreError(f"Files ending in {suffix!r} are not kept; use one of {', '.join(SUFFIXES)}.")
        temporary = self.folder / f".{secrets.token_hex(8)}.tmp"
        try:
            sha256, size = _write_durably(stream, temporary)
            if expected is not None and sha256 != expected:
                raise StoreError(f"The content of {expected}{suffix} has the hash {sha256}: it is damaged.")
            with self._lock():
                self._adopt(temporary, sha256, size, suffix)
        except OSError as error:
            raise StoreError(f"The file could not be stored ({error}); is there room on the disk?") from error
        finally:
            temporary.unlink(missing_ok=True)
        return sha256

    def _adopt(self, temporary: Path, sha256: str, size: int, suffix: str) -> None:
        with self._database.read() as session:
            known = session.get(Media, sha256)
        path = self._path(sha256, known.suffix if known else suffix)
        if not path.exists() or path.stat().st_size != size:
            path.parent.mkdir(exist_ok=True)
            temporary.replace(path)
            # The rename itself is durable only once the folders are on the disk.
            _sync_folder(path.parent)
            _sync_folder(self.folder)
        with self._database.write() as session:
            # Also for known content: its new owner may come after `sweep` has looked.
            session.merge(Media(sha256=sha256, suffix=path.suffix, size=size, added_at=utc_now()))

    def path(self, sha256: str) -> Path:
        """Where the file lies. Raises StoreError when the store does not know the hash or the file is gone."""
        with self._database.read() as session:
            media = session.get(Media, sha256)
        if media is None:
            raise StoreError(f"No file {sha256!r} is known; it was deleted or never stored.")
        path = self._path(sha256, media.suffix)
        if not path.exists():
            raise StoreError(f"The file {path} is missing although the database knows it; restore it from a backup.")
        return path

    def read(self, sha256: str) -> bytes:
        """The content, checked against its hash."""
        path = self.path(sha256)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StoreError(f"The file {path} does not match its name: it is damaged. Restore it from a backup.")
        return content

    def remove_unreferenced(self, session: Session, hashes: Iterable[str]) -> list[Path]:
        """Forget those of `hashes` that nothing refers to any more, inside the caller's transaction.

        Returns the paths to hand to `unlink` after the transaction has been committed.
        """
        paths = []
        for sha256 in set(hashes):
            media = session.scalar(select(Media).where(Media.sha256 == sha256, ~_referenced()))
            if media is not None:
                paths.append(self._path(sha256, media.suffix))
                session.delete(media)
        return paths

    def unlink(self, paths: Iterable[Path]) -> None:
        """Delete files whose rows are gone, unless somebody stored the same content again in the meantime."""
        with self._lock(), self._database.read() as session:
            for path in paths:
                if session.get(Media, path.stem) is None:
                    path.unlink(missing_ok=True)

    def sweep(self, *, older_than: timedelta = timedelta(hours=1)) -> int:
        """Remove files that nothing uses, such as those of a process that was killed; returns how many.

        Run it at start-up. Younger ones stay: somebody may be about to use them.
        """
        limit = utc_now() - older_than
        with self._database.write() as session:
            unused = session.scalars(select(Media.sha256).where(Media.added_at < limit, ~_referenced())).all()
            self.remove_unreferenced(session, unused)
        with self._database.read() as session:
            known = set(session.scalars(select(Media.sha256)))
        strays = [
            path
            for path in (*self.folder.glob(".*.tmp"), *self.folder.glob("??/*"))
            if path.stem not in known and datetime.fromtimestamp(path.stat().st_mtime, UTC) < limit
        ]
        self.unlink(strays)
        return len(strays)

    def _lock(self) -> FileLock:
        """Held while a file and its row appear or disappear together, so that nobody adds what another is removing.

        A lock object may be entered again by whoever shares it; a new one for each use keeps threads apart as well.
        """
        return FileLock(self.folder / ".lock")

    def _path(self, sha256: str, suffix: str) -> Path:
        return self.folder / sha256[:2] / f"{sha256}{suffix}"


def _referenced() -> ColumnElement[bool]:
    return or_(*(exists().where(column == Media.sha256) for column in REFERENCES))


def _write_durably(stream: BinaryIO, path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        while piece := stream.read(PIECE):
            digest.update(piece)
            size += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
