"""The transformer of the mini bundle: flow matching on references and pictures, by a curriculum.

Stages: "portrait" (one reference, the same face again), "row" (two or three portraits of the referenced people side
by side), "group" and "child" (group pictures with prompts; adult references and the same people as children).
Several noise levels share one prefix. Watch `gap_*` in the log: by how much references improve the clean estimate
of face tokens over no references, at sigma .3, .5 and .8; identity is decided below .5, and the loss alone falls
without it. A late stage may add the identity loss (`identity_weight`), which needs the trained VAE and a face pack.

    python -m trainers.mini.transformer --pictures DIR --vae DIR --vlm DIR --out DIR [--config FILE] [--start DIR]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline, QwenImage21Transformer2DModel
from torch import Tensor, nn
from tqdm import tqdm

from core.backbones.processors import PictureQwen3VLProcessor
from core.backbones.qwen_image_21 import QwenImage21Backbone
from core.face_encoder import FaceEncoder
from core.faces import default_pack
from core.flow import add_noise, clean_estimate, shift_sigmas, velocity_target
from trainers.config import load_config
from trainers.mini.assemble import build_backbone, build_pipeline, load_vlm
from trainers.mini.attention import speed_up_training
from trainers.mini.averaging import MovingAverage, fast_precision
from trainers.mini.curriculum import Stage, TransformerConfig, parse_kind
from trainers.mini.data import shard_paths
from trainers.mini.examine import draw_held_out, prompt_gaps, reference_gaps
from trainers.mini.feeding import Ahead, Batch, Feeder
from trainers.mini.geometry import CENTRES, MAX_REFERENCES, PATCH, REFERENCE_SIDE, WIDTH
from trainers.mini.identity_term import SCHEDULES, IdentityTerm
from trainers.mini.latents import LatentStore
from trainers.mini.models import Offset, VlmSize, build_transformer, build_vlm, grow, look_at_references
from trainers.mini.reading_term import ReadingTerm, start_reading
from trainers.runs import Run, learning_rate_factor, normal_like, step_generator

READ = 8
"""Batches of each kind that `start_reading` learns from."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the transformer of the mini bundle.")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of rendered shards")
    parser.add_argument("--vae", type=Path, required=True, help="folder of the VAE, trained or its PCA start")
    parser.add_argument("--vlm", type=Path, required=True, help="run folder of the VLM")
    parser.add_argument("--out", type=Path, required=True, help="run folder; continued if it holds a checkpoint")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "transformer.toml")
    parser.add_argument("--start", type=Path, help="transformer to go on from, such as one trained on copies")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(
        load_config(arguments.config, TransformerConfig),
        pictures=arguments.pictures,
        vae=arguments.vae,
        vlm=arguments.vlm,
        out=arguments.out,
        device=torch.device(arguments.device),
        start_from=arguments.start,
    )


