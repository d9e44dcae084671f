"""Thresholds that mean the same for every pack: 0.5 for a face, and the pack's own for one person."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from core.faces import FaceAnalyzer
from trainers.mini.faces.export import Calibration
from trainers.mini.faces.measure import overlap
from trainers.mini.faces.portraits import PortraitSet
from trainers.mini.faces.scenes import aligned_crop, degrade, random_scene

FALSE_FACES = 0.015  # in a picture, at a detector score of 0.5
FALSE_MATCHES = 1e-3  # share of pairs of different adults that pass for one person
LOWEST_SCORE = 0.1


def calibrate(pack: Path, portraits: PortraitSet, *, scenes: int = 200, seed: int = 4) -> Calibration:
    """Thresholds of a pack exported without any, from held-out people."""
    return Calibration(
        score_shift=_score_shift(pack, portraits, scenes, np.random.default_rng(seed)),
        same_person_threshold=_same_person_threshold(pack, portraits, np.random.default_rng(seed + 1)),
    )


def _score_shift(pack: Path, portraits: PortraitSet, count: int, rng: np.random.Generator) -> float:
    """Minus the logit of the lowest score at which there are at most FALSE_FACES false faces in a picture."""
    analyzer = FaceAnalyzer(pack, detection_threshold=LOWEST_SCORE, threads=1)
    false_scores = []
    for _ in range(count):
        scene = random_scene(rng, portraits, 256, damaged=False)
        for face in analyzer.analyze(degrade(rng, scene.picture, 0.4)):
            if all(overlap(face.box, box) < 0.3 for box in (*scene.box, *scene.hidden)):
                false_scores.append(face.score)
    allowed = int(FALSE_FACES * count)
    ordered = sorted(false_scores, reverse=True)
    score = ordered[allowed] if len(ordered) > allowed else LOWEST_SCORE
    score = min(max(score, 0.15), 0.7)
    return -math.log(score / (1 - score))


def _same_person_threshold(pack: Path, portraits: PortraitSet, rng: np.random.Generator) -> float:
    """The cosine that FALSE_MATCHES of the pairs of different adults exceed."""
    analyzer = FaceAnalyzer(pack, threads=1)
    adults = rng.permutation(np.flatnonzero(portraits.age >= 18))[:800]
    crops = np.stack([degrade(rng, aligned_crop(None, portraits[int(index)]), 0.4) for index in adults])
    embeddings = np.concatenate([analyzer.embed_aligned(part) for part in np.array_split(crops, len(crops) // 50 + 1)])
    person = portraits.identity[adults]
    different = np.triu(person[:, None] != person[None], 1)
    return float(np.quantile((embeddings @ embeddings.T)[different], 1 - FALSE_MATCHES))
