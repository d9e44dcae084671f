"""What the prompt writer learns from: captions of pictures, given the portraits that they refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.backbones.processors import PictureQwen3VLProcessor
from core.prompts import Task, static_prompt, writer_instruction
from trainers.mini.data import Example, Shard, shard_paths
from trainers.mini.obedience import light_said
from trainers.mini.vision import SEEN_IN_PORTRAITS
from trainers.people.daylight import LIGHTS


@dataclass(frozen=True)
class Caption:
    """One lesson: portraits (n, side, side, 3) uint8, tokens of instruction and prompt, attributes for measuring.

    seen: for every token of the answer, whether only the portraits tell it, or the light that was asked for. What
        follows hair or beard counts as seen: there it is decided whether glasses are said.
    """

    portraits: np.ndarray
    question: tuple[int, ...]
    answer: tuple[int, ...]
    seen: tuple[bool, ...]
    example: Example


def tokenizer_corpus(pictures: Path) -> list[str]:
    """Captions, instructions and static templates: what the model will read and write."""
    texts = []
    for path in shard_paths(pictures, "train"):
        for example in Shard.load(path).examples:
            texts += [example.prompt, instruction_of(example)]
            texts.append(static_prompt(task_of(example), len(example.people), example.scene))
    return texts


def task_of(example: Example) -> Task:
    return Task.CHILD if example.task == "child" else Task.GROUP


def instruction_of(example: Example) -> str:
    return writer_instruction(task_of(example), len(example.people), example.scene)


def load_captions(pictures: Path, split: str, processor: PictureQwen3VLProcessor) -> list[Caption]:
    captions = []
    for path in shard_paths(pictures, split):
        shard = Shard.load(path)
        captions += [
            caption_of(example, shard.portraits[list(example.references)], processor) for example in shard.examples
        ]
    return captions


def caption_of(example: Example, portraits: np.ndarray, processor: PictureQwen3VLProcessor) -> Caption:
    """The lesson of an example: portraits (n, side, side, 3) uint8, one for each person."""
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    answer = processor.tokenizer(example.prompt, return_offsets_mapping=True)
    told = [
        (match.start(), match.end() + (name in ("hair", "beard")))
        for attributes in example.attributes
        for name in SEEN_IN_PORTRAITS
        if name in attributes
        for match in mentions(example.prompt, attributes[name])
    ]
    if (light := light_said(example.scene)) is not None:
        told += [match.span() for words in LIGHTS[light].words for match in mentions(example.prompt, words)]
    seen = [any(begin < to and at < stop for at, to in told) for begin, stop in answer["offset_mapping"]]
    return Caption(
        portraits=portraits,
        question=tuple(_question(example, _slots(portraits.shape[1:3]), processor)),
        answer=(*answer["input_ids"], end),
        seen=(*seen, False),
        example=example,
    )


def _slots(size: tuple[int, int]) -> int:
    return (size[0] // 32) * (size[1] // 32)


def _question(example: Example, slots: int, processor: PictureQwen3VLProcessor) -> list[int]:
    content = [
        {"type": "text", "text": instruction_of(example)},
        *({"type": "image"} for _ in example.people),
    ]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return processor.tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * slots))["input_ids"]


def mentions(text: str, value: str) -> Iterator[re.Match[str]]:
    """Where the whole words of `value` stand in `text`, in any case."""
    return re.finditer(rf"\b{re.escape(value)}\b", text, re.IGNORECASE)
