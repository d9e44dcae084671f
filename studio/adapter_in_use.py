"""The adapter of a generation comes onto the model before it runs, and a damaged one gives way."""

from __future__ import annotations

import logging

from core.adapters import AdapterError
from core.backbones.bundles import Bundle
from studio.store import Store, StoreError
from studio.store.models import Generation
from trainers.stored_adapters import stored_adapter

logger = logging.getLogger(__name__)


def use_adapter(store: Store, bundle: Bundle, row: Generation) -> str:
    """Make the bundle generate with the adapter a generation asks for; nothing is read where it already does.

    An adapter that cannot be loaded is marked as broken, and the one in use after that takes its place, on the model
    and on the row. Returns the sentence that says so, empty where all is as asked.
    """
    adapter_id, reasons = row.adapter_id, []
    while not _loaded(store, bundle, adapter_id, row.adapter_scale, reasons):
        heir = store.adapters.mark_broken(adapter_id, reasons[-1])
        adapter_id = None if heir is None else heir.id
    if adapter_id == row.adapter_id:
        return ""
    store.generations.set_adapter(row.id, adapter_id)
    name = "the base model" if adapter_id is None else store.adapters.get(adapter_id).name
    return f"Made with {name} instead of what was asked for. {' '.join(reasons)}"


def _loaded(store: Store, bundle: Bundle, adapter_id: str | None, scale: float, reasons: list[str]) -> bool:
    adapters = bundle.adapters
    if adapter_id is None:
        adapters.use(None)
        return True
    row = store.adapters.get(adapter_id)
    active = adapters.active
    if active is not None and (active.card.digest, active.scale) == (row.media_sha256, scale):
        return True
    try:
        adapters.swap(*stored_adapter(store, row), scale=scale)
    except (AdapterError, StoreError) as error:
        logger.error("Adapter %s: %s", row.name, error)
        reasons.append(str(error))
        return False
    return True
