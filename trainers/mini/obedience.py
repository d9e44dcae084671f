"""Whether pictures show the places and the colours of clothes that their prompts name.

Light changes colours, and people cover places. So the words are told by discriminants fitted to rendered pictures with
known prompts; what they make of other true pictures is their ceiling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import cv2
import numpy as np

from core.colours import ANY_COLOUR, lab
from core.metrics import clothing_colour
from trainers.mini.data import Box, Example, Shard
from trainers.people.daylight import LIGHTS
from trainers.people.places import PLACES

COLUMNS, ROWS = 16, 10
SHRINKAGE = 0.1


class Discriminant:
    """Linear discriminant analysis: names the class of a vector of features."""

    def __init__(self, features: np.ndarray, names: Sequence[str]) -> None:
        """features: (N, D); names: (N,), each at least twice."""
        self.names, of = np.unique(np.array(names), return_inverse=True)
        self._scale = features.std(0) + 1e-6
        features = features / self._scale
        means = np.stack([features[of == number].mean(0) for number in range(len(self.names))])
        within = np.atleast_2d(np.cov((features - means[of]).T))
        within += SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
        self._weights = np.linalg.solve(within, means.T)
        self._bias = -0.5 * (means.T * self._weights).sum(0)

    def __call__(self, features: np.ndarray) -> str:
        """features: (D,)."""
        return str(self.names[int((features / self._scale @ self._weights + self._bias).argmax())])


class Obedience:
    """Names the place of a picture and the colour of the clothes below a face, as prompts would."""

    def __init__(self, shards: Sequence[Shard], size: tuple[int, int]) -> None:
        """size: (height, width) of the pictures that are told apart; those of other sizes are left out."""
        places, clothes = [], []
        for shard in shards:
            for example in (one for one in shard.examples if one.size == size):
                picture = shard.pictures[example.size][example.picture]
                if (place := place_said(example.prompt)) is not None:
                    places.append((_place_features(picture), place))
                for box, colour in zip(example.boxes, colours_worn(example), strict=True):
                    if colour is not None and (features := _clothes_features(picture, box)) is not None:
                        clothes.append((features, colour))
        self._place, self._colour = (
            Discriminant(np.stack([features for features, _ in known]), [name for _, name in known])
            for known in (places, clothes)
        )

    def place(self, picture: np.ndarray) -> str:
        return self._place(_place_features(picture))

    def colour(self, picture: np.ndarray, face: Box) -> str | None:
        """None where the picture ends above the clothes."""
        features = _clothes_features(picture, face)
        return None if features is None else self._colour(features)


def place_said(words: str) -> str | None:
    """The place of `PLACES` that a scene or prompt names, None where it names none."""
    return _named(words, {name: (*place.words, *place.asked) for name, place in PLACES.items()})


def light_said(words: str) -> str | None:
    """The light of `LIGHTS` that a scene or prompt names, None where it names none."""
    return _named(words, {name: (*light.words, *light.asked) for name, light in LIGHTS.items()})


def _named(words: str, phrases: dict[str, tuple[str, ...]]) -> str | None:
    """The name of the longest phrase in `words`; what stands in braces in a phrase may be any word."""
    found: dict[int, str] = {}
    for name, of_name in phrases.items():
        for phrase in of_name:
            pattern = re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(phrase))
            if (match := re.search(rf"\b{pattern}\b", words, re.IGNORECASE)) is not None:
                found[len(match.group())] = name
    return found[max(found)] if found else None


def colours_worn(example: Example) -> list[str | None]:
    """For each person the colour of their clothes; None for more than one."""
    said = (re.findall(rf"\b({ANY_COLOUR})\b", attributes.get("clothes", "")) for attributes in example.attributes)
    return [colours[0] if len(colours) == 1 else None for colours in said]


def _place_features(picture: np.ndarray) -> np.ndarray:
    """Mean colours and contrasts of ROWS x COLUMNS parts."""
    values = picture.astype(np.float32) / 255
    small = cv2.resize(values, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    squares = cv2.resize(values.mean(2) ** 2, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    contrast = np.sqrt((squares - small.mean(2) ** 2).clip(min=0))
    return np.concatenate([small.ravel(), contrast.ravel()])


def _clothes_features(picture: np.ndarray, face: Box) -> np.ndarray | None:
    """The colour below the chin and that of the whole picture, which tells the light, in CIE L*a*b*."""
    worn = clothing_colour(picture, face)
    if worn is None:
        return None
    worn, around = lab(worn), lab(picture.reshape(-1, 3).mean(0))
    chroma = np.hypot(*worn[1:])
    return np.concatenate([worn, around, [chroma], np.outer(worn, worn)[np.triu_indices(3)] / 100])
