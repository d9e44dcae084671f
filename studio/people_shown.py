"""Whom a picture should show, as it stands beside it: portraits from the store, or held-out ones from their folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studio.context import Studio
from studio.inline_pictures import thumbnail_url
from studio.store.models import Generation, Purpose
from trainers.held_out import PORTRAITS, portrait_files


@dataclass(frozen=True, kw_only=True)
class PersonShown:
    """name: as people read it. url: of the portrait; empty where it is gone."""

    name: str
    url: str


def people_shown(studio: Studio, row: Generation) -> list[PersonShown]:
    """The people of a generation in the order of its prompt."""
    if row.purpose is Purpose.EVALUATION:
        return _held_out(studio, row.options.get("portraits", ()))
    portraits = [reference.portrait for reference in row.references]
    return [PersonShown(name=one.person.name, url=studio.media_url(one.crop_sha256)) for one in portraits]


def _held_out(studio: Studio, names: Sequence[str]) -> list[PersonShown]:
    """People that rounds are measured on; they are in no store, and their folder is not served."""
    folder = studio.settings.evaluation_portraits or PORTRAITS
    files = {path.name: path for path in portrait_files(folder)} if folder.is_dir() else {}
    urls = [thumbnail_url(files[name]) if name in files else None for name in names]
    return [PersonShown(name=f"image {number}", url=url or "") for number, url in enumerate(urls, 1)]
