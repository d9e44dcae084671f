"""What the transformer for faces learns from: a face as the bundle draws it, the same face of the true picture, and the
portrait, all at twice their size (core/face_detail.py).

Faces come from drafts of the finished transformer (trainers/mini/drafts.py), whose layout is the truth's, and from
pictures that the VAE alone has encoded and decoded, which are cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from core.backbones.protocol import Backbone
from core.face_detail import cut_face, double_reference
from core.pixels import to_tensor, to_uint8
from trainers.mini.data import Example, Shard, save_tensors, sized

BATCH = 16
LANDMARK_NOISE = 0.6
"""Standard deviation in pixels: as inexact as a detector's."""

Shown = Iterator[tuple[np.ndarray, Example]]
"""Pictures (H, W, 3) uint8 as a bundle draws them, and the examples whose true picture they stand for."""


@dataclass(frozen=True, eq=False)
class FacePairs:
    """N faces of P portraits, as latents in half precision.

    drawn, true: (N, C, rows, columns). references: (P, C, rows, columns). reference_of: (N,), rows of `references`.
    """

    drawn: Tensor
    true: Tensor
    references: Tensor
    reference_of: Tensor

    def __len__(self) -> int:
        return len(self.drawn)

    @classmethod
    def join(cls, parts: list[FacePairs]) -> FacePairs:
        starts = np.cumsum([0, *(len(part.references) for part in parts)]).tolist()
        moved = [part.reference_of + start for part, start in zip(parts, starts, strict=False)]
        joined = (torch.cat([getattr(part, name) for part in parts]) for name in ("drawn", "true", "references"))
        return cls(*joined, reference_of=torch.cat(moved))


def load_pairs(
    cache: Path, backbone: Backbone, pictures: Path, drafts: Path, split: str, round_trips: int
) -> tuple[FacePairs, FacePairs]:
    """Pairs of drafts and of round trips, of every shard that has drafts; computed once and kept in `cache`.

    round_trips: pictures of each shard.

    Raises:
        FileNotFoundError: there is no draft.
    """
    paths = sorted(drafts.glob(f"{split}-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"no {split} draft in {drafts}; make some with `python -m trainers.mini.drafts`")
    drawn, tripped = [], []
    for path in tqdm(paths, desc=f"{split} faces", unit="shard"):
        files = [cache / f"{path.stem}.{kind}.safetensors" for kind in ("drafts", "round_trips")]
        if not all(file.exists() for file in files):
            shard, numbers = Shard.load(pictures / path.stem), np.random.default_rng([0xFACE, len(drawn)])
            _keep(files[0], cut_pairs(backbone, shard, drafts_shown(backbone, shard, load_file(path)), numbers))
            shown = round_trips_shown(backbone, shard, round_trips)
            _keep(files[1], cut_pairs(backbone, shard, shown, numbers))
        for parts, file in zip((drawn, tripped), files, strict=True):
            parts.append(FacePairs(**load_file(file)))
    return FacePairs.join(drawn), FacePairs.join(tripped)


def _keep(file: Path, pairs: FacePairs) -> None:
    save_tensors(file, {field.name: getattr(pairs, field.name) for field in fields(pairs)})


@torch.no_grad()
def drafts_shown(backbone: Backbone, shard: Shard, stored: dict[str, Tensor]) -> Shown:
    """stored: what `trainers.mini.drafts` has written of the shard."""
    for size in shard.pictures:
        if sized("latents", size) in stored:
            indices = iter(stored[sized("example", size)].tolist())
            for latents in stored[sized("latents", size)].split(BATCH):
                for picture in to_uint8(backbone.decode(latents.float().to(backbone.device))):
                    yield picture, shard.examples[next(indices)]


@torch.no_grad()
def round_trips_shown(backbone: Backbone, shard: Shard, count: int) -> Shown:
    """The first `count` pictures of more than one person."""
    for example in [example for example in shard.examples if len(example.people) > 1][:count]:
        true = to_tensor(shard.pictures[example.size][example.picture][None], backbone.device)
        yield to_uint8(backbone.decode(backbone.encode(true)))[0], example


def cut_pairs(backbone: Backbone, shard: Shard, shown: Shown, numbers: np.random.Generator) -> FacePairs:
    """Every face of the pictures, with the same cut-out of the true picture."""
    drawn, true, portraits = [], [], []
    for picture, example in shown:
        for landmarks, portrait in zip(example.landmarks, example.references, strict=True):
            found = np.array(landmarks) + numbers.normal(0, LANDMARK_NOISE, (5, 2))
            drawn.append(cut_face(picture, found))
            true.append(cut_face(shard.pictures[example.size][example.picture], found))
            portraits.append(portrait)
    used = sorted(set(portraits))
    return FacePairs(
        drawn=_encode(backbone, drawn),
        true=_encode(backbone, true),
        references=_encode(backbone, [double_reference(shard.portraits[index]) for index in used]),
        reference_of=torch.tensor([used.index(index) for index in portraits]),
    )


@torch.no_grad()
def _encode(backbone: Backbone, pictures: list[np.ndarray]) -> Tensor:
    batches = (np.stack(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH))
    return torch.cat([backbone.encode(to_tensor(batch, backbone.device)).half().cpu() for batch in batches])
