"""The benchmark of preference training on a tiny bundle: that it runs, not how fast."""

from __future__ import annotations

import pytest

from tests.tiny_bundles import write_tiny_bundle
from trainers.bench.dpo import CASES, Work, measure_case, table


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs(tmp_path, name):
    bundle = write_tiny_bundle(tmp_path)
    found = measure_case(name, Work(bundle=str(bundle), device="cpu", threads=1, people=2, pairs=2, rank=2), repeats=1)
    assert found["pairs_per_second"] == pytest.approx(2 / found["seconds"])
    assert found["peak_memory_mb"] >= found["loaded_memory_mb"] > 0


def test_ratios_are_to_the_straightforward_way_of_the_same_precision():
    def result(seconds: float) -> dict[str, float]:
        return {"seconds": seconds, "cpu_seconds": seconds, "peak_memory_mb": 9.0, "loaded_memory_mb": 8.0}

    text = table({name: result(seconds) for name, seconds in zip(CASES, (2.0, 5.0, 1.0, 3.0), strict=True)}, pairs=4)
    lines = text.splitlines()[1:]
    assert [line.split()[3] for line in lines] == ["2.50", "1.00", "3.00", "1.00"]
    assert [line.split()[2] for line in lines] == ["2.00", "0.80", "4.00", "1.33"]
