"""Attention of the target's rows in bfloat16 on a CPU: the stock result, a sixth of the mini bundle's step sooner.

For pictures of a few hundred tokens PyTorch's fused attention takes nearly twice as long in bfloat16 as the two
products that it is made of; in float32 it is the faster one. And what is no matrix product a CPU does faster in
float32, so queries and keys are normalised and rotated there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import QwenImage21Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21AttnProcessor, QwenImage21KVLayerCache
from torch import Tensor

ALIGNMENT = 32
"""Keys are padded to a multiple: of a row, softmax does what does not fill a vector number by number."""


def attend_by_products(transformer: QwenImage21Transformer2DModel) -> None:
    """Give every block the processor below; weights stay as they are, results differ by rounding."""
    transformer.set_attn_processor(ProductAttnProcessor())


class ProductAttnProcessor(QwenImage21AttnProcessor):
    """softmax(Q K^T / sqrt(D) + bias) V as two products, where keys and values of the prefix are there already.

    It holds the scores of all heads at once: batch x heads x target tokens x keys numbers.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary_emb: Tensor | None = None,
        layer_cache: QwenImage21KVLayerCache | None = None,
        kv_cache_mode: str | None = None,
        **prefix: Any,
    ) -> Tensor:
        if kv_cache_mode != "cached":
            return super().__call__(
                attn, hidden_states, attention_mask, rotary_emb, layer_cache, kv_cache_mode, **prefix
            )
        width = attn.inner_dim // attn.heads
        query, key, value = (
            layer(hidden_states).unflatten(-1, (-1, width)) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query = _normalised_and_rotated(query, attn.norm_q, rotary_emb, scale=width**-0.5)
        key = _normalised_and_rotated(key, attn.norm_k, rotary_emb)
        length = layer_cache.k.shape[1] + key.shape[1]
        padding = key.new_zeros(len(key), attn.heads, -length % ALIGNMENT, width)
        key, value = (
            torch.cat([cached.transpose(1, 2), own.transpose(1, 2), padding], dim=2)
            for cached, own in zip(layer_cache.get(), (key, value), strict=True)
        )
        scores = query.transpose(1, 2) @ key.transpose(2, 3)
        scores[..., length:] = float("-inf")
        if attention_mask is not None:
            scores = scores + F.pad(attention_mask, (0, padding.shape[2]))
        attended = scores.softmax(-1) @ value
        return attn.to_out[0](attended.transpose(1, 2).flatten(2))


def _normalised_and_rotated(heads: Tensor, norm: torch.nn.Module, rotary: Tensor, scale: float = 1.0) -> Tensor:
    """heads: (B, S, heads, D). rotary: (S, D / 2) complex."""
    x = heads.float()
    x = x * (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * (norm.weight.float() * scale)
    rotated = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * rotary.unsqueeze(1)
    return torch.view_as_real(rotated).flatten(-2).to(heads.dtype)
