"""Fine-grained group-level DPO (IdGlow 3.4): preference pairs become a LoRA adapter on a bundle's transformer.

    python -m trainers.dpo --bundle mini --pairs DIR --out DIR [--parent ADAPTER] [--config FILE]
    accelerate launch -m trainers.dpo ...                    on several GPUs

`DIR` of the pairs is what `python -m trainers.pairs --out DIR` writes. Both sides of a pair share sigma, noise and
prefix; the reference policy is the base, or the parent adapter, frozen beside the one that is trained. A run that was
killed goes on with the same command and ends with the same weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import PartialState
from torch import nn
from tqdm import tqdm

from core.adapters import AdapterCard, AdapterError, save_adapter
from core.backbones.bundles import Bundle, load_bundle
from core.backbones.cards import BundleError
from core.flow import SigmaDistribution, sample_sigmas
from core.precision import Precision, computes_in_bfloat16
from core.preference import PreferenceLoss, flow_dpo_loss
from trainers.config import load_config
from trainers.encodings import EncodedPair, Encodings
from trainers.pace import Pace
from trainers.policies import (
    POLICY,
    NoisyPair,
    Policies,
    gradient_checkpointing,
    policy_adapters,
)
from trainers.processes import from_main_process, sum_over_processes
from trainers.runs import Run, RunError, learning_rate_factor, read_checkpoint, step_generator
from trainers.training_pairs import TrainingPair, read_pairs
from trainers.watch import StepOutcome, Watch, summary

__all__ = ["DpoConfig", "DpoResult", "StepReport", "TrainingPair", "train"]


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """Settings of a round; resolved, they are saved beside the adapter."""

    name: str = "dpo"
    """Of the adapter, shown to people."""
    seed: int = 0
    steps: int = 50
    """Optimiser steps."""
    batch: int = 8
    """Pairs behind one optimiser step, over all micro-batches and processes."""
    micro_batch: int = 4
    """Most pairs of one prompt and its portraits that go through the model together."""
    rank: int = 16
    alpha: float | None = None
    """None: the rank. Rank and alpha stay the same over the rounds of a bundle."""
    learning_rate: float = 1e-4
    warmup: int = 10
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    beta: float = 2000.0
    """Of `core.preference`, goes with the mean over dimensions."""
    asymmetry: float = 1.0
    margin: float = 0.0
    sft_weight: float = 0.0
    sigma_distribution: SigmaDistribution = "uniform"
    sigma_shift: float = 1.0
    precision: Precision = "auto"
    """auto: bfloat16 where the device has units for it."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time."""
    kept_prefixes: int = 32
    """Prefixes of the reference policy kept in memory, one for each prompt with its portraits."""
    watched_steps: int = 20
    """The last so many steps, after the warm-up, decide whether the round is stopped; 0 never stops it."""
    checkpoint_minutes: float = 0.5

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1), ("batch", 1), ("micro_batch", 1), ("rank", 1), ("kept_prefixes", 1), ("asymmetry", 1),
            ("warmup", 0), ("watched_steps", 0), ("weight_decay", 0), ("sft_weight", 0), ("margin", 0),
            ("checkpoint_minutes", 0),
        ):  # fmt: skip
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= least):
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be a finite number of at least {least}.")
        for name in ("learning_rate", "gradient_clip", "beta", "sigma_shift"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be a finite number above 0.")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is {self.precision!r}; choose auto, float32 or bfloat16.")


@dataclass(frozen=True)
class StepReport:
    """State after an optimiser step.

    step, steps: done, of all.
    metrics: loss, d_w, d_l, implicit_accuracy, rejected_only_share (absent while no pair was won), gradient_norm,
        learning_rate, all of this step's pairs.
    seconds_left: until the last step at the pace so far.
    """

    step: int
    steps: int
    metrics: dict[str, float]
    seconds_left: float


@dataclass(frozen=True)
class DpoResult:
    """What became of a round.

    adapter: its folder in the format of `core.adapters`; written once the round has ended, so not when `stopped`.
    steps: done.
    stopped_early: why the training ended itself before its last step, a sentence; None where it did not.
    stopped: why it was interrupted; the same call goes on from the checkpoint. None where it has ended.
    metrics: means over the last `watched_steps` steps, as in StepReport.
    """

    adapter: Path
    steps: int
    stopped_early: str | None
    stopped: str | None
    metrics: dict[str, float]


logger = logging.getLogger(__name__)

OnStep = Callable[[StepReport], None]
ShouldStop = Callable[[], bool]


