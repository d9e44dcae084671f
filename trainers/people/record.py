"""What can be seen in a rendered picture, in numbers and words: the JSON record of every sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter

from trainers.people.beard import BEARDS, beard_at_age
from trainers.people.cloth import Clothes
from trainers.people.hairstyles import STYLES, style_at_age
from trainers.people.identity import Person
from trainers.people.places import Setting
from trainers.people.scene import Scene

POSITIONS: dict[int, tuple[str | None, ...]] = {
    1: (None,),
    2: ("on the left", "on the right"),
    3: ("on the left", "in the middle", "on the right"),
    4: ("on the far left", "second from the left", "second from the right", "on the far right"),
}
"""Where people of a group stand, from left to right, in words."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """Where a face is, in pixels. box: x0, y0, x1, y1; landmarks: eye, eye, nose tip, mouth corner, mouth corner
    (x, y), the person's right side first."""

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    visible: float


@dataclass(frozen=True, kw_only=True)
class PersonRecord:
    """One person of a picture. identity: its seed; age in years; angles in degrees; words as captions use them,
    None where there is nothing to say. gaze: "camera", "left" or "right" of the picture."""

    identity: int
    age: float
    female: bool
    noun: str
    position: str | None
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    visible: float
    clothes: Clothes
    clothes_words: str
    hair: str
    hair_colour: str
    hair_style: str
    beard: str | None
    glasses: str | None
    hat: str | None
    expression: str
    gaze: str
    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, kw_only=True)
class SceneRecord:
    """A picture: its size in pixels, its people from left to right, its place and light. `seed`, with `kind` and the
    arguments of the planner, makes it again."""

    seed: int
    kind: str
    height: int
    width: int
    setting: Setting
    interaction: str | None
    people: tuple[PersonRecord, ...]

    def to_json(self) -> dict:
        return _ADAPTER.dump_python(self, mode="json")

    @classmethod
    def from_json(cls, values: dict) -> SceneRecord:
        """Raises pydantic.ValidationError when the values are no record."""
        return _ADAPTER.validate_python(values)


_ADAPTER = TypeAdapter(SceneRecord)


def describe(scene: Scene, faces: Sequence[Face], height: int) -> SceneRecord:
    """The record of a picture of `scene`, `height` pixels tall, with `faces` found at its members from left to
    right."""
    height, width = scene.size(height)
    positions = POSITIONS[len(scene.members)]
    people = [
        _describe(member.identity, member.person, face, position)
        for member, face, position in zip(scene.members, faces, positions, strict=True)
    ]
    return SceneRecord(
        seed=scene.seed,
        kind=scene.kind,
        height=height,
        width=width,
        setting=scene.setting,
        interaction=scene.interaction,
        people=tuple(people),
    )


def noun(*, female: bool, age: float) -> str:
    """What one calls somebody: "toddler", "girl", "teenage boy", "young woman", "man", "elderly woman"."""
    if age < 3:
        return "toddler"
    if age < 13:
        return "girl" if female else "boy"
    if age < 18:
        return "teenage girl" if female else "teenage boy"
    grown = "woman" if female else "man"
    return f"young {grown}" if age < 30 else f"elderly {grown}" if age >= 66 else grown


def hair_words(style_words: str, colour: str) -> str:
    """The colour at its place: "long wavy black hair", "a black bob", "black hair tied in a bun"; "no hair" has
    none."""
    if style_words == "no hair":
        return style_words
    first, _, rest = style_words.partition(" ")
    if first in ("a", "an"):
        return f"{article(colour)} {colour} {rest}"
    return style_words.replace("hair", f"{colour} hair", 1)


def article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _describe(identity: int, person: Person, face: Face, position: str | None) -> PersonRecord:
    who, look = person.identity, person.appearance
    grey = who.grey_at(look.age)
    colour = "white" if grey > 0.8 else "grey" if grey > 0.4 else who.hair_colour_name
    style = style_at_age(look.hair_style, look.age)
    beard = "none" if who.female else beard_at_age(look.beard, look.age)
    turn = 0.0 if look.gaze is None else look.gaze[0] + look.yaw
    return PersonRecord(
        identity=identity,
        age=round(look.age, 1),
        female=who.female,
        noun=noun(female=who.female, age=look.age),
        position=position,
        box=face.box,
        landmarks=face.landmarks,
        visible=face.visible,
        clothes=look.clothes,
        clothes_words=look.clothes.words,
        hair=hair_words(STYLES[style].words, colour),
        hair_colour=colour,
        hair_style=style,
        beard=None if beard == "none" else BEARDS[beard].words,
        glasses=look.glasses.words if look.glasses else None,
        hat=look.hat.words if look.hat else None,
        expression=look.expression,
        gaze="camera" if abs(turn) < 0.12 else "right" if turn > 0 else "left",
        **{angle: round(float(np.degrees(getattr(look, angle))), 1) for angle in ("yaw", "pitch", "roll")},
    )


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    if across <= 0 or down <= 0:
        return 0.0
    common = across * down
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return common / (areas - common) if math.isfinite(areas) else 0.0
