"""The copy on the hub: only into private repositories."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from studio.store import StoreError
from studio.store.sync import FILE, copy_picks_to_hub
from tests.studio.hub import Hub
from tests.studio.store_samples import add_comparison, new_pick


def test_picks_are_copied_to_a_private_repository(store):
    store.picks.save(new_pick(add_comparison(store), store.people.annotator("Ada").id))
    hub = Hub({})
    assert copy_picks_to_hub(store, hub, "ada/picks") == 1
    assert hub.private == {"ada/picks": True}
    assert pq.read_table(io.BytesIO(hub.files[f"ada/picks/{FILE}"])).num_rows == 1


def test_nothing_goes_to_a_public_repository(store):
    hub = Hub({"ada/picks": False})
    with pytest.raises(StoreError, match="public"):
        copy_picks_to_hub(store, hub, "ada/picks")
    assert hub.files == {}


def test_a_hub_that_cannot_be_reached_is_one_sentence(store):
    assert issubclass(OfflineModeIsEnabled, OSError)
    with pytest.raises(StoreError, match="could not be copied to ada/picks"):
        copy_picks_to_hub(store, HfApi(endpoint="http://127.0.0.1:9"), "ada/picks")
