"""The transformer of the mini bundle that paints faces once more, at twice their size (core/face_detail.py).

A straight way leads from a noised draft to the true picture: with x_start = (1 - sigma_0) draft + sigma_0 noise,

    x(s) = (1 - s) x0 + s x_start,   sigma = s sigma_0,   v = d x / d sigma = (x_start - x0) / sigma_0,   s in [0, 1],

which is flow matching as everywhere else (core/flow.py) where the draft is the truth. So the sampler's Euler steps from
START_SIGMA down lead from what the bundle draws to what it should have drawn.

    python -m trainers.mini.drafts --pictures DIR --out DRAFTS
    python -m trainers.mini.face_detail --pictures DIR --drafts DRAFTS --out DIR [--start TRANSFORMER]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import QwenImage21Transformer2DModel
from torch import Tensor, nn
from tqdm import tqdm

from core.backbones.bundles import Bundle, face_detail_backbone, load_bundle
from core.backbones.protocol import Backbone, Conditioning
from core.face_detail import SIDE, START_SIGMA, STEPS, cut_landmarks, prompt_conditioning, settings_for
from core.face_encoder import FaceEncoder
from core.faces import default_pack
from core.flow import add_noise, clean_estimate
from core.prompts import Task
from core.sampler import Start, sample
from trainers.config import load_config
from trainers.mini.attention import speed_up_training
from trainers.mini.averaging import MovingAverage, fast_precision
from trainers.mini.data import save_grid
from trainers.mini.face_pairs import FacePairs, draft_pairs, round_trip_pairs
from trainers.mini.identity_term import IdentityTerm
from trainers.mini.models import TransformerSize, build_transformer, grow
from trainers.mini.transformer import parameter_groups
from trainers.runs import Run, learning_rate_factor, normal_like, step_generator

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class FaceDetailConfig:
    steps: int
    """Optimiser steps."""
    batch: int = 16
    levels: int = 3
    """Noise levels that share one prefix."""
    size: TransformerSize = field(default_factory=lambda: TransformerSize(layers=6))
    seed: int = 0
    learning_rate: float = 1e-3
    query_key_rate: float = 0.8
    """Share of the learning rate for queries and keys."""
    weight_decay: float = 0.01
    warmup: int = 30
    decay_share: float = 0.6
    average_decay: float = 0.99
    gradient_clip: float = 1.0
    reference_dropout: float = 0.1
    """Share of noise levels at which no reference is seen."""
    round_trips: int = 34
    """Pictures of each shard that are only encoded and decoded."""
    round_trip_share: float = 0.5
    """Of the steps, that learn from them instead of drafts."""
    child_share: float = 0.5
    """Of the steps, that learn the age task."""
    middle_weight: float = 1.0
    """Extra weight of the tokens that the face covers."""
    identity_weight: float = 0.0
    """Of the identity loss beside the loss of the path; above 0 once the clean estimates are sharp."""
    identity_estimates: int = 16
    """Clean estimates of a step that the identity loss looks at."""
    checkpoint_minutes: float = 3.0
    evaluate_every: int = 150
    evaluated: int = 48
    """Held-out faces behind each measurement."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the transformer that paints faces once more.")
    parser.add_argument("--bundle", default="mini", help="whose VAE and VLM are used")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of shards")
    parser.add_argument("--drafts", type=Path, required=True, help="folder written by trainers.mini.drafts")
    parser.add_argument("--out", type=Path, required=True, help="run folder; continued if it holds a checkpoint")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "face_detail.toml")
    parser.add_argument("--start", type=Path, help="transformer to go on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(
        load_config(arguments.config, FaceDetailConfig),
        load_bundle(arguments.bundle, device=arguments.device, dtype=torch.float32),
        pictures=arguments.pictures,
        drafts=arguments.drafts,
        out=arguments.out,
        start_from=arguments.start,
    )


