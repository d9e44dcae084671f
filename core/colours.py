"""Colour words of clothes, and how different colours look."""

from __future__ import annotations

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (236, 236, 233),
    "grey": (128, 129, 131),
    "black": (27, 27, 29),
    "beige": (212, 192, 156),
    "brown": (101, 64, 38),
    "red": (186, 28, 36),
    "orange": (228, 112, 26),
    "yellow": (236, 200, 52),
    "green": (44, 128, 58),
    "teal": (10, 124, 128),
    "light blue": (150, 190, 226),
    "blue": (42, 92, 190),
    "navy": (27, 36, 82),
    "purple": (108, 52, 146),
    "pink": (238, 150, 178),
}
"""Colour words of garments and what they mean in sRGB, 0..255."""
ANY_COLOUR = "|".join(sorted(COLOURS, key=len, reverse=True))
"""Regular expression of the words, longer ones first: "light blue" is not "blue"."""


def lab(colour: np.ndarray | tuple[int, int, int]) -> np.ndarray:
    """CIE L*a*b* (D65), (3,), of an sRGB colour (3,) in 0..255; distances of 2 are just seen, 100 is black to white."""
    srgb = np.asarray(colour, np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    fx, fy, fz = (np.cbrt(t) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])
