"""Batches for the mini transformer: stored examples, or portraits put together on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from core.backbones.protocol import Conditioning
from core.backbones.qwen_image_21 import QwenImage21Backbone
from trainers.mini.curriculum import Stage, TransformerConfig, parse_kind
from trainers.mini.data import draw_by_share
from trainers.mini.latents import LatentSet, Text, stack_texts, text_of
from trainers.runs import step_generator

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """P prompts: conditioning and targets (P, C, rows, columns).

    faces (P, rows, columns) and clothes (P, people, rows, columns): shares of a token that they cover.
    clothes_words (P, people, S) bool: the tokens of the prompt that name the clothes.
    landmarks (P, people, 5, 2): of the faces, in pixels; zeros where portraits stand in a row.
    """

    conditioning: Conditioning
    target: Tensor
    faces: Tensor
    clothes: Tensor
    clothes_words: Tensor
    landmarks: Tensor

    def to(self, device: torch.device) -> Batch:
        """On a device, in float32, which is made there: half the numbers are moved."""
        target, faces, clothes = (part.to(device).float() for part in (self.target, self.faces, self.clothes))
        conditioning = self.conditioning.to(device).to(device, torch.float32)
        return Batch(conditioning, target, faces, clothes, self.clothes_words.to(device), self.landmarks.to(device))


class Feeder:
    """Draws batches of one kind from a latent set: stored examples, or portraits put together on the fly."""

    def __init__(self, data: LatentSet, backbone: QwenImage21Backbone, stage: Stage, config: TransformerConfig) -> None:
        self._data, self._stage, self._config = data, stage, config
        self._rows = {kind: _by_size(data, data.rows(*parse_kind(kind))) for kind in stage.mix}
        by_person: dict[int, list[int]] = {}
        for row, person in enumerate(data.portrait_people.tolist()):
            by_person.setdefault(person, []).append(row)
        self._portraits = [rows for rows in by_person.values() if len(rows) > 1]
        for kind in stage.mix:
            if parse_kind(kind)[0] in ("group", "child") and not self._rows[kind]:
                raise ValueError(f"stage {stage.name} asks for {kind}, but no shard holds such an example")
        height, width = (16 * side for side in data.portraits.shape[-2:])
        black = torch.zeros(height, width, 3, dtype=torch.uint8).numpy()
        numbers = sorted({parse_kind(kind)[1] for kind in stage.mix})
        self._empty = {n: text_of(backbone.encode_prompt("", [black] * n)) for n in numbers}

    def draw(
        self, kind: str, count: int, generator: torch.Generator, *, dropout: bool = True, device: torch.device = CPU
    ) -> Batch:
        task, people = parse_kind(kind)
        if task in ("group", "child"):
            batch = self._stored(self._rows[kind], people, count, generator, dropout)
        else:
            batch = self._composed(people, count, generator, self._stage.copy_share if dropout else 0.0)
        return batch.to(device)

    def first(self, kind: str, count: int, *, device: torch.device = CPU) -> Batch:
        """The same rows every time, for measuring."""
        return self.draw(kind, count, torch.Generator().manual_seed(7), dropout=False, device=device)

    def _stored(
        self, sizes: list[list[int]], people: int, count: int, generator: torch.Generator, dropout: bool
    ) -> Batch:
        """Rows of one of the `sizes`, drawn by its share."""
        rows = sizes[draw_by_share([len(rows) for rows in sizes], generator)]
        drawn = [rows[i] for i in torch.randint(len(rows), (count,), generator=generator).tolist()]
        texts = [self._text(row, people) for row in drawn]
        if dropout:
            dropped = torch.rand(len(drawn), generator=generator) < self._config.prompt_dropout
            texts = [self._empty[people] if drop else text for text, drop in zip(texts, dropped, strict=True)]
        references = tuple(
            self._data.portraits[[self._data.references[row][k] for row in drawn]] for k in range(people)
        )
        conditioning, words = _conditioning(texts, references)
        return Batch(
            conditioning,
            torch.stack([self._data.pictures[row] for row in drawn]),
            torch.stack([self._data.faces[row] for row in drawn]),
            torch.stack([self._data.clothes[row] for row in drawn]),
            words,
            torch.tensor([self._data.examples[row].landmarks for row in drawn]),
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
        conditioning, words = _conditioning(blank, tuple(portraits[[r[k] for r in references]] for k in range(people)))
        shown = torch.cat([faces[[t[k] for t in targets]] for k in range(people)], dim=2)
        return Batch(
            conditioning,
            torch.cat([portraits[[t[k] for t in targets]] for k in range(people)], dim=3),
            shown,
            shown.new_zeros(count, people, *shown.shape[1:]),
            words,
            torch.zeros(count, people, 5, 2),
        )


class Ahead:
    """The batches of a stage, each drawn by a thread while the step before it computes, so that no GPU waits for it."""

    def __init__(self, feeder: Feeder, stage: Stage, *, seed: int, device: torch.device) -> None:
        self._feeder, self._stage, self._seed, self._device = feeder, stage, seed, device
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._drawn: dict[int, Future] = {}

    def take(self, step: int) -> tuple[str, Batch, torch.Generator]:
        """Kind and batch of a step, on the device, and its generator, which goes on behind them."""
        wanted = self._drawn.pop(step, None) or self._thread.submit(self._draw, step)
        self._drawn = {step + 1: self._thread.submit(self._draw, step + 1)}
        return wanted.result()

    def stop(self) -> None:
        self._thread.shutdown()

    def _draw(self, step: int) -> tuple[str, Batch, torch.Generator]:
        generator = step_generator(self._seed, step)
        kind = self._stage.mix[int(torch.randint(len(self._stage.mix), (1,), generator=generator))]
        return kind, self._feeder.draw(kind, self._stage.batch, generator, device=self._device), generator


def _by_size(data: LatentSet, rows: Sequence[int]) -> list[list[int]]:
    """The rows of each size of picture."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        sizes.setdefault(data.examples[row].size, []).append(row)
    return list(sizes.values())


def _blank(text: Text) -> Text:
    return Text(torch.zeros_like(text.embeddings), text.picture_slots, torch.zeros_like(text.clothes))


def _conditioning(texts: Sequence[Text], references: tuple[Tensor, ...]) -> tuple[Conditioning, Tensor]:
    """The prompts with their references, and which tokens name the clothes of whom, (B, people, S) bool."""
    embeddings, slots, valid, clothes = stack_texts(texts)
    people = torch.arange(len(references), dtype=torch.uint8)[:, None]
    words = (clothes[:, None] >> people & 1).bool()
    return Conditioning(embeddings=embeddings, picture_slots=slots, reference_latents=references, valid=valid), words
