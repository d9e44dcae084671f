"""How long candidates take, next to diffusers' own pipeline on the same bundle, and how much memory they
need.

    python -m trainers.bench.speed --bundle mini --threads 2 --out speed.json

Encoding the prompt and the references, denoising and decoding are inside; loading the bundle and measuring faces are
not. How it is measured stands in cases.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.cards import find_card
from core.precision import Precision, computes_in_bfloat16
from core.prompts import Task, static_prompt
from core.sampler import sample
from trainers.bench.cases import compare_cases, peak_memory_mb, time_case

Prepare = Callable[["Bundle", "Work"], Callable[[], object]]
"""What a case does once before the clock runs; it returns what is timed."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every case makes: the same pictures of the same people from the same seeds."""

    bundle: str
    device: str
    precision: Precision
    threads: int
    people: int
    height: int
    width: int
    steps: int


def ours(count: int) -> Prepare:
    return lambda bundle, work: lambda: _ours(bundle, work, count)


def ours_again(count: int) -> Prepare:
    """Only seeds or sliders have changed: prompt and portraits are still encoded."""

    def prepare(bundle: Bundle, work: Work) -> Callable[[], object]:
        conditioning = bundle.backbone.encode_prompt(_prompt(work), _references(bundle, work))
        return lambda: _ours(bundle, work, count, conditioning)

    return prepare


def stock(count: int, *, calls: int = 1, large_references: bool = False, **options: Any) -> Prepare:
    """The pipeline's own call; `large_references` leaves their size to it: that of the picture."""

    def prepare(bundle: Bundle, work: Work) -> Callable[[], object]:
        side = None if large_references else bundle.card.reference_side
        return lambda: [_stock(bundle, work, count, side, **options) for _ in range(calls)]

    return prepare


@dataclass(frozen=True)
class Case:
    prepare: Prepare
    precision: Precision | None = None
    """Instead of the run's."""


CASES = {
    "ours, 1 candidate": Case(ours(1)),
    "ours, 4 candidates": Case(ours(4)),
    "ours, 4 candidates, sliders moved": Case(ours_again(4)),
    "stock, 1 candidate": Case(stock(1)),
    "stock, 4 candidates": Case(stock(4)),
    "stock, 4 calls": Case(stock(1, calls=4)),
    "stock, 4 candidates, large references": Case(stock(4, large_references=True)),
    "stock, 4 candidates, no cache": Case(stock(4, use_kv_cache=False)),
    "stock, 4 candidates, large references, no cache": Case(stock(4, large_references=True, use_kv_cache=False)),
    # what a person gets who says nothing else: `from_pretrained` loads float32
    "stock, 4 candidates, as it comes": Case(stock(4, large_references=True), "float32"),
}
EDIT_CASES = (
    "ours, 1 candidate",
    "ours, 4 candidates",
    "ours, 4 candidates, sliders moved",
    "stock, 1 candidate",
    "stock, 4 calls",
)
"""For the edit family, whose stock pipeline makes one picture of fixed reference sizes and has no cache."""


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
    latents = sample(backbone, conditioning, seeds=range(count), height=work.height, width=work.width, steps=work.steps)
    with torch.no_grad():
        backbone.decode(latents).clamp(0, 1).cpu()


def _stock(bundle: Bundle, work: Work, count: int, reference_side: int | None, **options: Any) -> None:
    if bundle.card.family == "qwen-image-2.1":
        side = reference_side or round((work.height * work.width) ** 0.5)
        options |= {"output_resolution": side, "num_images_per_prompt": count}
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
    """Times and memory of one case, see `time_case`, and the memory after loading."""
    torch.set_num_threads(work.threads)
    case = CASES[name]
    precision = case.precision or work.precision
    # diffusers' pipeline wants all parts in one precision
    half = name.startswith("stock") and computes_in_bfloat16(precision, torch.device(work.device))
    dtype = torch.bfloat16 if half else None
    bundle = load_bundle(work.bundle, device=work.device, dtype=dtype, precision=precision)
    loaded = peak_memory_mb(work.device)
    found = time_case(case.prepare(bundle, work), repeats=repeats, device=work.device)
    return {**found, "loaded_memory_mb": loaded}


def compare(work: Work, names: list[str], *, rounds: int, repeats: int) -> dict[str, dict[str, float]]:
    """Measure every case in a process of its own, `rounds` times in turn."""
    return compare_cases(__spec__.name, names, {**vars(work), "repeats": repeats}, rounds=rounds)


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as text; ratios are how many times as long as our four candidates."""
    ours = results["ours, 4 candidates"]
    lines = [f"{'case':48} {'seconds':>8} {'ratio':>6} {'CPU s':>8} {'ratio':>6} {'peak MB':>8}"]
    for name, found in results.items():
        times = [f"{found[key]:8.2f} {found[key] / ours[key]:6.2f}" for key in ("seconds", "cpu_seconds")]
        lines.append(f"{name:48} {' '.join(times)} {found['peak_memory_mb']:8.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainers.bench.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help="on a CPU, of both sides")
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
    names = list(CASES if find_card(work.bundle).family == "qwen-image-2.1" else EDIT_CASES)
    results = compare(work, names, rounds=options.rounds, repeats=options.repeats)
    print(table(results))
    if options.out is not None:
        options.out.write_text(json.dumps({"work": vars(work), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
