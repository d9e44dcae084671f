"""Qwen-Image-2.1: the 7B model and the mini bundle, one single-stream block-causal transformer.

Text and references are modulated at t = 0 and never see the target, so their keys and values are computed
once per prompt (`prefill`) and shared by every step, candidate and noise level. `velocity` then runs the
target's rows alone.

The order of the template decides what removing the references takes (`text_first`):
- text first (mini): the text cannot have seen the references, so at w = 0 everything from the first picture
  slot on is left out.
- pictures first (the stock order): the text has absorbed the references, in the VLM and in the transformer,
  so a second reading of it without pictures takes its place as w falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import QwenImage21Pipeline, QwenImage21Transformer2DModel
from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import _unpatchify
from diffusers.models.transformers.transformer_qwenimage21 import (
    QwenImage21KVCache,
    QwenImage21KVLayerCache,
    apply_rotary_emb_qwen,
)
from PIL import Image
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchEmbed

from core.backbones.protocol import Conditioning, Limits, repeat_rows
from core.backbones.qwen_family import (
    check_picture,
    check_prompt,
    fit_area,
    picture_tensor,
    sigma_grid,
    vae_denormalise,
    vae_encode,
)
from core.injection import PrefixLayout, attention_bias, check_reference_weight

PIXELS_PER_TOKEN = 16
TOKENS_PER_SLOT = 4
"""A slot of the VLM covers 32 x 32 px: 2 x 2 latent tokens."""

PICTURE_SLOT = "<image1><|vision_start|><|image_pad|><|vision_end|>"


@dataclass(frozen=True)
class Prefix:
    """Keys and values of text and references, computed once.

    keys, values: for each layer, (P, S, heads, head_dim), rotary embedding applied.
    layout: which of the S keys know the references.
    frame: the target's position on the rotary frame axis.
    valid: (P, S) bool, False at padding; None where nothing is padded.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    layout: PrefixLayout
    frame: int
    valid: Tensor | None


