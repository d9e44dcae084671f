"""The VLM of the mini bundle: learns to write the caption of a picture from portraits, task and scene words.

A byte-level tokenizer is trained on the captions first. Afterwards the model is frozen: the same weights write prompts
and encode them for the transformer, so train this before caching latents and embeddings.

    python -m trainers.mini.vlm --pictures DIR --out DIR [--config FILE] [--start DIR]

With `trained = "writer"` a run goes on from another one, with its language model as it is: what learns is the vision
tower and a LoRA adapter that is on only while writing (`core.prompt_writer`), so that a transformer trained on the
embeddings of prompts stays valid.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import Qwen3VLForConditionalGeneration

from core.backbones.processors import PictureQwen3VLProcessor
from core.prompt_writer import WRITER
from trainers.config import load_config
from trainers.mini.averaging import MovingAverage, fast_precision
from trainers.mini.captions import Caption, instruction_of, load_captions, mentions, tokenizer_corpus
from trainers.mini.data import Example, Shard, shard_paths
from trainers.mini.models import VlmSize, build_processor, build_tokenizer, build_vlm
from trainers.mini.obedience import light_said, place_said
from trainers.mini.vision import SEEN_IN_PORTRAITS, named_portraits, teach_to_see
from trainers.runs import Run, learning_rate_factor, step_generator


@dataclass(frozen=True, kw_only=True)
class VlmConfig:
    size: VlmSize = field(default_factory=VlmSize)
    seed: int = 0
    steps: int = 1500
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 50
    decay_share: float = 0.4
    average_decay: float = 0.995
    gradient_clip: float = 1.0
    checkpoint_minutes: float = 3.0
    sample_every: int = 300
    """Steps between held-out captions, written to `held_out_*.txt`."""
    evaluated: int = 24
    """Held-out captions written and scored."""
    trained: Literal["all", "writer"] = "all"
    writer_rank: int = 32
    """Of the writer's LoRA adapter."""
    vision_steps: int = 0
    """Lessons of the vision tower alone before the first step (`trainers.mini.vision`)."""
    seen_weight: float = 1.0
    """Weight of words that only the portraits tell (SEEN_IN_PORTRAITS), a tenth of a caption, and of the light that was
    asked for; others weigh 1."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the prompt writer and text encoder of the mini bundle.")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of rendered shards")
    parser.add_argument("--out", type=Path, required=True, help="run folder; continued if it holds a checkpoint")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "vlm.toml")
    parser.add_argument("--start", type=Path, help="run folder to go on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(
        load_config(arguments.config, VlmConfig),
        arguments.pictures,
        arguments.out,
        torch.device(arguments.device),
        start_from=arguments.start,
    )


def train(
    config: VlmConfig, pictures: Path, out: Path, device: torch.device, *, start_from: Path | None = None
) -> Path:
    """Train to `config.steps`; returns the folder of `text_encoder`, `processor` and, where it was trained, `writer`.

    A fresh run begins with the tokenizer and the weights of the run folder `start_from`, if given.
    """
    run = Run(out, config, checkpoint_minutes=config.checkpoint_minutes)

    # 1. tokenizer, from the captions; kept, since shards may be added between a kill and a resume
    processor_folder = (start_from or out) / "processor"
    if not (processor_folder / "tokenizer.json").exists():
        build_processor(build_tokenizer(tokenizer_corpus(pictures), config.size)).save_pretrained(processor_folder)
    processor = PictureQwen3VLProcessor.from_pretrained(processor_folder)
    processor.save_pretrained(out / "processor")
    lessons = load_captions(pictures, "train", processor)
    held_out = load_captions(pictures, "held_out", processor)

    # 2. model, from the last checkpoint if there is one
    torch.manual_seed(config.seed)
    vlm = build_vlm(processor.tokenizer, config.size).to(device)
    if start_from is not None:
        vlm.load_state_dict(Qwen3VLForConditionalGeneration.from_pretrained(start_from / "text_encoder").state_dict())
    state = run.load(device)
    if state is None and config.vision_steps:
        seen = named_portraits([Shard.load(path) for path in shard_paths(pictures, "train")])
        loss = teach_to_see(vlm, processor, seen, steps=config.vision_steps, seed=config.seed)
        run.log(0, vision_loss=loss)
    if config.trained == "writer":
        if start_from is not None and (start_from / WRITER).is_dir():
            vlm.load_adapter(str(start_from / WRITER), adapter_name=WRITER, is_trainable=True)
        else:
            add_writer(vlm, config.writer_rank)
        for name, parameter in vlm.named_parameters():
            parameter.requires_grad_(".lora_" in name or ".visual." in name)
    average = MovingAverage(vlm, config.average_decay)
    optimizer = torch.optim.AdamW(
        [p for p in vlm.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
    )
    start = 0
    if state is not None:
        vlm.load_state_dict(state["vlm"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        start = state["step"]

    # 3. train
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="vlm", unit="step")
    for step in bar:
        generator = step_generator(config.seed, step)
        rate = config.learning_rate * learning_rate_factor(
            step, steps=config.steps, warmup=config.warmup, decay_share=config.decay_share
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        with fast_precision(device):
            drawn = _draw(lessons, config.batch, generator)
            loss = caption_loss(vlm, drawn, processor, seen_weight=config.seen_weight)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(vlm.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(vlm, step)
        run.log(step + 1, loss=loss.item(), gradient_norm=norm.item(), learning_rate=rate)
        bar.set_postfix(loss=f"{loss.item():.3f}")

        # 4. show and keep
        done = step + 1 == config.steps
        if done or (step + 1) % config.sample_every == 0:
            scores = evaluate(
                average.model(vlm), held_out, processor, out / f"held_out_{step + 1:06d}.txt", count=config.evaluated
            )
            run.log(step + 1, **scores)
        if done or run.save_is_due():
            run.save(
                {
                    "step": step + 1,
                    "vlm": vlm.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.weights,
                }
            )
    _save(average.model(vlm), config, out)
    return out


def add_writer(vlm: Qwen3VLForConditionalGeneration, rank: int) -> None:
    """A fresh LoRA adapter on all matrices of the language model, switched on."""
    names = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    targets = rf".*language_model.*\.({names})"
    vlm.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), adapter_name=WRITER)


def _save(vlm: Qwen3VLForConditionalGeneration, config: VlmConfig, out: Path) -> None:
    if config.trained == "all":
        vlm.save_pretrained(out / "text_encoder")
        return
    vlm.save_pretrained(out / WRITER)  # with an adapter on, it is the adapter that is saved
    plain = Qwen3VLForConditionalGeneration(vlm.config)
    weights = {name.replace(".base_layer", ""): w for name, w in vlm.state_dict().items() if ".lora_" not in name}
    plain.load_state_dict(weights)
    plain.save_pretrained(out / "text_encoder")


# --- loss


def _draw(lessons: Sequence[Caption], batch: int, generator: torch.Generator) -> list[Caption]:
    """A batch of similar lengths, so that little is padded: the nearest of four times as many."""
    rows = torch.randint(len(lessons), (4 * batch,), generator=generator).tolist()
    drawn = sorted((lessons[row] for row in rows), key=lambda c: len(c.question) + len(c.answer))
    first = int(torch.randint(3 * batch + 1, (1,), generator=generator))
    return drawn[first : first + batch]


def caption_loss(
    vlm: Qwen3VLForConditionalGeneration,
    lessons: Sequence[Caption],
    processor: PictureQwen3VLProcessor,
    *,
    seen_weight: float = 1.0,
) -> Tensor:
    """Mean cross-entropy of the answers' tokens, given portraits and instruction; those seen there weigh more."""
    device, pad = vlm.device, processor.tokenizer.pad_token_id
    length = max(len(lesson.question) + len(lesson.answer) for lesson in lessons)
    ids = torch.full((len(lessons), length), pad)
    labels = torch.full_like(ids, -100)
    valid = torch.zeros_like(ids)
    weights = torch.ones(ids.shape)
    for row, lesson in enumerate(lessons):
        start, end = len(lesson.question), len(lesson.question) + len(lesson.answer)
        ids[row, :start] = torch.tensor(lesson.question)
        ids[row, start:end] = torch.tensor(lesson.answer)
        labels[row, start:end] = ids[row, start:end]
        valid[row, :end] = 1
        weights[row, start:end][torch.tensor(lesson.seen)] = seen_weight
    pictures = [Image.fromarray(portrait) for lesson in lessons for portrait in lesson.portraits]
    pixels = processor.image_processor(pictures, return_tensors="pt")
    hidden = vlm.model(
        input_ids=ids.to(device),
        attention_mask=valid.to(device),
        pixel_values=pixels["pixel_values"].to(device),
        image_grid_thw=pixels["image_grid_thw"].to(device),
        mm_token_type_ids=(ids == vlm.config.image_token_id).int().to(device),
    ).last_hidden_state
    # logits only where there is something to learn
    predicts = labels[:, 1:] != -100
    logits = vlm.lm_head(hidden[:, :-1][predicts.to(device)])
    losses = F.cross_entropy(logits.float(), labels[:, 1:][predicts].to(device), reduction="none")
    weights = weights[:, 1:][predicts].to(device)
    return (losses * weights).sum() / weights.sum()


