"""Latents and prompt embeddings of the shards, computed once and kept beside a run.

Latents need the VAE alone, embeddings the frozen VLM; both equal what the bundle's backbone computes at generation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from core.backbones.protocol import Conditioning
from core.backbones.qwen_image_21 import PICTURE_SLOT, QwenImage21Backbone
from core.colours import ANY_COLOUR
from core.prompts import Task, static_prompt
from trainers.mini.captions import mentions
from trainers.mini.data import Example, Shard, clothes_boxes, face_mask, to_tensor
from trainers.mini.geometry import PATCH, TEXT_STRIDE

ENCODE_BATCH = 64
TEMPLATE_EVERY = 4


@dataclass(frozen=True)
class Text:
    """A prompt as the transformer reads it: embeddings (S, D), picture_slots (S,) bool.

    clothes: for each person, which of the S tokens say what they wear; empty where the prompt does not.
    """

    embeddings: Tensor
    picture_slots: Tensor
    clothes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class LatentSet:
    """The examples of some shards in memory.

    portraits (P, C, rows, columns), people (P,) and their faces (P, rows, columns): everything the portraits show.
    groups: by (task, references, size) the rows of `examples`; pictures, faces and, for each person, clothes by row.
    """

    portraits: Tensor
    portrait_people: Tensor
    portrait_faces: Tensor
    examples: tuple[Example, ...]
    references: tuple[tuple[int, ...], ...]
    pictures: tuple[Tensor, ...]
    faces: tuple[Tensor, ...]
    clothes: tuple[Tensor, ...]
    texts: tuple[Text, ...] | None

    def has(self, task: str, people: int) -> bool:
        return task in ("portrait", "row") or bool(self.rows(task, people))

    def rows(self, task: str, people: int) -> list[int]:
        return [row for row, e in enumerate(self.examples) if e.task == task and len(e.people) == people]


def load_latents(paths: Sequence[Path], cache: Path, backbone: QwenImage21Backbone, *, with_text: bool) -> LatentSet:
    """Read the shards through the cache, filling it where it is empty."""
    portraits, people, faces, examples, references, pictures = [], [], [], [], [], []
    masks, clothes, texts = [], [], []
    for path in tqdm(paths, desc="latents", unit="shard", disable=len(paths) < 2):
        shard = Shard.load(path)
        latents = _cached(cache / f"{path.name}.latents.safetensors", lambda s=shard: _encode(s, backbone))
        offset = sum(len(stack) for stack in portraits)
        portraits.append(latents["portraits"])
        people.append(torch.from_numpy(shard.portrait_people))
        size = shard.portraits.shape[1:3]
        faces += [_token_shares([box], *size) for box in shard.portrait_boxes]
        for example in shard.examples:
            examples.append(example)
            references.append(tuple(offset + index for index in example.references))
            pictures.append(latents["pictures_{}x{}".format(*example.size)][example.picture])
            masks.append(_token_shares(example.boxes, *example.size))
            worn = [_token_shares([box], *example.size) for box in clothes_boxes(example.boxes)]
            clothes.append(torch.stack(worn))
        if with_text:
            stored = _cached(cache / f"{path.name}.text.safetensors", lambda s=shard: _read(s, backbone))
            ends = stored["ends"].tolist()
            for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                slots = stored["picture_slots"][start:end]
                words = clothes_words(
                    prompt_for(number, shard.examples[number]), shard.examples[number], slots, backbone
                )
                texts.append(Text(stored["embeddings"][start:end], slots, words))
    return LatentSet(
        portraits=torch.cat(portraits),
        portrait_people=torch.cat(people),
        portrait_faces=torch.stack(faces),
        examples=tuple(examples),
        references=tuple(references),
        pictures=tuple(pictures),
        faces=tuple(masks),
        clothes=tuple(clothes),
        texts=tuple(texts) if with_text else None,
    )


def prompt_for(number: int, example: Example) -> str:
    """The full caption, and for some examples the template: people generate with either."""
    if number % TEMPLATE_EVERY:
        return example.prompt
    task = Task.CHILD if example.task == "child" else Task.GROUP
    return static_prompt(task, len(example.people), example.scene)


def clothes_words(
    prompt: str, example: Example, picture_slots: Tensor, backbone: QwenImage21Backbone
) -> tuple[tuple[int, ...], ...]:
    """For each person the tokens of a text-first conditioning, with `picture_slots` (S,), that colour their clothes.

    The colour words alone: an embedding of the words that follow says little of them.
    """
    tokenizer = backbone.pipeline.processor.tokenizer
    tokens = tokenizer(prompt, return_offsets_mapping=True)
    behind = len(tokenizer(PICTURE_SLOT.partition("<|image_pad|>")[0].join((" ", "")))["input_ids"])
    first = int(picture_slots.int().argmax()) - behind - len(tokens["input_ids"])
    return tuple(
        tuple(
            first + index
            for index, (begin, end) in enumerate(tokens["offset_mapping"])
            if any(begin < to and at < end for at, to in _colours(prompt, attributes.get("clothes")))
        )
        for attributes in example.attributes
    )


def _colours(prompt: str, clothes: str | None) -> list[tuple[int, int]]:
    """Where colour words stand in the mentions of these clothes."""
    if clothes is None:
        return []
    named = [colour.span() for colour in re.finditer(rf"\b({ANY_COLOUR})\b", clothes)]
    return [(match.start() + begin, match.start() + end) for match in mentions(prompt, clothes) for begin, end in named]


def text_of(conditioning: Conditioning) -> Text:
    return Text(conditioning.embeddings[0].cpu(), conditioning.picture_slots.cpu())


def stack_texts(texts: Sequence[Text], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Texts with the same pictures as one batch: embeddings (B, S, D), picture_slots (S,), valid (B, S).

    Shorter prompts are padded in front of the first picture, as `Conditioning.stack` does for a text-first model; up
    to a multiple of TEXT_STRIDE tokens, so that a compiled transformer meets few lengths.
    """
    before = max(int(text.picture_slots.int().argmax()) for text in texts)
    after = max(len(text.picture_slots) - int(text.picture_slots.int().argmax()) for text in texts)
    length = -(-before // TEXT_STRIDE) * TEXT_STRIDE + after
    rows = [
        Conditioning(embeddings=text.embeddings[None], picture_slots=text.picture_slots, reference_latents=()).padded(
            length, before_pictures=True
        )
        for text in texts
    ]
    return (
        torch.cat([row.embeddings for row in rows]).to(dtype),
        rows[0].picture_slots,
        torch.cat([row.valid for row in rows]),
    )


def _cached(path: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({name: tensor.contiguous() for name, tensor in compute().items()}, partial)
        os.replace(partial, path)
    return load_file(path)


@torch.no_grad()
def _encode(shard: Shard, backbone: QwenImage21Backbone) -> dict[str, Tensor]:
    stacks = {"portraits": shard.portraits}
    stacks |= {"pictures_{}x{}".format(*size): stack for size, stack in shard.pictures.items()}
    return {
        name: torch.cat(
            [
                backbone.encode(to_tensor(stack[i : i + ENCODE_BATCH]).to(backbone.device)).half().cpu()
                for i in range(0, len(stack), ENCODE_BATCH)
            ]
        )
        for name, stack in stacks.items()
    }


def _read(shard: Shard, backbone: QwenImage21Backbone) -> dict[str, Tensor]:
    texts = [
        text_of(backbone.encode_prompt(prompt_for(number, example), [shard.portraits[i] for i in example.references]))
        for number, example in enumerate(shard.examples)
    ]
    return {
        "embeddings": torch.cat([text.embeddings for text in texts]).half(),
        "picture_slots": torch.cat([text.picture_slots for text in texts]),
        "ends": torch.tensor([len(text.picture_slots) for text in texts]).cumsum(0),
    }


def _token_shares(boxes, height: int, width: int) -> Tensor:
    """(rows, columns): the share of each latent token that the boxes cover."""
    mask = torch.from_numpy(face_mask(boxes, height, width)).float()
    return F.avg_pool2d(mask[None, None], PATCH)[0, 0]
