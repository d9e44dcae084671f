"""Real little picture files."""

import io

import numpy as np
from PIL import Image


def png(seed: int, width: int = 16, height: int | None = None) -> bytes:
    """A PNG of noise, different for each seed; square where no height is given."""
    noise = np.random.default_rng(seed).integers(0, 256, (height or width, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()
