"""What the tests of several trainers share."""

from pathlib import Path

import pytest

from tests.trainers.mini_parts import STAGES, config, untrained_backbone, write_parts
from tests.trainers.mini_shards import PICTURE, SIDE, write_shards
from trainers.mini import assemble
from trainers.mini.data import shard_paths
from trainers.mini.feeding import Feeder
from trainers.mini.latents import LatentStore


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """A folder of tiny shards, to be read only."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """See `write_parts`; to be read only."""
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    return folder


@pytest.fixture
def small_references(monkeypatch):
    monkeypatch.setattr(assemble, "REFERENCE_SIDE", SIDE)
    monkeypatch.setattr(assemble, "SIZES", (PICTURE,))


@pytest.fixture
def feeder(small_references, parts, tmp_path):
    backbone = untrained_backbone(parts)
    data = LatentStore(tmp_path).load(shard_paths(parts / "shards", "train"), backbone, with_text=True)
    return Feeder(data, backbone, STAGES[1], config()), backbone
