"""Controlled perturbations of a good picture: the rejected side of a pair that differs in one known way.

Noise and saturation are those of IdGlow 3.4.3. The identity faults are what people complain of in group pictures:
somebody else's face, one face on two people, two people who changed faces. Faces are moved by the similarity between
their five landmarks, with soft edges and the colours of the place they come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from core.faces import Face

KINDS = ("noise", "saturation", "wrong-face", "duplicate", "swap")
NOISE = (18.0, 45.0)
"""Least and greatest standard deviation of the noise, of 255."""
SATURATION = ((0.0, 0.4), (1.8, 3.0))
"""Ranges of the factor of the saturation: washed out, and glaring."""


@dataclass(frozen=True, eq=False)
class Stranger:
    """Somebody who does not belong into a picture: (H, W, 3) uint8 RGB, and the landmarks (5, 2) of the face in it."""

    picture: np.ndarray
    landmarks: np.ndarray


def perturb(
    picture: np.ndarray,
    kind: str,
    rng: np.random.Generator,
    *,
    faces: Sequence[Face] = (),
    stranger: Stranger | None = None,
) -> np.ndarray | None:
    """A spoilt copy of `picture`, (H, W, 3) uint8 RGB; None where the picture lacks what the fault needs.

    Args:
        kind: one of KINDS.
        faces: of the picture; a wrong face needs one, a duplicate and a swap two.
        stranger: whose face is put in by "wrong-face".
    """
    if kind == "noise":
        noisy = picture + rng.normal(0, rng.uniform(*NOISE), picture.shape)
        return noisy.round().clip(0, 255).astype(np.uint8)
    if kind == "saturation":
        return saturate(picture, rng.uniform(*SATURATION[int(rng.integers(2))]))
    if kind not in KINDS:
        raise ValueError(f"The perturbation {kind!r} is unknown; choose one of {', '.join(KINDS)}.")
    order = [faces[i] for i in rng.permutation(len(faces))]
    if kind == "wrong-face":
        if stranger is None or not order:
            return None
        return put_face(picture, order[0].landmarks, stranger.picture, stranger.landmarks)
    if len(order) < 2:
        return None
    first, second = order[0].landmarks, order[1].landmarks
    spoilt = put_face(picture, first, picture, second)
    return spoilt if kind == "duplicate" else put_face(spoilt, second, picture, first)


def saturate(picture: np.ndarray, factor: float) -> np.ndarray:
    """Colours moved away from grey of the same luma (BT.601) by a factor; 0 is grey, 1 changes nothing."""
    luma = picture @ np.array([0.299, 0.587, 0.114])
    return (luma[..., None] + factor * (picture - luma[..., None])).round().clip(0, 255).astype(np.uint8)


def put_face(
    picture: np.ndarray, landmarks: np.ndarray, source: np.ndarray, source_landmarks: np.ndarray
) -> np.ndarray:
    """A copy of `picture` in which the face at `landmarks` is that of `source` at `source_landmarks`.

    Both pictures (H, W, 3) uint8 RGB, both landmarks (5, 2) in pixels of their picture.
    """
    height, width = picture.shape[:2]
    matrix, _ = cv2.estimateAffinePartial2D(
        source_landmarks.astype(np.float64), landmarks.astype(np.float64), method=cv2.LMEDS
    )
    if matrix is None:
        raise ValueError(f"The landmarks {source_landmarks.tolist()} lie in one point, so the face has no size.")
    moved = cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mask = face_mask(landmarks, height, width)
    inside = mask > 0.5
    moved = moved.astype(np.float64)
    if inside.any():
        # The light of the place: each channel gets the mean of what was there.
        moved += picture[inside].mean(axis=0) - moved[inside].mean(axis=0)
    mixed = mask[..., None] * moved + (1 - mask[..., None]) * picture
    return mixed.round().clip(0, 255).astype(np.uint8)


def face_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) in [0, 1]: an ellipse over brows to chin that follows the roll of the head, with soft edges."""
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    down = mouth - eyes
    size = max(float(np.linalg.norm(down)), 1.0)
    across = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    centre = eyes + 0.45 * down
    axes = (max(1, round(max(0.95 * across, 0.75 * size))), max(1, round(1.25 * size)))
    angle = float(np.degrees(np.arctan2(down[1], down[0]))) - 90
    mask = np.zeros((height, width), np.float32)
    cv2.ellipse(mask, tuple(int(v) for v in centre.round()), axes, angle, 0, 360, 1.0, -1)
    return cv2.GaussianBlur(mask, (0, 0), max(0.5, 0.15 * size))
