"""Qwen-Image-Edit-Plus (Qwen-Image-Edit-2509, -2511), the paper's base: a 20B double-stream transformer.

References are appended after the target's tokens, attend to the noisy target, and the text attends to
everything: nothing can be computed before the first step, and no weight on attention can take the references
out of the text once the VLM has read them. So a prefix is the conditioning itself, and the reference weight w
blends two velocities, v = v_without + w (v_with - v_without): the stock model at w = 1, the model without any
reference at w = 0, one pass at either end and two between.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import QwenImageEditPlusPipeline, QwenImageTransformer2DModel
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from PIL import Image
from torch import Tensor, nn

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
from core.injection import check_reference_weight

PATCH = 2
"""Side of the square of latent pixels that makes a token."""


class QwenImageEditPlusBackbone:
    """The Backbone protocol on the components of a `QwenImageEditPlusPipeline`.

    Args:
        pipeline: loaded, on its device. Its text encoder and VAE get the two repairs below.
        reference_side: references reach the VAE resized to this side squared in area, in pixels.
        condition_side: the same for the VLM.
        max_references: limit the model was trained for.
    """

    def __init__(
        self,
        pipeline: QwenImageEditPlusPipeline,
        *,
        reference_side: int = 1024,
        condition_side: int = 384,
        max_references: int = 3,
    ) -> None:
        _mark_picture_tokens(pipeline.text_encoder)
        _fold_single_frames(pipeline.vae)
        self.pipeline = pipeline
        self.reference_side = reference_side
        self.condition_side = condition_side
        self.limits = Limits(max_references=max_references, multiple_of=PATCH * pipeline.vae_scale_factor)

    @property
    def transformer(self) -> QwenImageTransformer2DModel:
        return self.pipeline.transformer

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.limits.check_size(height, width)
        scale = self.pipeline.vae_scale_factor
        return self.transformer.config.in_channels // PATCH**2, height // scale, width // scale

    @torch.no_grad()
    def encode_prompt(self, prompt: str, references: Sequence[np.ndarray]) -> Conditioning:
        check_prompt(prompt)
        self.limits.check_references(len(references))
        for index, picture in enumerate(references):
            check_picture(picture, index)
        latents = tuple(
            self.encode(picture_tensor(p, self.device)) for p in self._resized(references, self.reference_side)
        )
        read = self._resized(references, self.condition_side)
        embeddings, _ = self.pipeline.encode_prompt(prompt, image=read or None)
        return Conditioning(
            embeddings=embeddings,
            picture_slots=torch.zeros(embeddings.shape[1], dtype=torch.bool, device=embeddings.device),
            reference_latents=latents,
            without_references=self.encode_prompt(prompt, []) if read else None,
        )

    def _resized(self, references: Sequence[np.ndarray], side: int) -> list[Image.Image]:
        resize = self.pipeline.image_processor.resize
        return [resize(Image.fromarray(picture), *fit_area(picture, side)) for picture in references]

    def stack(self, conditionings: Sequence[Conditioning]) -> Conditioning:
        return Conditioning.stack(conditionings)

    def prefill(self, conditioning: Conditioning) -> Conditioning:
        return conditioning.to(self.device, self.transformer.dtype)

    def velocity(
        self, prefix: Conditioning, x_t: Tensor, sigma: Tensor, *, reference_weight: float | Tensor = 1.0
    ) -> Tensor:
        check_reference_weight(reference_weight, len(x_t))
        if prefix.without_references is None or (not isinstance(reference_weight, Tensor) and reference_weight == 1):
            return self._forward(prefix, x_t, sigma)
        v_without = self._forward(prefix.without_references, x_t, sigma)
        if not isinstance(reference_weight, Tensor):
            if reference_weight == 0:
                return v_without
            reference_weight = x_t.new_full((len(x_t),), reference_weight)
        v_with = self._forward(prefix, x_t, sigma)
        return torch.lerp(v_without, v_with, reference_weight.to(v_with).view(-1, 1, 1, 1))

    def _forward(self, conditioning: Conditioning, x_t: Tensor, sigma: Tensor) -> Tensor:
        batch, _, rows, columns = x_t.shape
        pictures = [x_t, *(repeat_rows(x0, batch) for x0 in conditioning.reference_latents)]
        shapes = [(1, picture.shape[2] // PATCH, picture.shape[3] // PATCH) for picture in pictures]
        target_tokens = shapes[0][1] * shapes[0][2]
        v_pred = self.transformer(
            hidden_states=torch.cat([_pack(picture) for picture in pictures], dim=1).to(self.transformer.dtype),
            timestep=sigma.to(self.transformer.dtype),
            encoder_hidden_states=repeat_rows(conditioning.embeddings, batch),
            encoder_hidden_states_mask=None if conditioning.valid is None else repeat_rows(conditioning.valid, batch),
            img_shapes=[shapes] * batch,
            return_dict=False,
        )[0][:, :target_tokens]
        return _unpack(v_pred.float(), rows, columns)

    def guide(self, v_pred: Tensor, v_negative: Tensor, scale: float) -> Tensor:
        # The family keeps the conditional velocity's length in every token.
        guided = v_negative + scale * (v_pred - v_negative)
        lengths = (_pack(v).norm(dim=-1, keepdim=True) for v in (v_pred, guided))
        v_length, guided_length = lengths
        return _unpack(_pack(guided) * (v_length / guided_length), *v_pred.shape[2:])

    def sigmas(self, steps: int, height: int, width: int) -> Tensor:
        _, rows, columns = self.latent_shape(height, width)
        return sigma_grid(self.pipeline.scheduler, steps, rows * columns // PATCH**2)

    def encode(self, pictures: Tensor) -> Tensor:
        return vae_encode(self.pipeline.vae, pictures * 2 - 1)

    def decode(self, latents: Tensor) -> Tensor:
        # The parts of `vae.decode` without its clamp, which would stop gradients at the edge of the range.
        vae = self.pipeline.vae
        frames = vae.decoder(vae.post_quant_conv(vae_denormalise(vae, latents)))
        return (frames[:, :3, 0].float() + 1) / 2


def _pack(latents: Tensor) -> Tensor:
    """(B, C, rows, columns) -> (B, rows / 2 * columns / 2, C * 4), one token for each 2 x 2 square."""
    batch, channels, rows, columns = latents.shape
    squares = latents.view(batch, channels, rows // PATCH, PATCH, columns // PATCH, PATCH)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def _unpack(tokens: Tensor, rows: int, columns: int) -> Tensor:
    batch, _, channels = tokens.shape
    squares = tokens.view(batch, rows // PATCH, columns // PATCH, channels // PATCH**2, PATCH, PATCH)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, rows, columns)


def _mark_picture_tokens(text_encoder: nn.Module) -> None:
    """Tell the VLM which of its tokens are pictures.

    transformers 5 takes that from `mm_token_type_ids`, which the stock pipeline does not pass (diffusers
    #14194): the pictures' two-dimensional positions are lost without a word.
    """

    def add_token_types(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if kwargs.get("pixel_values") is not None and kwargs.get("mm_token_type_ids") is None:
            is_picture = kwargs["input_ids"] == module.config.image_token_id
            kwargs["mm_token_type_ids"] = is_picture.to(torch.int)
        return args, kwargs

    text_encoder.register_forward_pre_hook(add_token_types, with_kwargs=True)


def _fold_single_frames(vae: nn.Module) -> None:
    """Let the VAE's causal 3-D convolutions work in two dimensions on a single frame.

    A picture is one frame padded with empty ones in front, so only the last temporal tap ever meets anything
    but
    zeros: the result is the same and half the work is saved.
    """
    for module in vae.modules():
        if isinstance(module, QwenImageCausalConv3d) and module.stride[0] == 1:
            module.forward = MethodType(_single_frame_forward, module)


def _single_frame_forward(conv: QwenImageCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    if cache_x is not None or x.shape[2] != 1 or conv._padding[4] != conv.kernel_size[0] - 1:
        return QwenImageCausalConv3d.forward(conv, x, cache_x)
    padded = F.pad(x[:, :, 0], conv._padding[:4])
    return F.conv2d(padded, conv.weight[:, :, -1], conv.bias, conv.stride[1:]).unsqueeze(2)
