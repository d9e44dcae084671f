"""From an uploaded portrait to what the model sees of it: a square around the face, and its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from core.face_encoder import ARCFACE_TEMPLATE
from core.faces import Face, FaceAnalyzer

CROP_SCALE = 2.0
"""Side of the square, in longer sides of the face's box: room for hair, ears and chin."""
CROP_RISE = 0.1
"""The square's centre lies above the box's by this many box heights: a detector's box ends at the forehead.
"""

FACE_SCALE = 0.705 / 128
"""Pixels of a reference for a pixel of ArcFace's template, in sides of the reference: the head fills seven tenths."""
FACE_MIDDLE = (0.5, 0.555)
"""Where the middle of the five landmarks comes to lie in a reference, x and y in its sides."""


@dataclass(frozen=True, eq=False)
class Person:
    """One portrait, prepared.

    crop: (side, side, 3) uint8 RGB, the reference picture.
    embedding: unit length, of the face that is used; None without a face or a face pack.
    note: what a person should know about this portrait, or None.
    """

    crop: np.ndarray
    embedding: np.ndarray | None
    note: str | None


def crop_face(picture: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """The square around a face, resized to (side, side, 3) uint8; what a person is shown.

    Args:
        picture: (H, W, 3) uint8 RGB.
        box: left, top, right, bottom of the face in pixels; may reach beyond the picture.
        side: in pixels. The square never leaves the picture: near an edge it is moved, and shrunk if it must
            be.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    if not (right > left and bottom > top):
        raise ValueError(f"The box {box} is empty; it must be left, top, right, bottom with a positive size.")
    height, width = picture.shape[:2]
    square = min(CROP_SCALE * max(right - left, bottom - top), height, width)
    x = np.clip((left + right - square) / 2, 0, width - square)
    y = np.clip((top + bottom - square) / 2 - CROP_RISE * (bottom - top), 0, height - square)
    resized = Image.fromarray(picture).resize(
        (side, side), Image.Resampling.LANCZOS, box=(x, y, x + square, y + square)
    )
    return np.asarray(resized)


def reference_landmarks(side: int) -> np.ndarray:
    """(5, 2) float64 x, y in pixels: where the landmarks of an aligned reference of `side` pixels lie."""
    template = np.array(ARCFACE_TEMPLATE)
    return (template - template.mean(0)) * (FACE_SCALE * side) + np.array(FACE_MIDDLE) * side


def align_face(picture: np.ndarray, landmarks: np.ndarray, side: int) -> np.ndarray:
    """The head upright and in its place, (side, side, 3) uint8: eyes, nose and mouth of every reference lie alike.

    A small model carries a face over token by token, so where the parts of a face lie must not depend on the portrait.
    The warp is the least-squares similarity from the landmarks to `reference_landmarks`; what lies outside of the
    picture is its mirror image.

    Args:
        picture: (H, W, 3) uint8 RGB.
        landmarks: (5, 2) x, y in pixels as in `core.faces.Face`.
        side: in pixels.

    Raises:
        ValueError: the landmarks lie in one point or are not finite.
    """
    matrix = alignment(landmarks, side)
    # A warp reads four pixels for each it writes; a large picture is made smaller first, or it would flicker.
    shrunk = max(1, int(1 / max(float(np.hypot(*matrix[:, 0])), 1e-6)))
    if shrunk > 1:
        picture = np.asarray(Image.fromarray(picture).reduce(shrunk))
        matrix[:, 2] += matrix[:, :2].sum(1) * (shrunk - 1) / 2
        matrix[:, :2] *= shrunk
    return cv2.warpAffine(
        np.ascontiguousarray(picture), matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def alignment(landmarks: np.ndarray, side: int) -> np.ndarray:
    """(2, 3) float64: from pixels of a picture to those of its aligned face, the least-squares similarity.

    landmarks, side and errors as for `align_face`.
    """
    source, target = np.asarray(landmarks, np.float64), reference_landmarks(side)
    middle = source.mean(0)
    # As complex numbers a similarity is one factor; least squares gives it in closed form.
    points, wanted = (source - middle) @ (1, 1j), (target - target.mean(0)) @ (1, 1j)
    spread = float((np.abs(points) ** 2).sum())
    if not spread > 1e-6:
        raise ValueError(f"The landmarks {source.tolist()} lie in one point, so the face has no size.")
    factor = (points.conj() * wanted).sum() / spread
    rotation = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([rotation, target.mean(0) - rotation @ middle])


def largest_face(faces: list[Face]) -> Face | None:
    """The face whose box covers most pixels; None of none."""
    return max(faces, key=lambda f: (f.box[2] - f.box[0]) * (f.box[3] - f.box[1]), default=None)


def nearest_face(faces: list[Face], box: Sequence[float]) -> Face | None:
    """The face whose box lies nearest to `box` (left, top, right, bottom in pixels); None of none."""
    return min(faces, key=lambda face: float(np.abs(face.box - np.asarray(box)).sum()), default=None)


def prepare_person(
    portrait: np.ndarray,
    number: int,
    analyzer: FaceAnalyzer | None,
    side: int,
    *,
    box: Sequence[float] | None = None,
) -> Person:
    """Find the face of a portrait and cut its reference picture.

    Args:
        portrait: (H, W, 3) uint8 RGB.
        number: the k of "image k", for the note.
        analyzer: None where there is no face pack; then, as where no face is found, the middle of the
            portrait is used, and the note says so.
        side: of the reference picture in pixels.
        box: of the face that is meant, left, top, right, bottom in pixels; the largest one when absent.
    """
    faces = [] if analyzer is None else analyzer.analyze(portrait)
    face = largest_face(faces) if box is None else nearest_face(faces, box)
    if face is None:
        reason = "there is no face pack" if analyzer is None else "no face was found in it"
        note = f"Portrait {number}: {reason}, so the middle of the picture is used as it is."
        return Person(crop_face(portrait, _middle(portrait), side), None, note)
    note = None
    if len(faces) > 1 and box is None:
        note = f"Portrait {number} shows {len(faces)} faces; the largest one is used."
    return Person(align_face(portrait, face.landmarks, side), face.embedding, note)


def _middle(portrait: np.ndarray) -> np.ndarray:
    height, width = portrait.shape[:2]
    return np.array([0, 0, width, height], np.float32)
