"""Cases of a benchmark, each in a process of its own, so that its peak memory is its own.

The cases of a round follow each other, and the shortest of all rounds counts, since other work on the machine can only
lengthen it. CPU time, all threads together, is given too: on a busy machine it is what can be compared.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from tqdm import tqdm


def time_case(run: Callable[[], object], *, repeats: int, device: str) -> dict[str, float]:
    """Shortest of `repeats` runs after one to warm up, in seconds, and the peak memory of this process in MB."""
    run()
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        run()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {"seconds": min(seconds), "cpu_seconds": min(cpu_seconds), "peak_memory_mb": peak_memory_mb(device)}


def peak_memory_mb(device: str) -> float:
    """Of this process so far; of the device's memory where that is a GPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1e6 if platform.system() == "Darwin" else 1e3)


def compare_cases(
    module: str, names: Sequence[str], options: Mapping[str, object], *, rounds: int
) -> dict[str, dict[str, float]]:
    """Run `python -m module --case NAME --option value ...`, which prints JSON, for every case, `rounds` times in turn.

    Best times and largest memory of each case.
    """
    results: dict[str, dict[str, float]] = {}
    for _ in tqdm(range(rounds), desc="Rounds", unit="round"):
        for name in tqdm(names, desc="Cases", unit="case", leave=False):
            command = [sys.executable, "-m", module, "--case", name]
            for option, value in options.items():
                command += [f"--{option.replace('_', '-')}", str(value)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            best = results.setdefault(name, found)
            for time_of in ("seconds", "cpu_seconds"):
                best[time_of] = min(best[time_of], found[time_of])
            best["peak_memory_mb"] = max(best["peak_memory_mb"], found["peak_memory_mb"])
    return results
