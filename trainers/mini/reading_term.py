"""Teaches where to read: the tokens of somebody's clothes look at the words that say what this person wears.

A word of a prompt is one of some three hundred tokens that a token of the picture may look at, and at first gets that
share of its attention, from which a small model learns nothing: three thousand steps moved no colour. Supervising the
attention of a few heads by masks is known from FastComposer (arXiv 2305.10431, section 4.2, there for references).

What to make of a colour word is as hard to find: its colour is a small part of its embedding, the rest is the same for
all of them. `start_reading` begins with the least squares answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import QwenImage21Transformer2DModel
from torch import Tensor, nn

from core.backbones.qwen_image_21 import QwenImage21Backbone
from trainers.mini.attention import TrainingAttnProcessor
from trainers.mini.feeding import Batch

BLOCKS = (2, 3)
"""After some blocks in which words learn whom they are about, and early enough for others to work on what is read."""
HEAD = -1
"""Of each of them; the first heads are those that start looking at references."""
COVERED = 0.5
"""Share of a token that clothes must cover."""
GAIN = 6.0
"""How strongly a head shows what it has read: of 2 and 6, by the error that exchanged colours make at sigma 1."""
COLOURS = 15
"""How many numbers pass on what a word says of a colour: as many as there are colour words."""
SHARE = 0.5
"""Size of what colours are told by in a word, relative to the rest of it."""
RIDGE = 0.01
"""Of the mean variance of the features."""


class ReadingTerm:
    """- log of the attention that clothes give to their words, mean over tokens and watched heads."""

    def __init__(self, transformer: QwenImage21Transformer2DModel) -> None:
        self._attentions = [block.attn for block in _watched(transformer)]
        for attention in self._attentions:
            attention.set_processor(TrainingAttnProcessor(watched=True))

    def __call__(self, batch: Batch, levels: int) -> Tensor | None:
        """Of the velocity computed last, for `batch` at `levels` noise levels; None where no prompt names clothes."""
        # Taken away, so that no step's graph stays alive, and the model can be copied.
        looks = [attention.processor.take_look() for attention in self._attentions]
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

    def stop(self) -> None:
        """Watch no longer: looks that nobody takes would keep their graphs."""
        for attention in self._attentions:
            attention.set_processor(TrainingAttnProcessor())


def _watched(transformer: QwenImage21Transformer2DModel) -> list[nn.Module]:
    return [block for number, block in enumerate(transformer.transformer_blocks) if number in BLOCKS]


@torch.no_grad()
def start_reading(backbone: QwenImage21Backbone, batches: Sequence[Batch]) -> None:
    """Colours of clothes pass into the transformer, and the heads that read put them into the target.

    Both are least squares answers. The text projection gives some of its units to what its embeddings say of the mean
    latents of clothes: gelu(z) - gelu(-z) = z, so a pair of units is linear. Then the values of the heads become the
    regression from colour words, as their block sees them, to those latents, and their output goes where the last layer
    takes it off the velocity, which is noise minus clean latents. Tokens that are no colours give nothing. What units
    and heads did before is lost.
    """
    transformer = backbone.transformer
    colours = torch.cat([_clothes_latents(batch)[batch.clothes_words.any(-1)] for batch in batches])
    colours = colours - colours.mean(0)
    embeddings = [transformer.txt_in.text_norm(batch.conditioning.embeddings) for batch in batches]
    words = torch.cat([_word_means(rows, batch) for rows, batch in zip(embeddings, batches, strict=True)])
    others = torch.cat([_other_words(rows, batch) for rows, batch in zip(embeddings, batches, strict=True)])
    _pass_through(transformer.txt_in, _regression(words, others, colours), words, others)

    blocks = _watched(transformer)
    channels, size = transformer.config.in_channels, transformer.config.attention_head_dim
    rows = torch.arange(transformer.inner_dim).view(-1, size)[HEAD, :channels]
    for block in blocks:
        words, others = _inputs(block.attn.to_v, backbone, batches)
        block.attn.to_v.weight[rows] = _regression(words, others, colours)
        block.attn.to_out[0].weight[:, rows] = -GAIN * torch.linalg.pinv(transformer.proj_out.weight)


def _pass_through(projection: nn.Module, told: Tensor, words: Tensor, others: Tensor) -> None:
    """Make the least used units of the text projection linear ones for the COLOURS main directions of `told` (C, D)."""
    used = torch.cat([words, others])
    activity = nn.functional.gelu(used @ projection.in_layer.weight.T, approximate="tanh").std(0)
    importance = activity * projection.out_layer.weight.norm(dim=0)
    units = importance.argsort()[: 2 * COLOURS].view(2, COLOURS)
    hidden = projection(others).norm(dim=1).mean()
    _, strengths, directions = torch.linalg.svd(told, full_matrices=False)
    directions = strengths[:COLOURS, None] * directions[:COLOURS]
    directions = directions / (words @ directions.T).std(0).norm()
    into, _ = torch.linalg.qr(torch.randn(projection.out_layer.out_features, COLOURS, device=words.device))
    into = SHARE * hidden * into
    for sign, chosen in zip((1, -1), units, strict=True):
        projection.in_layer.weight[chosen] = sign * directions
        projection.out_layer.weight[:, chosen] = sign * into


def _inputs(layer: nn.Module, backbone: QwenImage21Backbone, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """What the layer is given at colour words (M, D), and a sample of what it is given elsewhere (N, D)."""
    given: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].float()))
    words, others = [], []
    with torch.compiler.set_stance("force_eager"):
        for batch in batches:
            prefix = backbone.prefill(batch.conditioning)
            sigma = torch.linspace(0.3, 1.0, len(batch.target), device=batch.target.device)
            backbone.velocity(prefix, torch.randn_like(batch.target), sigma)
            read, target = given
            words.append(_word_means(read, batch))
            text = batch.clothes_words.shape[-1]
            others += [_other_words(read, batch), read[:, text::8].flatten(0, 1), target[:, ::8].flatten(0, 1)]
            given.clear()
    hook.remove()
    return torch.cat(words), torch.cat(others)


def _clothes_latents(batch: Batch) -> Tensor:
    """(P, people, C): mean latents of the clothes of each person."""
    shares = batch.clothes.flatten(2)
    return shares @ batch.target.flatten(2).transpose(1, 2) / shares.sum(-1, keepdim=True).clamp(min=1e-6)


def _word_means(tokens: Tensor, batch: Batch) -> Tensor:
    """(M, D): means over the colour words of each person that has any; tokens (P, S, D) begin with the prompt."""
    shares = batch.clothes_words.float() / batch.clothes_words.sum(-1, keepdim=True).clamp(min=1)
    return (shares @ tokens[:, : shares.shape[-1]])[batch.clothes_words.any(-1)]


def _other_words(tokens: Tensor, batch: Batch) -> Tensor:
    """(N, D): a sample of the words that colour no clothes."""
    words = batch.conditioning.valid & ~batch.conditioning.picture_slots & ~batch.clothes_words.any(1)
    first = int(batch.conditioning.picture_slots.int().argmax())
    return tokens[:, :first][words[:, :first]][::8]


def _regression(words: Tensor, others: Tensor, colours: Tensor) -> Tensor:
    """(C, D): ridge regression from words (M, D) to colours (M, C), and from others (N, D), all of them together
    counting as much as the words, to nothing."""
    others = others * (len(words) / len(others)) ** 0.5
    square = words.T @ words + others.T @ others
    centred = words - words.mean(0)
    ridge = RIDGE * (centred.T @ centred).diagonal().mean()
    return torch.linalg.solve(square + ridge * torch.eye(len(square), device=square.device), words.T @ colours).T
