"""The untrained parts of a mini bundle: the classes of Qwen-Image-2.1 at small sizes, started well.

Fixed by the classes: a VLM slot is 32 x 32 px and stands for 2 x 2 latent tokens of 16 x 16 px, the rotary
axes add up to the head size, and the VLM's rotary sections to half of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLQwenImage21, QwenImage21Transformer2DModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from core.backbones.processors import PictureQwen3VLProcessor
from core.backbones.qwen_image_21 import embed_patches_as_product
from trainers.mini.geometry import PATCH

LATENT_CHANNELS = 64
HEAD_SIZE = 64
ROPE_AXES = (16, 24, 24)
"""Rotary channels for frame, row and column."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}"
    "{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'text' %}{{- part['text'] }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True, kw_only=True)
class VlmSize:
    hidden_size: int = 256
    layers: int = 4
    """Decoder layers; half as many key-value heads as query heads."""
    heads: int = 4
    vision_hidden_size: int = 192
    vision_layers: int = 4
    vocabulary: int = 2048
    """Upper bound of the byte-level BPE, special tokens not counted; at least 256."""

    def __post_init__(self) -> None:
        if self.vocabulary < 256:
            raise ValueError(f"vocabulary is {self.vocabulary}; a byte-level tokenizer needs at least 256")
        if self.vision_hidden_size % HEAD_SIZE:
            raise ValueError(f"vision_hidden_size is {self.vision_hidden_size}; it must be a multiple of {HEAD_SIZE}")


@dataclass(frozen=True, kw_only=True)
class TransformerSize:
    hidden_size: int = 256
    layers: int = 8
    mlp_ratio: int = 3

    def __post_init__(self) -> None:
        if self.hidden_size % HEAD_SIZE:
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be a multiple of {HEAD_SIZE}")


@dataclass(frozen=True, kw_only=True)
class VaeSize:
    encoder_width: int = 192
    decoder_width: int = 256

    def __post_init__(self) -> None:
        least = 2 * LATENT_CHANNELS + 1
        for name in ("encoder_width", "decoder_width"):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; the PCA start needs at least {least} channels")


