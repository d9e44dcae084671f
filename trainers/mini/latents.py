"""Latents and prompt embeddings of the shards, computed once and kept beside a run.

Latents need the VAE alone, embeddings the frozen VLM. A trainer computes what it misses; several processes may do so
before, or beside it:

    python -m trainers.mini.latents --pictures DIR --vae DIR --vlm DIR --cache RUN/cache --part 1/2
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLQwenImage21
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from core.backbones.protocol import Conditioning
from core.backbones.qwen_image_21 import PICTURE_SLOT, QwenImage21Backbone
from core.colours import ANY_COLOUR
from core.pixels import to_tensor
from core.prompts import Task, static_prompt
from trainers.mini.assemble import build_backbone, build_pipeline, load_vlm
from trainers.mini.captions import mentions
from trainers.mini.data import Example, Shard, clothes_boxes, face_mask, save_tensors, shard_paths, share_of, sized
from trainers.mini.geometry import MAX_REFERENCES, PATCH, TEXT_STRIDE
from trainers.mini.models import TransformerSize, build_transformer

ENCODE_BATCH = 64
BEFORE_PICTURE = " " + PICTURE_SLOT.partition("<|image_pad|>")[0]
"""Between a prompt and the first picture, in the template of a text-first model."""
READ_BATCH = 32
READ_WITH_PICTURES = 8
"""Prompts of a shard, for each number of people, that are read together with their portraits."""
TEMPLATE_EVERY = 4


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute the latents and prompt embeddings of shards.")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of shards")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--vlm", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder that the transformer's run reads")
    parser.add_argument("--part", default="1/1", help="share of this job, such as 1/2")
    parser.add_argument("--device", default="cpu", help="a GPU encodes beside a training on it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text_encoder, processor = load_vlm(arguments.vlm)
    vae = AutoencoderKLQwenImage21.from_pretrained(arguments.vae)
    transformer = build_transformer(TransformerSize(layers=1), text_encoder.config.text_config.hidden_size)
    pipeline = build_pipeline(vae, text_encoder, processor, transformer)
    backbone = build_backbone(pipeline.to(arguments.device))
    store = LatentStore(arguments.cache)
    paths = [path for split in ("held_out", "train") for path in shard_paths(arguments.pictures, split)]
    for path in tqdm(share_of(paths, arguments.part), desc="latents", unit="shard"):
        for name in ("latents", "text"):
            store.stored(path, backbone, name)


@dataclass(frozen=True)
class Text:
    """A prompt as the transformer reads it: embeddings (S, D) half, picture_slots (S,) bool.

    clothes (S,) uint8: bit k is set at the tokens that colour the clothes of person k, if the prompt names them.
    """

    embeddings: Tensor
    picture_slots: Tensor
    clothes: Tensor


@dataclass(frozen=True)
class LatentSet:
    """The examples of some shards in memory.

    portraits (P, C, rows, columns), portrait_people (P,) and their faces (P, rows, columns): all that portraits show.
    By row of `examples`: references, rows of the portraits; pictures (C, rows, columns), faces (rows, columns),
    clothes (people, rows, columns) and texts, None where they are not needed.
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

    @classmethod
    def join(cls, parts: Sequence[LatentSet]) -> LatentSet:
        """All examples of `parts`, one after the other."""
        starts = np.cumsum([0, *(len(part.portraits) for part in parts)])
        stacked = {name: torch.cat([getattr(p, name) for p in parts]) for name in _STACKS}
        rows = {name: tuple(row for p in parts for row in getattr(p, name)) for name in _ROWS}
        return cls(
            **stacked,
            **rows,
            references=tuple(
                tuple(int(start) + index for index in indices)
                for part, start in zip(parts, starts[:-1], strict=True)
                for indices in part.references
            ),
            texts=None if parts[0].texts is None else tuple(text for part in parts for text in part.texts),
        )


_STACKS = ("portraits", "portrait_people", "portrait_faces")
_ROWS = ("examples", "pictures", "faces", "clothes")


