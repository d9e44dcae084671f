"""What the tests of several trainers share."""

from pathlib import Path

import pytest

from tests.trainers.mini_shards import write_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """A folder of tiny shards, to be read only."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder
