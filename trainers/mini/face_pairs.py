"""What the transformer for faces learns from: a face as the bundle draws it, the same face of the true picture, and the
portrait, all at twice their size (core/face_detail.py).

Faces come from drafts of the finished transformer (trainers/mini/drafts.py), whose layout is the truth's, and from
pictures that the VAE alone has encoded and decoded, which are cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from core.backbones.protocol import Backbone
from core.face_detail import cut_face, double_reference
from core.pixels import to_tensor, to_uint8
from core.prompts import Task
from trainers.mini.data import Example, Shard, save_tensors, shard_paths, sized

BATCH = 16
LANDMARK_NOISE = 0.6
"""Standard deviation in pixels: as inexact as a detector's."""

Shown = Iterator[tuple[np.ndarray, Example]]
"""Pictures (H, W, 3) uint8 as a bundle draws them, and the examples whose true picture they stand for."""


@dataclass(frozen=True, eq=False)
class FacePairs:
    """N faces of P portraits, as latents in half precision.

    drawn, true: (N, C, rows, columns). references: (P, C, rows, columns). reference_of: (N,), rows of `references`.
    child: (N,) bool, whether the age task asked for the picture: a child's face, an adult's portrait.
    """

    drawn: Tensor
    true: Tensor
    references: Tensor
    reference_of: Tensor
    child: Tensor

    def __len__(self) -> int:
        return len(self.drawn)

    @classmethod
    def join(cls, parts: list[FacePairs]) -> FacePairs:
        starts = np.cumsum([0, *(len(part.references) for part in parts)]).tolist()
        moved = [part.reference_of + start for part, start in zip(parts, starts, strict=False)]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in _NAMES}
        return cls(**joined | {"reference_of": torch.cat(moved)})

    def of(self, task: Task) -> FacePairs:
        """Those of one task, with the references of all."""
        rows = self.child == (task is Task.CHILD)
        return replace(self, **{name: getattr(self, name)[rows] for name in _NAMES if name != "references"})


_NAMES = tuple(field.name for field in fields(FacePairs))


def draft_pairs(cache: Path, backbone: Backbone, pictures: Path, drafts: Path, split: str) -> FacePairs:
    """Pairs of every draft; computed once and kept in `cache`.

    Raises:
        FileNotFoundError: there is no draft.
    """
    paths = sorted(drafts.glob(f"{split}-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"no {split} draft in {drafts}; make some with `python -m trainers.mini.drafts`")

    def cut(number: int) -> FacePairs:
        path, numbers = paths[number], np.random.default_rng([0xFACE, number])
        shard = Shard.load(pictures / path.stem)
        return cut_pairs(backbone, shard, drafts_shown(backbone, shard, load_file(path)), numbers)

    return _cached(cut, [cache / f"{path.stem}.drafts.safetensors" for path in paths])


def round_trip_pairs(cache: Path, backbone: Backbone, pictures: Path, split: str, count: int) -> FacePairs:
    """Pairs of round trips of `count` pictures of every shard; computed once and kept in `cache`."""
    paths = shard_paths(pictures, split)

    def cut(number: int) -> FacePairs:
        shard, numbers = Shard.load(paths[number]), np.random.default_rng([0xFACE, len(paths), number])
        return cut_pairs(backbone, shard, round_trips_shown(backbone, shard, count), numbers)

    return _cached(cut, [cache / f"{path.name}.round_trips.safetensors" for path in paths])


def _cached(cut: Callable[[int], FacePairs], files: list[Path]) -> FacePairs:
    """What `cut` makes of each number, from its file where that is there."""
    for number, file in enumerate(tqdm(files, desc="faces", unit="shard")):
        if not file.exists():
            pairs = cut(number)
            save_tensors(file, {name: getattr(pairs, name) for name in _NAMES})
    return FacePairs.join([FacePairs(**load_file(file)) for file in files])


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
    drawn, true, portraits, child = [], [], [], []
    for picture, example in shown:
        for landmarks, portrait in zip(example.landmarks, example.references, strict=True):
            found = np.array(landmarks) + numbers.normal(0, LANDMARK_NOISE, (5, 2))
            drawn.append(cut_face(picture, found))
            true.append(cut_face(shard.pictures[example.size][example.picture], found))
            portraits.append(portrait)
            child.append(example.task == Task.CHILD)
    used = sorted(set(portraits))
    return FacePairs(
        drawn=_encode(backbone, drawn),
        true=_encode(backbone, true),
        references=_encode(backbone, [double_reference(shard.portraits[index]) for index in used]),
        reference_of=torch.tensor([used.index(index) for index in portraits]),
        child=torch.tensor(child),
    )


@torch.no_grad()
def _encode(backbone: Backbone, pictures: list[np.ndarray]) -> Tensor:
    batches = (np.stack(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH))
    return torch.cat([backbone.encode(to_tensor(batch, backbone.device)).half().cpu() for batch in batches])
