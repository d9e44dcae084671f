"""A run in which everything that crosses to ZeroGPU's process and back is pickled, as there."""

from __future__ import annotations

import inspect
import pickle
from types import SimpleNamespace

import pytest

from studio import zero_gpu
from studio.generation import GenerationJobs
from studio.store.models import GenerationState
from tests.studio.test_generation_jobs import a_run, host, store  # noqa: F401 - fixtures


def across(value):
    return pickle.loads(pickle.dumps(value))


@pytest.fixture
def durations(monkeypatch):
    durations = []

    def gpu(duration):
        durations.append(duration)

        def mark(stream):
            assert inspect.isgeneratorfunction(stream)

            def marked(*arguments):
                for item in stream(*across(arguments)):
                    yield across(item)

            return marked

        return mark

    monkeypatch.setattr(zero_gpu, "spaces", SimpleNamespace(GPU=gpu))
    return durations


def test_a_generation_crosses_whole(durations, store, host):  # noqa: F811
    jobs = GenerationJobs(store, host)
    jobs.start()
    steps = [progress.step for progress in jobs.watch(jobs.submit(a_run(store)), every=0)]
    assert durations == [120]
    assert steps[-1] == 3
    (row,) = {one.generation_id for one in store.generations.gallery()}
    assert store.generations.get(row).state is GenerationState.DONE


def test_what_goes_wrong_keeps_its_words(durations, store, host):  # noqa: F811
    jobs = GenerationJobs(store, host)
    jobs.start()
    *_, last = jobs.watch(jobs.submit(a_run(store, strength=7.0)), every=0)
    assert last.state is GenerationState.FAILED
    assert "strength" in last.message


def test_without_the_package_nothing_is_marked(monkeypatch):
    monkeypatch.setattr(zero_gpu, "spaces", None)
    stream = iter
    assert zero_gpu.on_gpu(stream, seconds=5) is stream
