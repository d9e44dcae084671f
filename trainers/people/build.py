"""How large people are, roughly: enough to stand and frame them without a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainers.people.identity import Identity


@dataclass(frozen=True)
class Build:
    """Rough measures of a body, dm: heights of crown and chin above the base of the neck, half widths of shoulders and
    face, stature."""

    crown: float
    chin: float
    shoulder: float
    face: float
    stature: float

    @classmethod
    def of(cls, identity: Identity, age: float) -> Build:
        return cls(*(float(np.interp(age, _BUILD_AGES, row)) for row in _BUILDS[identity.female]))


# Read off the mesh at average shape: rows are the fields of Build.
_BUILD_AGES = (1, 2, 5, 8, 12, 16, 25, 80)
_BUILDS = {
    True: (
        (1.42, 1.51, 1.77, 2.03, 2.31, 2.41, 2.62, 2.60),
        (0.15, 0.19, 0.29, 0.39, 0.50, 0.54, 0.59, 0.53),
        (0.86, 0.94, 1.17, 1.39, 1.67, 1.82, 2.16, 2.16),
        (0.52, 0.54, 0.59, 0.64, 0.69, 0.71, 0.74, 0.74),
        (7.4, 8.6, 10.8, 12.7, 15.0, 16.2, 16.5, 16.0),
    ),
    False: (
        (1.55, 1.65, 1.94, 2.23, 2.54, 2.64, 2.84, 2.72),
        (0.02, 0.04, 0.11, 0.18, 0.26, 0.26, 0.28, 0.15),
        (0.87, 0.97, 1.27, 1.60, 1.98, 2.13, 2.47, 2.42),
        (0.56, 0.58, 0.62, 0.67, 0.73, 0.75, 0.79, 0.80),
        (7.6, 8.8, 11.0, 12.8, 15.0, 17.0, 17.7, 17.2),
    ),
}
