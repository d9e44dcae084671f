"""Pairs of noise, as large as the tiny bundles want them."""

from __future__ import annotations

import numpy as np

from trainers.training_pairs import TrainingPair

HEIGHT, WIDTH, SIDE = 64, 96, 64


def noise_pairs(prompts: int = 2, of_each: int = 2, *, seed: int = 0, people: int = 2) -> list[TrainingPair]:
    """`of_each` pairs for each of several prompts with references of their own."""
    rng = np.random.default_rng(seed)

    def picture(height: int, width: int) -> np.ndarray:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    pairs = []
    for prompt in range(prompts):
        references = tuple(picture(SIDE, SIDE) for _ in range(people))
        words = f"the man from image 1 and the woman from image 2 stand in park {prompt}"
        pairs += [
            TrainingPair(f"{prompt}-{number}", words, references, picture(HEIGHT, WIDTH), picture(HEIGHT, WIDTH))
            for number in range(of_each)
        ]
    return pairs
