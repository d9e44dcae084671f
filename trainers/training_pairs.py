"""What a preference round trains on, free of any store: pictures in memory, or a folder of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from core.images import read_picture

LIST_FILE = "pairs.jsonl"


@dataclass(frozen=True, eq=False)
class TrainingPair:
    """Two pictures of the same people for the same prompt, one of them preferred.

    id: of the pair, in logs and on the adapter's card.
    prompt: what both pictures were made for; image k in it is reference k.
    references: face crops as the model reads them (`core.portraits.prepare_person`), uint8 (side, side, 3) RGB.
    chosen, rejected: uint8 (H, W, 3) RGB of one size.
    """

    id: str
    prompt: str
    references: tuple[np.ndarray, ...]
    chosen: np.ndarray
    rejected: np.ndarray

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape:
            raise ValueError(
                f"Pair {self.id}: the chosen picture is {self.chosen.shape}, the rejected one {self.rejected.shape}; "
                "both sides share their noise, so they need one size."
            )


def write_pairs(folder: Path, pairs: Iterable[TrainingPair]) -> int:
    """Write pairs as PNG files, named by their content, and `pairs.jsonl`; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": pair.id,
            "prompt": pair.prompt,
            "references": [_write_picture(folder, reference) for reference in pair.references],
            "chosen": _write_picture(folder, pair.chosen),
            "rejected": _write_picture(folder, pair.rejected),
        }
        for pair in pairs
    ]
    (folder / LIST_FILE).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return len(rows)


def read_pairs(folder: Path) -> list[TrainingPair]:
    """The pairs of a folder written by `write_pairs`, or by hand in its form.

    Raises:
        ValueError: no list in the folder, or a line that is no pair; names it.
        PictureError: a picture is missing or damaged.
    """
    path = folder / LIST_FILE
    if not path.is_file():
        raise ValueError(f"There are no pairs in {folder}: {LIST_FILE} is missing; write it with trainers.pairs --out.")
    pairs = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            identifier, prompt = row["id"], row["prompt"]
            names = [*row["references"], row["chosen"], row["rejected"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Line {number} of {path} is no pair ({type(error).__name__}: {error}).") from error
        *references, chosen, rejected = (read_picture(folder / name) for name in names)
        pairs.append(TrainingPair(identifier, prompt, tuple(references), chosen, rejected))
    return pairs


def _write_picture(folder: Path, picture: np.ndarray) -> str:
    name = f"{hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).hexdigest()[:24]}.png"
    if not (folder / name).exists():
        Image.fromarray(picture).save(folder / name)
    return name
