"""The transformer of the mini bundle: flow matching on references and pictures, by a curriculum.

Stages: "portrait" (one reference, the same face again), "row" (two or three portraits of the referenced people side
by side), "group" and "child" (group pictures with prompts; adult references and the same people as children).
Several noise levels share one prefix. Watch `gap_*` in the log: by how much references improve the clean estimate
of face tokens over no references, at sigma .3, .5 and .8; identity is decided below .5, and the loss alone falls
without it.

    python -m trainers.mini.transformer --pictures DIR --vae DIR --vlm DIR --out DIR [--config FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline
from torch import Tensor, nn
from tqdm import tqdm

from core.backbones.processors import PictureQwen3VLProcessor
from core.backbones.protocol import Conditioning
from core.backbones.qwen_image_21 import QwenImage21Backbone
from core.flow import add_noise, clean_estimate, euler_step, shift_sigmas, velocity_target
from core.sampler import initial_noise
from trainers.mini.assemble import build_backbone, build_pipeline, load_vlm
from trainers.mini.attention import speed_up_training
from trainers.mini.checkpoint import MovingAverage, Run, fast_precision, learning_rate_factor, step_generator
from trainers.mini.config import load_config
from trainers.mini.data import save_grid, shard_paths
from trainers.mini.geometry import CENTRES, HEIGHT, LOWERED, MAX_REFERENCES, PATCH, REFERENCE_SIDE, WIDTH
from trainers.mini.latents import LatentSet, Text, load_latents, stack_texts, text_of
from trainers.mini.models import Offset, TransformerSize, VlmSize, build_transformer, build_vlm, look_at_references

GAP_SIGMAS = (0.3, 0.5, 0.8)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of the curriculum. `mix` names what is drawn: "portrait-1", "row-2", "group-3", "child-2", ..."""

    name: str
    steps: int
    mix: tuple[str, ...]
    batch: int = 8
    levels: int = 4
    """Noise levels that share one prefix."""
    copy_share: float = 0.0
    """Share of rows of portrait and row tasks whose target is the reference picture itself: the smallest change."""
    with_text: bool = True
    """False: prompts are blank, and the VLM need not be trained yet."""

    def __post_init__(self) -> None:
        for kind in self.mix:
            task, _, people = kind.partition("-")
            if task not in ("portrait", "row", "group", "child") or people not in ("1", "2", "3"):
                raise ValueError(f"stage {self.name}: {kind!r} is no task and number of people such as group-2")
        if not self.mix:
            raise ValueError(f"stage {self.name} has an empty mix")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    stages: tuple[Stage, ...]
    size: TransformerSize = field(default_factory=TransformerSize)
    seed: int = 0
    learning_rate: float = 1e-3
    query_key_rate: float = 0.2
    """Share of the learning rate for queries and keys: where to look is slower to learn than what to make of it."""
    weight_decay: float = 0.01
    warmup: int = 40
    decay_share: float = 0.3
    average_decay: float = 0.995
    gradient_clip: float = 1.0
    sigma_shift: float = 1.0
    """Shift of the logit-normal noise levels; above 1 draws more noise."""
    face_weight: float = 3.0
    """Extra weight of a token that a face covers."""
    prompt_dropout: float = 0.1
    reference_dropout: float = 0.1
    """Share of noise levels at which the target sees no references."""
    look_at_references: bool = True
    """Start some heads looking at the references, see `models.look_at_references`."""
    compiled: bool = False
    """On a CPU: compile the blocks, which takes a minute and a C++ compiler, and pays in a long run."""
    checkpoint_minutes: float = 3.0
    evaluate_every: int = 200
    evaluated: int = 16
    """Held-out rows behind each gap."""

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, Stage]:
        """(first step, stage) that `step` belongs to."""
        first = 0
        for stage in self.stages:
            if step < first + stage.steps:
                return first, stage
            first += stage.steps
        raise ValueError(f"step {step} is past the last of {self.steps}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the transformer of the mini bundle.")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of rendered shards")
    parser.add_argument("--vae", type=Path, required=True, help="folder of the VAE, trained or its PCA start")
    parser.add_argument("--vlm", type=Path, required=True, help="run folder of the VLM")
    parser.add_argument("--out", type=Path, required=True, help="run folder; continued if it holds a checkpoint")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "transformer.toml")
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
    )


