"""LoRA adapters that change the pictures of tiny bundles, without any training."""

from __future__ import annotations

from pathlib import Path

import torch

from core.adapters import AdapterCard, add_adapter, remove_adapter, save_adapter
from core.backbones.bundles import Bundle


def set_updates(transformer: torch.nn.Module, name: str, std: float) -> None:
    """Give an adapter an effect: the half that starts at zero becomes random."""
    generator = torch.Generator().manual_seed(0)
    for parameter_name, parameter in transformer.named_parameters():
        if f".lora_B.{name}." in parameter_name:
            parameter.data.normal_(std=std, generator=generator)


def write_tiny_adapter(bundle: Bundle, folder: Path, *, name: str = "one", std: float = 0.1, seed: int = 1) -> Path:
    """An adapter of the bundle, saved as a training would; the bundle is as before afterwards."""
    transformer = bundle.backbone.transformer
    add_adapter(transformer, "made", rank=2, alpha=8.0, seed=seed)
    set_updates(transformer, "made", std)
    save_adapter(
        transformer, "made", folder, AdapterCard(name=name, base=bundle.card.name, base_revision=bundle.revision)
    )
    remove_adapter(transformer, "made")
    return folder
