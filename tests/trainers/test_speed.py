"""The speed benchmark on a tiny bundle: that it runs, not how fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_bundles import write_tiny_bundle
from trainers.bench.speed import CASES, EDIT_CASES, Work, compare, measure_case, table


def work_on(folder: Path, family: str) -> Work:
    bundle = write_tiny_bundle(folder, family=family)
    return Work(
        bundle=str(bundle), device="cpu", precision="bfloat16", threads=1, people=2, height=64, width=96, steps=2
    )


# The stock edit pipeline resizes its references to a megapixel, which is no test's business.
@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("qwen-image-2.1", list(CASES)),
        ("qwen-image-edit-plus", [name for name in EDIT_CASES if name.startswith("ours")]),
    ],
)
def test_every_case_runs(tmp_path, family, names):
    work = work_on(tmp_path, family)
    for name in names:
        found = measure_case(name, work, repeats=1)
        assert found["seconds"] > 0
        assert found["peak_memory_mb"] >= found["loaded_memory_mb"] > 0


def test_cases_are_compared_in_processes_of_their_own(tmp_path):
    results = compare(work_on(tmp_path, "qwen-image-2.1"), ["ours, 4 candidates"], rounds=1, repeats=1)
    text = table(results)
    assert "ours, 4 candidates" in text
    assert text.count(" 1.00") == 2
