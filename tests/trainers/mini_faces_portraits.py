"""Portraits drawn with a few shapes: enough of a face for the trainers, made in a millisecond, without any
mesh.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from trainers.mini.faces.portraits import FIRST_HELD_OUT, Portrait, write_shard

SIZE = 96
LANDMARKS = np.array([[38, 42], [58, 42], [48, 53], [40, 64], [56, 64]], np.float32)
BOX = np.array([27, 18, 69, 78], np.float32)


def drawn_portrait(identity: int, picture: int = 0) -> Portrait:
    rng = np.random.default_rng([identity, picture])
    colours = np.random.default_rng(identity).integers(40, 256, (3, 3)).tolist()
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    cv2.ellipse(rgba, (48, 48), (21, 30), 0, 0, 360, (*colours[0], 255), -1)
    shift = rng.normal(0, 1, (5, 2)).astype(np.float32)
    landmarks = LANDMARKS + shift
    for x, y in landmarks:
        cv2.circle(rgba, (round(float(x)), round(float(y))), 3, (*colours[1], 255), -1)
    traits = np.random.default_rng([identity, 7]).normal(size=6).astype(np.float32)
    age, female = float(10 + 40 * (picture % 2)), identity % 2 == 0
    return Portrait(rgba, landmarks, BOX, identity, age, female, traits)


def write_portraits(directory: Path, *, people: int = 32, pictures: int = 2) -> Path:
    numbers = [number + FIRST_HELD_OUT * (number % 16 == 0) for number in range(people)]
    shard = [drawn_portrait(identity, picture) for identity in numbers for picture in range(pictures)]
    half = len(shard) // 2
    write_shard(directory, 0, shard[:half])
    write_shard(directory, half, shard[half:])
    return directory
