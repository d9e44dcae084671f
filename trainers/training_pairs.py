"""What a preference round trains on, free of any store: pictures in memory, or a folder of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
