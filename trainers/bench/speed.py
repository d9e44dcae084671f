"""How long candidates take, next to diffusers' own pipeline on the same bundle, and how much memory they
need.

    python -m trainers.bench.speed --bundle mini --threads 2 --out speed.json

Every case runs in its own process, so that peak memory is its own; the cases of a round follow each other,
and the shortest of all rounds counts, since other work on the machine can only lengthen it. Encoding the
prompt and the references, denoising and decoding are inside the time; loading the bundle and measuring faces
are not.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from core.backbones.bundles import Bundle, find_card, load_bundle
from core.prompts import Task, static_prompt
from core.sampler import sample


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every case makes: the same pictures of the same people from the same seeds."""

    bundle: str
    device: str
    threads: int
    people: int
    height: int
    width: int
    steps: int


CASES = {
    "ours, 1 candidate": lambda bundle, work: lambda: _ours(bundle, work, 1),
    "ours, 4 candidates": lambda bundle, work: lambda: _ours(bundle, work, 4),
    "ours, 4 candidates, prompt and portraits unchanged": lambda bundle, work: _ours_again(bundle, work, 4),
    "stock, 1 candidate": lambda bundle, work: lambda: _stock(bundle, work, 1),
    "stock, 4 candidates in one call": lambda bundle, work: lambda: _stock(bundle, work, 4),
    "stock, 4 calls": lambda bundle, work: lambda: [_stock(bundle, work, 1) for _ in range(4)],
    "stock without its cache, 4 candidates in one call": (
        lambda bundle, work: lambda: _stock(bundle, work, 4, use_kv_cache=False)
    ),
}
ONE_AT_A_TIME = ("stock, 4 candidates in one call", "stock without its cache, 4 candidates in one call")
"""Not for the edit family, whose stock pipeline makes one picture and has no cache."""


def _references(bundle: Bundle, work: Work) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    side = bundle.card.reference_side
    return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(work.people)]


def _prompt(work: Work) -> str:
    return static_prompt(Task.GROUP, work.people, "in a park at sunset")


def _ours(bundle: Bundle, work: Work, count: int, conditioning=None) -> None:
    backbone = bundle.backbone
    if conditioning is None:
        conditioning = backbone.encode_prompt(_prompt(work), _references(bundle, work))
    latents = sample(
        backbone, conditioning, seeds=range(count), height=work.height, width=work.width, steps=work.steps
    )
    with torch.no_grad():
        backbone.decode(latents).clamp(0, 1).cpu()


def _ours_again(bundle: Bundle, work: Work, count: int) -> Callable[[], None]:
    conditioning = bundle.backbone.encode_prompt(_prompt(work), _references(bundle, work))
    return lambda: _ours(bundle, work, count, conditioning)


def _stock(bundle: Bundle, work: Work, count: int, **options: Any) -> None:
    if bundle.card.family == "qwen-image-2.1":
        # References of the same size as ours; by itself the stock pipeline would make them as large as the
        # picture.
        options |= {"output_resolution": bundle.card.reference_side, "num_images_per_prompt": count}
    bundle.pipeline(
        prompt=_prompt(work),
        image=[Image.fromarray(picture) for picture in _references(bundle, work)],
        height=work.height,
        width=work.width,
        num_inference_steps=work.steps,
        generator=[torch.Generator().manual_seed(seed) for seed in range(count)],
        output_type="np",
        **options,
    )


def measure_case(name: str, work: Work, *, repeats: int) -> dict[str, float]:
    """Shortest seconds of `repeats` runs after one to warm up, and the peak memory of this process in MB."""
    torch.set_num_threads(work.threads)
    bundle = load_bundle(work.bundle, device=work.device)
    loaded = _peak_memory_mb(work)
    run = CASES[name](bundle, work)
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "peak_memory_mb": _peak_memory_mb(work), "loaded_memory_mb": loaded}


def _peak_memory_mb(work: Work) -> float:
    if work.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1e6 if platform.system() == "Darwin" else 1e3)


def compare(work: Work, names: list[str], *, rounds: int, repeats: int) -> dict[str, dict[str, float]]:
    """Measure every case in a process of its own, `rounds` times in turn."""
    results: dict[str, dict[str, float]] = {}
    for _ in tqdm(range(rounds), desc="Rounds", unit="round"):
        for name in tqdm(names, desc="Cases", unit="case", leave=False):
            command = [sys.executable, "-m", __spec__.name, "--case", name, "--repeats", str(repeats)]
            for option, value in vars(work).items():
                command += [f"--{option}", str(value)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            best = results.setdefault(name, found)
            best["seconds"] = min(best["seconds"], found["seconds"])
            best["peak_memory_mb"] = max(best["peak_memory_mb"], found["peak_memory_mb"])
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as text; ratios are how many times as long as our four candidates."""
    ours = results["ours, 4 candidates"]["seconds"]
    lines = [f"{'case':52} {'seconds':>8} {'of ours':>8} {'peak MB':>8}"]
    for name, found in results.items():
        ratio = found["seconds"] / ours
        lines.append(f"{name:52} {found['seconds']:8.2f} {ratio:8.2f} {found['peak_memory_mb']:8.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m trainers.bench.speed", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2, help="how often all cases are measured in turn")
    parser.add_argument("--repeats", type=int, default=2, help="runs of a case in one process")
    parser.add_argument("--case", choices=CASES, help="measure this one case and print JSON")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    work = Work(**{field: getattr(options, field) for field in Work.__dataclass_fields__})
    if options.case is not None:
        print(json.dumps(measure_case(options.case, work, repeats=options.repeats)))
        return
    names = list(CASES)
    if find_card(work.bundle).family != "qwen-image-2.1":
        names = [name for name in names if name not in ONE_AT_A_TIME]
    results = compare(work, names, rounds=options.rounds, repeats=options.repeats)
    print(table(results))
    if options.out is not None:
        options.out.write_text(json.dumps({"work": vars(work), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