class LatentStore:
    """Shards as latents, read through a cache on disk that is filled where it is empty, and kept in memory."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._kept: dict[tuple[str, bool], LatentSet] = {}

    def load(self, paths: Sequence[Path], backbone: QwenImage21Backbone, *, with_text: bool) -> LatentSet:
        """The examples of these shards; others are forgotten, so that a growing folder does not fill the memory."""
        kept, self._kept = self._kept, {}
        for path in tqdm(paths, desc="latents", unit="shard", disable=len(paths) < 2):
            key = (path.name, with_text)
            self._kept[key] = kept[key] if key in kept else self._read(path, backbone, with_text=with_text)
        return LatentSet.join(list(self._kept.values()))

    def stored(self, path: Path, backbone: QwenImage21Backbone, name: str) -> dict[str, Tensor]:
        """ "latents" or "text" of one shard, computed if they are not on disk."""
        file = self._cache / f"{path.name}.{name}.safetensors"
        if not file.exists():
            compute = {"latents": _encode, "text": _read_texts}[name]
            save_tensors(file, compute(Shard.load(path), backbone))
        return load_file(file)

    def _read(self, path: Path, backbone: QwenImage21Backbone, *, with_text: bool) -> LatentSet:
        latents = self.stored(path, backbone, "latents")
        texts = _texts(self.stored(path, backbone, "text")) if with_text else None
        shard = Shard.load(path, pictures=False)
        examples = shard.examples

        def rows_of(name: str) -> tuple[Tensor, ...]:
            return tuple(latents[sized(name, e.size)][e.picture] for e in examples)

        return LatentSet(
            portraits=latents["portraits"],
            portrait_people=torch.from_numpy(shard.portrait_people),
            portrait_faces=latents["portrait_faces"].float(),
            examples=examples,
            references=tuple(example.references for example in examples),
            pictures=rows_of("pictures"),
            faces=rows_of("faces"),
            clothes=tuple(shares[: len(e.people)] for shares, e in zip(rows_of("clothes"), examples, strict=True)),
            texts=texts,
        )


def _texts(stored: dict[str, Tensor]) -> tuple[Text, ...]:
    lengths = stored["ends"].diff(prepend=stored["ends"].new_zeros(1)).tolist()
    columns = (stored[name].split(lengths) for name in ("embeddings", "picture_slots", "clothes"))
    return tuple(Text(*parts) for parts in zip(*columns, strict=True))


def prompt_for(number: int, example: Example) -> str:
    """The full caption, and for some examples the template: people generate with either."""
    if number % TEMPLATE_EVERY:
        return example.prompt
    task = Task.CHILD if example.task == "child" else Task.GROUP
    return static_prompt(task, len(example.people), example.scene)


def clothes_words(prompt: str, example: Example, tokenizer: PreTrainedTokenizerBase, before: int) -> Tensor:
    """(before,) uint8: `Text.clothes` of a text-first model's `before` tokens in front of the first picture.

    The colour words alone: an embedding of the words that follow says little of them.
    """
    bits = torch.zeros(before, dtype=torch.uint8)
    tokens = tokenizer(prompt, return_offsets_mapping=True)
    first = before - len(tokenizer(BEFORE_PICTURE)["input_ids"]) - len(tokens["input_ids"])
    for person, attributes in enumerate(example.attributes):
        for at, to in _colours(prompt, attributes.get("clothes")):
            for index, (begin, end) in enumerate(tokens["offset_mapping"], start=first):
                if begin < to and at < end:
                    bits[index] |= 1 << person
    return bits


def _colours(prompt: str, clothes: str | None) -> list[tuple[int, int]]:
    """Where colour words stand in the mentions of these clothes."""
    if clothes is None:
        return []
    named = [colour.span() for colour in re.finditer(rf"\b({ANY_COLOUR})\b", clothes)]
    return [(match.start() + begin, match.start() + end) for match in mentions(prompt, clothes) for begin, end in named]


def text_of(conditioning: Conditioning) -> Text:
    slots = conditioning.picture_slots.cpu()
    return Text(conditioning.embeddings[0].half().cpu(), slots, torch.zeros(len(slots), dtype=torch.uint8))


def stack_texts(texts: Sequence[Text]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts with the same pictures as one batch: embeddings (B, S, D), picture_slots (S,), valid and clothes (B, S).

    Shorter prompts are padded in front of the first picture, as `Conditioning.stack` does for a text-first model; up
    to a multiple of TEXT_STRIDE tokens, so that a compiled transformer meets few lengths.
    """
    firsts = [int(text.picture_slots.int().argmax()) for text in texts]
    before = -(-max(firsts) // TEXT_STRIDE) * TEXT_STRIDE
    after = max(len(text.picture_slots) - first for text, first in zip(texts, firsts, strict=True))
    rows, length = len(texts), before + after
    embeddings = texts[0].embeddings.new_zeros(rows, length, texts[0].embeddings.shape[1])
    valid = torch.zeros(rows, length, dtype=torch.bool)
    clothes = torch.zeros(rows, length, dtype=torch.uint8)
    for row, (text, first) in enumerate(zip(texts, firsts, strict=True)):
        embeddings[row, :first], embeddings[row, before:] = text.embeddings[:first], text.embeddings[first:]
        clothes[row, :first] = text.clothes[:first]
        valid[row, :first] = valid[row, before:] = True
    picture_slots = torch.zeros(length, dtype=torch.bool)
    picture_slots[before:] = texts[0].picture_slots[firsts[0] :]
    return embeddings, picture_slots, valid, clothes


@torch.no_grad()
def _encode(shard: Shard, backbone: QwenImage21Backbone) -> dict[str, Tensor]:
    """Latents of portraits and pictures, and by the same index which share of a token faces and clothes cover."""
    stacks = {"portraits": shard.portraits}
    stacks |= {sized("pictures", size): stack for size, stack in shard.pictures.items()}
    encoded = {
        name: torch.cat(
            [
                backbone.encode(to_tensor(stack[i : i + ENCODE_BATCH]).to(backbone.device)).half().cpu()
                for i in range(0, len(stack), ENCODE_BATCH)
            ]
        )
        for name, stack in stacks.items()
    }
    side = shard.portraits.shape[1:3]
    encoded["portrait_faces"] = torch.stack([_token_shares([box], *side) for box in shard.portrait_boxes]).half()
    for size, stack in shard.pictures.items():
        height, width = size
        shape = (len(stack), height // PATCH, width // PATCH)
        faces, clothes = torch.zeros(shape), torch.zeros(shape[0], MAX_REFERENCES, *shape[1:])
        for example in (e for e in shard.examples if e.size == size):
            faces[example.picture] = _token_shares(example.boxes, height, width)
            for person, box in enumerate(clothes_boxes(example.boxes)):
                clothes[example.picture, person] = _token_shares([box], height, width)
        encoded |= {sized("faces", size): faces.half(), sized("clothes", size): clothes.half()}
    return encoded


def _read_texts(shard: Shard, backbone: QwenImage21Backbone) -> dict[str, Tensor]:
    """The texts of all examples, one behind the other.

    A prompt stands before the pictures and cannot know them, so prompts are read without them, many at once. What
    stands between and behind the pictures knows them; that is read for a few examples, and the others share it.
    """
    texts: list[Text | None] = [None] * len(shard.examples)
    for people in sorted({len(example.people) for example in shard.examples}):
        rows = [row for row, example in enumerate(shard.examples) if len(example.people) == people]
        behind = [_behind_prompt(shard, row, backbone) for row in rows[:READ_WITH_PICTURES]]
        for at in range(0, len(rows), READ_BATCH):
            for place, text in enumerate(_read_prompts(shard, rows[at : at + READ_BATCH], backbone), start=at):
                rest = behind[place % len(behind)]
                texts[rows[place]] = Text(
                    torch.cat([text.embeddings, rest.embeddings]),
                    torch.cat([text.picture_slots, rest.picture_slots]),
                    torch.cat([text.clothes, rest.clothes]),
                )
    return {
        "embeddings": torch.cat([text.embeddings for text in texts]).half(),
        "picture_slots": torch.cat([text.picture_slots for text in texts]),
        "clothes": torch.cat([text.clothes for text in texts]),
        "ends": torch.tensor([len(text.picture_slots) for text in texts]).cumsum(0),
    }


def _behind_prompt(shard: Shard, row: int, backbone: QwenImage21Backbone) -> Text:
    example = shard.examples[row]
    portraits = [shard.portraits[index] for index in example.references]
    text = text_of(backbone.encode_prompt(prompt_for(row, example), portraits))
    first = int(text.picture_slots.int().argmax())
    return Text(text.embeddings[first:], text.picture_slots[first:], text.clothes[first:])


@torch.no_grad()
def _read_prompts(shard: Shard, rows: Sequence[int], backbone: QwenImage21Backbone) -> list[Text]:
    """Prompts up to the first picture, read by themselves."""
    pipeline, tokenizer = backbone.pipeline, backbone.pipeline.processor.tokenizer
    closing = len(tokenizer(pipeline.prompt_template_t2i.partition("{}")[2])["input_ids"])
    prompts = [prompt_for(row, shard.examples[row]) for row in rows]
    embeddings, mask, _ = pipeline.encode_prompt([prompt + BEFORE_PICTURE for prompt in prompts])
    texts = []
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        length = (embeddings.shape[1] if mask is None else int(mask[number].sum())) - closing
        words = clothes_words(prompt, shard.examples[row], tokenizer, length)
        texts.append(Text(embeddings[number, :length].cpu(), torch.zeros(length, dtype=torch.bool), words))
    return texts


def _token_shares(boxes, height: int, width: int) -> Tensor:
    """(rows, columns): the share of each latent token that the boxes cover."""
    mask = torch.from_numpy(face_mask(boxes, height, width)).float()
    return F.avg_pool2d(mask[None, None], PATCH)[0, 0]


if __name__ == "__main__":
    main()
