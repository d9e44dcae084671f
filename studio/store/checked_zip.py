"""Zip files that somebody else made, read without trusting them, and ours, written without leaving halves behind."""

from __future__ import annotations

import re
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.store.engine import StoreError

MAX_ENTRIES = 1_000_000
MAX_RATIO = 200
"""Unpacked size over packed size of one file; our own tables reach about 30."""
SMALL = 1 << 20
"""Files up to this size may have any ratio."""


@contextmanager
def read_zip(path: Path, *, names: re.Pattern[str], max_bytes: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose files all have names that match `names` and which unpacks to `max_bytes` at most.

    Nothing is ever unpacked to a path: callers read the files by name. Raises StoreError with the file and the reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive.infolist(), path.name, names, max_bytes)
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise StoreError(f"{path.name} cannot be read as a zip file ({error}); export it again.") from error


def _check(entries: list[zipfile.ZipInfo], name: str, names: re.Pattern[str], max_bytes: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise StoreError(f"{name} holds {len(entries)} files; {MAX_ENTRIES} are the most.")
    seen = set()
    for entry in entries:
        if not names.fullmatch(entry.filename):
            raise StoreError(
                f"{name} holds {entry.filename[:100]!r}, which does not belong into such a file; nothing was read."
            )
        if entry.filename in seen:
            raise StoreError(f"{name} holds {entry.filename!r} twice; nothing was read.")
        seen.add(entry.filename)
        if entry.flag_bits & 1:
            raise StoreError(f"{name} is encrypted; export it without a password.")
        if entry.file_size > SMALL and entry.file_size > MAX_RATIO * max(1, entry.compress_size):
            raise StoreError(f"{name} holds {entry.filename!r}, which unpacks to {entry.file_size} bytes: a zip bomb.")
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        raise StoreError(f"{name} unpacks to {total} bytes; {max_bytes} are the most.")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and goes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