# --- measurement


@torch.inference_mode()
def write_prompt(vlm: Qwen3VLForConditionalGeneration, caption: Caption, processor: PictureQwen3VLProcessor) -> str:
    """The greedy prompt for a lesson's portraits and instruction."""
    ids = torch.tensor([caption.question], device=vlm.device)
    pixels = processor.image_processor([Image.fromarray(p) for p in caption.portraits], return_tensors="pt")
    written = vlm.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=pixels["pixel_values"].to(vlm.device),
        image_grid_thw=pixels["image_grid_thw"].to(vlm.device),
        mm_token_type_ids=(ids == vlm.config.image_token_id).int(),
        max_new_tokens=320,
        do_sample=False,
    )
    return processor.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def person_parts(prompt: str, people: int) -> list[str]:
    """What the prompt says of each person: from "image k" to the next image; sentences, where it names one image."""
    parts = [""] * people
    for sentence in re.split(r"(?<=[.;])\s+", prompt):
        mentions = list(re.finditer(r"image (\d+)", sentence))
        for index, mention in enumerate(mentions):
            begin = 0 if index == 0 else mention.start()
            end = mentions[index + 1].start() if index + 1 < len(mentions) else len(sentence)
            if 1 <= int(mention.group(1)) <= people:
                parts[int(mention.group(1)) - 1] += " " + sentence[begin:end]
    return parts


