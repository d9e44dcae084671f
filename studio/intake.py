"""From an uploaded file to faces a person can choose from, each with what might be wrong with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from core.faces import Face, FaceAnalyzer
from core.images import read_picture
from core.portraits import crop_face

THUMBNAIL_SIDE = 160
"""Of the crop that the page shows, in pixels."""
REFERENCE_LONGEST_SIDE = 1536
"""Portraits are kept no larger than this, in pixels: no backbone reads more, and less stays on the disk."""
TINY_FACE = 80
"""Faces narrower than this many pixels carry little identity: recognisers look at 112."""
BLURRED = 25.0
"""Variance of the Laplacian of a 112-pixel grey face, in grey levels squared, below which it looks soft."""
TURNED = 0.32
"""How far the nose may lie from the middle of the eyes, in eye distances, before a face counts as turned."""


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face of an uploaded picture: what the pack found, its (160, 160, 3) uint8 crop, and quality hints."""

    face: Face
    crop: np.ndarray
    hints: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Upload:
    """A readable file: its name, the (H, W, 3) uint8 RGB picture, SHA-256 of the file, faces left to right."""

    name: str
    picture: np.ndarray
    source_sha256: str
    faces: tuple[FoundFace, ...]


def read_upload(path: Path, analyzer: FaceAnalyzer, *, name: str | None = None) -> Upload:
    """Read one file and find its faces.

    Raises:
        PictureError: the file is no picture that can be used; its message is one sentence for a person.
    """
    picture = _shrink(read_picture(path, name=name or path.name))
    found = tuple(
        FoundFace(face, crop_face(picture, face.box, THUMBNAIL_SIDE), quality_hints(picture, face))
        for face in analyzer.analyze(picture)
    )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Upload(name or path.name, picture, digest, found)


def quality_hints(picture: np.ndarray, face: Face) -> tuple[str, ...]:
    """What might make this face a poor reference, in words; empty for a good one."""
    left, top, right, bottom = (float(edge) for edge in face.box)
    hints = []
    if min(right - left, bottom - top) < TINY_FACE:
        hints.append(f"small: {right - left:.0f} pixels wide")
    if _sharpness(picture, face) < BLURRED:
        hints.append("blurred")
    if _turn(face) > TURNED:
        hints.append("turned away")
    return tuple(hints)


def _shrink(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = REFERENCE_LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _sharpness(picture: np.ndarray, face: Face) -> float:
    # One size for all: the measure would otherwise call every large face blurred and every small one sharp.
    grey = Image.fromarray(crop_face(picture, face.box, 224)).convert("L").resize((112, 112))
    return float(ndimage.laplace(np.asarray(grey, dtype=np.float32)).var())


def _turn(face: Face) -> float:
    left_eye, right_eye, nose = (np.asarray(point, dtype=float) for point in face.landmarks[:3])
    between = right_eye - left_eye
    distance = float(np.linalg.norm(between))
    if distance == 0:
        return float("inf")
    return abs(float((nose - (left_eye + right_eye) / 2) @ between)) / distance**2