def train(
    config: TransformerConfig,
    *,
    pictures: Path,
    vae: Path,
    vlm: Path,
    out: Path,
    device: torch.device,
    start_from: Path | None = None,
) -> Path:
    """Train through all stages; returns the folder of the averaged transformer, also written at every checkpoint.

    A fresh run begins with the weights in `start_from`, if given, which may have fewer blocks.
    """
    run = Run(out, config, checkpoint_minutes=config.checkpoint_minutes)

    # 1. model, from the last checkpoint if there is one
    torch.manual_seed(config.seed)
    torch.set_float32_matmul_precision("high")  # on a GPU: what is outside of autocast too
    text_encoder, processor = _vlm(vlm, required=False)
    model = build_transformer(config.size, text_encoder.config.text_config.hidden_size).to(device)
    if start_from is not None:
        grow(QwenImage21Transformer2DModel.from_pretrained(start_from), model)
    elif config.look_at_references:
        look_at_references(model, counterparts(processor))
    speed_up_training(model, compiled=config.compiled)
    average = MovingAverage(model, config.average_decay)
    groups = parameter_groups(model, config.learning_rate, config.query_key_rate)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.97), weight_decay=config.weight_decay, fused=True)
    start, shards = 0, None
    if (state := run.load(device)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        start, shards = state["step"], state["shards"]

    # 2. train, stage by stage
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="transformer", unit="step")
    data = held_out = ahead = reading = None
    store, held_out_store, last = LatentStore(out / "cache"), LatentStore(out / "cache"), None
    for step in bar:
        first, stage = config.stage_at(step)
        refreshed = step == first or (stage.refresh > 0 and (step - first) % stage.refresh == 0)
        if data is None or refreshed:
            for part in (reading, ahead):
                if part is not None:
                    part.stop()
            identity = reading = None
            # a stage takes every shard finished when it begins, and a resumed run the same ones again
            if refreshed or shards is None:
                shards = [path.name for path in shard_paths(pictures, "train")]
            text_encoder, processor = _vlm(vlm, required=stage.with_text)
            pipeline = build_pipeline(AutoencoderKLQwenImage21.from_pretrained(vae), text_encoder, processor, model)
            backbone = build_backbone(pipeline.to(device))
            data = store.load([pictures / s for s in shards], backbone, with_text=stage.with_text)
            held_out = held_out_store.load(shard_paths(pictures, "held_out"), backbone, with_text=stage.with_text)
            feeder = Feeder(data, backbone, stage, config)
            if stage.identity_weight > 0:
                pipeline.vae.requires_grad_(False)
                encoder = FaceEncoder.from_onnx(default_pack() / "recogniser.onnx")
                identity = IdentityTerm(backbone, encoder, estimates=stage.identity_estimates)
            if stage.start_reading and step == first:
                draws = step_generator(config.seed, step - 1)
                known = [feeder.draw(kind, stage.batch, draws, device=device) for kind in READ * stage.mix]
                start_reading(backbone, known)
                average = MovingAverage(model, config.average_decay)
            if stage.reading_weight > 0:
                reading = ReadingTerm(model)
            ahead = Ahead(feeder, stage, seed=config.seed, device=device)
        rate = config.learning_rate * learning_rate_factor(
            step, steps=config.steps, warmup=config.warmup, decay_share=config.decay_share
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]

        kind, batch, generator = ahead.take(step)
        with fast_precision(device):
            flow = flow_loss(backbone, batch, stage, config, generator)
        loss, found = flow.loss, {"loss": flow.loss}
        if identity is not None and (task := parse_kind(kind)[0]) in SCHEDULES:
            landmarks = batch.landmarks.repeat_interleave(stage.levels, dim=0)
            of_faces = identity(task, flow.estimates, flow.targets, landmarks, flow.sigma, generator)
            loss, found = loss + stage.identity_weight * of_faces, {**found, "identity": of_faces}
        if reading is not None and (of_words := reading(batch, stage.levels)) is not None:
            loss, found = loss + stage.reading_weight * of_words, {**found, "reading": of_words}
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model, step)
        # Read a step later: a GPU has more to do by then, and need not be waited for.
        if last is not None:
            _log(run, *last)
        numbers = {name: value.detach() for name, value in {**found, "gradient_norm": norm}.items()}
        last = step + 1, {"stage": stage.name, "kind": kind, "learning_rate": rate}, numbers

        # 3. show and keep
        done = step + 1 == config.steps
        last_of_stage = step + 1 == first + stage.steps
        evaluated = last_of_stage or (step + 1) % config.evaluate_every == 0
        saved = last_of_stage or run.save_is_due()
        if evaluated or saved:
            _log(run, *last)
            last = None
        if evaluated:
            averaged = build_backbone(_with_transformer(pipeline, average.model(model)))
            shown = replace(stage, mix=tuple(kind for kind in stage.mix if held_out.has(*parse_kind(kind))))
            examiner = Feeder(held_out, averaged, shown, config)
            with torch.compiler.set_stance("force_eager"):  # not worth compiling for
                gaps = reference_gaps(averaged, examiner, shown, config)
                gaps |= prompt_gaps(averaged, examiner, shown, config)
                draw_held_out(averaged, examiner, shown, out / f"held_out_{step + 1:06d}.png")
            run.log(step + 1, **gaps)
        if saved:
            run.save(
                {
                    "step": step + 1,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.weights,
                    "shards": shards,
                }
            )
        if done or last_of_stage:
            average.model(model).save_pretrained(out / "transformer")
    if ahead is not None:
        ahead.stop()
    return out / "transformer"


