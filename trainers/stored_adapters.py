"""Adapters as the studio's store keeps them: the weights among the media, the rest of the card on the row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.adapters import WEIGHTS_FILE, AdapterCard, read_adapter
from studio.store import NewAdapter, Store
from studio.store.models import Adapter


def stored_adapter(store: Store, row: Adapter) -> tuple[Path, AdapterCard]:
    """Weights' file and card, as `core.adapters.Adapters.swap` takes them; StoreError where the file is gone."""
    card = AdapterCard(
        name=row.name,
        base=row.bundle,
        base_revision=row.config.get("base_revision", ""),
        parent=row.config.get("parent"),
        training=row.config.get("training", {}),
        digest=row.media_sha256,
    )
    return store.media.path(row.media_sha256), card


def keep_adapter(store: Store, folder: Path, *, evaluation: Mapping[str, Any] | None = None) -> NewAdapter:
    """Copy the weights of a saved adapter to the media; the row to make of it.

    Raises AdapterError for a damaged adapter, StoreError where the disk refuses.
    """
    card, _, _ = read_adapter(folder)
    return NewAdapter(
        name=card.name,
        media_sha256=store.media.add_file(folder / WEIGHTS_FILE),
        config={"base_revision": card.base_revision, "parent": card.parent, "training": card.training},
        evaluation=evaluation,
    )
