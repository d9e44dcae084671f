"""The two policies of a preference round on one transformer, and their errors on pairs (IdGlow 3.4)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from core.adapters import AdapterError, adapter_in_use, add_adapter, remove_adapter
from core.backbones.bundles import Bundle
from core.backbones.protocol import Backbone
from core.flow import add_noise, velocity_error
from core.recently_used import RecentlyUsed
from trainers.encodings import Encodings

POLICY = "policy"
"""Name of the adapter in training while it is on the transformer."""


@dataclass(frozen=True, eq=False)
class NoisyPair:
    """A pair at one noise level.

    condition: key of prompt and references in the encodings.
    chosen, rejected: clean latents (C, rows, columns).
    noise: of the same shape, shared by both sides; sigma: in [0, 1], shared as well.
    """

    condition: str
    chosen: Tensor
    rejected: Tensor
    noise: Tensor
    sigma: float


@dataclass(frozen=True, eq=False)
class SideErrors:
    """Squared velocity errors of B pairs, (B,) float32 each."""

    chosen: Tensor
    rejected: Tensor


@contextmanager
def policy_adapters(
    bundle: Bundle, *, rank: int, alpha: float | None, seed: int, parent: Path | None
) -> Iterator[str | None]:
    """Put the policy on the bundle's transformer, ready to be trained, and take it off again.

    Yields the name of the reference policy: that of the parent, which is loaded beside the policy, frozen, and is where
    the policy starts; None without a parent, for the base.

    Raises:
        AdapterError: the parent cannot be loaded, or has another rank or alpha.
    """
    adapters, transformer = bundle.adapters, bundle.backbone.transformer
    active, loaded = adapters.active, adapters.loaded
    reference = None if parent is None else adapters.load(parent).digest
    try:
        # A person's scale is for making pictures; the reference policy is the adapter as it was trained.
        adapters.use(reference)
        with warnings.catch_warnings():
            # peft wonders at a second adapter; it is meant.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            add_adapter(transformer, POLICY, rank=rank, alpha=alpha, seed=seed)
        try:
            transformer.enable_adapters()
            transformer.set_adapter(POLICY)
            if reference is not None:
                _copy_adapter(transformer, reference, POLICY)
            for name, parameter in transformer.named_parameters():
                parameter.requires_grad_(f".{POLICY}." in name)
                if parameter.requires_grad:
                    # Small steps vanish in the precision that large models are loaded in.
                    parameter.data = parameter.data.float()
            yield reference
        finally:
            transformer.requires_grad_(False)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Adapter policy was active")
                remove_adapter(transformer, POLICY)
    finally:
        adapters.use(active and active.card.digest, scale=active.scale if active else 1.0)
        if reference is not None and reference not in loaded:
            adapters.unload(reference)


def _copy_adapter(transformer: nn.Module, source: str, target: str) -> None:
    of_source, of_target = (transformer.peft_config[name] for name in (source, target))
    for name in ("r", "lora_alpha", "target_modules"):
        if getattr(of_source, name) != getattr(of_target, name):
            raise AdapterError(
                f"The parent adapter has {name} {getattr(of_source, name)}, this round asks for "
                f"{getattr(of_target, name)}; the rounds of a bundle keep one, so that adapters stay exchangeable."
            )
    with torch.no_grad():
        for layer in transformer.modules():
            if isinstance(layer, LoraLayer):
                for half in (layer.lora_A, layer.lora_B):
                    half[target].weight.copy_(half[source].weight)


class Policies:
    """Errors of the policy and of the reference policy. One prefix serves both sides and all pairs of one prompt."""

    def __init__(
        self,
        backbone: Backbone,
        encodings: Encodings,
        reference: str | None,
        *,
        micro_batch: int,
        kept_prefixes: int,
        bfloat16: bool,
    ) -> None:
        self._backbone, self._encodings, self._reference = backbone, encodings, reference
        self._micro_batch, self._bfloat16 = micro_batch, bfloat16
        # The reference policy never changes, so neither do its prefixes.
        self._prefixes = RecentlyUsed(kept_prefixes)

    def micro_batches(self, pairs: Sequence[NoisyPair]) -> list[list[int]]:
        """Indices of pairs that go through the model together: those of one prompt, at most `micro_batch` of them."""
        by_condition: dict[tuple[str, torch.Size], list[int]] = {}
        for index, pair in enumerate(pairs):
            by_condition.setdefault((pair.condition, pair.chosen.shape), []).append(index)
        size = self._micro_batch
        return [group[i : i + size] for group in by_condition.values() for i in range(0, len(group), size)]

    @torch.no_grad()
    def reference_errors(self, batches: Sequence[Sequence[NoisyPair]]) -> list[SideErrors]:
        """e_ref of each micro-batch; all of a step at once, because switching adapters costs time."""
        with adapter_in_use(self._backbone.transformer, self._reference), self._autocast():
            return [
                self._errors(self._prefixes.get(b[0].condition, lambda b=b: self._prefill(b[0].condition)), b)
                for b in batches
            ]

    def policy_errors(self, batch: Sequence[NoisyPair]) -> SideErrors:
        """e of one micro-batch, with gradient."""
        with self._autocast():
            return self._errors(self._prefill(batch[0].condition), batch)

    def _prefill(self, condition: str):
        return self._backbone.prefill(self._encodings.condition(condition).to(self._backbone.device))

    def _errors(self, prefix, batch: Sequence[NoisyPair]) -> SideErrors:
        device = self._backbone.device
        x0 = torch.stack([pair.chosen for pair in batch] + [pair.rejected for pair in batch]).to(device)
        noise = torch.stack([pair.noise for pair in batch] * 2).to(device)
        sigma = torch.tensor([pair.sigma for pair in batch] * 2, device=device)
        v_pred = self._backbone.velocity(prefix, add_noise(x0, noise, sigma), sigma)
        return SideErrors(*velocity_error(v_pred, x0, noise).chunk(2))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._backbone.device.type, torch.bfloat16, enabled=self._bfloat16)


@contextmanager
def gradient_checkpointing(transformer: nn.Module, wanted: bool) -> Iterator[None]:
    """Compute activations again in the backward pass, where wanted, instead of keeping them."""
    if not wanted:
        yield
        return
    transformer.enable_gradient_checkpointing()
    try:
        yield
    finally:
        transformer.disable_gradient_checkpointing()
