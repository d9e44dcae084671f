"""LoRA adapters on a bundle's transformer: added, saved, loaded, swapped and scaled while the bundle stays
loaded.

A prefix is computed with the adapters of that moment; prefill again after any change made here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

WEIGHTS_FILE = "adapter.safetensors"
CARD_FILE = "adapter.json"
CONFIG_KEY = "lora_adapter_metadata"
"""Where diffusers keeps a LoRA's configuration in a safetensors header; without it alpha would be read as the
rank.
"""

ATTENTION_AND_MLP = (
    *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("img_mlp.proj", "img_mlp.gate_layer", "img_mlp.out", "img_mlp.net.0.proj", "img_mlp.net.2"),
)
"""Layers that get a LoRA, in the names of both families."""


class AdapterError(RuntimeError):
    """An adapter is missing, damaged or made for other weights. The model is as it was before."""


@dataclass(frozen=True, kw_only=True)
class AdapterCard:
    """What an adapter is, saved beside its weights.

    name: shown to people.
    base, base_revision: name and revision of the bundle it was trained on.
    parent: digest of the adapter the training went out from, or None.
    training: how it came to be (round, configuration, numbers), JSON.
    digest: SHA-256 of the weights' file; set by `save`.
    """

    name: str
    base: str
    base_revision: str
    parent: str | None = None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class ActiveAdapter:
    """The adapter pictures are made with, and its scale (1: as trained, 0: the base)."""

    card: AdapterCard
    scale: float


class Adapters:
    """The adapters of one loaded transformer.

    Args:
        transformer: a diffusers model (`PeftAdapterMixin`).
        base, base_revision: name and revision of its bundle; adapters of another base are refused.
    """

    def __init__(self, transformer: nn.Module, *, base: str, base_revision: str) -> None:
        self._transformer = transformer
        self._base, self._base_revision = base, base_revision
        self._cards: dict[str, AdapterCard] = {}
        self._active: ActiveAdapter | None = None

    @property
    def active(self) -> ActiveAdapter | None:
        """The adapter in use; None for the base."""
        return self._active

    @property
    def loaded(self) -> tuple[str, ...]:
        """Digests of the adapters in memory."""
        return tuple(self._cards)

    def load(self, source: Path | str, card: AdapterCard | None = None) -> AdapterCard:
        """Read an adapter into memory without using it yet; loading it again does nothing.

        `source` is a folder; with `card`, for whoever keeps the cards elsewhere, the file of the weights alone.

        Raises:
            AdapterError: missing, damaged, not finite, or made for other weights. The model stays as it was.
        """
        card, weights, config = read_adapter(Path(source), card)
        if (card.base, card.base_revision) != (self._base, self._base_revision):
            raise AdapterError(
                f"The adapter {card.name} was trained on {card.base} ({card.base_revision}), but "
                f"{self._base} "
                f"({self._base_revision}) is loaded; load its own bundle, or train an adapter for this one."
            )
        if card.digest in self._cards:
            return card
        self._check_shapes(card, weights)
        try:
            self._transformer.load_lora_adapter(weights, prefix=None, metadata=config, adapter_name=card.digest)
        except Exception as error:  # peft and diffusers raise many kinds
            raise AdapterError(f"The adapter {card.name} in {source} cannot be put on the model: {error}") from error
        self._cards[card.digest] = card
        self._restore()
        return card

    def use(self, digest: str | None, *, scale: float = 1.0) -> None:
        """Make pictures with a loaded adapter at a scale, or with the base (None)."""
        if digest is None:
            self._active = None
        elif digest not in self._cards:
            raise AdapterError(f"The adapter {digest[:12]} is not loaded; load its folder first.")
        elif not 0 <= scale <= 2:
            raise ValueError(f"scale is {scale!r}, but must lie in [0, 2] (1: as trained).")
        else:
            self._active = ActiveAdapter(self._cards[digest], scale)
        self._restore()

    def swap(self, source: Path | str, card: AdapterCard | None = None, *, scale: float = 1.0) -> AdapterCard:
        """Use an adapter, given as to `load`, instead of the one in use, which leaves memory; on failure nothing
        changes.
        """
        card = self.load(source, card)
        previous = self._active
        self.use(card.digest, scale=scale)
        if previous is not None and previous.card.digest != card.digest:
            self.unload(previous.card.digest)
        return card

    def unload(self, digest: str) -> None:
        """Take an adapter out of memory; if it was in use, the base is from now on."""
        if digest not in self._cards:
            raise AdapterError(f"The adapter {digest[:12]} is not loaded.")
        if self._active is not None and self._active.card.digest == digest:
            self._active = None
        del self._cards[digest]
        remove_adapter(self._transformer, digest)
        self._restore()

    def _restore(self) -> None:
        """Bring the layers to what `active` says."""
        if not getattr(self._transformer, "peft_config", None):
            return
        if self._active is None:
            self._transformer.disable_adapters()
            return
        self._transformer.enable_adapters()
        self._transformer.set_adapters(self._active.card.digest, self._active.scale)
        for layer in _lora_layers(self._transformer):
            layer.requires_grad_(False)

    def _check_shapes(self, card: AdapterCard, weights: dict[str, Tensor]) -> None:
        modules = dict(self._transformer.named_modules())
        for key, weight in weights.items():
            name, _, part = key.removesuffix(".weight").rpartition(".lora_")
            module = modules.get(name)
            module = module.get_base_layer() if isinstance(module, LoraLayer) else module
            if not isinstance(module, nn.Linear) or part not in ("A", "B"):
                raise AdapterError(f"The adapter {card.name} changes {key}, which this model does not have.")
            expected = module.in_features if part == "A" else module.out_features
            found = weight.shape[1] if part == "A" else weight.shape[0]
            if found != expected:
                raise AdapterError(
                    f"The adapter {card.name} does not fit: {key} is for {found} features, the layer has {expected}."
                )


def add_adapter(transformer: nn.Module, name: str, *, rank: int, alpha: float | None = None, seed: int = 0) -> None:
    """Put a new, trainable adapter on a transformer; everything else is frozen. It starts as the base.

    Args:
        rank: of the update; `alpha` / rank scales it, and alpha is the rank when absent.
        seed: of the random half of the weights.
    """
    present = [n for n in ATTENTION_AND_MLP if any(m.endswith(f".{n}") for m, _ in transformer.named_modules())]
    transformer.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=present)
        transformer.add_adapter(config, adapter_name=name)


def remove_adapter(transformer: nn.Module, name: str) -> None:
    """Take an adapter off a transformer; without any left it is the plain model again."""
    if transformer.peft_config.keys() == {name}:
        transformer.unload_lora()
    else:
        transformer.delete_adapters(name)


def save_adapter(transformer: nn.Module, name: str, folder: Path | str, card: AdapterCard) -> AdapterCard:
    """Save an adapter with its configuration and card; returns the card with its digest.

    Each file is written under another name and renamed, the card last: a folder with a card is complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = transformer.peft_config[name].to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    weights = get_peft_model_state_dict(transformer, adapter_name=name)
    partial = folder / f"{WEIGHTS_FILE}.partial"
    save_file(
        {key: weight.detach().cpu().contiguous() for key, weight in weights.items()},
        partial,
        metadata={"format": "pt", CONFIG_KEY: json.dumps(config, sort_keys=True)},
    )
    card = dataclasses.replace(card, digest=_sha256(partial))
    partial.replace(folder / WEIGHTS_FILE)
    _write_card(folder, card)
    return card


