"""Files named by the SHA-256 of their content.

Plain paths on a local or mounted disk: Gradio serves paths, model loaders map them, and only a file system gives the
atomic rename that keeps half-written files out. Several machines share the folder through a mount. Backing up the
data folder backs up everything.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock
from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import Session

from studio.store.engine import Database, StoreError
from studio.store.models import Adapter, Candidate, Media, Portrait, RoundPair

SUFFIX = re.compile(r"\.[a-z0-9]{1,12}")
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
        # Held while a file and its row appear or disappear together, so that nobody adds what another is removing.
        self._lock = FileLock(folder / ".lock", thread_local=False)

    def add(self, content: bytes, suffix: str) -> str:
        """Store `content` and return its SHA-256. The same content twice is one file.

        `suffix` is the file's ending with its dot, lower case, such as ".png". On return the file is on the disk.
        """
        if not SUFFIX.fullmatch(suffix):
            raise StoreError(
                f"File ending {suffix!r} is not usable; give a dot and 1 to 12 lower-case letters or digits."
            )
        sha256 = hashlib.sha256(content).hexdigest()
        with self._lock:
            with self._database.read() as session:
                known = session.get(Media, sha256)
            path = self._path(sha256, known.suffix if known else suffix)
            if not path.exists() or path.stat().st_size != len(content):
                _write_atomically(path, content)
            if known is None:
                with self._database.write() as session:
                    session.add(Media(sha256=sha256, suffix=suffix, size=len(content)))
        return sha256

    def add_file(self, source: Path) -> str:
        """Store a copy of the file `source` and return its SHA-256."""
        return self.add(source.read_bytes(), source.suffix.lower())

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
        with self._lock, self._database.read() as session:
            for path in paths:
                if session.get(Media, path.stem) is None:
                    path.unlink(missing_ok=True)

    def _path(self, sha256: str, suffix: str) -> Path:
        return self.folder / sha256[:2] / f"{sha256}{suffix}"


def _referenced() -> ColumnElement[bool]:
    return or_(*(exists().where(column == Media.sha256) for column in REFERENCES))


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename itself is durable only once the folder is on the disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
