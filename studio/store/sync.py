"""A copy of the picks in a private data set repository on the Hugging Face hub: for Spaces, whose disks come and go."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from studio.store.engine import StoreError
from studio.store.exports import export_parquet

if TYPE_CHECKING:
    from studio.store import Store

FILE = "data/picks.parquet"
"""Where the hub's data set viewer finds it."""


def copy_picks_to_hub(store: Store, api: HfApi, repo: str, *, portraits: bool = False) -> int:
    """Upload the picks as Parquet, replacing the copy before, and return the number of rows.

    The repository (`owner/name`) is made private where it does not exist. Raises StoreError when it is public: pictures
    of people never go there, or when the hub refuses.
    """
    try:
        api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        if not api.repo_info(repo, repo_type="dataset").private:
            raise StoreError(f"The data set {repo} is public; make it private on the hub, or name another one.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picks.parquet"
            rows = export_parquet(store, path, portraits=portraits)
            api.upload_file(
                path_or_fileobj=path,
                path_in_repo=FILE,
                repo_id=repo,
                repo_type="dataset",
                commit_message=f"{rows} compared pairs",
            )
    except (HfHubHTTPError, OSError) as error:
        raise StoreError(f"The picks could not be copied to {repo}: {error}") from error
    return rows