def train(config: TransformerConfig, *, pictures: Path, vae: Path, vlm: Path, out: Path, device: torch.device) -> Path:
    """Train through all stages; returns the folder of the averaged transformer, also written at every checkpoint."""
    run = Run(out, config, checkpoint_minutes=config.checkpoint_minutes)

    # 1. model, from the last checkpoint if there is one
    torch.manual_seed(config.seed)
    text_encoder, processor = _vlm(vlm, required=False)
    model = build_transformer(config.size, text_encoder.config.text_config.hidden_size).to(device)
    if config.look_at_references:
        look_at_references(model, counterparts(processor))
    if device.type == "cpu":
        speed_up_training(model, compiled=config.compiled)
    average = MovingAverage(model, config.average_decay)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, config), betas=(0.9, 0.97), weight_decay=config.weight_decay, fused=True
    )
    start, shards = 0, None
    if (state := run.load(device)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        start, shards = state["step"], state["shards"]

    # 2. train, stage by stage
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="transformer", unit="step")
    data = held_out = feeder = None
    for step in bar:
        first, stage = config.stage_at(step)
        if data is None or step == first:
            # a stage takes every shard finished when it begins, and a resumed run the same ones again
            if step == first or shards is None:
                shards = [path.name for path in shard_paths(pictures, "train")]
            text_encoder, processor = _vlm(vlm, required=stage.with_text)
            pipeline = build_pipeline(AutoencoderKLQwenImage21.from_pretrained(vae), text_encoder, processor, model)
            backbone = build_backbone(pipeline.to(device))
            cache = out / "cache"
            data = load_latents([pictures / s for s in shards], cache, backbone, with_text=stage.with_text)
            held_out = load_latents(shard_paths(pictures, "held_out"), cache, backbone, with_text=stage.with_text)
            feeder = Feeder(data, backbone, stage, config)
        generator = step_generator(config.seed, step)
        rate = config.learning_rate * learning_rate_factor(
            step, steps=config.steps, warmup=config.warmup, decay_share=config.decay_share
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]

        kind = stage.mix[int(torch.randint(len(stage.mix), (1,), generator=generator))]
        batch = feeder.draw(kind, stage.batch, generator).to(device)
        with fast_precision(device):
            loss = flow_loss(backbone, batch, stage.levels, config, generator)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model, step)
        run.log(
            step + 1,
            stage=stage.name,
            kind=kind,
            loss=loss.item(),
            gradient_norm=norm.item(),
            learning_rate=rate,
        )
        bar.set_postfix(stage=stage.name, loss=f"{loss.item():.3f}")

        # 3. show and keep
        done = step + 1 == config.steps
        last_of_stage = step + 1 == first + stage.steps
        if last_of_stage or (step + 1) % config.evaluate_every == 0:
            averaged = build_backbone(_with_transformer(pipeline, average.model(model)))
            shown = replace(stage, mix=tuple(kind for kind in stage.mix if held_out.has(*_parse(kind))))
            examiner = Feeder(held_out, averaged, shown, config)
            run.log(step + 1, **reference_gaps(averaged, examiner, shown, config))
            draw_held_out(averaged, examiner, shown, out / f"held_out_{step + 1:06d}.png")
        if last_of_stage or run.save_is_due():
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
    return out / "transformer"


def _vlm(folder: Path, *, required: bool):
    if required or (folder / "text_encoder").exists():
        return load_vlm(folder)
    processor = PictureQwen3VLProcessor.from_pretrained(folder / "processor")
    return build_vlm(processor.tokenizer, VlmSize()), processor


