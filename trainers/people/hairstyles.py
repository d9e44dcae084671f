"""How hair can be cut and combed: a table of styles, and who tends to wear which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class HairStyle:
    """One cut. Lengths and heights in head units (about a decimetre on an adult).

    words: for captions. length: of the strands on top; sides: share of it on sides and back. cut: height at
    which hanging hair ends, None for hair too short to hang. fringe: height at which hair combed over the
    forehead ends, None where the forehead is free. volume: height of the outer layer above the skin. Combed
    with these weights: crown away from the whorl, side away from the parting (at x = parting), back
    (negative: forwards), up. lift: how upright it leaves the skin, which is also how stiff it is; gravity:
    how fast it turns down. curl: radius, turns: number of windings; frizz: roughness of single strands;
    clump: 0 loose .. 1 locks that end in one point. tied: "", "tail" or "bun". overhang: how far short hair
    hangs over ears and nape.
    """

    words: str
    length: float
    sides: float = 1.0
    cut: float | None = None
    fringe: float | None = None
    volume: float = 0.12
    crown: float = 1.0
    side: float = 0.0
    parting: float = 0.0
    back: float = 0.0
    up: float = 0.0
    lift: float = 0.5
    gravity: float = 0.5
    curl: float = 0.0
    turns: float = 0.0
    frizz: float = 0.02
    clump: float = 0.5
    tied: str = ""
    overhang: float = 0.08

    @property
    def long(self) -> bool:
        return self.cut is not None


STYLES: dict[str, HairStyle] = {
    "bald": HairStyle(words="no hair", length=0.0, volume=0.0),
    "buzz": HairStyle(words="buzz-cut hair", length=0.10, volume=0.05, lift=0.7, gravity=0.0, clump=0.1, frizz=0.01),
    "short": HairStyle(
        words="short cropped hair",
        length=0.36,
        sides=0.45,
        volume=0.13,
        back=-0.5,
        gravity=0.15,
        clump=0.55,
        frizz=0.03,
    ),
    "side part": HairStyle(
        words="short side-parted hair",
        length=0.80,
        sides=0.32,
        volume=0.17,
        side=1.0,
        back=0.35,
        crown=0.3,
        parting=0.38,
        lift=0.45,
        gravity=0.2,
    ),
    "quiff": HairStyle(
        words="a quiff",
        length=0.62,
        sides=0.25,
        volume=0.28,
        back=0.8,
        crown=0.2,
        up=0.7,
        lift=0.9,
        gravity=0.05,
        clump=0.6,
    ),
    "swept back": HairStyle(
        words="swept-back hair",
        length=1.0,
        sides=0.45,
        volume=0.15,
        back=1.0,
        crown=0.25,
        lift=0.5,
        gravity=0.1,
        clump=0.65,
    ),
    "fringe crop": HairStyle(
        words="short hair with a fringe",
        length=0.85,
        sides=0.45,
        volume=0.14,
        back=-0.4,
        fringe=0.72,
        lift=0.4,
        gravity=0.3,
        clump=0.45,
        overhang=0.18,
    ),
    "short curls": HairStyle(
        words="short curly hair",
        length=0.60,
        sides=0.6,
        volume=0.25,
        lift=0.9,
        gravity=0.1,
        curl=0.07,
        turns=2.2,
        clump=0.85,
        frizz=0.05,
        overhang=0.15,
    ),
    "afro": HairStyle(
        words="an afro",
        length=0.85,
        sides=0.9,
        volume=0.55,
        crown=0.0,
        up=0.0,
        lift=1.0,
        gravity=0.0,
        curl=0.06,
        turns=3.0,
        clump=0.45,
        frizz=0.07,
        overhang=0.3,
    ),
    "short afro": HairStyle(
        words="a short afro",
        length=0.34,
        sides=0.7,
        volume=0.22,
        crown=0.0,
        lift=1.0,
        gravity=0.0,
        curl=0.035,
        turns=2.5,
        clump=0.5,
        frizz=0.04,
    ),
    "pixie": HairStyle(
        words="a pixie cut",
        length=0.9,
        sides=0.6,
        volume=0.17,
        side=0.8,
        parting=0.3,
        crown=0.8,
        fringe=0.70,
        lift=0.4,
        gravity=0.3,
        clump=0.45,
        overhang=0.25,
    ),
    "bob": HairStyle(
        words="a bob",
        length=2.6,
        volume=0.20,
        side=0.8,
        crown=0.5,
        parting=0.15,
        gravity=0.9,
        cut=-0.55,
        lift=0.4,
    ),
    "bob with fringe": HairStyle(
        words="a bob with a fringe", length=2.6, volume=0.20, gravity=0.9, cut=-0.5, fringe=0.69, lift=0.4
    ),
    "shoulder": HairStyle(
        words="shoulder-length hair",
        length=3.2,
        volume=0.20,
        side=0.9,
        crown=0.4,
        parting=0.3,
        gravity=0.8,
        cut=-1.25,
        lift=0.4,
        clump=0.6,
        curl=0.03,
        turns=1.2,
    ),
    "long": HairStyle(
        words="long straight hair",
        length=4.6,
        volume=0.16,
        side=0.9,
        crown=0.4,
        gravity=0.9,
        cut=-2.5,
        lift=0.35,
        clump=0.6,
    ),
    "long with fringe": HairStyle(
        words="long hair with a fringe",
        length=4.6,
        volume=0.18,
        gravity=0.9,
        cut=-2.4,
        fringe=0.69,
        lift=0.35,
        clump=0.45,
    ),
    "long waves": HairStyle(
        words="long wavy hair",
        length=4.6,
        volume=0.24,
        side=0.9,
        crown=0.4,
        parting=0.2,
        gravity=0.8,
        cut=-2.2,
        lift=0.5,
        clump=0.8,
        curl=0.07,
        turns=4.0,
        frizz=0.03,
    ),
    "long curls": HairStyle(
        words="long curly hair",
        length=4.0,
        volume=0.34,
        side=0.7,
        crown=0.6,
        gravity=0.7,
        cut=-1.6,
        lift=0.7,
        clump=0.85,
        curl=0.10,
        turns=4.2,
        frizz=0.05,
    ),
    "ponytail": HairStyle(
        words="a ponytail",
        length=2.3,
        volume=0.06,
        lift=0.2,
        gravity=0.0,
        clump=0.2,
        frizz=0.008,
        tied="tail",
        curl=0.01,
        turns=2.0,
    ),
    "bun": HairStyle(
        words="hair tied in a bun", length=2.3, volume=0.06, lift=0.2, gravity=0.0, clump=0.2, frizz=0.008, tied="bun"
    ),
}

# Preference by sex and kind of hair (straight or wavy; tightly curled).
_PREFERENCES: dict[tuple[bool, bool], dict[str, float]] = {
    (True, False): {
        "long": 4,
        "long waves": 4,
        "long with fringe": 2,
        "shoulder": 4,
        "bob": 3,
        "bob with fringe": 2,
        "ponytail": 3,
        "bun": 2,
        "pixie": 2,
        "long curls": 2,
        "short": 0.4,
    },
    (True, True): {
        "afro": 3,
        "long curls": 3,
        "short afro": 2,
        "bun": 2,
        "ponytail": 1.5,
        "long": 1,
        "bob": 1,
        "shoulder": 1,
        "buzz": 0.4,
    },
    (False, False): {
        "short": 4,
        "side part": 4,
        "quiff": 2.5,
        "swept back": 2,
        "fringe crop": 2.5,
        "short curls": 1.5,
        "buzz": 1.5,
        "shoulder": 0.6,
        "bun": 0.3,
        "bald": 0.5,
    },
    (False, True): {"buzz": 3, "short afro": 4, "afro": 1.5, "short curls": 2.5, "short": 1, "bald": 0.8},
}
_FOR_CHILDREN = {
    "bald": "short",
    "quiff": "fringe crop",
    "swept back": "side part",
    "pixie": "bob with fringe",
    "buzz": "short",
}
_FOR_OLD_AGE = {
    "long": "shoulder",
    "long waves": "shoulder",
    "long with fringe": "bob with fringe",
    "long curls": "short curls",
    "ponytail": "bun",
}


def sample_hair_style(rng: np.random.Generator, *, female: bool, african: float) -> str:
    """A style that somebody might wear; `african`: share of African ancestry, with which tight curls come."""
    table = _PREFERENCES[female, bool(rng.random() < african * 1.1)]
    weights = np.array(list(table.values()), dtype=float)
    return str(rng.choice(list(table), p=weights / weights.sum()))


def style_at_age(style: str, age: float) -> str:
    """The style that the wearer of `style` has at `age`: toddlers' hair is short, children do not shave
    their heads, and few wear their hair long when they are old."""
    if age < 3:
        return {"afro": "short afro", "long curls": "short curls", "short afro": "short afro"}.get(style, "fringe crop")
    if age < 12:
        return _FOR_CHILDREN.get(style, style)
    return _FOR_OLD_AGE.get(style, style) if age > 62 else style
