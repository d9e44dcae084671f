"""Clothes learn to look at the words that name them: on a tiny random transformer of the real classes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21AttnProcessor, apply_rotary_emb_qwen

from core.backbones.bundles import load_bundle
from tests.tiny_bundles import write_tiny_bundle
from trainers.mini.attention import speed_up_training
from trainers.mini.data import Example
from trainers.mini.feeding import Batch
from trainers.mini.latents import clothes_words
from trainers.mini.reading_term import BLOCKS, COLOURS, GAIN, HEAD, ReadingTerm, _pass_through, start_reading

PROMPT = "the man with a red hat and the woman with blue glasses"
EXAMPLE = Example(
    task="group",
    people=(0, 1),
    references=(0, 1),
    picture=0,
    size=(64, 96),
    boxes=((8, 8, 24, 24), (56, 8, 72, 24)),
    landmarks=(((16.0, 16.0),) * 5,) * 2,
    scene="",
    prompt=PROMPT,
    attributes=({"clothes": "red hat"}, {"clothes": "blue glasses"}),
)
LEVELS = 2


@pytest.fixture
def backbone(tmp_path):
    return load_bundle(write_tiny_bundle(tmp_path / "bundle")).backbone


def conditioning_of(backbone, prompt=PROMPT):
    rng = np.random.default_rng(0)
    return backbone.encode_prompt(prompt, [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(2)])


def words_of(conditioning, backbone, prompt=PROMPT):
    before = int(conditioning.picture_slots.int().argmax())
    missing = 0 if conditioning.valid is None else int((~conditioning.valid).sum())
    return clothes_words(prompt, EXAMPLE, backbone.pipeline.processor.tokenizer, before - missing)


def batch_of(backbone, conditioning) -> Batch:
    words = torch.zeros(1, 2, len(conditioning.picture_slots), dtype=torch.bool)
    found = words_of(conditioning, backbone)
    for person in range(2):
        words[0, person, : len(found)] = found >> person & 1
    clothes = torch.zeros(1, 2, 4, 6)
    clothes[0, 0, 2:, :3] = clothes[0, 1, 2:, 3:] = 1.0
    clothes[0, 0, 1] = 0.4  # too little to be supervised
    x0 = torch.randn(1, *backbone.latent_shape(64, 96), generator=torch.Generator().manual_seed(0))
    return Batch(conditioning, x0, clothes.amax(1), clothes, words, torch.zeros(1, 2, 5, 2))


def look(backbone, batch, reference_weight=1.0) -> None:
    x_t = batch.target.repeat_interleave(LEVELS, dim=0)
    backbone.velocity(
        backbone.prefill(batch.conditioning), x_t, torch.tensor([0.9, 0.4]), reference_weight=reference_weight
    )


def test_the_words_of_clothes_are_where_another_word_changes_the_embeddings(backbone):
    """The text encoder is causal: nothing changes before the word that was exchanged."""
    own = conditioning_of(backbone)
    found = words_of(own, backbone)
    for person, (word, other) in enumerate((("red", "blue"), ("blue", "red"))):
        changed = conditioning_of(backbone, PROMPT.replace(word, other))
        differs = (own.embeddings != changed.embeddings).any(-1)[0].nonzero()[0]
        assert int((found >> person & 1).nonzero()[0]) == int(differs)
    assert not words_of(conditioning_of(backbone, "two people"), backbone, "two people").any()


@pytest.mark.parametrize("reference_weight", [1.0, torch.tensor([1.0, 0.0])], ids=["all", "one without references"])
def test_it_is_the_attention_of_the_stock_model(backbone, reference_weight):
    blocks = backbone.transformer.transformer_blocks
    conditioning = conditioning_of(backbone)
    conditioning = conditioning.padded(len(conditioning.picture_slots) + 5, before_pictures=True)
    batch = batch_of(backbone, conditioning)
    seen = {}

    class Recorder(QwenImage21AttnProcessor):
        def __call__(self, attn, hidden_states, attention_mask=None, rotary_emb=None, layer_cache=None, **rest):
            if rest.get("kv_cache_mode") == "cached":
                query, key = (
                    apply_rotary_emb_qwen(norm(layer(hidden_states).unflatten(-1, (attn.heads, -1))), rotary_emb, False)
                    for layer, norm in ((attn.to_q, attn.norm_q), (attn.to_k, attn.norm_k))
                )
                seen["scores"] = torch.einsum(
                    "bqd,bkd->bqk", query[:, :, HEAD], torch.cat([layer_cache.get()[0], key], 1)[:, :, HEAD]
                )
                seen["scores"] = seen["scores"] / query.shape[-1] ** 0.5 + (
                    0 if attention_mask is None else attention_mask[:, 0]
                )
            return super().__call__(attn, hidden_states, attention_mask, rotary_emb, layer_cache, **rest)

    watched = [number for number in BLOCKS if number < len(blocks)]
    assert watched == [2]
    blocks[2].attn.set_processor(Recorder())
    look(backbone, batch, reference_weight)
    attention = seen["scores"].softmax(-1)
    expected = []
    for row in range(LEVELS):
        for person in range(2):
            for token in (batch.clothes[0, person].flatten() > 0.5).nonzero().flatten().tolist():
                words = batch.clothes_words[0, person].nonzero().flatten().tolist()
                expected.append(-attention[row, token, words].sum().log())

    speed_up_training(backbone.transformer, compiled=False)
    term = ReadingTerm(backbone.transformer)
    look(backbone, batch, reference_weight)
    assert term(batch, LEVELS).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


def test_learning_it_moves_attention_to_the_words(backbone):
    transformer = backbone.transformer.requires_grad_(True)
    speed_up_training(transformer, compiled=False)
    term, batch = ReadingTerm(transformer), batch_of(backbone, conditioning_of(backbone))
    optimizer = torch.optim.Adam(transformer.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        look(backbone, batch)
        loss = term(batch, LEVELS)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    copy.deepcopy(transformer)  # as for its moving average: no graph hangs on it
    assert losses[-1] < 0.5 * losses[0]


def test_heads_start_with_what_colours_look_like(backbone):
    """Clothes show one pattern where the prompt says red, and its opposite where it says blue."""
    transformer = backbone.transformer
    pattern = torch.randn(16, 1, 1, generator=torch.Generator().manual_seed(5))
    exchanged = PROMPT.replace("red hat", "blue hat").replace("blue glasses", "red glasses")
    batches = []
    for prompt, signs in ((PROMPT, (1, -1)), (exchanged, (-1, 1))):
        conditioning = conditioning_of(backbone, prompt)
        conditioning = conditioning.padded(len(conditioning.picture_slots) + 5, before_pictures=True)
        batch = batch_of(backbone, conditioning)
        x0 = sum(sign * pattern * batch.clothes[:, [person]] for person, sign in enumerate(signs))
        batches.append(replace(batch, target=x0))
    start_reading(backbone, batches)

    channels, size = 16, transformer.config.attention_head_dim
    for batch, signs in zip(batches, ((1, -1), (-1, 1)), strict=True):
        values = backbone.prefill(batch.conditioning).values[BLOCKS[0]][0, :, HEAD, :channels]
        for person, sign in enumerate(signs):
            (word,) = batch.clothes_words[0, person].nonzero().flatten().tolist()
            told = values[word] @ pattern.flatten() / pattern.square().sum()
            assert sign * told > 0.1  # the rest is the price of saying nothing at other tokens
    rows = torch.arange(transformer.inner_dim).view(-1, size)[HEAD, :channels]
    off_the_velocity = (
        transformer.proj_out.weight @ transformer.transformer_blocks[BLOCKS[0]].attn.to_out[0].weight[:, rows]
    )
    assert torch.allclose(off_the_velocity, -GAIN * torch.eye(channels), atol=1e-3)


def test_colours_pass_the_text_projection_in_proportion(backbone):
    """The units that pass them on are linear, though all others are not."""
    projection = backbone.transformer.txt_in
    generator = torch.Generator().manual_seed(2)
    words, others = (torch.randn(count, 64, generator=generator) for count in (40, 200))
    before = projection.in_layer.weight.clone()
    _pass_through(projection, torch.randn(16, 64, generator=generator), words, others)
    changed = (projection.in_layer.weight != before).any(1)
    assert int(changed.sum()) == 2 * COLOURS

    def passed(x):
        return torch.nn.functional.gelu(x @ projection.in_layer.weight[changed].T, approximate="tanh") @ (
            projection.out_layer.weight[:, changed].T
        )

    assert torch.allclose(passed(words[:20] + words[20:]), passed(words[:20]) + passed(words[20:]), atol=1e-4)
    assert passed(words).norm(dim=1).mean() > 0.2 * projection(others).norm(dim=1).mean()


def test_prompts_that_name_no_clothes_cost_nothing(backbone):
    term, batch = ReadingTerm(backbone.transformer), batch_of(backbone, conditioning_of(backbone))
    look(backbone, batch)
    assert term(batch, LEVELS) is not None
    look(backbone, batch)
    assert term(replace(batch, clothes_words=torch.zeros_like(batch.clothes_words)), LEVELS) is None
