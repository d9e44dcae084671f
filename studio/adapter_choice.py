"""Which adapter pictures are made with, as a person says it: the current one, the base model, or any earlier one."""

from __future__ import annotations

from core.backbones.cards import BundleError, find_card
from studio.context import Studio
from studio.model_host import ModelsNotReady
from studio.store import Store, StoreError
from studio.store.models import AdapterState

CURRENT = "current"
"""Whatever adapter is active when the run begins; the run remembers which it was."""
BASE = "base"
BASE_NAME = "base model"


def bundle_name(studio: Studio) -> str | None:
    """The name under which adapters and rounds of the studio's models are kept; None where the bundle is not there."""
    try:
        return studio.host.bundle.card.name
    except ModelsNotReady:
        pass
    try:
        return find_card(studio.settings.bundle).name
    except BundleError:
        return None


def adapter_name(store: Store, adapter_id: str | None) -> str:
    """The name people know an adapter by."""
    return BASE_NAME if adapter_id is None else store.adapters.get(adapter_id).name


def adapter_choices(store: Store, bundle: str | None) -> list[tuple[str, str]]:
    """(label, value) of everything pictures can be made with, the current adapter first, then newest first."""
    active = None if bundle is None else store.adapters.active(bundle)
    usable = [] if bundle is None else store.adapters.list(bundle=bundle)
    return [
        (f"Current ({BASE_NAME if active is None else active.name})", CURRENT),
        ("Base model", BASE),
        *(
            (row.name if row.state is AdapterState.PROMOTED else f"{row.name} ({row.state.value})", row.id)
            for row in usable
            if row.state is not AdapterState.BROKEN
        ),
    ]


def chosen_adapter(store: Store, bundle: str, choice: str) -> str | None:
    """The adapter id a choice stands for now; None for the base model.

    Raises:
        StoreError: the adapter is gone, cannot be loaded, or belongs to other models.
    """
    if choice == BASE:
        return None
    if choice == CURRENT:
        active = store.adapters.active(bundle)
        return None if active is None else active.id
    adapter = store.adapters.get(choice)
    if adapter.bundle != bundle:
        raise StoreError(f"Adapter {adapter.name!r} belongs to {adapter.bundle}, not to {bundle}; choose another one.")
    if adapter.state is AdapterState.BROKEN:
        raise StoreError(f"Adapter {adapter.name!r} cannot be loaded ({adapter.note}); choose another one.")
    return adapter.id


def choice_of(adapter_id: str | None) -> str:
    """The choice that makes pictures with exactly this adapter again."""
    return BASE if adapter_id is None else adapter_id
