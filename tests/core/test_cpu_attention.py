"""Attention as products against diffusers' own processor, on the same tiny weights."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21AttnProcessor

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.cpu_attention import ProductAttnProcessor, attend_by_products
from tests.core.test_backbones import portraits, targets
from tests.tiny_bundles import write_tiny_bundle


@pytest.fixture(scope="module", params=[True, False], ids=["text-first", "pictures-first"])
def bundle(request, tmp_path_factory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("tiny"), text_first=request.param))


def attend_as_diffusers(transformer: torch.nn.Module) -> None:
    transformer.set_attn_processor(QwenImage21AttnProcessor())


@pytest.mark.parametrize("weight", [1.0, 0.4, 0.0, torch.tensor([0.0, 0.3, 1.0])], ids=str)
@pytest.mark.parametrize("prompts", [["two people"], ["two people", "two people on a beach in the snow", "two"]])
def test_velocities_and_their_gradients_are_the_stock_ones(bundle, prompts, weight):
    backbone, transformer = bundle.backbone, bundle.backbone.transformer
    # prompts of other lengths are padded, so that some keys are masked
    conditioning = backbone.stack([backbone.encode_prompt(prompt, portraits(0)) for prompt in prompts])
    x_t, sigma = targets(bundle, 3)
    found = []
    for attend in (attend_as_diffusers, attend_by_products):
        attend(transformer)
        x = x_t.clone().requires_grad_()
        v_pred = backbone.velocity(backbone.prefill(conditioning), x, sigma, reference_weight=weight)
        v_pred.square().mean().backward()
        found.append((v_pred.detach(), x.grad))
    for stock, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-4)
        assert stock.abs().max() > 0


def processors(transformer: torch.nn.Module) -> set[type]:
    return {type(block.attn.processor) for block in transformer.transformer_blocks}


def test_only_half_precision_on_a_cpu_attends_by_products(tmp_path):
    folder = write_tiny_bundle(tmp_path / "tiny", face_detail=True)
    half, full = load_bundle(folder, precision="bfloat16"), load_bundle(folder)
    stock_half = load_bundle(folder, dtype=torch.bfloat16)
    for bundle, expected in ((half, ProductAttnProcessor), (full, QwenImage21AttnProcessor)):
        assert processors(bundle.backbone.transformer) == {expected}
        assert processors(bundle.face_detail.backbone.transformer) == {expected}
    assert processors(stock_half.backbone.transformer) == {QwenImage21AttnProcessor}
