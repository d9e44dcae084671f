"""The four metrics that tell two pictures of the same prompt apart (IdGlow 3.4.3): identity, object, semantic,
aesthetic.

A metric whose model is not on the machine is absent, as is one that has nothing to measure. Every value says how it was
measured, because values of different instruments must not be compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from core.clip import ClipScorer
from core.colours import ANY_COLOUR, COLOURS, lab
from core.identity import FaceReport
from core.prompt_ambiguity import clothing_words, words_about

METRICS = ("identity", "object", "semantic", "aesthetic")
FARTHEST = 100.0
"""Distance in CIE L*a*b* from which on a colour is entirely wrong: that of black and white."""


@dataclass(frozen=True)
class Measure:
    """A value, more is better, and how it was measured."""

    value: float
    how: str


def measure_picture(
    picture: np.ndarray, prompt: str, faces: FaceReport | None, *, pack: str = "", clip: ClipScorer | None = None
) -> dict[str, Measure]:
    """Those of the METRICS that can be measured on a picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        faces: who is in it; None where there is no face pack.
        pack: name of the face pack.
        clip: None where there is no CLIP model.
    """
    measures = {
        "identity": faces and identity(faces, pack),
        "object": faces and clothing(picture, prompt, faces),
        "semantic": clip and clip.semantic(prompt, picture),
        "aesthetic": clip and clip.aesthetic(picture),
    }
    hows = {"semantic": clip and clip.name, "aesthetic": clip and clip.aesthetic_name}
    return {
        name: measure if isinstance(measure, Measure) else Measure(measure, hows[name])
        for name, measure in measures.items()
        if measure is not None
    }


def differences(chosen: dict[str, Measure], rejected: dict[str, Measure]) -> dict[str, float]:
    """delta_k = m_k(chosen) - m_k(rejected) (eq. 8) of the metrics that both have from the same instrument."""
    return {
        name: chosen[name].value - rejected[name].value
        for name in METRICS
        if name in chosen and name in rejected and chosen[name].how == rejected[name].how
    }


def identity(faces: FaceReport, pack: str) -> Measure:
    """FaceSim in which a person who is doubled or in the wrong place counts 0, as a missing one does; in [-1, 1].

    Plain FaceSim does not see that somebody stands there twice, or that two people have changed places.
    """
    similarities = [0.0 if row.duplicated or row.swapped else row.similarity for row in faces.rows]
    return Measure(float(np.mean(similarities)), f"FaceSim, doubled and swapped people 0, {pack}")


def clothing(picture: np.ndarray, prompt: str, faces: FaceReport) -> Measure | None:
    """How near the clothes of each person are to the colour that the prompt says, in [0, 1]; a missing person counts 0.

    The mean over the people of whom the prompt says one garment of one colour, of 1 - distance / 100 in CIE L*a*b*
    between that colour and the median below the chin. None where it says so of nobody, or where what it says lies
    outside of the picture. Kinds of garments, patterns, glasses and hats are not measured.
    """
    values = []
    for row, colour in zip(faces.rows, colours_said(prompt, len(faces.rows)), strict=True):
        if colour is None:
            continue
        if row.box is None:
            values.append(0.0)
        elif (seen := clothing_colour(picture, row.box)) is not None:
            distance = float(np.linalg.norm(lab(seen) - lab(COLOURS[colour])))
            values.append(max(0.0, 1 - distance / FARTHEST))
    return Measure(float(np.mean(values)), "colour below the chin, CIE76 to the prompt's word") if values else None


def clothing_colour(picture: np.ndarray, box: Sequence[float]) -> np.ndarray | None:
    """Median colour (3,) in 0..255 of a patch below the chin; None where it lies outside of the picture.

    picture: (H, W, 3) uint8 RGB; box: left, top, right, bottom of the face in pixels.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    middle, width, height = (left + right) / 2, right - left, bottom - top
    rows = slice(max(0, round(bottom + 0.45 * height)), max(0, round(bottom + 0.7 * height)))
    columns = slice(max(0, round(middle - 0.3 * width)), max(0, round(middle + 0.3 * width)))
    patch = picture[rows, columns].reshape(-1, 3)
    return np.median(patch, axis=0) if len(patch) else None


def colours_said(prompt: str, people: int) -> list[str | None]:
    """For each person the colour of their clothes in the prompt; None where it says none, or more than one."""
    found = (set(_coloured_garment().findall(words)) for words in words_about(prompt, people))
    return [colours.pop().lower() if len(colours) == 1 else None for colours in found]


@cache
def _coloured_garment() -> re.Pattern[str]:
    """A colour, at most two words that are no colours, and a garment: "navy knitted sweater"."""
    garments = "|".join(re.escape(word) for word in sorted(clothing_words(), key=len, reverse=True))
    between = rf"(?:[\s-]+(?!(?:{ANY_COLOUR}|and|over)\b)[\w-]+){{0,2}}?"
    return re.compile(rf"(?<!\band )\b({ANY_COLOUR})\b{between}[\s-]+(?:{garments})(?:s|es)?\b", re.IGNORECASE)
