"""First lessons of the prompt writer's vision tower: which words are said of the person in a portrait.

Only a tenth of a caption's words depend on the portraits, so a small model trained on captions alone learns to write
and never to look. Here the tower learns to tell those words apart by itself, with a linear layer that is thrown away:
minutes instead of hours. Saying them in sentences comes afterwards (`trainers.mini.vlm`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm
from transformers import Qwen3VLForConditionalGeneration

from core.backbones.processors import PictureQwen3VLProcessor
from trainers.mini.averaging import fast_precision
from trainers.mini.data import Shard
from trainers.runs import step_generator

SEEN_IN_PORTRAITS = ("noun", "hair", "beard", "glasses")
"""Attributes that the writer can know; clothes, expression and place it chooses."""
RAREST = 0.01
"""Words said of fewer portraits than this share are left out."""
BATCH = 32
LEARNING_RATE = 1e-3
WARMUP = 30
GRADIENT_CLIP = 1.0
"""Without it a long training may end in numbers that are none."""


@dataclass(frozen=True)
class NamedPortraits:
    """portraits (N, side, side, 3) uint8; words: for each, those said of the person."""

    portraits: np.ndarray
    words: Sequence[frozenset[str]]


def named_portraits(shards: Sequence[Shard]) -> NamedPortraits:
    """The portraits that group pictures refer to; a child's caption says nothing of its adult portrait."""
    portraits, words = [], []
    for shard in shards:
        said: dict[int, frozenset[str]] = {}
        for example in shard.examples:
            if example.task == "group":
                said |= {row: said_of(one) for row, one in zip(example.references, example.attributes, strict=True)}
        portraits += [shard.portraits[row] for row in said]
        words += said.values()
    return NamedPortraits(np.stack(portraits), words)


def said_of(attributes: Mapping[str, str]) -> frozenset[str]:
    """Words of what is seen in a portrait."""
    seen = (attributes[name] for name in SEEN_IN_PORTRAITS if name in attributes)
    return frozenset(word for value in seen for word in re.findall(r"[a-z]+", value.lower()))


def teach_to_see(
    vlm: Qwen3VLForConditionalGeneration,
    processor: PictureQwen3VLProcessor,
    lessons: NamedPortraits,
    *,
    steps: int,
    seed: int,
) -> float:
    """Train the vision tower in place; returns the mean binary cross-entropy of the last tenth of the steps."""
    counts = Counter(word for words in lessons.words for word in words)
    vocabulary = sorted(word for word, count in counts.items() if count >= RAREST * len(lessons.words))
    wanted = torch.tensor([[word in words for word in vocabulary] for words in lessons.words]).float()
    tower = vlm.model.visual
    named = nn.Linear(vlm.config.text_config.hidden_size, len(vocabulary)).to(vlm.device)
    parameters = [*tower.parameters(), *named.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step in tqdm(range(steps), desc="vision", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARMUP, 4 * (1 - step / steps))
        generator = step_generator(seed, step)
        rows = torch.randint(len(lessons.words), (BATCH,), generator=generator)
        portraits = lessons.portraits[rows.numpy()]
        mirrored = torch.rand(BATCH, generator=generator).numpy() < 0.5  # the same can be said of them
        portraits[mirrored] = portraits[mirrored, :, ::-1]
        with fast_precision(vlm.device):
            logits = named(_look(vlm, processor, portraits))
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted[rows].to(vlm.device))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return float(np.mean(losses[-max(1, steps // 10) :]))


def _look(vlm: Qwen3VLForConditionalGeneration, processor: PictureQwen3VLProcessor, portraits: np.ndarray) -> Tensor:
    """Mean token (N, hidden size) of each portrait, as the language model would get them."""
    pixels = processor.image_processor([Image.fromarray(one) for one in portraits], return_tensors="pt")
    tokens = vlm.model.visual(
        pixels["pixel_values"].to(vlm.device), grid_thw=pixels["image_grid_thw"].to(vlm.device)
    ).pooler_output
    return tokens.view(len(portraits), -1, tokens.shape[-1]).mean(1)
