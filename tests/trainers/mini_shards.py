"""Tiny shards for the tests of the mini trainers: people are discs of their own colour before a plain background."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainers.mini.data import Example, Shard

SIDE = 32
PICTURE = (32, 64)
COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 210), "yellow": (220, 200, 50)}


def write_shards(folder: Path, *, examples: int = 12) -> None:
    for split, seed in (("train", 0), ("held_out", 1)):
        make_shard(np.random.default_rng(seed), examples).save(folder / f"{split}-0000")


def make_shard(rng: np.random.Generator, examples: int, *, size: tuple[int, int] = PICTURE) -> Shard:
    """Four people with three portraits each, and pictures of two of them side by side."""
    names = list(COLOURS)
    portraits = np.stack([_disc(rng, SIDE, SIDE, [(name, 0.5)]) for name in names for _ in range(3)])
    pictures, rows = [], []
    for number in range(examples):
        left, right = (int(i) for i in rng.permutation(4)[:2])
        pictures.append(_disc(rng, *size, [(names[left], 0.25), (names[right], 0.75)]))
        rows.append(
            Example(
                task="child" if number % 3 == 2 else "group",
                people=(left, right),
                references=(3 * left + int(rng.integers(3)), 3 * right + int(rng.integers(3))),
                picture=number,
                size=size,
                boxes=((8.0, 8.0, 24.0, 24.0), (40.0, 8.0, 56.0, 24.0)),
                landmarks=(_face_at(16.0), _face_at(48.0)),
                scene="in a park",
                prompt=f"The {names[left]} person from image 1 on the left. The {names[right]} person from image 2.",
                attributes=tuple({"hair": names[i], "clothes": f"{names[i]} person"} for i in (left, right)),
            )
        )
    return Shard(
        portraits=portraits,
        portrait_people=np.repeat(np.arange(4), 3),
        portrait_boxes=np.tile(np.array([8, 8, 24, 24], np.float32), (12, 1)),
        pictures={size: np.stack(pictures)},
        examples=tuple(rows),
    )


def _face_at(x: float) -> tuple[tuple[float, float], ...]:
    return ((x - 3, 13.0), (x + 3, 13.0), (x, 16.0), (x - 2, 19.0), (x + 2, 19.0))


def _disc(rng: np.random.Generator, height: int, width: int, people: list[tuple[str, float]]) -> np.ndarray:
    picture = np.full((height, width, 3), rng.integers(90, 160), np.float32)
    rows, columns = np.mgrid[:height, :width]
    for name, place in people:
        inside = (rows - height / 2) ** 2 + (columns - place * width) ** 2 < (0.3 * height) ** 2
        picture[inside] = COLOURS[name]
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
