"""What people do to rounds and adapters on the Training page; the store keeps all of it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from studio.adapter_choice import BASE, adapter_name, bundle_name
from studio.context import Studio
from studio.store import StoreError
from studio.store.models import Round
from trainers.held_out import PORTRAITS, held_out_references

if TYPE_CHECKING:
    from trainers.pairs.collect import DraftPair


def shown_round(studio: Studio, wanted: str | None) -> Round | None:
    """The round a browser asked for, else the one that is going on, else the newest; None where there is none."""
    bundle = bundle_name(studio)
    if bundle is None:
        return None
    if wanted is not None:
        try:
            row = studio.store.rounds.get(wanted)
        except StoreError:  # the browser remembers another data folder
            row = None
        if row is not None and row.bundle == bundle:
            return row
    rounds = studio.store.rounds
    return next(iter(rounds.live(bundle=bundle) or rounds.list(bundle=bundle, limit=1)), None)


def start_round(studio: Studio, by_id: str) -> Round:
    """Queue a round on top of the adapter in use.

    Raises:
        StoreError: the models are not there, nothing was picked, or a round is going on.
    """
    store, bundle = studio.store, bundle_name(studio)
    if bundle is None:
        raise StoreError(f"Nothing can be trained: {studio.host.state.message}")
    going = store.rounds.live(bundle=bundle)
    if going:
        raise StoreError(f"Round {going[0].number} is {going[0].state.value}; wait for its end or cancel it.")
    active = store.adapters.active(bundle)
    return store.rounds.create(bundle, parent_adapter_id=active and active.id, requested_by=by_id)


def pairs_for_a_round(studio: Studio) -> list[DraftPair]:
    """What a round started now would look at, kept and dropped; nothing is stored.

    Raises:
        StoreError: the models are not there. ModelsNotReady: they could not be read, or not in time.
        OSError, ValueError: the file with the settings of rounds cannot be used.
    """
    # They bring the trainer and its libraries; the page does not wait for them.
    from trainers.pairs.collect import draft_pairs
    from trainers.round_config import RoundConfig

    bundle = bundle_name(studio)
    if bundle is None:
        raise StoreError(f"Nothing can be trained: {studio.host.state.message}")
    studio.host.wait()
    settings = studio.settings
    config = tomllib.loads(settings.round_config.read_text()) if settings.round_config else {}
    return draft_pairs(
        studio.store,
        bundle,
        analyzer=studio.host.analyzer,
        config=RoundConfig.read(config).pairs,
        held_out=held_out_references(studio.store, settings.evaluation_portraits or PORTRAITS),
    )


def use_adapter(studio: Studio, choice: str, *, by_id: str, note: str) -> str:
    """Put an adapter, or the base model, to use; returns what to tell the person."""
    bundle = bundle_name(studio)
    if bundle is None:
        raise StoreError(f"Nothing can be put to use: {studio.host.state.message}")
    adapter_id = None if choice == BASE else choice
    studio.store.adapters.activate(bundle, adapter_id, by_id=by_id, note=" ".join((note or "").split()))
    name = adapter_name(studio.store, adapter_id)
    return f"{name[0].upper()}{name[1:]} is in use from the next generation on."


def require_operator(studio: Studio) -> None:
    """Raises StoreError for visitors who may only look."""
    if not studio.sees_everything:
        raise StoreError("Here only whoever runs the studio starts rounds and promotes adapters.")
