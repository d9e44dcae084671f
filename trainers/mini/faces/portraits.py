"""Rendered people cut out of their background: what all three models learn from.

A portrait is a square picture with transparency, five landmarks and a face box. Scenes, aligned crops and
groups are composed from portraits during training, on ever new backgrounds, so few renderings go a long way.

On disk a set is a directory of shards: `NUMBER.rgba.npy` (pixels, read through memory mapping) and
`NUMBER.npz` (labels, written last: a shard without it is unfinished and ignored).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Identity seeds from here on are for measuring and never trained on, in this project's other trainings as well
# (`trainers.people.scene.identity_seed`).
FIRST_HELD_OUT = 2**31
LABELS = ("landmarks", "box", "identity", "age", "female", "traits")


@dataclass(frozen=True, eq=False)
class Portrait:
    """One cut-out.

    rgba: (S, S, 4) uint8, sRGB, straight alpha. landmarks: (5, 2) pixels, left eye as seen first. box: (4,)
        left, top,
    right, bottom of the face from mid-forehead to chin. identity: the person; age in years. traits: (T,) numbers the
    person was made from, the same at every age, each of about zero mean and unit deviation over people.
    """

    rgba: np.ndarray
    landmarks: np.ndarray
    box: np.ndarray
    identity: int
    age: float
    female: bool
    traits: np.ndarray


class PortraitSet:
    """Portraits of one or several shard directories; people of different directories are different people.

    Attributes:
        identity: (n,) int64, unique over all directories. age: (n,) float32 years. female: (n,) bool.
        landmarks: (n, 5, 2) float32. box: (n, 4) float32. traits: (n, T) float32; each directory has its own columns,
            NaN in the rows of the others.
    """

    def __init__(self, pixels: Sequence[np.ndarray], labels: dict[str, np.ndarray], keep: np.ndarray):
        self._pixels = list(pixels)
        self._starts = np.cumsum([0, *(len(shard) for shard in self._pixels)])
        self._keep = keep
        for name in LABELS:
            setattr(self, name, labels[name][keep])

    @classmethod
    def open(cls, directories: Sequence[Path | str], *, held_out: bool) -> PortraitSet:
        """The training people, or the held-out ones, of these directories.

        Raises:
            FileNotFoundError: no finished shard in one of them.
        """
        pixels, directory_of, labels = [], [], {name: [] for name in LABELS}
        for number, directory in enumerate(directories):
            files = sorted(Path(directory).glob("*.npz"))
            if not files:
                raise FileNotFoundError(
                    f"no portraits in {directory}: "
                    f"make some with `python -m trainers.mini.faces render --out {directory}`"
                )
            for file in files:
                directory_of.append(number)
                pixels.append(np.load(file.with_suffix(".rgba.npy"), mmap_mode="r"))
                with np.load(file) as shard:
                    for name in LABELS:
                        labels[name].append(shard[name] + (number << 32) if name == "identity" else shard[name])
        labels["traits"] = _side_by_side(labels["traits"], directory_of)
        joined = {name: np.concatenate(parts) for name, parts in labels.items()}
        is_held_out = (joined["identity"] & 0xFFFFFFFF) >= FIRST_HELD_OUT
        return cls(pixels, joined, np.flatnonzero(is_held_out == held_out))

    def __len__(self) -> int:
        return len(self._keep)

    def __getitem__(self, index: int) -> Portrait:
        position = self._keep[index]
        shard = np.searchsorted(self._starts, position, side="right") - 1
        return Portrait(
            rgba=np.asarray(self._pixels[shard][position - self._starts[shard]]),
            landmarks=self.landmarks[index],
            box=self.box[index],
            identity=int(self.identity[index]),
            age=float(self.age[index]),
            female=bool(self.female[index]),
            traits=self.traits[index],
        )


def _side_by_side(shards: list[np.ndarray], directory_of: list[int]) -> list[np.ndarray]:
    """Traits of different directories mean different things: every directory gets columns of its own."""
    widths = {number: shard.shape[1] for number, shard in zip(directory_of, shards, strict=True)}
    starts = dict(zip(widths, np.cumsum([0, *widths.values()]), strict=False))
    placed = []
    for number, shard in zip(directory_of, shards, strict=True):
        wide = np.full((len(shard), sum(widths.values())), np.nan, np.float32)
        wide[:, starts[number] : starts[number] + widths[number]] = shard
        placed.append(wide)
    return placed


def write_shard(directory: Path, number: int, portraits: Sequence[Portrait]) -> None:
    """Write one shard; killed at any moment, it is either complete or ignored."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / f"{number:07d}"
    np.save(stem.with_suffix(".rgba.npy"), np.stack([portrait.rgba for portrait in portraits]))
    unfinished = stem.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            landmarks=np.stack([portrait.landmarks for portrait in portraits]).astype(np.float32),
            box=np.stack([portrait.box for portrait in portraits]).astype(np.float32),
            identity=np.array([portrait.identity for portrait in portraits], np.int64),
            age=np.array([portrait.age for portrait in portraits], np.float32),
            female=np.array([portrait.female for portrait in portraits], bool),
            traits=np.stack([portrait.traits for portrait in portraits]).astype(np.float32),
        )
    unfinished.replace(stem.with_suffix(".npz"))


def shard_is_finished(directory: Path, number: int) -> bool:
    return (directory / f"{number:07d}.npz").is_file()