def attribute_scores(prompt: str, example: Example) -> dict[str, tuple[int, int]]:
    """(right, asked) of each attribute, of "no glasses" and, where the user named them, of "place" and "light"; and
    of "leakage": a value that only another person has, said of this one."""
    scores: dict[str, tuple[int, int]] = {}

    def count(name: str, right: bool) -> None:
        hits, asked = scores.get(name, (0, 0))
        scores[name] = (hits + right, asked + 1)

    for name, said in (("place", place_said), ("light", light_said)):
        if (asked := said(example.scene)) is not None:
            count(name, said(prompt) == asked)
    for own, part in zip(example.attributes, person_parts(prompt, len(example.people)), strict=True):
        if "glasses" not in own:
            count("no glasses", not _says(part, "glasses"))
        others = [attributes for attributes in example.attributes if attributes is not own]
        for name, value in own.items():
            if name not in SEEN_IN_PORTRAITS:
                continue
            count(name, _says(part, value))
            for other in others:
                foreign = other.get(name, "")
                if foreign and not _says(foreign, value) and not _says(value, foreign):
                    count("leakage", _says(part, foreign) and not _says(part, value))
    return scores


def _says(text: str, value: str) -> bool:
    return next(mentions(text, value), None) is not None


def evaluate(
    vlm: Qwen3VLForConditionalGeneration,
    captions: Sequence[Caption],
    processor: PictureQwen3VLProcessor,
    sheet: Path,
    *,
    count: int,
) -> dict[str, float]:
    """Shares of attributes right in greedy prompts for the first `count` held-out lessons; texts go to `sheet`."""
    totals: dict[str, list[int]] = {}
    texts = []
    for caption in captions[:count]:
        prompt = write_prompt(vlm, caption, processor)
        texts.append(f"asked: {instruction_of(caption.example)}\ntrue: {caption.example.prompt}\nwritten: {prompt}\n")
        for name, (right, asked) in attribute_scores(prompt, caption.example).items():
            total = totals.setdefault(name, [0, 0])
            total[0] += right
            total[1] += asked
    sheet.write_text("\n".join(texts))
    return {f"held_out_{name}": right / asked for name, (right, asked) in sorted(totals.items())}


if __name__ == "__main__":
    main()
