"""Settings of training rounds, and the models they are made with."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.cards import find_card
from core.precision import Precision
from trainers.dpo import DpoConfig
from trainers.held_out import PORTRAITS
from trainers.pairs import PairConfig

ROUND_FILE = "round.toml"
EVALUATION_SETTINGS = ("seeds", "steps", "identity_guidance")


@dataclass(frozen=True, kw_only=True)
class RoundConfig:
    """The settings of a round; `Round.config` and the worker's own file have these three tables."""

    training: DpoConfig = field(default_factory=DpoConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """`seeds`: pictures of each held-out case; `steps` of denoising, `identity_guidance`: the bundle's own if absent.
    Measure at what people work with: what helps without guidance may be nothing with it."""

    @classmethod
    def read(cls, *tables: Mapping[str, Any]) -> Self:
        """The defaults, changed by each of `tables` in turn. Raises ValueError for names that do not exist."""
        merged: dict[str, dict[str, Any]] = {"training": {}, "pairs": {}, "evaluation": {}}
        for name, values in (entry for table in tables for entry in table.items()):
            if name not in merged or not isinstance(values, Mapping):
                raise ValueError(f"A round has no settings {name!r}; it has tables {', '.join(merged)}.")
            merged[name] |= values
        unknown = merged["evaluation"].keys() - EVALUATION_SETTINGS
        if unknown:
            raise ValueError(
                f"The evaluation has no settings {sorted(unknown)}; it has {', '.join(EVALUATION_SETTINGS)}."
            )
        try:
            return cls(
                training=DpoConfig(**merged["training"]),
                pairs=PairConfig(**merged["pairs"]),
                evaluation=merged["evaluation"],
            )
        except TypeError as error:
            raise ValueError(f"The round's settings cannot be used: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Models:
    """What rounds are made with.

    bundle: name or folder. face_pack: replaces the bundle's own; None keeps that. device: of torch.
    evaluation_portraits: folder of people that no round trains on.
    """

    bundle: str
    face_pack: Path | None = None
    device: str = "cpu"
    evaluation_portraits: Path = PORTRAITS

    def round_settings(self) -> dict[str, Any]:
        """What the bundle's folder says of rounds in ROUND_FILE: small models need larger steps than large ones."""
        file = Path(find_card(self.bundle).source) / ROUND_FILE
        return tomllib.loads(file.read_text()) if file.is_file() else {}

    def load(self, precision: Precision = "auto") -> Bundle:
        """`precision`: of the transformer on a CPU, see `load_bundle`; for training and the pictures that measure."""
        bundle = load_bundle(self.bundle, device=self.device, precision=precision)
        return bundle if self.face_pack is None else replace(bundle, face_pack=self.face_pack)
