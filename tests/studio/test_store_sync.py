"""The copy on the hub: only into private repositories."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from studio.store import StoreError
from studio.store.sync import FILE, copy_picks_to_hub
from tests.studio.store_samples import add_comparison, new_pick


class RepoInfo:
    def __init__(self, private: bool) -> None:
        self.private = private


class Hub:
    """The three calls of HfApi that are used, keeping what was uploaded."""

    def __init__(self, repos: dict[str, bool]) -> None:
        self.private = repos
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        assert (repo_type, exist_ok) == ("dataset", True)
        self.private.setdefault(repo_id, private)

    def repo_info(self, repo_id, *, repo_type):
        return RepoInfo(self.private[repo_id])

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, repo_type, commit_message):
        self.files[f"{repo_id}/{path_in_repo}"] = path_or_fileobj.read_bytes()


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