def train(
    config: DpoConfig,
    pairs: Sequence[TrainingPair],
    bundle: Bundle,
    out: Path,
    *,
    parent: Path | None = None,
    on_step: OnStep | None = None,
    should_stop: ShouldStop | None = None,
) -> DpoResult:
    """Train an adapter on pairs in the run folder `out`; goes on from its checkpoint where there is one.

    The bundle is as before afterwards, also when an exception ends the training. Under `accelerate launch` the
    processes share the pairs of a step and the result does not depend on their number.

    Args:
        parent: folder of the adapter that is reference policy and start (the last promoted one); None: the base.
        on_step: told after every step, in the main process; may raise to abort, which loses what came after the last
            checkpoint.
        should_stop: asked before every pair is encoded and after every step, in the main process; true writes a
            checkpoint, where there is anything to keep, and returns. May block while others need the device.

    Raises:
        ValueError: no pairs, or pairs, configuration and bundle do not fit together.
        RunError: `out` holds a run with other settings, pairs or parent, or its checkpoint is damaged.
        AdapterError: the parent is missing, damaged, or made for other weights.
        FloatingPointError: the loss is not finite.
    """
    if not pairs:
        raise ValueError("There are no pairs to train on; make and keep some first.")
    backbone, device = bundle.backbone, bundle.backbone.device
    transformer = backbone.transformer
    processes = PartialState(cpu=device.type == "cpu")
    bfloat16 = computes_in_bfloat16(config.precision, device)
    with (
        policy_adapters(bundle, rank=config.rank, alpha=config.alpha, seed=config.seed, parent=parent) as reference,
        gradient_checkpointing(transformer, config.gradient_checkpointing),
    ):
        # 1. The run, with everything that decides its result.
        setup = _Setup(
            config=config,
            pairs=tuple(pair.id for pair in pairs),
            base=bundle.card.name,
            base_revision=bundle.revision,
            parent=reference,
            precision="bfloat16" if bfloat16 else "float32",
        )
        run = Run(out, setup, checkpoint_minutes=config.checkpoint_minutes) if processes.is_main_process else None

        # 2. Weights and optimizer, from the last checkpoint if there is one.
        weights = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
        watch = Watch(config.watched_steps, config.warmup)
        step = 0
        if (state := run.load(device) if run else read_checkpoint(out, device)) is not None:
            for name, weight in weights.items():
                weight.data.copy_(state["weights"][name])
            optimizer.load_state_dict(state["optimizer"])
            watch.load(state["watch"])
            step = state["step"]

        # 3. Prompts, references and pictures, encoded once; the processes share the work.
        encodings, stopped = Encodings(out / "cache", backbone, bundle.revision), None
        for pair in pairs[processes.process_index :: processes.num_processes]:
            if (stopped := _wish_to_stop(run, should_stop)) is not None:
                break
            encodings.add_pair(pair)
        processes.wait_for_everyone()
        if (stopped := from_main_process(stopped)) is not None:
            return DpoResult(out / "adapter", step, None, stopped, watch.summary)
        encoded = [encodings.add_pair(pair) for pair in pairs]
        logger.info("Prompts and pictures are encoded.")
        policies = Policies(
            backbone,
            encodings,
            reference,
            micro_batch=config.micro_batch,
            kept_prefixes=config.kept_prefixes,
            bfloat16=bfloat16,
        )

        # 4. Train.
        pace = Pace()
        while step < config.steps and watch.reason_to_stop is None and stopped is None:
            pace.start()
            rate = config.learning_rate * learning_rate_factor(
                step, steps=config.steps, warmup=config.warmup, decay_share=0
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            positions = range(step * config.batch, (step + 1) * config.batch)
            drawn = [draw_pair(position, encoded, encodings, config) for position in positions]
            outcome = step_gradients(drawn, policies, list(weights.values()), config)
            if not math.isfinite(outcome.gradient_norm) or not math.isfinite(outcome.loss.loss):
                raise FloatingPointError(
                    f"Loss or gradient of step {step + 1} is not finite; lower the learning rate or beta, or set "
                    "precision to float32."
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            watch.add(outcome)
            step += 1
            pace.lap()

            # 5. Log, keep, and ask whether to go on.
            if run:
                metrics = {**summary([outcome]), "learning_rate": rate}
                run.log(step, **metrics)
                if on_step is not None:
                    on_step(StepReport(step, config.steps, metrics, pace.left(config.steps - step)))
            stopped = from_main_process(_wish_to_stop(run, should_stop))
            if run and (stopped or run.save_is_due() or step == config.steps or watch.reason_to_stop):
                run.save(
                    {
                        "step": step,
                        "weights": {name: weight.detach() for name, weight in weights.items()},
                        "optimizer": optimizer.state_dict(),
                        "watch": watch.state(),
                    }
                )

        # 6. The adapter, once the round has ended.
        result = DpoResult(out / "adapter", step, watch.reason_to_stop, stopped, watch.summary)
        if run and stopped is None:
            card = AdapterCard(
                name=config.name,
                base=setup.base,
                base_revision=setup.base_revision,
                parent=setup.parent,
                training=_training_record(setup, result),
            )
            save_adapter(transformer, POLICY, result.adapter, card)
        processes.wait_for_everyone()
    return result


def _wish_to_stop(run: Run | None, should_stop: ShouldStop | None) -> str | None:
    """What the main process, which has the run, was told; None to go on."""
    return "Asked to stop." if run is not None and should_stop is not None and should_stop() else None


@dataclass(frozen=True, kw_only=True)
class _Setup:
    """What decides the result of a run; another setup cannot go on in its folder."""

    config: DpoConfig
    pairs: tuple[str, ...]
    base: str
    base_revision: str
    parent: str | None
    precision: str


def draw_pair(position: int, encoded: Sequence[EncodedPair], encodings: Encodings, config: DpoConfig) -> NoisyPair:
    """The pair at a position of the endless stream of shuffled epochs, with its own sigma and noise."""
    epoch, place = divmod(position, len(encoded))
    order = torch.randperm(len(encoded), generator=step_generator(config.seed, -1 - epoch))
    pair = encoded[int(order[place])]
    chosen, rejected = encodings.picture(pair.chosen), encodings.picture(pair.rejected)
    generator = step_generator(config.seed, position)
    sigma = sample_sigmas(
        1, distribution=config.sigma_distribution, shift=config.sigma_shift, generator=generator
    ).item()
    noise = torch.randn(chosen.shape, generator=generator)
    return NoisyPair(pair.condition, chosen.float(), rejected.float(), noise, sigma)


def step_gradients(
    drawn: Sequence[NoisyPair],
    policies: Policies,
    weights: Sequence[nn.Parameter],
    config: DpoConfig,
) -> StepOutcome:
    """Gradients of the mean loss over a step's pairs, summed over micro-batches and processes, then clipped."""
    processes = PartialState()
    batches = policies.micro_batches(drawn)[processes.process_index :: processes.num_processes]
    references = policies.reference_errors([[drawn[i] for i in batch] for batch in batches])
    loss = torch.zeros(())
    columns = torch.zeros(3, len(drawn))
    for batch, reference in zip(batches, references, strict=True):
        errors = policies.policy_errors([drawn[i] for i in batch])
        result = flow_dpo_loss(
            errors.chosen,
            errors.rejected,
            reference.chosen,
            reference.rejected,
            beta=config.beta,
            asymmetry=config.asymmetry,
            margin=config.margin,
            sft_weight=config.sft_weight,
        )
        share = result.loss * (len(batch) / len(drawn))
        share.backward()
        loss += share.detach().cpu()
        columns[:, batch] = torch.stack([result.logit, result.chosen_delta, result.rejected_delta]).cpu()
    sum_over_processes([loss, columns], weights)
    norm = nn.utils.clip_grad_norm_(weights, config.gradient_clip).item()
    return StepOutcome(PreferenceLoss(loss, *columns), norm)


def _training_record(setup: _Setup, result: DpoResult) -> dict[str, Any]:
    """What the adapter's card says of its training."""
    return {
        "method": "dpo",
        **dataclasses.asdict(setup),
        "steps": result.steps,
        "stopped_early": result.stopped_early,
        "metrics": result.metrics,
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "peft", "accelerate")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainers.dpo", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="mini", help="name, or a diffusers folder")
    parser.add_argument("--pairs", type=Path, required=True, help="folder written by trainers.pairs --out")
    parser.add_argument("--out", type=Path, required=True, help="run folder; continued if it holds a checkpoint")
    parser.add_argument("--parent", type=Path, help="folder of the adapter to start from; the base if absent")
    parser.add_argument("--config", type=Path, help="TOML file with fields of DpoConfig; the rest keeps its default")
    parser.add_argument("--device", help="torch device; by default that of the process")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        config = load_config(options.config, DpoConfig) if options.config else DpoConfig()
        bundle = load_bundle(options.bundle, device=options.device or PartialState().device)
        with tqdm(total=config.steps, unit="step", desc="DPO", disable=not PartialState().is_main_process) as bar:

            def show(report: StepReport) -> None:
                bar.n = report.step
                bar.set_postfix(loss=f"{report.metrics['loss']:.4f}", d_w=f"{report.metrics['d_w']:+.5f}")

            result = train(config, read_pairs(options.pairs), bundle, options.out, parent=options.parent, on_step=show)
    except (AdapterError, BundleError, FloatingPointError, OSError, RunError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    if PartialState().is_main_process:
        print(
            f"{result.adapter} after {result.steps} steps"
            + (f": {result.stopped_early}" if result.stopped_early else "")
        )


if __name__ == "__main__":
    main()
