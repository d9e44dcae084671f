"""What the mini transformer has learned, seen on held-out people: by how much references help, and pictures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from core.backbones.protocol import Conditioning
from core.backbones.qwen_image_21 import QwenImage21Backbone
from core.flow import add_noise, clean_estimate, euler_step
from core.sampler import initial_noise
from trainers.mini.curriculum import Stage, TransformerConfig
from trainers.mini.data import save_grid
from trainers.mini.feeding import Feeder

GAP_SIGMAS = (0.3, 0.5, 0.8)
PROMPT_SIGMA = 0.98
"""At 0.9 one already sees through the noise what colour a garment has."""


@torch.no_grad()
def reference_gaps(
    backbone: QwenImage21Backbone, examiner: Feeder, stage: Stage, config: TransformerConfig
) -> dict[str, float]:
    """Relative reduction of the face tokens' squared error of the clean estimate by the references, held out.

    gap_KIND_SIGMA: 1 - error with / error without references (w = 0); swap_KIND_SIGMA: against other people's.
    """
    results: dict[str, float] = {}
    device = backbone.device
    for kind in dict.fromkeys(stage.mix):
        batch = examiner.first(kind, config.evaluated, device=device)
        noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(11)).to(device)
        prefix = backbone.prefill(batch.conditioning)
        rolled = Conditioning(
            embeddings=batch.conditioning.embeddings,
            picture_slots=batch.conditioning.picture_slots,
            reference_latents=tuple(x.roll(1, 0) for x in batch.conditioning.reference_latents),
            valid=batch.conditioning.valid,
        )
        swapped = backbone.prefill(rolled)
        faces = batch.faces.unsqueeze(1)
        for sigma in GAP_SIGMAS:
            levels = torch.full((len(batch.target),), sigma, device=device)
            x_t = add_noise(batch.target, noise, sigma)

            def error(keys, weight: float, x_t=x_t, levels=levels, sigma=sigma, batch=batch, faces=faces) -> float:
                v_pred = backbone.velocity(keys, x_t, levels, reference_weight=weight)
                x0 = clean_estimate(x_t, v_pred, sigma)
                return float(((x0 - batch.target).square() * faces).sum())

            own = error(prefix, 1.0)
            results[f"gap_{kind}_{sigma}"] = 1 - own / error(prefix, 0.0)
            results[f"swap_{kind}_{sigma}"] = 1 - own / error(swapped, 1.0)
    return results


@torch.no_grad()
def prompt_gaps(
    backbone: QwenImage21Backbone, examiner: Feeder, stage: Stage, config: TransformerConfig
) -> dict[str, float]:
    """words_KIND: relative reduction of the clothes tokens' squared error of the clean estimate, held out, by the own
    prompt against another picture's. Only prompts tell about clothes."""
    results: dict[str, float] = {}
    device = backbone.device
    for kind in dict.fromkeys(stage.mix):
        batch = examiner.first(kind, config.evaluated, device=device)
        if not batch.clothes.any():
            continue
        noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(13)).to(device)
        levels = torch.full((len(batch.target),), PROMPT_SIGMA, device=device)
        x_t = add_noise(batch.target, noise, PROMPT_SIGMA)
        own, valid = batch.conditioning, batch.conditioning.valid
        other = replace(own, embeddings=own.embeddings.roll(1, 0), valid=None if valid is None else valid.roll(1, 0))
        errors = []
        for conditioning in (own, other):
            v_pred = backbone.velocity(backbone.prefill(conditioning), x_t, levels)
            x0 = clean_estimate(x_t, v_pred, PROMPT_SIGMA)
            errors.append(float(((x0 - batch.target).square() * batch.clothes.amax(1, keepdim=True)).sum()))
        results[f"words_{kind}"] = 1 - errors[0] / errors[1]
    return results


@torch.no_grad()
def draw_held_out(
    backbone: QwenImage21Backbone, examiner: Feeder, stage: Stage, path: Path, *, steps: int = 12
) -> None:
    """References, generated (fixed seeds), true: two rows of six for every kind of the stage."""
    rows = []
    for kind in dict.fromkeys(stage.mix):
        batch = examiner.first(kind, 6, device=backbone.device)
        prefix = backbone.prefill(batch.conditioning)
        count, shape = len(batch.target), batch.target.shape[1:]
        x_t = initial_noise(range(count), shape, backbone.device)
        sigmas = backbone.sigmas(steps, 16 * shape[1], 16 * shape[2]).tolist()
        for sigma, sigma_next in pairwise(sigmas):
            v_pred = backbone.velocity(prefix, x_t, torch.full((count,), sigma, device=x_t.device))
            x_t = euler_step(x_t, v_pred, sigma, sigma_next)
        generated, true = backbone.decode(x_t), backbone.decode(batch.target)
        references = [backbone.decode(latents) for latents in batch.conditioning.reference_latents]
        for pair in range(0, count, 2):
            rows.append(
                [
                    picture
                    for row in range(pair, min(pair + 2, count))
                    for picture in (*(stack[row] for stack in references), generated[row], true[row])
                ]
            )
    save_grid(path, rows)