def _log(run: Run, step: int, about: dict[str, str | float], numbers: dict[str, Tensor]) -> None:
    run.log(step, **about, **{name: value.item() for name, value in numbers.items()})


def _vlm(folder: Path, *, required: bool):
    if required or (folder / "text_encoder").exists():
        return load_vlm(folder)
    processor = PictureQwen3VLProcessor.from_pretrained(folder / "processor")
    return build_vlm(processor.tokenizer, VlmSize()), processor


def parameter_groups(model: nn.Module, learning_rate: float, query_key_rate: float) -> list[dict]:
    """For an optimizer; "share" of the learning rate is `query_key_rate` for queries and keys."""
    slow = [p for name, p in model.named_parameters() if "to_q" in name or "to_k" in name]
    slow_ids = {id(p) for p in slow}
    rest = [p for p in model.parameters() if id(p) not in slow_ids]
    return [
        {"params": rest, "lr": learning_rate, "share": 1.0},
        {"params": slow, "lr": learning_rate, "share": query_key_rate},
    ]


def _with_transformer(pipeline: QwenImage21Pipeline, transformer: nn.Module) -> QwenImage21Pipeline:
    return QwenImage21Pipeline(**{**pipeline.components, "transformer": transformer})


def counterparts(processor: PictureQwen3VLProcessor) -> list[Offset]:
    """From a face in a picture to the same face in its reference, for one to three people.

    Frames between a reference and the target: the reference's own side in tokens, and the text behind it.
    """
    side = REFERENCE_SIDE // PATCH
    tail, between = (
        len(processor.tokenizer(text)["input_ids"])
        for text in ("<|vision_end|><|im_end|>\n<|im_start|>assistant\n", "<|vision_end|> <image2><|vision_start|>")
    )
    frames = [side + tail + number * (side + between) for number in range(MAX_REFERENCES)]
    # rows and columns of the rotary embedding count from the middle of a picture, and so do the heights of faces
    return [
        Offset(frames[count - 1 - person], 0, round((centre - WIDTH / 2) / PATCH))
        for count in (2, 3, 1)
        for person, centre in enumerate(CENTRES[count])
    ]


@dataclass(frozen=True, eq=False)
class FlowLoss:
    """loss: scalar. For B = prompts x noise levels: estimates and targets, clean latents (B, C, rows, columns); sigma
    (B,)."""

    loss: Tensor
    estimates: Tensor
    targets: Tensor
    sigma: Tensor


def flow_loss(
    backbone: QwenImage21Backbone,
    batch: Batch,
    stage: Stage,
    config: TransformerConfig,
    generator: torch.Generator,
) -> FlowLoss:
    """Mean || v_pred - (noise - x0) ||^2 over stratified logit-normal noise levels, faces and clothes weighted."""
    levels = stage.levels
    sigma_shift = config.sigma_shift if stage.sigma_shift is None else stage.sigma_shift
    face_weight = config.face_weight if stage.face_weight is None else stage.face_weight
    count = len(batch.target) * levels
    device = batch.target.device
    strata = (torch.arange(levels) + torch.rand(len(batch.target), levels, generator=generator)) / levels
    sigma = torch.special.ndtri(strata.flatten().clamp(1e-4, 1 - 1e-4)).sigmoid()
    sigma = shift_sigmas(sigma, sigma_shift).to(device)
    x0 = batch.target.repeat_interleave(levels, dim=0)
    noise = normal_like(x0, generator)
    weight = 1 + face_weight * batch.faces + stage.clothes_weight * batch.clothes.amax(1)
    weight = weight.repeat_interleave(levels, dim=0).unsqueeze(1)
    sees_references = (torch.rand(count, generator=generator) >= config.reference_dropout).float().to(device)

    prefix = backbone.prefill(batch.conditioning)
    x_t = add_noise(x0, noise, sigma)
    v_pred = backbone.velocity(prefix, x_t, sigma, reference_weight=sees_references)
    error = (v_pred - velocity_target(x0, noise)).square()
    loss = (error * weight).mean() / weight.mean()
    return FlowLoss(loss, clean_estimate(x_t, v_pred, sigma), x0, sigma)


if __name__ == "__main__":
    main()
