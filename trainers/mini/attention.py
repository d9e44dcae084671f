"""Attention of the transformer while it trains: the stock result, on a CPU about twice as fast.

The stock processor turns rotary embeddings into complex numbers in float32, and on a CPU PyTorch's fused attention has
a slow backward pass for short sequences in bfloat16. Here rotation is two real products, which compile well, and on a
CPU the backward pass is five plain matrix products, which processors with bfloat16 matrix units are made for.
`tests/trainers/test_mini_transformer.py` compares both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import QwenImage21Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVLayerCache
from torch import Tensor


def speed_up_training(model: QwenImage21Transformer2DModel, *, compiled: bool) -> None:
    """Give every block the processor below, and compile it if wanted; weights and results stay the same."""
    if compiled:
        # for every number of people the prefix in a few lengths, and the target; both with and without gradients
        torch._dynamo.config.recompile_limit = 64
    # A GPU takes ten times as long to compile, and loses little by not knowing the lengths.
    dynamic = next(model.parameters()).device.type != "cpu"
    for block in model.transformer_blocks:
        block.attn.set_processor(TrainingAttnProcessor())
        if compiled:
            block.compile(dynamic=dynamic)


class TrainingAttnProcessor:
    """What `QwenImage21AttnProcessor` computes, with the same arguments.

    watched: keep what the target's last look was made of for `take_look`.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, *, watched: bool = False) -> None:
        self._watched = watched
        self._look: tuple[Tensor, Tensor, Tensor | None] | None = None

    def take_look(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Query (B, T, heads, D) and key (B, S, heads, D), prefix first, both rotated, and the bias of the scores."""
        look, self._look = self._look, None
        return look

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary_emb: Tensor | None = None,
        layer_cache: QwenImage21KVLayerCache | None = None,
        kv_cache_mode: str | None = None,
        cache_write_slice: slice | None = None,
        segments: list[tuple[int, int, bool]] | None = None,
        key_valid: Tensor | None = None,
    ) -> Tensor:
        heads = attn.inner_dim // attn.heads
        query, key, value = (
            layer(hidden_states).unflatten(-1, (-1, heads)) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = _normalise(query, attn.norm_q), _normalise(key, attn.norm_k)
        if rotary_emb is not None:
            cos, sin = _rotation(rotary_emb, query.dtype)
            query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        if kv_cache_mode == "extract":
            layer_cache.store(key[:, cache_write_slice], value[:, cache_write_slice])
        elif kv_cache_mode == "cached":
            cached_key, cached_value = layer_cache.get()
            key, value = torch.cat([cached_key, key], dim=1), torch.cat([cached_value, value], dim=1)
            if self._watched:
                self._look = query, key, attention_mask

        if segments is None:
            attended = _attend(query, key, value, attention_mask)
        else:
            # Text is causal, every picture sees itself and what stands before it: one call, one mask.
            attended = _attend(query, key, value, _prefix_mask(segments, query.shape[1], key_valid, query))
        return attn.to_out[0](attended.flatten(2))


def _normalise(heads: Tensor, norm: torch.nn.Module) -> Tensor:
    return F.rms_norm(heads, heads.shape[-1:], norm.weight.to(heads.dtype), norm.eps)


def _rotation(rotary: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(S, 1, D) cosine and signed sine of complex (S, D / 2) factors, repeated for both halves of each pair."""
    cos = rotary.real.repeat_interleave(2, dim=-1)
    sin = torch.stack([-rotary.imag, rotary.imag], dim=-1).flatten(-2)
    return cos.unsqueeze(1).to(dtype), sin.unsqueeze(1).to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * cos, swapped, sin)


def _prefix_mask(segments: list[tuple[int, int, bool]], length: int, key_valid: Tensor | None, like: Tensor) -> Tensor:
    """(1 or B, 1, S, S) added to the scores: 0 where a row may look, -inf elsewhere."""
    allowed = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    for start, end, is_text in segments:
        if not is_text:
            allowed[start:end, start:end] = True
    prefix = segments[-1][1] if segments else 0
    allowed[prefix:] = True
    allowed = allowed[None, None]
    if key_valid is not None:
        allowed = allowed & key_valid[:, None, None, :]
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill_(~allowed, float("-inf"))


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """(B, S, heads, D) as in the stock code; `bias` is added to the scores (or a bool mask of what may be seen)."""
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(~bias, float("-inf"))
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    attend = _Attention.apply if query.device.type == "cpu" else F.scaled_dot_product_attention
    return attend(query, key, value, bias).transpose(1, 2)


class _Attention(torch.autograd.Function):
    """softmax(Q K^T / sqrt(D) + bias) V; the bias takes no gradient."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        ctx.save_for_backward(query, key, value, bias, attended)
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, attended = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        scores = (query * scale) @ key.transpose(-1, -2)
        probabilities = (scores if bias is None else scores + bias).softmax(-1)
        value_gradient = probabilities.transpose(-1, -2) @ gradient
        inner = (gradient * attended).sum(-1, keepdim=True)
        scores = (gradient @ value.transpose(-1, -2)).sub_(inner).mul_(probabilities)
        return (scores @ key) * scale, scores.transpose(-1, -2) @ (query * scale), value_gradient, None
