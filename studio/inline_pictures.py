"""Small pictures inside the page itself, where there is no file that may be served."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from core.images import PictureError, read_picture

THUMBNAIL_SIDE = 96
"""Pixels; twice what is shown, for screens with fine pixels."""


def data_url(picture: np.ndarray) -> str:
    """A picture, uint8 (H, W, 3), as an address that needs no server."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@lru_cache(maxsize=256)
def thumbnail_url(path: Path) -> str | None:
    """The middle of a picture file, as an address that needs no server; None where it cannot be read."""
    try:
        picture = Image.fromarray(read_picture(path))
    except (OSError, PictureError):
        return None
    return data_url(np.asarray(ImageOps.fit(picture, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))))