def write_adapter(weights: Path, card: AdapterCard, folder: Path) -> Path:
    """The folder of an adapter whose weights' file and card were kept apart; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / WEIGHTS_FILE)
    _write_card(folder, card)
    return folder


def _write_card(folder: Path, card: AdapterCard) -> None:
    partial = folder / f"{CARD_FILE}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n")
    partial.replace(folder / CARD_FILE)


def read_adapter(
    source: Path, card: AdapterCard | None = None
) -> tuple[AdapterCard, dict[str, Tensor], dict[str, Any]]:
    """Card, weights and LoRA configuration of a saved adapter, checked; raises AdapterError.

    `source` is a folder; with `card`, the file of the weights.
    """
    file = source / WEIGHTS_FILE if card is None else source
    for needed in [file] if card else [source / CARD_FILE, file]:
        if not needed.is_file():
            raise AdapterError(f"There is no adapter in {needed.parent}: {needed.name} is missing.")
    try:
        card = card or AdapterCard(**json.loads((source / CARD_FILE).read_text()))
        with safe_open(file, framework="pt") as stream:
            config = json.loads((stream.metadata() or {})[CONFIG_KEY])
            weights = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise AdapterError(
            f"The adapter {file} is damaged ({type(error).__name__}: {error}); take it from a backup or train it again."
        ) from error
    if _sha256(file) != card.digest:
        raise AdapterError(f"The adapter {file} is damaged: its SHA-256 is not the one on its card.")
    if not weights or not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise AdapterError(f"The adapter {file} has no weights, or some that are not finite.")
    return card, weights, config


@contextmanager
def adapter_in_use(transformer: nn.Module, name: str | None) -> Iterator[None]:
    """Run with another adapter, or with none (None), for a while: the reference policy of a preference loss.

    What is trainable stays so; PEFT's own switches would change it.
    """
    layers = list(_lora_layers(transformer))
    before = [(layer.active_adapters, layer.disable_adapters) for layer in layers]
    trainable = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    try:
        if name is None:
            transformer.disable_adapters()
        else:
            transformer.enable_adapters()
            transformer.set_adapter(name)
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer.set_adapter(active)
            layer.enable_adapters(not disabled)
        for parameter, requires_grad in trainable:
            parameter.requires_grad_(requires_grad)


def _lora_layers(transformer: nn.Module) -> Iterator[LoraLayer]:
    return (module for module in transformer.modules() if isinstance(module, LoraLayer))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
