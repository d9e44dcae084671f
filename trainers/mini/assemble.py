"""Puts the trained parts of the mini bundle together: a diffusers folder that `load_bundle` reads.

python -m trainers.mini.assemble --vae DIR --vlm DIR --transformer DIR --out assets/mini
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from transformers import Qwen3VLForConditionalGeneration

from core.backbones.bundles import load_bundle
from core.backbones.cards import FACE_DETAIL, MINI, write_card
from core.backbones.processors import PictureQwen3VLProcessor
from core.backbones.qwen_image_21 import QwenImage21Backbone, embed_patches_as_product
from core.prompt_writer import WRITER
from trainers.mini.geometry import MAX_REFERENCES, REFERENCE_SIDE, SIZES, TEXT_STRIDE

STEPS = 8
IDENTITY_GUIDANCE = 3.0
GUIDANCE, CHILD_GUIDANCE, GUIDANCE_ABOVE = 3.0, 1.0, 0.75
"""Towards the prompt: at scale 3 in the noisiest quarter twice as many clothes have the colour asked for, and faces of
groups keep their likeness. Children lose some of theirs, so they are made without."""
CHILD_SCHEDULE = "gate-0.1-1.0"
"""Without portraits at the noisy end the prompt alone decides who stands there: vague people, and older ones. Without
them below 0.3 faces are finished less alike, and no younger."""
LARGEST_FILE_MB = 95


def main() -> None:
    parser = argparse.ArgumentParser(description="Assemble the mini bundle from its trained parts.")
    parser.add_argument("--vae", type=Path, required=True, help="folder of the trained VAE")
    parser.add_argument("--vlm", type=Path, required=True, help="run folder with text_encoder and processor")
    parser.add_argument("--transformer", type=Path, required=True, help="folder of the trained transformer")
    parser.add_argument("--face-detail", type=Path, help="folder of the trained transformer for faces")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder; its weights are replaced")
    parser.add_argument("--steps", type=int, default=STEPS, help="default number of denoising steps")
    arguments = parser.parse_args()
    assemble(
        arguments.vae,
        arguments.vlm,
        arguments.transformer,
        arguments.out,
        face_detail=arguments.face_detail,
        steps=arguments.steps,
    )
    megabytes = sum(f.stat().st_size for f in arguments.out.rglob("*") if f.is_file()) / 1e6
    print(f"{arguments.out}: {megabytes:.1f} MB, revision {load_bundle(arguments.out).revision}")


def assemble(
    vae: Path, vlm: Path, transformer: Path, out: Path, *, face_detail: Path | None = None, steps: int = STEPS
) -> None:
    """Write model_index.json, the parts in bfloat16 and the bundle's card to `out`."""
    pipeline = build_pipeline(
        AutoencoderKLQwenImage21.from_pretrained(vae),
        *load_vlm(vlm),
        QwenImage21Transformer2DModel.from_pretrained(transformer),
    )
    pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(out, safe_serialization=True)
    if face_detail is not None:
        faces = QwenImage21Transformer2DModel.from_pretrained(face_detail, torch_dtype=torch.bfloat16)
        faces.save_pretrained(out / FACE_DETAIL)
    if (vlm / WRITER).is_dir():
        shutil.copytree(vlm / WRITER, out / WRITER, dirs_exist_ok=True)
    for config in out.glob("*/config.json"):
        # where the parts lay on this machine is nobody's business
        values = json.loads(config.read_text())
        values.pop("_name_or_path", None)
        config.write_text(json.dumps(values, indent=2) + "\n")
    for file in out.rglob("*.safetensors"):
        if file.stat().st_size > LARGEST_FILE_MB * 1e6:
            raise ValueError(f"{file} has {file.stat().st_size / 1e6:.0f} MB; no file may pass {LARGEST_FILE_MB} MB")
    write_card(
        out,
        dataclasses.replace(
            MINI,
            steps=steps,
            guidance=GUIDANCE,
            child_guidance=CHILD_GUIDANCE,
            guidance_above=GUIDANCE_ABOVE,
            identity_guidance=IDENTITY_GUIDANCE,
            child_schedule=CHILD_SCHEDULE,
            height=SIZES[0][0],
            width=SIZES[0][1],
            trained_sizes=SIZES,
            reference_side=REFERENCE_SIDE,
            text_stride=TEXT_STRIDE,
            max_references=MAX_REFERENCES,
            memory_gb=0.5,
        ),
    )


def load_vlm(folder: Path) -> tuple[Qwen3VLForConditionalGeneration, PictureQwen3VLProcessor]:
    vlm = Qwen3VLForConditionalGeneration.from_pretrained(folder / "text_encoder")
    embed_patches_as_product(vlm)
    return vlm, PictureQwen3VLProcessor.from_pretrained(folder / "processor")


def build_pipeline(
    vae: AutoencoderKLQwenImage21,
    vlm: Qwen3VLForConditionalGeneration,
    processor: PictureQwen3VLProcessor,
    transformer: QwenImage21Transformer2DModel,
) -> QwenImage21Pipeline:
    """The pipeline of a mini bundle, in evaluation mode and without gradients but for the transformer's."""
    for part in (vae, vlm):
        part.requires_grad_(False).eval()
    # no shift that depends on the size: the trainer draws its noise levels on the same grid for all sizes
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    pipeline = QwenImage21Pipeline(
        scheduler=scheduler, vae=vae, text_encoder=vlm, processor=processor, transformer=transformer
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_backbone(pipeline: QwenImage21Pipeline) -> QwenImage21Backbone:
    return QwenImage21Backbone(pipeline, reference_side=REFERENCE_SIDE, text_first=True, max_references=MAX_REFERENCES)


if __name__ == "__main__":
    main()
