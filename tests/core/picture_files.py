"""Picture files made for the tests of reading."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 96, 128


def scene() -> np.ndarray:
    """Smooth, textured and without any symmetry: a turned or damaged copy is easily told apart."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(-6, 7, (HEIGHT, WIDTH, 3))
    return np.clip(np.stack([x * 1.9, y * 2.5, (x * y) ** 0.5 * 2], axis=-1) + noise, 0, 255).astype(np.uint8)


def encode(picture: Image.Image | np.ndarray, file_format: str = "PNG", **options) -> bytes:
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
