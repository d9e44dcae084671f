"""Generations use the adapter they ask for, in the running studio; a damaged one gives way and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.provenance import read_settings
from studio.generation import GenerationJobs
from studio.model_host import ModelHost
from studio.store import NewGeneration, Store
from studio.store.models import AdapterState, GenerationState
from tests.studio.test_generation_jobs import a_portrait
from tests.tiny_adapters import write_tiny_adapter
from tests.tiny_bundles import write_tiny_bundle
from trainers.stored_adapters import keep_adapter


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ModelHost:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundle"))
    host = ModelHost(folder, face_pack=folder / "no-pack", device="cpu", threads=1)
    host.start()
    host.wait(120)
    return host


@pytest.fixture
def jobs(store: Store, host: ModelHost) -> GenerationJobs:
    jobs = GenerationJobs(store, host)
    jobs.start()
    return jobs


@pytest.fixture
def adapters(store: Store, host: ModelHost, tmp_path: Path) -> list[str]:
    """Two adapters of the bundle; the second one was put to use last."""
    ids = []
    for number in (1, 2):
        folder = write_tiny_adapter(host.bundle, tmp_path / str(number), name=f"Round {number}", seed=number)
        ids.append(store.adapters.add(keep_adapter(store, folder), bundle="tiny").id)
        store.adapters.activate("tiny", ids[-1])
    return ids


def picture(store: Store, jobs: GenerationJobs, adapter_id: str | None, scale: float = 1.0):
    """Row, pixels and settings of a generation with an adapter."""
    made = jobs.submit(
        NewGeneration(
            task="group", prompt="Two people.", schedule="constant", strength=1.0, steps=2, guidance=1.0,
            identity_guidance=1.0, width=96,
            height=64, seeds=[5], bundle="tiny", adapter_id=adapter_id, adapter_scale=scale,
            portrait_ids=[a_portrait(store, 1)],
        )
    )  # fmt: skip
    last = list(jobs.watch(made, every=0))[-1]
    assert last.state is GenerationState.DONE, last.message
    row = store.generations.get(made)
    assert row.message == last.message
    path = store.media.path(row.candidates[0].media_sha256)
    return row, np.asarray(Image.open(path)), read_settings(path)


def test_each_generation_has_its_own_adapter(store, jobs, adapters):
    base = picture(store, jobs, None)
    first, second = (picture(store, jobs, adapter) for adapter in adapters)
    again = picture(store, jobs, None)
    half = picture(store, jobs, adapters[0], scale=0.5)
    assert base[2]["adapter"] is None
    assert [made[2]["adapter"]["name"] for made in (first, second, half)] == ["Round 1", "Round 2", "Round 1"]
    assert half[2]["adapter"]["scale"] == 0.5
    assert np.array_equal(base[1], again[1])
    pictures = [base[1], first[1], second[1], half[1]]
    assert len({one.tobytes() for one in pictures}) == 4
    assert [made[0].message for made in (base, first, second)] == [""] * 3


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_adapter_gives_way_to_the_one_before(store, jobs, adapters, damage):
    expected = picture(store, jobs, adapters[0])[1]
    file = store.media.path(store.adapters.get(adapters[1]).media_sha256)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.unlink()
    row, pixels, settings = picture(store, jobs, adapters[1])
    assert row.adapter_id == adapters[0]
    assert settings["adapter"]["name"] == "Round 1"
    assert np.array_equal(pixels, expected)
    assert "Made with Round 1 instead" in row.message
    assert store.adapters.get(adapters[1]).state is AdapterState.BROKEN
    assert store.adapters.active("tiny").id == adapters[0]


def test_with_every_adapter_damaged_the_base_model_generates(store, jobs, adapters):
    base = picture(store, jobs, None)[1]
    for adapter in adapters:
        store.media.path(store.adapters.get(adapter).media_sha256).write_bytes(b"not weights")
    row, pixels, settings = picture(store, jobs, adapters[1])
    assert row.adapter_id is None
    assert settings["adapter"] is None
    assert np.array_equal(pixels, base)
    assert "the base model" in row.message
    assert store.adapters.active("tiny") is None