def _parameter_groups(model: nn.Module, config: TransformerConfig) -> list[dict]:
    slow = [p for name, p in model.named_parameters() if "to_q" in name or "to_k" in name]
    slow_ids = {id(p) for p in slow}
    rest = [p for p in model.parameters() if id(p) not in slow_ids]
    return [
        {"params": rest, "lr": config.learning_rate, "share": 1.0},
        {"params": slow, "lr": config.learning_rate, "share": config.query_key_rate},
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
    # rows and columns of the rotary embedding count from the middle of a picture
    lower = (LOWERED - (HEIGHT - REFERENCE_SIDE) // 2) // PATCH
    return [
        Offset(frames[count - 1 - person], lower, round((centre - WIDTH / 2) / PATCH))
        for count in (2, 3, 1)
        for person, centre in enumerate(CENTRES[count])
    ]


# --- batches


@dataclass(frozen=True)
class Batch:
    """P prompts: conditioning, targets (P, C, rows, columns), faces (P, rows, columns), true portraits for the eye."""

    conditioning: Conditioning
    target: Tensor
    faces: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.conditioning.to(device), self.target.to(device), self.faces.to(device))


class Feeder:
    """Draws batches of one kind from a latent set: stored examples, or portraits put together on the fly."""

    def __init__(self, data: LatentSet, backbone: QwenImage21Backbone, stage: Stage, config: TransformerConfig) -> None:
        self._data, self._stage, self._config = data, stage, config
        self._rows = {kind: data.rows(*_parse(kind)) for kind in stage.mix}
        by_person: dict[int, list[int]] = {}
        for row, person in enumerate(data.portrait_people.tolist()):
            by_person.setdefault(person, []).append(row)
        self._portraits = [rows for rows in by_person.values() if len(rows) > 1]
        for kind in stage.mix:
            if _parse(kind)[0] in ("group", "child") and not self._rows[kind]:
                raise ValueError(f"stage {stage.name} asks for {kind}, but no shard holds such an example")
        height, width = (16 * side for side in data.portraits.shape[-2:])
        black = torch.zeros(height, width, 3, dtype=torch.uint8).numpy()
        numbers = sorted({_parse(kind)[1] for kind in stage.mix})
        self._empty = {n: text_of(backbone.encode_prompt("", [black] * n)) for n in numbers}

    def draw(self, kind: str, count: int, generator: torch.Generator, *, dropout: bool = True) -> Batch:
        task, people = _parse(kind)
        if task in ("group", "child"):
            return self._stored(self._rows[kind], people, count, generator, dropout)
        return self._composed(people, count, generator, self._stage.copy_share if dropout else 0.0)

    def first(self, kind: str, count: int) -> Batch:
        """The same rows every time, for measuring."""
        return self.draw(kind, count, torch.Generator().manual_seed(7), dropout=False)

    def _stored(self, rows: list[int], people: int, count: int, generator: torch.Generator, dropout: bool) -> Batch:
        drawn = [rows[i] for i in torch.randint(len(rows), (count,), generator=generator).tolist()]
        size = self._data.examples[drawn[0]].size
        drawn = [row for row in drawn if self._data.examples[row].size == size]
        texts = [self._text(row, people) for row in drawn]
        if dropout:
            dropped = torch.rand(len(drawn), generator=generator) < self._config.prompt_dropout
            texts = [self._empty[people] if drop else text for text, drop in zip(texts, dropped, strict=True)]
        references = tuple(
            self._data.portraits[[self._data.references[row][k] for row in drawn]].float() for k in range(people)
        )
        return Batch(
            _conditioning(texts, references),
            torch.stack([self._data.pictures[row] for row in drawn]).float(),
            torch.stack([self._data.faces[row] for row in drawn]),
        )

    def _text(self, row: int, people: int) -> Text:
        if self._data.texts is None:
            return _blank(self._empty[people])
        return self._data.texts[row]

    def _composed(self, people: int, count: int, generator: torch.Generator, copy_share: float) -> Batch:
        """Portraits of `people` different people side by side; references are other portraits of them."""
        references: list[list[int]] = []
        targets: list[list[int]] = []
        for _ in range(count):
            chosen = torch.randperm(len(self._portraits), generator=generator)[:people].tolist()
            pairs = []
            for person in chosen:
                rows = self._portraits[person]
                reference, other = torch.randperm(len(rows), generator=generator)[:2].tolist()
                copied = bool(torch.rand(1, generator=generator) < copy_share)
                pairs.append((rows[reference], rows[reference if copied else other]))
            references.append([pair[0] for pair in pairs])
            targets.append([pair[1] for pair in pairs])
        portraits, faces = self._data.portraits, self._data.portrait_faces
        blank = [_blank(self._empty[people])] * count
        return Batch(
            _conditioning(blank, tuple(portraits[[r[k] for r in references]].float() for k in range(people))),
            torch.cat([portraits[[t[k] for t in targets]] for k in range(people)], dim=3).float(),
            torch.cat([faces[[t[k] for t in targets]] for k in range(people)], dim=2),
        )


def _parse(kind: str) -> tuple[str, int]:
    task, _, people = kind.partition("-")
    return task, int(people)


def _blank(text: Text) -> Text:
    return Text(torch.zeros_like(text.embeddings), text.picture_slots)


def _conditioning(texts: Sequence[Text], references: tuple[Tensor, ...]) -> Conditioning:
    embeddings, slots, valid = stack_texts(texts)
    return Conditioning(embeddings=embeddings, picture_slots=slots, reference_latents=references, valid=valid)


# --- loss


def flow_loss(
    backbone: QwenImage21Backbone,
    batch: Batch,
    levels: int,
    config: TransformerConfig,
    generator: torch.Generator,
) -> Tensor:
    """Mean || v_pred - (noise - x0) ||^2 over stratified logit-normal noise levels, faces weighted."""
    count = len(batch.target) * levels
    device = batch.target.device
    strata = (torch.arange(levels) + torch.rand(len(batch.target), levels, generator=generator)) / levels
    sigma = torch.special.ndtri(strata.flatten().clamp(1e-4, 1 - 1e-4)).sigmoid()
    sigma = shift_sigmas(sigma, config.sigma_shift).to(device)
    x0 = batch.target.repeat_interleave(levels, dim=0)
    noise = torch.randn(x0.shape, generator=generator).to(device)
    weight = 1 + config.face_weight * batch.faces.repeat_interleave(levels, dim=0).unsqueeze(1)
    sees_references = (torch.rand(count, generator=generator) >= config.reference_dropout).float().to(device)

    prefix = backbone.prefill(batch.conditioning)
    x_t = add_noise(x0, noise, sigma)
    v_pred = backbone.velocity(prefix, x_t, sigma, reference_weight=sees_references)
    error = (v_pred - velocity_target(x0, noise)).square()
    return (error * weight).mean() / weight.mean()


# --- measurement


@torch.no_grad()
def reference_gaps(
    backbone: QwenImage21Backbone, examiner: Feeder, stage: Stage, config: TransformerConfig
) -> dict[str, float]:
    """Relative reduction of the face tokens' squared error of the clean estimate by the references, held out.

    gap_KIND_SIGMA: 1 - error with / error without references (w = 0); swap_KIND_SIGMA: against other people's.
    """
    results: dict[str, float] = {}
    device = backbone.device
    for kind in dict.fromkeys(stage.mix):
        batch = examiner.first(kind, config.evaluated).to(device)
        noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(11)).to(device)
        prefix = backbone.prefill(batch.conditioning)
        rolled = Conditioning(
            embeddings=batch.conditioning.embeddings,
            picture_slots=batch.conditioning.picture_slots,
            reference_latents=tuple(x.roll(1, 0) for x in batch.conditioning.reference_latents),
            valid=batch.conditioning.valid,
        )
        swapped = backbone.prefill(rolled)
        faces = batch.faces.unsqueeze(1)
        for sigma in GAP_SIGMAS:
            levels = torch.full((len(batch.target),), sigma, device=device)
            x_t = add_noise(batch.target, noise, sigma)

            def error(keys, weight: float, x_t=x_t, levels=levels, sigma=sigma, batch=batch, faces=faces) -> float:
                v_pred = backbone.velocity(keys, x_t, levels, reference_weight=weight)
                x0 = clean_estimate(x_t, v_pred, sigma)
                return float(((x0 - batch.target).square() * faces).sum())

            own = error(prefix, 1.0)
            results[f"gap_{kind}_{sigma}"] = 1 - own / error(prefix, 0.0)
            results[f"swap_{kind}_{sigma}"] = 1 - own / error(swapped, 1.0)
    return results


