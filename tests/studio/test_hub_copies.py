"""When the copy on the hub is made again."""

from __future__ import annotations

import io

import pyarrow.parquet as pq

from studio.hub_copies import HubCopies
from studio.settings import Settings
from studio.store.sync import FILE
from tests.studio.hub import Hub
from tests.studio.store_samples import add_comparison, new_pick


def rows(hub: Hub) -> int:
    return pq.read_table(io.BytesIO(hub.files[f"ada/picks/{FILE}"])).num_rows


def test_the_copy_follows_picks_and_second_thoughts_and_rests_between(store):
    hub, ada = Hub({}), store.people.annotator("Ada").id
    copies = HubCopies(store, hub, "ada/picks")
    assert not copies.copy_if_changed()
    assert hub.files == {}
    first = store.picks.save(new_pick(add_comparison(store), ada))
    assert copies.copy_if_changed()
    assert rows(hub) == 1
    hub.files.clear()
    assert not copies.copy_if_changed()
    assert hub.files == {}
    store.picks.save(new_pick(add_comparison(store), ada))
    assert copies.copy_if_changed()
    assert rows(hub) == 2
    store.picks.undo(first.id)
    assert copies.copy_if_changed()
    assert rows(hub) == 1
    assert "1 pairs copied to ada/picks" in copies.state.message


def test_a_failure_is_said_and_tried_again(store):
    hub = Hub({"ada/picks": False})  # public
    store.picks.save(new_pick(add_comparison(store), store.people.annotator("Ada").id))
    copies = HubCopies(store, hub, "ada/picks")
    assert not copies.copy_if_changed()
    assert copies.state.failed
    assert "public" in copies.state.message
    hub.private["ada/picks"] = True
    assert copies.copy_if_changed()
    assert not copies.state.failed


def test_it_is_off_unless_a_repository_is_named(store):
    assert HubCopies.from_settings(Settings(data=store.folder), store) is None
    assert HubCopies.from_settings(Settings(data=store.folder, dataset_repo="ada/picks"), store) is not None
