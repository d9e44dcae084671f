"""People cut out of their background, in shards: what the pictures of the mini bundle are composed of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from trainers.people.record import PersonRecord
from trainers.runs import replaced_when_complete

HELD_OUT_PEOPLE = 100
"""People 0 to 99 are never trained on."""
PEOPLE_PER_SHARD = 20

_RECORD = TypeAdapter(PersonRecord)
_ARRAYS = ("rgba", "boxes", "people", "lights", "wide")


@dataclass(frozen=True)
class Cutouts:
    """N people cut out of their background.

    rgba (N, H, W, 4) uint8 with straight alpha; boxes (N, 4) of the face in pixels; people (N,); lights (N,) keys of
    `trainers.people.daylight.LIGHTS`; looks: what can be said of each; wide (N,) bool: turned too far, or of an age
    that pictures of the mini bundle do not show.
    """

    rgba: np.ndarray
    boxes: np.ndarray
    people: np.ndarray
    lights: np.ndarray
    wide: np.ndarray
    looks: tuple[PersonRecord, ...]

    def save(self, path: Path) -> None:
        """Whole or not at all: the json is written last and makes the shard visible."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(path.with_suffix(".npz")) as file:
            np.savez(file, **{name: getattr(self, name) for name in _ARRAYS})
        with replaced_when_complete(path.with_suffix(".json")) as file:
            file.write(json.dumps([_RECORD.dump_python(look, mode="json") for look in self.looks]).encode())

    @classmethod
    def load(cls, path: Path) -> Cutouts:
        with np.load(path.with_suffix(".npz")) as arrays:
            values = {name: arrays[name] for name in _ARRAYS}
        rows = json.loads(path.with_suffix(".json").read_text())
        return cls(**values, looks=tuple(_RECORD.validate_python(row) for row in rows))


def landmarks_of(cutouts: Cutouts, row: int) -> np.ndarray:
    """(5, 2) x, y in pixels, counted from the middle of the first pixel (the renderer counts from its edge)."""
    return np.array(cutouts.looks[row].landmarks) - 0.5