@torch.no_grad()
def draw_held_out(
    backbone: QwenImage21Backbone, examiner: Feeder, stage: Stage, path: Path, *, steps: int = 12
) -> None:
    """References, generated (fixed seeds), true: two rows of six for every kind of the stage."""
    rows = []
    for kind in dict.fromkeys(stage.mix):
        batch = examiner.first(kind, 6).to(backbone.device)
        prefix = backbone.prefill(batch.conditioning)
        count, shape = len(batch.target), batch.target.shape[1:]
        x_t = initial_noise(range(count), shape, backbone.device)
        sigmas = backbone.sigmas(steps, 16 * shape[1], 16 * shape[2]).tolist()
        for sigma, sigma_next in pairwise(sigmas):
            v_pred = backbone.velocity(prefix, x_t, torch.full((count,), sigma, device=x_t.device))
            x_t = euler_step(x_t, v_pred, sigma, sigma_next)
        generated, true = backbone.decode(x_t), backbone.decode(batch.target)
        references = [backbone.decode(latents) for latents in batch.conditioning.reference_latents]
        for pair in range(0, count, 2):
            rows.append(
                [
                    picture
                    for row in range(pair, min(pair + 2, count))
                    for picture in (*(stack[row] for stack in references), generated[row], true[row])
                ]
            )
    save_grid(path, rows)


if __name__ == "__main__":
    main()
