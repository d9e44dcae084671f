"""What stands behind people: made-up colour fields, shapes, texture and writing, and the painted places of the mini
bundle. No face is in any of it."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from trainers.mini.compose import Backgrounds
from trainers.people.daylight import LIGHTS

Rng = np.random.Generator
PLACES = 0.25
"""Share of backgrounds that are painted places: what the application's own pictures show."""
PLACES_IN_A_LIGHT = 8


def random_background(rng: Rng, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 without a face: a painted place, or colour fields, shapes (some of skin colour),
    texture, writing.

    Texture matters: on smooth backgrounds alone a detector learns that anything detailed is a face.
    """
    if rng.random() < PLACES:
        return _places().draw(str(rng.choice(list(LIGHTS))), height, width, rng)[0]
    side = max(height, width)
    coarse = rng.integers(0, 256, (rng.integers(1, 6), rng.integers(1, 6), 3)).astype(np.float32)
    if rng.random() < 0.6:  # most pictures have a muted background
        coarse = rng.uniform(20, 235) + (coarse - coarse.mean()) * rng.uniform(0.05, 0.5)
    interpolation = cv2.INTER_CUBIC if rng.random() < 0.85 else cv2.INTER_NEAREST
    picture = cv2.resize(coarse, (width, height), interpolation=interpolation)
    if rng.random() < 0.35:
        picture += rng.uniform(10, 60) * fractal(rng, height, width)[..., None]
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(1, 16) if rng.random() < 0.65 else 0):
        _draw_shape(rng, picture, side * np.exp(rng.uniform(np.log(0.015), np.log(0.35))))
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 0.03 * side + 0.6))
    if rng.random() < 0.3:
        textured = picture + rng.uniform(5, 45) * fractal(rng, height, width)[..., None]
        picture = np.clip(textured, 0, 255).astype(np.uint8)
    return picture


@lru_cache(maxsize=1)
def _places() -> Backgrounds:
    """The same places in every run: painting them anew for each picture would take too long."""
    return Backgrounds(list(LIGHTS), np.random.default_rng(0x91ACE5), per_light=PLACES_IN_A_LIGHT)


def fractal(rng: Rng, height: int, width: int) -> np.ndarray:
    """(height, width) float32 noise of about unit size with detail at all scales, as natural surfaces have it."""
    total = np.zeros((height, width), np.float32)
    falloff = rng.uniform(0.45, 1.0)
    stretch = np.exp(rng.normal(0, 0.6))  # wood and hair have a direction
    cells, weight = 2.0, 1.0
    while cells < max(height, width):
        shape = (min(height, round(cells * stretch) + 1), min(width, round(cells / stretch) + 1))
        grid = rng.standard_normal(shape, np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        cells, weight = cells * 2.2, weight * falloff
    return total / 1.5


def _draw_shape(rng: Rng, picture: np.ndarray, size: float) -> None:
    """One ellipse, box, line, word or striped patch, in place."""
    height, width = picture.shape[:2]
    colour = np.array([225, 175, 150]) * rng.uniform(0.3, 1.1) if rng.random() < 0.35 else rng.uniform(0, 255, 3)
    colour = colour.tolist()
    x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
    axes = (int(size * rng.uniform(0.3, 1)) + 1, int(size) + 1)
    kind = rng.choice(["ellipse", "box", "line", "word", "stripes"], p=[0.36, 0.28, 0.2, 0.08, 0.08])
    if kind == "ellipse":
        cv2.ellipse(picture, (x, y), axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    elif kind == "box":
        cv2.rectangle(picture, (x, y), (x + axes[0], y + axes[1]), colour, -1)
    elif kind == "line":
        end = (int(x + rng.normal(0, size * 3)), int(y + rng.normal(0, size * 3)))
        cv2.line(picture, (x, y), end, colour, int(rng.integers(1, 9)), cv2.LINE_AA)
    elif kind == "word":
        letters = "".join(rng.choice(list("AEKMNORSTabdeghko0358"), 6))
        cv2.putText(
            picture, letters, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size / 25, colour, int(size / 12) + 1, cv2.LINE_AA
        )
    else:
        patch = picture[y : y + 2 * axes[1], x : x + 2 * axes[0]]
        rows, columns = np.mgrid[: patch.shape[0], : patch.shape[1]].astype(np.float32)
        phase = (rows * rng.normal() + columns * rng.normal()) * rng.uniform(0.2, 1.5)
        wave = np.sin(phase) * np.sin(rows * rng.uniform(0.2, 1)) if rng.random() < 0.4 else np.sin(phase)
        patch[wave > 0] = colour
