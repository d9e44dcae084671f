"""The shape of faces: the directions in which they differ, and a correlated prior over them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class ShapeTarget:
    """A symmetric direction of the face. name: MakeHuman group/target, positive and negative: the endings of its two
    sides (no negative: one-sided), deviation: standard deviation among adults, 1 = the end of the target."""

    name: str
    negative: str
    positive: str
    deviation: float


def _targets(table: str) -> tuple[ShapeTarget, ...]:
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(
        ShapeTarget(name, "" if low == "-" else low, "" if high == "-" else high, float(std))
        for name, low, high, std in rows
    )


SHAPE_TARGETS = _targets("""
head/head-fat decr incr .30
head/head-scale-depth decr incr .25
head/head-scale-horiz decr incr .30
head/head-scale-vert decr incr .30
head/head-back-scale-depth decr incr .25
head/head-oval - - .25
head/head-round - - .25
head/head-square - - .12
head/head-rectangular - - .12
head/head-triangular - - .15
head/head-invertedtriangular - - .12
head/head-diamond - - .20
forehead/forehead-nubian decr incr .30
forehead/forehead-scale-vert decr incr .35
forehead/forehead-temple decr incr .35
forehead/forehead-trans backward forward .30
eyebrows/eyebrows-angle down up .22
eyebrows/eyebrows-trans down up .40
eyes/eye-bag decr incr .25
eyes/eye-corner1 down up .35
eyes/eye-corner2 down up .40
eyes/eye-epicanthus in out .30
eyes/eye-eyefold concave convex .30
eyes/eye-eyefold-angle down up .30
eyes/eye-height1 decr incr .25
eyes/eye-height2 decr incr .30
eyes/eye-height3 decr incr .25
eyes/eye-push1 in out .25
eyes/eye-push2 in out .25
eyes/eye-scale decr incr .35
eyes/eye-trans in out .45
nose/nose-base down up .35
nose/nose-compression compress uncompress .30
nose/nose-curve concave convex .40
nose/nose-flaring decr incr .40
nose/nose-greek decr incr .30
nose/nose-hump decr incr .45
nose/nose-nostrils-angle down up .35
nose/nose-nostrils-width decr incr .40
nose/nose-point down up .45
nose/nose-point-width decr incr .45
nose/nose-scale-depth decr incr .40
nose/nose-scale-horiz decr incr .40
nose/nose-scale-vert decr incr .45
nose/nose-septumangle decr incr .30
nose/nose-trans down up .35
nose/nose-volume decr incr .40
nose/nose-width1 decr incr .40
nose/nose-width2 decr incr .40
nose/nose-width3 decr incr .40
mouth/mouth-angles down up .20
mouth/mouth-cupidsbow decr incr .35
mouth/mouth-cupidsbow-width decr incr .35
mouth/mouth-dimples in out .15
mouth/mouth-laugh-lines in out .20
mouth/mouth-lowerlip-height decr incr .35
mouth/mouth-lowerlip-volume decr incr .35
mouth/mouth-lowerlip-width decr incr .35
mouth/mouth-philtrum-volume decr incr .35
mouth/mouth-scale-depth decr incr .25
mouth/mouth-scale-horiz decr incr .40
mouth/mouth-scale-vert decr incr .30
mouth/mouth-trans down up .35
mouth/mouth-upperlip-height decr incr .35
mouth/mouth-upperlip-volume decr incr .35
mouth/mouth-upperlip-width decr incr .35
chin/chin-bones decr incr .35
chin/chin-cleft decr incr .25
chin/chin-height decr incr .40
chin/chin-prognathism decr incr .30
chin/chin-prominent decr incr .40
chin/chin-triangle - - .25
chin/chin-width decr incr .45
cheek/cheek-bones decr incr .40
cheek/cheek-inner decr incr .35
cheek/cheek-trans down up .30
cheek/cheek-volume decr incr .40
ears/ear-flap decr incr .30
ears/ear-lobe decr incr .40
ears/ear-rot backward forward .25
ears/ear-scale decr incr .30
ears/ear-wing decr incr .35
neck/neck-scale-depth decr incr .20
neck/neck-scale-horiz decr incr .20
neck/neck-scale-vert decr incr .20
""")

# Pairs that grow together (or against each other), beyond what sex, weight and ancestry already bring.
_CORRELATIONS = (
    ("nose/nose-scale-horiz", "nose/nose-width3", 0.5),
    ("nose/nose-scale-horiz", "nose/nose-nostrils-width", 0.5),
    ("nose/nose-width1", "nose/nose-width2", 0.5),
    ("nose/nose-width2", "nose/nose-width3", 0.5),
    ("nose/nose-volume", "nose/nose-point-width", 0.5),
    ("nose/nose-hump", "nose/nose-curve", 0.4),
    ("nose/nose-scale-depth", "nose/nose-scale-vert", 0.3),
    ("mouth/mouth-lowerlip-volume", "mouth/mouth-upperlip-volume", 0.6),
    ("mouth/mouth-lowerlip-height", "mouth/mouth-upperlip-height", 0.5),
    ("mouth/mouth-lowerlip-volume", "mouth/mouth-lowerlip-height", 0.4),
    ("mouth/mouth-lowerlip-width", "mouth/mouth-upperlip-width", 0.6),
    ("chin/chin-width", "chin/chin-bones", 0.5),
    ("chin/chin-width", "chin/chin-triangle", -0.5),
    ("chin/chin-prominent", "chin/chin-prognathism", 0.4),
    ("cheek/cheek-volume", "head/head-fat", 0.5),
    ("cheek/cheek-volume", "cheek/cheek-inner", 0.4),
    ("cheek/cheek-volume", "cheek/cheek-bones", -0.3),
    ("head/head-scale-horiz", "eyes/eye-trans", 0.4),
    ("head/head-scale-horiz", "chin/chin-width", 0.3),
    ("head/head-scale-vert", "chin/chin-height", 0.3),
    ("eyes/eye-height1", "eyes/eye-height2", 0.6),
    ("eyes/eye-height2", "eyes/eye-height3", 0.6),
    ("eyes/eye-corner2", "eyebrows/eyebrows-angle", 0.3),
    ("forehead/forehead-scale-vert", "head/head-scale-vert", 0.3),
)
_LARGEST_DISTANCE = 1.15  # of the root mean square shape value, in standard deviations


def sample_shape(rng: np.random.Generator) -> np.ndarray:
    """(len(SHAPE_TARGETS),) values -1..1 of somebody: a correlated Gaussian without its outliers."""
    deviations = np.array([t.deviation for t in SHAPE_TARGETS])
    one_sided = np.array([not t.negative for t in SHAPE_TARGETS])
    while True:
        z = _correlation_root() @ rng.normal(size=len(deviations))
        if math.sqrt(float(np.mean(z**2))) < _LARGEST_DISTANCE and np.abs(z).max() < 2.8:
            break
    z[one_sided] = np.maximum(z[one_sided], 0)
    return np.clip(z * deviations, -1, 1)


@cache
def _correlation_root() -> np.ndarray:
    index = {t.name: i for i, t in enumerate(SHAPE_TARGETS)}
    matrix = np.eye(len(index))
    for first, second, value in _CORRELATIONS:
        matrix[index[first], index[second]] = matrix[index[second], index[first]] = value
    # The pairs need not be consistent with each other: keep the nearest positive semi-definite part, unit diagonal.
    values, vectors = np.linalg.eigh(matrix)
    root = vectors * np.sqrt(np.maximum(values, 0))
    return root / np.linalg.norm(root, axis=1, keepdims=True)
