"""Teaches where to read: the tokens of somebody's clothes look at the words that say what this person wears.

A word of a prompt is one of some three hundred tokens that a token of the picture may look at, and at first gets that
share of its attention, from which a small model learns nothing: three thousand steps moved no colour. Supervising the
attention of a few heads by masks is known from FastComposer (arXiv 2305.10431, section 4.2, there for references); what
the heads make of what they read, the flow matching loss teaches.
"""

from __future__ import annotations

from diffusers import QwenImage21Transformer2DModel
from torch import Tensor

from trainers.mini.attention import TrainingAttnProcessor
from trainers.mini.feeding import Batch

BLOCKS = (2, 3, 4)
"""After some blocks in which words learn whom they are about, and before the last, in which little can follow."""
HEAD = -1
"""Of each of them; the first heads are those that start looking at references."""
COVERED = 0.5
"""Share of a token that clothes must cover."""


class ReadingTerm:
    """- log of the attention that clothes give to their words, mean over tokens and watched heads."""

    def __init__(self, transformer: QwenImage21Transformer2DModel) -> None:
        blocks = transformer.transformer_blocks
        self._processors = []
        for number in BLOCKS:
            if number < len(blocks):
                self._processors.append(TrainingAttnProcessor(watched=True))
                blocks[number].attn.set_processor(self._processors[-1])

    def __call__(self, batch: Batch, levels: int) -> Tensor | None:
        """Of the velocity computed last, for `batch` at `levels` noise levels; None where no prompt names clothes."""
        # Taken away, so that no step's graph stays alive, and the model can be copied.
        looks = [processor.take_look() for processor in self._processors]
        shares = batch.clothes.flatten(2).repeat_interleave(levels, dim=0)
        words = batch.clothes_words.repeat_interleave(levels, dim=0)
        row, person, token = ((shares > COVERED) & words.any(-1, keepdim=True)).nonzero(as_tuple=True)
        if not len(row):
            return None
        losses = []
        for query, key, bias in looks:
            scores = query[:, :, HEAD].float() @ key[:, :, HEAD].float().transpose(1, 2) * query.shape[-1] ** -0.5
            if bias is not None:
                scores = scores + bias[:, 0].float()
            chances = scores.log_softmax(-1)[row, token, : words.shape[-1]]
            losses.append(-chances.masked_fill(~words[row, person], -float("inf")).logsumexp(-1).mean())
        return sum(losses) / len(losses)
