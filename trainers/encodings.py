"""Prompts, references and pictures, encoded once and kept on the disk: a training step reads neither VLM nor VAE."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.backbones.protocol import Backbone, Conditioning
from trainers.runs import replaced_when_complete
from trainers.training_pairs import TrainingPair


@dataclass(frozen=True)
class EncodedPair:
    """Keys of a pair's parts: prompt with references, chosen and rejected picture."""

    condition: str
    chosen: str
    rejected: str


class Encodings:
    """What a backbone makes of prompts and pictures, in files named by their content.

    They show people: the folder goes where the pictures go.

    Args:
        folder: of the files; made where it is missing.
        backbone: encodes what is not there yet.
        revision: of the weights of VLM and VAE; other weights make other files.
    """

    def __init__(self, folder: Path, backbone: Backbone, revision: str) -> None:
        self._folder, self._backbone, self._revision = folder, backbone, revision
        folder.mkdir(parents=True, exist_ok=True)

    def add_pair(self, pair: TrainingPair) -> EncodedPair:
        """Encode what is not there yet of a pair."""
        return EncodedPair(
            self.add_condition(pair.prompt, pair.references),
            self.add_picture(pair.chosen),
            self.add_picture(pair.rejected),
        )

    def add_condition(self, prompt: str, references: Sequence[np.ndarray]) -> str:
        """Encode a prompt with its references, unless that was done before; returns the key for `condition`."""
        key = self._key("condition", prompt, *references)
        if not self._path(key).exists():
            conditioning = self._backbone.encode_prompt(prompt, references)
            self._write(key, dataclasses.asdict(conditioning.to("cpu")))
        return key

    def add_picture(self, picture: np.ndarray) -> str:
        """Encode a picture, uint8 (H, W, 3), unless that was done before; returns the key for `picture`."""
        key = self._key("picture", picture)
        if not self._path(key).exists():
            pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
            with torch.no_grad():
                self._write(key, self._backbone.encode(pixels.to(self._backbone.device))[0].cpu())
        return key

    def condition(self, key: str) -> Conditioning:
        """The encoded prompt, a batch of one, on the CPU."""
        return _conditioning(self._read(key))

    def picture(self, key: str) -> Tensor:
        """Latents (C, rows, columns) on the CPU."""
        return self._read(key)

    def _key(self, kind: str, *parts: str | np.ndarray) -> str:
        digest = hashlib.sha256(f"{kind} {self._revision}".encode())
        for part in parts:
            content = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data
            digest.update(f" {getattr(part, 'shape', len(part))} ".encode())
            digest.update(content)
        return digest.hexdigest()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.pt"

    def _write(self, key: str, value: object) -> None:
        with replaced_when_complete(self._path(key)) as file:
            torch.save(value, file)

    def _read(self, key: str) -> object:
        return torch.load(self._path(key), map_location="cpu", weights_only=True)


def _conditioning(fields: dict) -> Conditioning:
    nested = fields["without_references"]
    return Conditioning(**{**fields, "without_references": nested and _conditioning(nested)})
