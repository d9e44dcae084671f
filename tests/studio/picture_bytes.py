"""Real little picture files."""

import io

import numpy as np
from PIL import Image


def png(seed: int, side: int = 16) -> bytes:
    """A PNG of noise, different for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()
