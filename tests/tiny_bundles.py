"""Complete bundles with tiny random weights of both model families, built without any download.

They are the real diffusers and transformers classes at the smallest sizes their geometry allows, so
everything that loads, samples, trains or serves a bundle can be tested on them in seconds. Pictures made with
them are noise.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from core.backbones.cards import FACE_DETAIL, BundleCard, write_card
from core.backbones.processors import PictureQwen2VLProcessor, PictureQwen3VLProcessor

SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
CHAT_TEMPLATE = """\
{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' }}
{%- if m['content'] is string %}{{- m['content'] }}{%- else %}
{%- for c in m['content'] %}
{%- if c['type'] == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif c['type'] == 'text' %}{{- c['text'] }}{%- endif %}
{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
CORPUS = ["the man with a red hat and the woman with blue glasses stand together on the beach, waving"] * 20


def write_tiny_bundle(
    folder: Path | str,
    *,
    family: str = "qwen-image-2.1",
    seed: int = 0,
    text_first: bool = True,
    face_detail: bool = False,
) -> Path:
    """Save a tiny random bundle that `load_bundle(folder)` reads, and return the folder.

    `family` is "qwen-image-2.1" (the classes of the mini bundle) or "qwen-image-edit-plus". `text_first` is
    the order of the prompt template and only matters for the first family. Default picture size 64 x 96 px, 4
    steps, references of 64 px. The same seed gives the same weights. `face_detail` adds a transformer for faces.
    """
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = {"qwen-image-2.1": _qwen_image_21, "qwen-image-edit-plus": _qwen_image_edit_plus}[family]()
        for module in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
            _widen(module)
        if face_detail:
            faces = _qwen_image_21_transformer()
            _widen(faces)
            faces.save_pretrained(folder / FACE_DETAIL)
    pipeline.save_pretrained(folder)
    card = BundleCard(
        name="tiny",
        family=family,
        source=str(folder),
        licence="random weights",
        dtype="float32",
        memory_gb=0.1,
        steps=4,
        height=64,
        width=96,
        reference_side=64,
        text_first=text_first and family == "qwen-image-2.1",
        max_references=4,
    )
    write_card(folder, card)
    return folder


def _widen(module: torch.nn.Module) -> None:
    # The stock initialisation is so small (0.02, zero gains) that prompt and references would hardly reach
    # the picture, and tests on differences would pass on rounding noise.
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=1.3 * parameter[0].numel() ** -0.5)


def _tokenizer() -> Qwen2Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    bpe = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in bpe["merges"]]
    return Qwen2Tokenizer(vocab=bpe["vocab"], merges=merges, extra_special_tokens=SPECIAL_TOKENS[1:])


def _token_ids(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    return {
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    }


def _text_config(tokenizer: Qwen2Tokenizer) -> dict:
    return {
        "vocab_size": (len(tokenizer) + 63) // 64 * 64,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }


def _scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        shift=1.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        base_image_seq_len=256,
        max_image_seq_len=8192,
        shift_terminal=0.02,
    )


def _qwen_image_21() -> QwenImage21Pipeline:
    tokenizer = _tokenizer()
    processor = PictureQwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=16,
            temporal_patch_size=2,
            merge_size=2,
            size={"shortest_edge": 32 * 32, "longest_edge": 512 * 512},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    rope = {"rope_type": "default", "rope_theta": 1e5, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text_encoder = Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={**_text_config(tokenizer), "head_dim": 32, "rope_parameters": rope},
            vision_config={
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 2,
                "patch_size": 16,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": 64,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
            },
            tie_word_embeddings=True,
            **_token_ids(tokenizer),
        )
    )
    vae = AutoencoderKLQwenImage21(
        base_dim=16,
        decoder_base_dim=16,
        z_dim=16,
        dim_mult=[1],
        num_res_blocks=1,
        temperal_downsample=[],
        patch_size=16,
        in_channels=4 * 16 * 16,
        out_channels=3 * 16 * 16,
        scale_factor_temporal=1,
        scale_factor_spatial=16,
        latents_mean=[0.1] * 16,
        latents_std=[0.9] * 16,
    )
    return QwenImage21Pipeline(
        scheduler=_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        processor=processor,
        transformer=_qwen_image_21_transformer(),
    )


def _qwen_image_21_transformer() -> QwenImage21Transformer2DModel:
    return QwenImage21Transformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=3,
        attention_head_dim=32,
        num_attention_heads=2,
        context_in_dim=64,
        mlp_ratio=2,
        axes_dims_rope=(8, 12, 12),
    )


def _qwen_image_edit_plus() -> QwenImageEditPlusPipeline:
    tokenizer = _tokenizer()
    processor = PictureQwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=14,
            temporal_patch_size=2,
            merge_size=2,
            size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112},
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    text_encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                **_text_config(tokenizer),
                "model_type": "qwen2_5_vl_text",
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5]},
            },
            vision_config={
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 2,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "window_size": 112,
                "out_hidden_size": 64,
                "fullatt_block_indexes": [1],
                "tokens_per_second": 2,
            },
            tie_word_embeddings=True,
            **_token_ids(tokenizer),
        )
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=16,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1] * 16,
        latents_std=[0.9] * 16,
    )
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=64,
        axes_dims_rope=(8, 12, 12),
        zero_cond_t=True,
    )
    return QwenImageEditPlusPipeline(
        scheduler=_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        processor=processor,
        transformer=transformer,
    )
