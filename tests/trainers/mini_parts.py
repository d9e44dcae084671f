"""A tiny mini bundle in parts, and how the tests of its transformer train it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage21

from tests.trainers.mini_shards import write_shards
from trainers.mini.assemble import build_backbone, build_pipeline, load_vlm
from trainers.mini.curriculum import Stage, TransformerConfig
from trainers.mini.data import Pictures
from trainers.mini.models import (
    TransformerSize,
    VaeSize,
    VlmSize,
    build_processor,
    build_tokenizer,
    build_transformer,
    build_vae,
    build_vlm,
)
from trainers.mini.transformer import train
from trainers.mini.vae import sample_patches, start_from_pca
from trainers.runs import step_generator

SMALL = TransformerSize(hidden_size=192, layers=3)
STAGES = (
    Stage(name="portrait", steps=2, mix=("portrait-1",), batch=2, levels=2, copy_share=0.5, with_text=False),
    Stage(name="groups", steps=2, mix=("group-2", "child-2"), batch=2, levels=2),
)
THREE_LEVELS = Stage(name="three levels", steps=1, mix=("group-2",), levels=3)


def write_parts(folder: Path) -> None:
    """Folders of shards, an untrained PCA VAE and an untrained VLM, on pictures with references of 32 px."""
    write_shards(folder / "shards")
    vae = build_vae(VaeSize(encoder_width=132, decoder_width=132))
    start_from_pca(vae, sample_patches(Pictures.load(folder / "shards", "train"), 0.0, step_generator(0, 0), 300))
    vae.save_pretrained(folder / "vae")
    size = VlmSize(hidden_size=64, layers=2, heads=2, vision_hidden_size=64, vision_layers=2, vocabulary=400)
    processor = build_processor(build_tokenizer(["The red person from image 1 on the left."] * 20, size))
    processor.save_pretrained(folder / "vlm" / "processor")
    build_vlm(processor.tokenizer, size).save_pretrained(folder / "vlm" / "text_encoder")


def untrained_backbone(parts):
    torch.manual_seed(0)
    transformer = build_transformer(SMALL, 64)
    pipeline = build_pipeline(
        AutoencoderKLQwenImage21.from_pretrained(parts / "vae"), *load_vlm(parts / "vlm"), transformer
    )
    return build_backbone(pipeline)


def config(**changes) -> TransformerConfig:
    return TransformerConfig(
        stages=STAGES, size=SMALL, warmup=1, evaluate_every=100, evaluated=2, checkpoint_minutes=1e-9, **changes
    )


def run(parts, out, *, settings=None, pictures=None, start_from=None, **changes):
    """A whole training of `settings`, by default the tiny one with `changes`; returns the transformer's folder."""
    return train(
        settings or config(**changes),
        start_from=start_from,
        pictures=pictures or parts / "shards",
        vae=parts / "vae",
        vlm=parts / "vlm",
        out=out,
        device=torch.device("cpu"),
    )
