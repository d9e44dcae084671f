"""Pairs per second and memory of preference training, next to the straightforward way of doing it.

    python -m trainers.bench.dpo --bundle mini --out dpo.json

The straightforward way encodes prompt, references and pictures in every step and runs four separate forward passes for
a pair, each over text, references and target. Both ways make the same gradients (a test says so); both are run in
float32 and in bfloat16. Its encoding is part of its time; ours is on the disk after the first step. Loading is outside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.adapters import adapter_in_use
from core.backbones.bundles import Bundle, load_bundle
from core.flow import add_noise, velocity_error
from core.preference import flow_dpo_loss
from core.prompts import Task, static_prompt
from trainers.bench.cases import compare_cases, peak_memory_mb, time_case
from trainers.dpo import DpoConfig, draw_pair, step_gradients
from trainers.encodings import Encodings
from trainers.policies import NoisyPair, Policies, policy_adapters
from trainers.training_pairs import TrainingPair

CASES = {
    f"{way}, {precision}": (way, precision)
    for precision in ("float32", "bfloat16")
    for way in ("ours", "straightforward")
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every case trains on: pairs of `people` people, each with its own prompt, all in one optimiser step."""

    bundle: str
    device: str
    threads: int
    people: int
    pairs: int
    rank: int


def random_pairs(bundle: Bundle, work: Work) -> list[TrainingPair]:
    """Pictures of the bundle's size that show noise; what they show changes no time."""
    rng, card = np.random.default_rng(0), bundle.card

    def picture(height: int, width: int) -> np.ndarray:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    sides = (card.reference_side, card.reference_side)
    return [
        TrainingPair(
            id=str(number),
            prompt=static_prompt(Task.GROUP, work.people, f"in park number {number} at sunset"),
            references=tuple(picture(*sides) for _ in range(work.people)),
            chosen=picture(card.height, card.width),
            rejected=picture(card.height, card.width),
        )
        for number in range(work.pairs)
    ]


def straightforward_gradients(bundle: Bundle, pair: TrainingPair, noisy: NoisyPair, config: DpoConfig, pairs: int):
    """Accumulate the gradient of one pair of a step of `pairs`; returns its loss. Nothing is shared or kept."""
    backbone = bundle.backbone

    def error(picture: np.ndarray) -> Tensor:
        conditioning = backbone.encode_prompt(pair.prompt, pair.references)
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].to(backbone.device).float() / 255
        with torch.no_grad():
            x0 = backbone.encode(pixels).float()
        noise = noisy.noise[None].to(x0)
        sigma = torch.tensor([noisy.sigma], device=x0.device)
        v_pred = backbone.velocity(backbone.prefill(conditioning), add_noise(x0, noise, sigma), sigma)
        return velocity_error(v_pred, x0, noise)

    bfloat16 = config.precision == "bfloat16"
    with torch.autocast(backbone.device.type, torch.bfloat16, enabled=bfloat16):
        with torch.no_grad(), adapter_in_use(backbone.transformer, None):
            chosen_reference, rejected_reference = error(pair.chosen), error(pair.rejected)
        chosen, rejected = error(pair.chosen), error(pair.rejected)
    loss = flow_dpo_loss(chosen, rejected, chosen_reference, rejected_reference, beta=config.beta).loss / pairs
    loss.backward()
    return loss.detach()


def measure_case(name: str, work: Work, *, repeats: int) -> dict[str, float]:
    """Times and memory of one step, see `time_case`, and the memory after loading."""
    torch.set_num_threads(work.threads)
    way, precision = CASES[name]
    bundle = load_bundle(work.bundle, device=work.device)
    loaded = peak_memory_mb(work.device)
    pairs = random_pairs(bundle, work)
    config = DpoConfig(batch=work.pairs, rank=work.rank, precision=precision)
    with (
        tempfile.TemporaryDirectory() as folder,
        policy_adapters(bundle, rank=work.rank, alpha=None, seed=0, parent=None),
    ):
        encodings = Encodings(Path(folder), bundle.backbone, bundle.revision)
        found = time_case(_step(way, bundle, pairs, encodings, config), repeats=repeats, device=work.device)
    return {**found, "pairs_per_second": len(pairs) / found["seconds"], "loaded_memory_mb": loaded}


def _step(
    way: str, bundle: Bundle, pairs: list[TrainingPair], encodings: Encodings, config: DpoConfig
) -> Callable[[], object]:
    weights = [p for p in bundle.backbone.transformer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate)
    encoded = [encodings.add_pair(pair) for pair in pairs]
    policies = Policies(
        bundle.backbone,
        encodings,
        None,
        micro_batch=config.micro_batch,
        kept_prefixes=config.kept_prefixes,
        bfloat16=config.precision == "bfloat16",
    )

    def step() -> None:
        drawn = [draw_pair(position, encoded, encodings, config) for position in range(config.batch)]
        if way == "ours":
            step_gradients(drawn, policies, weights, config)
        else:
            by_condition = {keys.condition: pair for keys, pair in zip(encoded, pairs, strict=True)}
            for noisy in drawn:
                straightforward_gradients(bundle, by_condition[noisy.condition], noisy, config, len(drawn))
            torch.nn.utils.clip_grad_norm_(weights, config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def table(results: dict[str, dict[str, float]], pairs: int) -> str:
    """The results as text; ratios are times of the straightforward way at the same precision divided by this way's."""
    lines = [f"{'case':28} {'pairs/s':>8} {'ratio':>6} {'CPU s/pair':>10} {'ratio':>6} {'peak MB':>8} {'added MB':>8}"]
    for name, found in results.items():
        baseline = results[f"straightforward, {CASES[name][1]}"]
        lines.append(
            f"{name:28} {pairs / found['seconds']:8.2f} {baseline['seconds'] / found['seconds']:6.2f} "
            f"{found['cpu_seconds'] / pairs:10.3f} {baseline['cpu_seconds'] / found['cpu_seconds']:6.2f} "
            f"{found['peak_memory_mb']:8.0f} {found['peak_memory_mb'] - found['loaded_memory_mb']:8.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainers.bench.dpo", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=8, help="pairs of the optimiser step that is timed")
    parser.add_argument("--rank", type=int, default=DpoConfig().rank)
    parser.add_argument("--rounds", type=int, default=2, help="how often all cases are measured in turn")
    parser.add_argument("--repeats", type=int, default=2, help="steps of a case in one process")
    parser.add_argument("--case", choices=CASES, help="measure this one case and print JSON")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    work = Work(**{field: getattr(options, field) for field in Work.__dataclass_fields__})
    if options.case is not None:
        print(json.dumps(measure_case(options.case, work, repeats=options.repeats)))
        return
    results = compare_cases(
        __spec__.name, list(CASES), {**vars(work), "repeats": options.repeats}, rounds=options.rounds
    )
    print(table(results, work.pairs))
    if options.out is not None:
        options.out.write_text(json.dumps({"work": vars(work), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
