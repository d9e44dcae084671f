"""Files in and out of the studio: which kinds there are, where they are written, and what came of them in words."""

from __future__ import annotations

import secrets
import zipfile
from collections.abc import Callable
from pathlib import Path

from gradio.utils import get_upload_folder

from studio.store import Store, StoreError
from studio.store.archive import export_archive, import_archive
from studio.store.exports import export_csv, export_jsonl, export_parquet
from studio.store.imports import import_jsonl, import_parquet

EXPORTS: dict[str, tuple[str, str]] = {
    "parquet": ("Picks as Parquet, in Pick-a-Pic's columns", "idglow-picks.parquet"),
    "jsonl": ("Decided pairs as JSONL with pictures, for TRL", "idglow-pairs.zip"),
    "csv": ("Picks as a table for spreadsheets", "idglow-picks.csv"),
    "archive": ("Everything, to move to another studio", "idglow-archive.zip"),
}


def export_file(store: Store, kind: str, *, portraits: bool = False) -> tuple[Path, int]:
    """Write an export where Gradio may serve it and later removes it; returns the file and its number of rows."""
    writers: dict[str, Callable[[Path], int]] = {
        "parquet": lambda path: export_parquet(store, path, portraits=portraits),
        "jsonl": lambda path: export_jsonl(store, path, portraits=portraits),
        "csv": lambda path: export_csv(store, path),
        "archive": lambda path: export_archive(store, path),
    }
    if kind not in writers:
        raise StoreError(f"Export {kind!r} is not known; known are {', '.join(writers)}.")
    folder = Path(get_upload_folder()) / secrets.token_hex(16)
    folder.mkdir(parents=True)
    path = folder / EXPORTS[kind][1]
    return path, writers[kind](path)


def import_file(store: Store, path: Path) -> str:
    """Take in a file of any kind that `export_file` writes (a table apart); returns what became of it, in words.

    Raises:
        StoreError: the file is damaged, hostile or something else.
    """
    if path.suffix.lower() == ".parquet":
        report = import_parquet(store, path)
    elif is_archive(path):
        done = import_archive(store, path)
        rows = sum(done.added.values())
        here = sum(done.present.values())
        return f"{path.name}: {rows:,} rows added, {here:,} were here already; {done.files:,} files read."
    else:
        report = import_jsonl(store, path)
    words = f"{path.name}: {report.added:,} picks added, {report.present:,} were here already"
    if report.unlabelled:
        words += f", {report.unlabelled:,} had no label"
    if report.refused:
        words += f", {report.refused:,} were refused ({'; '.join(report.reasons)})"
    return f"{words}."


def is_archive(path: Path) -> bool:
    """Whether a zip calls itself an archive of the studio; whoever reads it checks it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "manifest.json" in archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise StoreError(f"{path.name} is neither Parquet nor a readable zip ({error}).") from error
