"""Who somebody is, and how they look in one picture.

An `Identity` is one individual without an age: shape, colours, preferences. An `Appearance` is that individual in one
picture: age, expression, pose, clothes. Both are plain values: no mesh and no tensors are needed to make, store or
compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from trainers.people.accessories import Glasses, Hat
from trainers.people.beard import BEARDS, sample_beard
from trainers.people.cloth import Clothes
from trainers.people.hairstyles import STYLES, sample_hair_style
from trainers.people.shape import SHAPE_TARGETS, sample_shape

Colour = tuple[float, float, float]
YOUNGEST, OLDEST = 1.0, 80.0


# Shape that a child has not grown yet: the share of the adult's deviation that shows at the youngest age.
_CHILD_SHARE = {"nose": 0.45, "chin": 0.45, "eyebrows": 0.6, "cheek": 0.4, "forehead": 0.8, "head": 0.7}


def _both(name: str, weight: float) -> dict[str, float]:
    """The unit of the left and of the right side."""
    return {name.format(side): weight for side in ("left", "right")}


EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"mouth-corner-puller": 0.6, "mouth-retraction": 0.25, **_both("eye-{}-slit", 0.12)},
    "grin": {"mouth-upward-retraction": 0.6, "mouth-corner-puller": 0.4, **_both("eye-{}-slit", 0.18)},
    "serious": {"mouth-compression": 0.1, **_both("eyebrows-{}-down", 0.4)},
    "surprised": {"mouth-parling": 0.7, **_both("eyebrows-{}-up", 0.8), **_both("eye-{}-opened-up", 0.4)},
}
"""Expression -> MakeHuman expression units and their weights."""


@dataclass(frozen=True, kw_only=True)
class Brows:
    """thickness and density: 1 = average; arch: 0 straight .. 1 high; height: dm above the average line."""

    thickness: float
    arch: float
    density: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Mole:
    """Template coordinates x, y on the face (dm from the head joint), radius in dm."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One individual, ageless.

    masculinity: 0 woman .. 1 man; ethnicity: shares of African, Asian, European ancestry, summing to 1.
    shape: one value for each of SHAPE_TARGETS, -1..1; weight, muscle: -1..1.
    melanin: 0 palest .. 1 darkest; undertone: -1 cool .. 1 warm; hair_colour, iris_colour: linear RGB of the young
    adult.
    freckles, ruddiness: 0..1. hair_style, beard: what they usually wear. seed: for textures.
    """

    name: str
    seed: int
    masculinity: float
    ethnicity: tuple[float, float, float]
    shape: tuple[float, ...]
    weight: float
    muscle: float
    melanin: float
    undertone: float
    ruddiness: float
    freckles: float
    moles: tuple[Mole, ...]
    hair_colour: Colour
    hair_colour_name: str
    iris_colour: Colour
    brows: Brows
    lip_redness: float
    greying: float
    hair_style: str
    beard: str

    @property
    def female(self) -> bool:
        return self.masculinity < 0.5

    def shape_at(self, age: float) -> list[float]:
        """The shape vector at `age`: children show part of it, more in what grows last (nose, jaw)."""
        grown = _ramp(age, 3, 19)
        return [
            value * (grown + (1 - grown) * _CHILD_SHARE.get(target.name.split("/")[0], 0.8))
            for target, value in zip(SHAPE_TARGETS, self.shape, strict=True)
        ]

    def grey_at(self, age: float) -> float:
        """Share of hair without pigment, 0..1."""
        return _ramp(age, 38 + 14 * (1 - self.greying), 66 + 16 * (1 - self.greying)) * 0.95

    def pigment_at(self, age: float) -> Colour:
        """Linear RGB of the hair that is not grey: fair-haired children darken."""
        fair = 1 + 0.35 * (1 - _ramp(age, 5, 16)) * (1 - self.melanin)
        return tuple(min(1.0, c * fair) for c in self.hair_colour)

    def hair_colour_at(self, age: float) -> Colour:
        """Linear RGB of all hair together: old hair turns grey, then white."""
        grey, white = self.grey_at(age), (0.46, 0.46, 0.47)
        return tuple(c * (1 - grey) + w * grey for c, w in zip(self.pigment_at(age), white, strict=True))


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """One identity in one picture.

    age: years, 1..80. expression: key of EXPRESSIONS; intensity: 0..1 of it. Angles in radians: yaw (positive: the
    face turns to the picture's right), pitch (positive: chin down), roll of the head against the body;
    turn, lean of the whole body.
    gaze: (right, up) of the eyes against the head, None looks into the camera. arms: how far (left, right)
    arms are raised from hanging. position: (x, y, z) of the base of the neck in the scene, dm.
    """

    age: float
    expression: str = "neutral"
    intensity: float = 1.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    turn: float = 0.0
    lean: float = 0.0
    gaze: tuple[float, float] | None = None
    arms: tuple[float, float] = (0.0, 0.0)
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    clothes: Clothes = field(default_factory=Clothes)
    hair_style: str = "short"
    beard: str = "none"
    lipstick: Colour | None = None
    glasses: Glasses | None = None
    hat: Hat | None = None

    def __post_init__(self) -> None:
        if not YOUNGEST <= self.age <= OLDEST:
            raise ValueError(f"age {self.age} is outside {YOUNGEST:g}..{OLDEST:g} years")
        if self.expression not in EXPRESSIONS:
            raise ValueError(f"unknown expression {self.expression!r}; choose one of {', '.join(EXPRESSIONS)}")
        if self.hair_style not in STYLES:
            raise ValueError(f"unknown hair style {self.hair_style!r}; choose one of {', '.join(STYLES)}")
        if self.beard not in BEARDS:
            raise ValueError(f"unknown beard {self.beard!r}; choose one of {', '.join(BEARDS)}")


@dataclass(frozen=True)
class Person:
    """An identity and how it looks in one picture."""

    identity: Identity
    appearance: Appearance

    @property
    def expression_units(self) -> Mapping[str, float]:
        look = self.appearance
        return {name: weight * look.intensity for name, weight in EXPRESSIONS[look.expression].items()}


_HAIR = {
    "black": (0.03, 0.025, 0.022),
    "dark brown": (0.12, 0.07, 0.045),
    "brown": (0.28, 0.17, 0.10),
    "auburn": (0.38, 0.16, 0.08),
    "red": (0.55, 0.22, 0.08),
    "dark blond": (0.52, 0.37, 0.21),
    "blond": (0.74, 0.57, 0.34),
}
_IRIS = {
    "dark": (0.16, 0.09, 0.05),
    "brown": (0.30, 0.16, 0.07),
    "hazel": (0.42, 0.30, 0.14),
    "green": (0.32, 0.42, 0.25),
    "blue": (0.32, 0.50, 0.68),
    "grey": (0.48, 0.53, 0.56),
}


@lru_cache(maxsize=1024)
def sample_identity(seed: int) -> Identity:
    """The person number `seed` of the prior: sexes and ancestries evenly, shape from a correlated Gaussian
    without outliers."""
    rng = np.random.default_rng([20_031, seed])
    female = bool(rng.integers(2))
    masculinity = float(np.clip(rng.normal(0.08, 0.07), 0, 0.3))
    masculinity = masculinity if female else 1 - masculinity
    main = int(rng.integers(3))
    shares = 0.25 * rng.dirichlet([0.5, 0.5, 0.5]) if rng.random() < 0.75 else 0.55 * rng.dirichlet([1.0, 1.0, 1.0])
    shares[main] += 1 - shares.sum()
    african, asian, european = shares
    melanin = float(np.clip(african * 0.80 + asian * 0.27 + european * 0.10 + rng.normal(0, 0.08), 0, 1))
    dark = european < 0.6
    hair_name = str(
        rng.choice(["black", "dark brown"], p=[0.7, 0.3])
        if dark
        else rng.choice(list(_HAIR), p=[0.08, 0.24, 0.24, 0.08, 0.08, 0.14, 0.14])
    )
    iris = str(
        rng.choice(["dark", "brown"]) if dark else rng.choice(list(_IRIS), p=[0.08, 0.24, 0.18, 0.14, 0.24, 0.12])
    )
    moles = tuple(
        Mole(x=float(rng.uniform(-0.55, 0.55)), y=float(rng.uniform(-0.6, 0.7)), radius=float(rng.uniform(0.010, 0.02)))
        for _ in range(int(rng.poisson(0.8)))
    )
    return Identity(
        name=f"person-{seed:06d}",
        seed=seed,
        masculinity=masculinity,
        ethnicity=tuple(float(s) for s in shares),
        shape=tuple(float(v) for v in sample_shape(rng)),
        weight=float(np.clip(rng.normal(0, 0.4), -0.8, 0.9)),
        muscle=float(np.clip(rng.normal(0, 0.35), -0.8, 0.8)),
        melanin=melanin,
        undertone=float(np.clip(rng.normal(0, 0.5), -1, 1)),
        ruddiness=float(rng.uniform(0.2, 0.9)),
        freckles=float(max(0.0, rng.normal(-0.2, 0.6)) if melanin < 0.25 else 0.0),
        moles=moles,
        hair_colour=linear(_varied(rng, _HAIR[hair_name])),
        hair_colour_name=hair_name,
        iris_colour=linear(_varied(rng, _IRIS[iris])),
        brows=Brows(
            thickness=float(rng.uniform(0.7, 1.15) if female else rng.uniform(0.95, 1.6)),
            arch=float(rng.uniform(0.2, 1.2)),
            density=float(rng.uniform(0.65, 0.95)),
            height=float(rng.normal(0, 0.018)),
        ),
        lip_redness=float(rng.uniform(0.2, 1.0)),
        greying=float(rng.random()),
        hair_style=sample_hair_style(rng, female=female, african=african),
        beard="none" if female else sample_beard(rng),
    )


def linear(colour: Colour) -> Colour:
    """sRGB 0..1 -> linear RGB."""
    return tuple(c / 12.92 if c < 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)


def _varied(rng: np.random.Generator, colour: Colour) -> Colour:
    return tuple(float(c) for c in np.clip(np.array(colour) * rng.uniform(0.85, 1.15), 0, 1))


def _ramp(x: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (x - low) / (high - low)))