def build_tokenizer(corpus: Iterable[str], size: VlmSize) -> Qwen2Tokenizer:
    """Train a byte-level BPE with Qwen's splitting rules on `corpus`; any text can be encoded."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=size.vocabulary,
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    model = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
    )


def build_processor(tokenizer: Qwen2Tokenizer) -> PictureQwen3VLProcessor:
    """Processor whose picture part keeps sizes that are multiples of 32 px, down to one slot."""
    slot = 2 * PATCH
    pictures = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": slot * slot, "longest_edge": 1024 * 1024},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return PictureQwen3VLProcessor(
        image_processor=pictures, tokenizer=tokenizer, video_processor=None, chat_template=CHAT_TEMPLATE
    )


def build_vlm(tokenizer: Qwen2Tokenizer, size: VlmSize) -> Qwen3VLForConditionalGeneration:
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": (len(tokenizer) + 63) // 64 * 64,
        "hidden_size": size.hidden_size,
        "intermediate_size": 3 * size.hidden_size,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": max(1, size.heads // 2),
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": 8192,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e5,
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        },
        "pad_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden_size,
        "intermediate_size": 3 * size.vision_hidden_size,
        "num_heads": size.vision_hidden_size // HEAD_SIZE,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": size.hidden_size,
        "num_position_embeddings": 16 * 16,
        "deepstack_visual_indexes": [size.vision_layers // 2],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    vlm = Qwen3VLForConditionalGeneration(config)
    vlm.generation_config.eos_token_id = token("<|im_end|>")
    vlm.generation_config.pad_token_id = token("<|endoftext|>")
    embed_patches_as_product(vlm)
    return vlm


def build_vae(size: VaeSize) -> AutoencoderKLQwenImage21:
    """One latent token per 16 x 16 px, taken apart and put together at that resolution; RGBA in, RGB out."""
    return AutoencoderKLQwenImage21(
        base_dim=size.encoder_width,
        decoder_base_dim=size.decoder_width,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1],
        num_res_blocks=1,
        temperal_downsample=[],
        patch_size=PATCH,
        in_channels=4 * PATCH * PATCH,
        out_channels=3 * PATCH * PATCH,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_temporal=1,
        scale_factor_spatial=PATCH,
    )


def build_transformer(size: TransformerSize, context_size: int) -> QwenImage21Transformer2DModel:
    """The transformer with weights scaled for quick learning at this size; `context_size` is the VLM's hidden
    size."""
    model = QwenImage21Transformer2DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=size.layers,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=size.hidden_size // HEAD_SIZE,
        context_in_dim=context_size,
        mlp_ratio=size.mlp_ratio,
        axes_dims_rope=ROPE_AXES,
    )
    _scale_weights(model, size)
    return model


FIRST_BLOCKS = 3
"""Blocks that nothing is put between when a transformer grows: their heads look at references and words."""


@torch.no_grad()
def grow(small: QwenImage21Transformer2DModel, model: QwenImage21Transformer2DModel) -> None:
    """Give `model`, which may have more blocks, the weights of `small`; at first it computes the same.

    Every block but the first ones is followed by its share of the new blocks: copies of it that add nothing yet.

    Raises:
        ValueError: `model` has fewer blocks, or sizes differ otherwise.
    """
    blocks, wanted = len(small.transformer_blocks), len(model.transformer_blocks)
    if wanted < blocks:
        raise ValueError(f"the transformer to go on from has {blocks} blocks, the wanted one {wanted}")
    growing = list(range(min(FIRST_BLOCKS, blocks - 1), blocks))
    copies = [0] * blocks
    for number in range(wanted - blocks):
        copies[growing[number % len(growing)]] += 1
    sources = [(block, copy) for block in range(blocks) for copy in range(copies[block] + 1)]
    weights = {name: w for name, w in small.state_dict().items() if not name.startswith("transformer_blocks.")}
    for number, (block, copy) in enumerate(sources):
        for name, weight in small.transformer_blocks[block].state_dict().items():
            adds = name in ("attn.to_out.0.weight", "img_mlp.out.weight")
            weights[f"transformer_blocks.{number}.{name}"] = torch.zeros_like(weight) if copy and adds else weight
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the transformer to go on from has other sizes: {error}") from error


@dataclass(frozen=True)
class Offset:
    """Where a target token finds its counterpart: target minus reference on the frame, row and column axes."""

    frames: int
    rows: int
    columns: int


@torch.no_grad()
def _scale_weights(model: QwenImage21Transformer2DModel, size: TransformerSize) -> None:
    residual = (2 * size.layers) ** -0.5
    for block in model.transformer_blocks:
        attention, mlp = block.attn, block.img_mlp
        for layer in (attention.to_q, attention.to_k, attention.to_v, mlp.proj, mlp.gate_layer):
            _normal(layer)
        _normal(attention.to_out[0], residual)
        _normal(mlp.out, residual)
    _normal(model.img_in)
    _normal(model.txt_in.in_layer)
    _normal(model.txt_in.out_layer)
    model.proj_out.weight.zero_()
    _scale_modulation(model)


def _normal(layer: nn.Linear, gain: float = 1.0) -> None:
    layer.weight.normal_(0.0, gain * layer.in_features**-0.5)


def _scale_modulation(model: QwenImage21Transformer2DModel) -> None:
    """Slow sinusoids of sigma first, scales near zero, gates near tanh(1) at every sigma."""
    time, linear, width = model.time_text_embed, model.modulation[1], model.inner_dim
    fast = 1000 * time.time_proj.freqs > 12
    time.timestep_embedder.linear_1.weight.mul_(torch.where(fast, 0.1, 1.0).repeat(2))
    sigmas = torch.linspace(0, 1, 21)
    last = time.timestep_embedder.linear_2
    _normal(last)
    last.weight.div_(time(sigmas, sigmas).std())
    features = nn.functional.silu(time(sigmas, sigmas))
    linear.weight.normal_(0.0, 0.1 * float(features.norm(dim=1).mean()) ** -1)
    # no layer has a bias: the direction that gives 1 at every sigma, in the sense of least squares
    steady = torch.linalg.lstsq(features, torch.ones(len(sigmas), 1), driver="gelsd").solution[:, 0]
    for gates in (linear.weight[width : 2 * width], linear.weight[3 * width :]):
        gates.add_(steady)
    model.norm_out.linear.weight.mul_(0.2)


@torch.no_grad()
def look_at_references(model: QwenImage21Transformer2DModel, offsets: Sequence[Offset]) -> None:
    """Start heads of the second and later blocks looking at the counterpart of each target token, and copying it.

    Nothing in this class has a bias, so at first no attention can depend on position alone, and a small model needs
    thousands of steps to find out that references help. Here the first block's MLP makes a constant out of the
    squares of its normalised input; queries and keys made of that constant peak, through the rotary embedding, at
    the wanted offset; values carry the reference's latents into channels of their own. All of it stays trainable.
    """
    width, heads = model.inner_dim, model.inner_dim // HEAD_SIZE
    channels = LATENT_CHANNELS
    if width < 3 * channels:
        raise ValueError(f"hidden_size is {width}; looking at references needs at least {3 * channels}")
    if len(offsets) > heads * (len(model.transformer_blocks) - 1):
        raise ValueError(f"{len(offsets)} offsets need more heads than blocks after the first have")
    basis, _ = torch.linalg.qr(torch.randn(width, width))
    own, copied, other = basis[:, :channels], basis[:, channels : 2 * channels], basis[:, 2 * channels : 3 * channels]
    constant, other = other[:, -1], other[:, :-1]

    model.img_in.weight.copy_(own)
    mlp = model.transformer_blocks[0].img_mlp
    half = mlp.proj.out_features // 2
    mlp.gate_layer.weight[:half] = mlp.proj.weight[:half]
    # sum over the half of g * silu(g), g of unit variance, is about 0.6 * half
    mlp.out.weight[:, :half] = constant[:, None] * (channels**0.5 / (0.6 * half * _GATE))
    for number, offset in enumerate(offsets):
        attention = model.transformer_blocks[1 + number // heads].attn
        rows = slice(HEAD_SIZE * (number % heads), HEAD_SIZE * (number % heads + 1))
        query, key = _position_vectors(offset)
        attention.to_q.weight[rows] = 0.1 * attention.to_q.weight[rows] + torch.outer(query, constant)
        attention.to_k.weight[rows] = 0.1 * attention.to_k.weight[rows] + torch.outer(key, constant)
        attention.norm_q.weight.fill_(_SHARPNESS)
        attention.norm_k.weight.fill_(_SHARPNESS)
        attention.to_v.weight[rows] = own.T
        into = copied if number // heads == 0 else torch.cat([other, copied[:, :1] * 0], dim=1)
        # normalised inputs are 1.2 times the latents where a constant of equal size stands beside them
        attention.to_out[0].weight[:, rows] = into / (1.2 * _GATE)


_GATE = math.tanh(1.0)
_SHARPNESS = 1.7
_FAST = ((0, 3, 1.0), (16, 2, 1.2), (40, 2, 1.2))
"""Rotary pairs that tell positions apart, for frame, row and column: first channel, number of pairs, weight."""


def _position_vectors(offset: Offset) -> tuple[Tensor, Tensor]:
    """Query and key of a head (64,) whose product peaks where target minus reference position is `offset`."""
    query, key = torch.zeros(HEAD_SIZE), torch.zeros(HEAD_SIZE)
    distances, sizes = (offset.frames, offset.rows, offset.columns), ROPE_AXES
    for (first, pairs, weight), distance, size in zip(_FAST, distances, sizes, strict=True):
        for pair in range(pairs):
            angle = -distance * 10000 ** (-2 * pair / size)
            channel = first + 2 * pair
            query[channel], query[channel + 1] = weight * math.cos(angle), weight * math.sin(angle)
            key[channel] = weight
    return query, key