class QwenImage21Backbone:
    """The Backbone protocol on the components of a `QwenImage21Pipeline`.

    Args:
        pipeline: loaded, on its device; its prompt template is set according to `text_first`.
        reference_side: references are resized to this side squared in area, in pixels.
        text_first: the prompt stands before the pictures.
        text_stride: prompts before pictures are padded to a multiple of this many tokens. A small model that was
            trained on padded prompts takes the words of an unpadded one for pictures: it finds both by distance.
        max_references: limit the model was trained for.
    """

    def __init__(
        self,
        pipeline: QwenImage21Pipeline,
        *,
        reference_side: int,
        text_first: bool = False,
        text_stride: int = 1,
        max_references: int = 10,
    ) -> None:
        if text_first:
            pipeline.prompt_template_ti2i = text_first_template(pipeline.sys_prompt)
        self.pipeline = pipeline
        self.reference_side = reference_side
        self.text_first = text_first
        self.text_stride = text_stride
        self.limits = Limits(max_references=max_references, multiple_of=2 * PIXELS_PER_TOKEN)

    @property
    def transformer(self) -> QwenImage21Transformer2DModel:
        return self.pipeline.transformer

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.limits.check_size(height, width)
        return self.transformer.config.in_channels, height // PIXELS_PER_TOKEN, width // PIXELS_PER_TOKEN

    @torch.no_grad()
    def encode_prompt(self, prompt: str, references: Sequence[np.ndarray]) -> Conditioning:
        check_prompt(prompt)
        self.limits.check_references(len(references))
        pictures = [self._prepare(picture, index) for index, picture in enumerate(references)]
        embeddings, _, slots = self.pipeline.encode_prompt(prompt, image=pictures or None)
        latents = tuple(self.encode(picture_tensor(picture, self.device)) for picture in pictures)
        reference_tokens = sum(x0.shape[2] * x0.shape[3] for x0 in latents)
        if int(slots.sum()) * TOKENS_PER_SLOT != reference_tokens:
            raise ValueError(
                f"The VLM reads the references as {int(slots.sum())} slots, but {reference_tokens} latent "
                "tokens need "
                f"{reference_tokens // TOKENS_PER_SLOT}: references of {self.reference_side} px are outside "
                f"the sizes of its picture processor, {self.pipeline.processor.image_processor.size}."
            )
        absorbed = bool(pictures) and not self.text_first
        conditioning = Conditioning(
            embeddings=embeddings,
            picture_slots=slots[0],
            reference_latents=latents,
            without_references=self.encode_prompt(prompt, []) if absorbed else None,
        )
        if self.text_stride == 1 or not pictures:
            return conditioning
        missing = -int(slots[0].nonzero()[0]) % self.text_stride
        return conditioning.padded(len(slots[0]) + missing, before_pictures=True)

    def _prepare(self, picture: np.ndarray, index: int) -> Image.Image:
        check_picture(picture, index)
        height, width = fit_area(picture, self.reference_side)
        return self.pipeline.image_processor.resize(Image.fromarray(picture).convert("RGBA"), height, width)

    def stack(self, conditionings: Sequence[Conditioning]) -> Conditioning:
        return Conditioning.stack(conditionings, pad_before_pictures=self.text_first)

    def prefill(self, conditioning: Conditioning) -> Prefix:
        keys, values, frame, valid = self._read(conditioning)
        text_unaware = self.text_first and bool(conditioning.reference_latents)
        shared = int(conditioning.picture_slots.nonzero()[0]) if text_unaware else 0
        if valid is not None and len(conditioning) == 1:
            # Positions are in the keys by now, so padding can go instead of being masked at every step.
            shared = int(valid[0, :shared].sum())
            keys, values = (tuple(part[:, valid[0]] for part in parts) for parts in (keys, values))
            valid = None
        length = keys[0].shape[1]
        if not conditioning.reference_latents:
            return Prefix(
                keys,
                values,
                PrefixLayout(shared=length, with_references=0, without_references=0),
                frame,
                valid,
            )
        if conditioning.without_references is None:
            layout = PrefixLayout(shared=shared, with_references=length - shared, without_references=0)
            return Prefix(keys, values, layout, frame, valid)

        text_keys, text_values, text_frame, text_valid = self._read(conditioning.without_references)
        # Only distances count for rotary embeddings: moved along the frame axis, the reference-free text is
        # as far from the target as it would be if there were no references at all.
        text_keys = tuple(self._move_frames(key, frame - text_frame) for key in text_keys)
        if valid is not None or text_valid is not None:
            valid = torch.cat([_all_valid(valid, keys[0]), _all_valid(text_valid, text_keys[0])], dim=1)
        return Prefix(
            tuple(torch.cat(pair, dim=1) for pair in zip(keys, text_keys, strict=True)),
            tuple(torch.cat(pair, dim=1) for pair in zip(values, text_values, strict=True)),
            PrefixLayout(shared=0, with_references=length, without_references=text_keys[0].shape[1]),
            frame,
            valid,
        )

    def _read(self, conditioning: Conditioning) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], int, Tensor | None]:
        """Keys and values of one reading of the prefix, the frame after it, and where it is valid."""
        rows, device = len(conditioning), self.device
        latents = [x0.to(device) for x0 in conditioning.reference_latents]
        shapes = [(1, *x0.shape[2:]) for x0 in latents]
        slots = conditioning.picture_slots.to(device)
        # The stock forward wants a target; the smallest one, a single slot, is thrown away.
        dummy = torch.zeros(rows, TOKENS_PER_SLOT, self.transformer.config.in_channels, device=device)
        tokens = torch.cat(
            [*(x0.flatten(2).transpose(1, 2) for x0 in latents), dummy.to(self.transformer.dtype)], dim=1
        )
        cache = QwenImage21KVCache(len(self.transformer.transformer_blocks))
        self.transformer(
            hidden_states=tokens.to(self.transformer.dtype),
            encoder_hidden_states=conditioning.embeddings.to(device, self.transformer.dtype),
            encoder_hidden_states_mask=None if conditioning.valid is None else conditioning.valid.to(device),
            timestep=torch.zeros(rows, device=device),
            img_shapes=[[*shapes, (1, 2, 2)]] * rows,
            img_mask=torch.cat([slots, slots.new_ones(1)]).expand(rows, -1),
            kv_cache=cache,
            kv_cache_mode="extract",
            return_dict=False,
        )
        keys, values = zip(*(layer.get() for layer in cache.layer_caches), strict=True)
        frame = int((~slots).sum()) + sum(max(shape) for shape in shapes)
        valid = None
        if conditioning.valid is not None:
            repeats = torch.where(slots, TOKENS_PER_SLOT, 1)
            valid = conditioning.valid.to(device).repeat_interleave(repeats, dim=1)
        return keys, values, frame, valid

    def _move_frames(self, keys: Tensor, frames: int) -> Tensor:
        frame_axis, *spatial_axes = (freqs.to(keys.device) for freqs in self.transformer.pos_embed.freqs)
        rotation = torch.cat([frame_axis[frames], *(torch.ones_like(freqs[0]) for freqs in spatial_axes)])
        return apply_rotary_emb_qwen(keys, rotation.expand(keys.shape[1], -1), use_real=False)

    def velocity(self, prefix: Prefix, x_t: Tensor, sigma: Tensor, *, reference_weight: float | Tensor = 1.0) -> Tensor:
        batch, channels, rows, columns = x_t.shape
        check_reference_weight(reference_weight, batch)
        transformer = self.transformer
        hidden = transformer.img_in(x_t.flatten(2).transpose(1, 2).to(transformer.dtype))
        # The precision of the weights, as in the stock model; under autocast `hidden` has less.
        time = transformer.time_text_embed(sigma.to(transformer.dtype), hidden)
        modulation = transformer.modulation(time)
        rotary = self._target_rotary(prefix.frame, rows, columns)
        attended = prefix.layout.attended(reference_weight)
        bias = self._bias(prefix, reference_weight, batch, rows * columns, attended, hidden)

        for index, block in enumerate(transformer.transformer_blocks):
            cache = QwenImage21KVLayerCache()
            cache.store(
                repeat_rows(prefix.keys[index][:, attended], batch),
                repeat_rows(prefix.values[index][:, attended], batch),
            )
            # hidden states, modulation, rotary embedding, attention mask, target mask (every row is a
            # target's), cache.
            inputs = (hidden, modulation, rotary, bias, None, cache, "cached")
            if transformer.gradient_checkpointing and torch.is_grad_enabled():
                hidden = transformer._gradient_checkpointing_func(block, *inputs)
            else:
                hidden = block(*inputs)
        v_pred = transformer.proj_out(transformer.norm_out(hidden, time, None))
        return v_pred.float().transpose(1, 2).reshape(batch, channels, rows, columns)

    def _target_rotary(self, frame: int, rows: int, columns: int) -> Tensor:
        # The stock layout of a target that follows `frame` text tokens.
        is_picture = torch.arange(frame + rows * columns) >= frame
        return self.transformer.pos_embed([(1, rows, columns)], is_picture, device=self.device)[frame:]

    @staticmethod
    def _bias(
        prefix: Prefix, weight: float | Tensor, batch: int, target_tokens: int, attended: slice, like: Tensor
    ) -> Tensor | None:
        weights = prefix.layout.key_weights(weight, like)
        if prefix.valid is not None:
            valid = repeat_rows(prefix.valid[:, attended], batch).to(like.dtype)
            weights = valid if weights is None else weights * valid
        return None if weights is None else attention_bias(weights, target_tokens)

    def guide(self, v_pred: Tensor, v_negative: Tensor, scale: float) -> Tensor:
        return v_negative + scale * (v_pred - v_negative)

    def sigmas(self, steps: int, height: int, width: int) -> Tensor:
        _, rows, columns = self.latent_shape(height, width)
        return sigma_grid(self.pipeline.scheduler, steps, rows * columns, self.pipeline.config.sample_sigmas)

    def encode(self, pictures: Tensor) -> Tensor:
        # The VAE reads RGBA; portraits are opaque.
        return vae_encode(self.pipeline.vae, torch.cat([pictures, torch.ones_like(pictures[:, :1])], dim=1) * 2 - 1)

    def decode(self, latents: Tensor) -> Tensor:
        # The parts of `vae.decode` without its clamp, which would stop gradients at the edge of the range.
        vae = self.pipeline.vae
        frames = vae.decoder(vae.post_quant_conv(vae_denormalise(vae, latents)), first_chunk=True)
        if vae.config.patch_size is not None:
            frames = _unpatchify(frames, vae.config.patch_size)
        return (frames[:, :3, 0].float() + 1) / 2


class PatchEmbedAsProduct(Qwen3VLVisionPatchEmbed):
    """The first layer of the vision tower as the matrix product it is: its kernel is as large as its stride.

    As a three-dimensional convolution over single patches it takes most of the time of a small model on a CPU.
    """

    def forward(self, patches: Tensor) -> Tensor:
        weight = self.proj.weight
        return F.linear(patches.to(weight.dtype), weight.flatten(1), self.proj.bias)


def embed_patches_as_product(vlm: Qwen3VLForConditionalGeneration) -> None:
    """Give `vlm` the class above for its first layer; the weights stay where they are."""
    vlm.model.visual.patch_embed.__class__ = PatchEmbedAsProduct


def text_first_template(system_prompt: str) -> str:
    """The stock picture-and-text template with the prompt before the pictures."""
    return (
        f"<|im_start|>system\n{system_prompt}<|im_end|>\n"
        f"<|im_start|>user\n{{}} {PICTURE_SLOT}<|im_end|>\n<|im_start|>assistant\n"
    )


def _all_valid(valid: Tensor | None, keys: Tensor) -> Tensor:
    return keys.new_ones(keys.shape[:2], dtype=torch.bool) if valid is None else valid
