"""More people out of the same cut-outs: everybody's face is warped in a way of its own, and half are mirrored.

A few thousand rendered people are soon known by heart. A smooth warp moves eyes, nose, mouth and jaw against each
other, in the same way in all pictures of a person, so that another person comes of it who looks as well-rendered.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from core.face_encoder import ARCFACE_TEMPLATE
from trainers.mini.cutouts import Cutouts, landmarks_of

STRETCHED = 0.04
"""Standard deviation of how much wider or narrower than rendered a person is."""
MOVED = 0.08
"""Standard deviation of how far a part of the face moves, in distances between the eyes."""
PARTS = (
    ((0.5, 0.0), 0.45),  # eyes, and the brow over them
    ((0.5, -0.5), 0.5),
    ((0.0, 0.6), 0.4),  # nose
    ((0.33, 1.15), 0.4),  # corners of the mouth
    ((0.0, 1.75), 0.5),  # chin
    ((0.85, 0.9), 0.55),  # cheeks, and the jaw under them
    ((0.65, 1.5), 0.5),
)
"""Where a part lies, right and down of the middle between the eyes, and how far its movement reaches; in distances
between the eyes. Faces are symmetric: what lies to the side has its mirror image there too."""
MIRRORED_LANDMARKS = (1, 0, 2, 4, 3)
APART = 1_000_000
"""Between the numbers of a person and of the next one made of the same cut-outs."""


def vary_people(cutouts: Cutouts, again: int, rng: np.random.Generator) -> Cutouts:
    """Every person of `cutouts` as another one, for the `again`-th time (1, 2, ...); rows, looks and sizes stay."""
    rgba = np.empty_like(cutouts.rgba)
    looks = list(cutouts.looks)
    for person in np.unique(cutouts.people):
        mirrored = bool(rng.random() < 0.5)
        stretch = float(np.exp(rng.normal(0, STRETCHED)))
        moves = rng.normal(0, MOVED, (len(PARTS), 2))
        for row in np.flatnonzero(cutouts.people == person):
            rgba[row], landmarks = _warp(cutouts.rgba[row], landmarks_of(cutouts, row), stretch, moves)
            if mirrored:
                rgba[row] = rgba[row][:, ::-1].copy()
                landmarks[:, 0] = cutouts.rgba.shape[2] - 1 - landmarks[:, 0]
                landmarks = landmarks[list(MIRRORED_LANDMARKS)]
            looks[row] = replace(looks[row], landmarks=tuple((float(x) + 0.5, float(y) + 0.5) for x, y in landmarks))
    return replace(cutouts, rgba=rgba, people=cutouts.people + APART * again, looks=tuple(looks))


def _warp(rgba: np.ndarray, landmarks: np.ndarray, stretch: float, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cut-out (H, W, 4) and its landmarks (5, 2) after a warp about the middle between the eyes."""
    eyes = landmarks[1] - landmarks[0]
    # a turned head has its eyes closer together; what is as wide in a face's own plane is its height
    template = np.array(ARCFACE_TEMPLATE)
    heights = (landmarks[3:].mean(0) - landmarks[:2].mean(0)), (template[3:].mean(0) - template[:2].mean(0))
    unit = np.linalg.norm(heights[0]) / np.linalg.norm(heights[1]) * (template[1, 0] - template[0, 0])
    across = eyes / np.linalg.norm(eyes)
    axes = np.stack([across, [-across[1], across[0]]])  # of the face: right, down
    origin = landmarks[:2].mean(0)

    columns, rows = np.meshgrid(np.arange(rgba.shape[1]), np.arange(rgba.shape[0]))
    pixels = np.stack([columns, rows], axis=-1)
    source = pixels - _shift((pixels - origin) @ axes.T / unit, stretch, moves) @ axes * unit
    premultiplied = rgba.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    warped = cv2.remap(premultiplied, source.astype(np.float32), None, cv2.INTER_LINEAR)
    warped[..., :3] *= 255 / warped[..., 3:].clip(1)
    moved = landmarks
    for _ in range(8):  # what comes to lie at `moved` is taken from there, minus the shift there
        moved = landmarks + _shift((moved - origin) @ axes.T / unit, stretch, moves) @ axes * unit
    return warped.round().clip(0, 255).astype(np.uint8), moved


def _shift(places: np.ndarray, stretch: float, moves: np.ndarray) -> np.ndarray:
    """How far what lies at `places` (..., 2), right and down of the eyes' middle, moves; all in eye distances."""
    shift = np.zeros_like(places)
    shift[..., 0] = (stretch - 1) * places[..., 0]
    for ((right, down), reach), move in zip(PARTS, moves, strict=True):
        for side in (1, -1) if right else (0,):
            distance = ((places[..., 0] - side * right) ** 2 + (places[..., 1] - down) ** 2) / reach**2
            shift += np.exp(-distance)[..., None] * move * (side, 1)
    return shift