def train(
    config: FaceDetailConfig, bundle: Bundle, *, pictures: Path, drafts: Path, out: Path, start_from: Path | None = None
) -> Path:
    """Train to `config.steps`; returns the folder of the averaged transformer."""
    device = bundle.backbone.device
    run = Run(out, config, checkpoint_minutes=config.checkpoint_minutes)

    # 1. model, from the last checkpoint if there is one
    torch.manual_seed(config.seed)
    model = build_transformer(config.size, bundle.text_encoder.config.text_config.hidden_size).to(device)
    if start_from is not None:
        grow(QwenImage21Transformer2DModel.from_pretrained(start_from), model)
    speed_up_training(model, compiled=False)
    average = MovingAverage(model, config.average_decay)
    groups = parameter_groups(model, config.learning_rate, config.query_key_rate)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.97), weight_decay=config.weight_decay, fused=True)
    start = 0
    if (state := run.load(device)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        start = state["step"]

    # 2. data
    backbone = face_detail_backbone(bundle.card, bundle.pipeline, model)
    prompts = {task: prompt_conditioning(backbone, settings_for(task).prompt) for task in Task}
    drawn, shown = (draft_pairs(out / "cache", backbone, pictures, drafts, split) for split in ("train", "held_out"))
    tripped = round_trip_pairs(out / "cache", backbone, pictures, "train", config.round_trips)
    data = {task: (drawn.of(task), tripped.of(task)) for task in Task}
    held_out = {task: shown.of(task) for task in Task}

    identity = None
    if config.identity_weight > 0:
        encoder = FaceEncoder.from_onnx(default_pack() / "recogniser.onnx")
        identity = IdentityTerm(backbone, encoder, estimates=config.identity_estimates)
    landmarks = torch.tensor(cut_landmarks(), dtype=torch.float32, device=device).view(1, 1, 5, 2)

    # 3. train
    for step in tqdm(range(start, config.steps), initial=start, total=config.steps, desc="faces", unit="step"):
        generator = step_generator(config.seed, step)
        task = Task.CHILD if torch.rand(1, generator=generator) < config.child_share else Task.GROUP
        pairs = data[task][int(torch.rand(1, generator=generator) < config.round_trip_share)]
        rows = torch.randint(len(pairs), (config.batch,), generator=generator)
        seen = (torch.rand(config.batch * config.levels, generator=generator) >= config.reference_dropout).float()
        rate = config.learning_rate * learning_rate_factor(
            step, steps=config.steps, warmup=config.warmup, decay_share=config.decay_share
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        with fast_precision(device):
            path = path_loss(backbone, prompts[task], pairs, rows, config, generator, seen.to(device))
            loss, found = path.loss, {"loss": path.loss.item()}
            if identity is not None:
                places = landmarks.expand(len(path.true), -1, -1, -1)
                of_faces = identity("group", path.estimates, path.true, places, path.sigma, generator)
                loss, found = loss + config.identity_weight * of_faces, {**found, "identity": of_faces.item()}
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model, step)
        run.log(step + 1, **found, gradient_norm=norm.item(), learning_rate=rate)

        # 4. show and keep
        done = step + 1 == config.steps
        if done or (step + 1) % config.evaluate_every == 0:
            averaged = face_detail_backbone(bundle.card, bundle.pipeline, average.model(model))
            gaps = {task: reference_gaps(averaged, prompts[task], held_out[task], config) for task in Task}
            run.log(step + 1, **{f"gap_{task}_{third}": gap for task in Task for third, gap in enumerate(gaps[task])})
            draw_held_out(averaged, prompts, held_out, out / f"held_out_{step + 1:06d}.png")
        if done or run.save_is_due():
            run.save(
                {
                    "step": step + 1,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.weights,
                }
            )
    average.model(model).save_pretrained(out / "transformer")
    return out / "transformer"


@dataclass(frozen=True, eq=False)
class PathLoss:
    """loss: scalar. For B = faces x noise levels: estimates, true: clean latents (B, C, rows, columns); sigma: (B,).
    left: (levels,) mean squared error of the estimates at each of the levels."""

    loss: Tensor
    estimates: Tensor
    true: Tensor
    sigma: Tensor
    left: Tensor


def path_loss(
    backbone: Backbone,
    prompt: Conditioning,
    pairs: FacePairs,
    rows: Tensor,
    config: FaceDetailConfig,
    generator: torch.Generator,
    reference_weight: Tensor | float,
) -> PathLoss:
    """Mean squared velocity error on the way from drafts to the truth, at levels stratified over s."""
    device, levels = backbone.device, config.levels
    true, drawn = (part[rows].to(device).float().repeat_interleave(levels, 0) for part in (pairs.true, pairs.drawn))
    s = ((torch.arange(levels) + torch.rand(len(rows), levels, generator=generator)) / levels).flatten()
    s = s.clamp(min=0.02).to(device)
    noise = normal_like(true, generator)
    x_start = add_noise(drawn, noise, START_SIGMA)
    x_s, sigma = add_noise(true, x_start, s), START_SIGMA * s
    prefix = backbone.prefill(_conditioning(prompt, pairs, rows, device))
    v_pred = backbone.velocity(prefix, x_s, sigma, reference_weight=reference_weight)
    weight = torch.ones(true.shape[-2:], device=device)
    weight[2:-2, 2:-2] += config.middle_weight
    weight = weight / weight.mean()
    loss = ((v_pred - (x_start - true) / START_SIGMA).square() * weight).mean()
    estimates = clean_estimate(x_s, v_pred, sigma)
    left = ((estimates.detach() - true).square() * weight).mean(dim=(1, 2, 3))
    return PathLoss(loss, estimates, true, sigma, left.view(-1, levels).mean(0))


def _conditioning(prompt: Conditioning, pairs: FacePairs, rows: Tensor, device: torch.device) -> Conditioning:
    return Conditioning(
        embeddings=prompt.embeddings.expand(len(rows), -1, -1),
        picture_slots=prompt.picture_slots,
        reference_latents=(pairs.references[pairs.reference_of[rows]].to(device).float(),),
    )


@torch.no_grad()
def reference_gaps(backbone: Backbone, prompt: Conditioning, pairs: FacePairs, config: FaceDetailConfig) -> list[float]:
    """Relative reduction of the squared error of the clean estimate by the reference, at each part of the way."""
    rows = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(1))[: config.evaluated]
    own, without = (
        path_loss(backbone, prompt, pairs, rows, config, torch.Generator().manual_seed(2), weight).left
        for weight in (1.0, 0.0)
    )
    return (1 - own / without).tolist()


@torch.no_grad()
def draw_held_out(
    backbone: Backbone, prompts: dict[Task, Conditioning], held_out: dict[Task, FacePairs], path: Path
) -> None:
    """Portrait, draft, what is painted and the truth of a few faces of each task."""
    grid = []
    for task, pairs in held_out.items():
        for row in torch.arange(0, len(pairs), max(1, len(pairs) // SHOWN))[:SHOWN, None]:
            drawn, true = (part[row].to(backbone.device).float() for part in (pairs.drawn, pairs.true))
            conditioning = _conditioning(prompts[task], pairs, row, backbone.device)
            start = Start(drawn, START_SIGMA)
            painted = sample(backbone, conditioning, seeds=[3], height=SIDE, width=SIDE, steps=STEPS, start=start)
            columns = (conditioning.reference_latents[0], drawn, painted, true)
            grid.append([backbone.decode(part)[0] for part in columns])
    save_grid(path, grid)


if __name__ == "__main__":
    main()
