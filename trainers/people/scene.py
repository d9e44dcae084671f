"""Who is in a picture, how they stand, in which light and where: planned from a seed alone, before anything is
rendered.

`plan_portrait` and `plan_group` return a `Scene`: plain values, no mesh, no tensors. `photograph.photograph` makes the
picture and the `SceneRecord` that says in words and numbers what can be seen in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from trainers.people.accessories import Glasses, sample_glasses, sample_hat
from trainers.people.build import Build
from trainers.people.camera import Camera
from trainers.people.cloth import sample_clothes
from trainers.people.hairstyles import STYLES, style_at_age
from trainers.people.identity import OLDEST, YOUNGEST, Appearance, Identity, Person, linear, sample_identity
from trainers.people.places import Setting, choose_setting

HELD_OUT_IDENTITIES = 2**31
"""Identity seeds from here on are for measuring and are never trained on."""

ASPECTS = (1.0, 1.25, 1.5, 1.75)
"""Width / height of pictures: square, and wider ones for more people."""
SMALLEST_FACE = 60 / 256
"""The least width of a face in a group, in picture heights."""

INTERACTIONS = {
    "together": "stand close together",
    "heads": "lean their heads together",
    "looking": "look at each other",
    "apart": "stand side by side",
}
"""What people of a group do, and the words for it."""

Split = Literal["train", "held-out"]


def identity_seed(split: Split, index: int) -> int:
    """The seed of the index-th identity of a split. The splits share nobody.

    Raises ValueError for an unknown split or an index outside 0..2^31-1.
    """
    if not 0 <= index < HELD_OUT_IDENTITIES:
        raise ValueError(f"Identity index {index} is outside 0..{HELD_OUT_IDENTITIES - 1}.")
    if split not in ("train", "held-out"):
        raise ValueError(f"Unknown split {split!r}: it is 'train' or 'held-out'.")
    return index + (HELD_OUT_IDENTITIES if split == "held-out" else 0)


def derived_seed(*parts: int) -> int:
    """A seed of 53 bits (exact in JSON) that depends on all parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(11))


@dataclass(frozen=True, kw_only=True)
class Member:
    """One person of a scene: the seed of the identity, and how it looks here."""

    identity: int
    appearance: Appearance

    @property
    def person(self) -> Person:
        return Person(sample_identity(self.identity), self.appearance)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture before it is taken. `members` from left to right; `aspect` is width / height; `interaction` a key of
    INTERACTIONS, None in portraits; `blur`: of the background, in picture heights."""

    seed: int
    kind: Literal["portrait", "group"]
    aspect: float
    setting: Setting
    camera: Camera
    members: tuple[Member, ...]
    interaction: str | None
    blur: float

    def size(self, height: int) -> tuple[int, int]:
        """(height, width) in pixels."""
        return height, round(height * self.aspect)

    @property
    def people(self) -> list[Person]:
        return [member.person for member in self.members]


_CLOSER = ((1.0, 1.0), (0.98, 0.7), (0.96, 0.6), (0.94, 0.5), (0.92, 0.4))
"""Steps by which distances across and up shrink where the faces of a group are too small."""
_GROUP_DEPTH, _FACE_DEPTH = 0.6, 0.8
"""z of the plane that groups are framed in, and of a face before its neck, dm."""
_CHILD_STATURE = 14.5
"""Whoever is shorter (dm) stands in front."""
_DETECTED = 0.9
"""Width of a face as detectors box it against its widest."""
_HATS = {"snow": ("beanie", 0.45), "beach": ("sun hat", 0.2), "park": ("cap", 0.1), "street": ("cap", 0.08)}


def plan_portrait(
    seed: int,
    *,
    identity: int | None = None,
    age: float | None = None,
    framing: Literal["face", "bust"] | None = None,
    split: Split = "train",
) -> Scene:
    """One person, framed on the face (as large as the frame allows) or down to the chest, |yaw| mostly below 35
    degrees.

    `identity` is the seed of a given person, else one of the split is drawn; `age` in years, else drawn from 2 to 80.
    """
    rng = np.random.default_rng([seed, 0x50])
    if identity is None:
        identity = identity_seed(split, int(rng.integers(HELD_OUT_IDENTITIES)))
    person = sample_identity(identity)
    drawn_age = float(rng.uniform(18, 78) if rng.random() < 0.72 else rng.uniform(2, 18))
    age = drawn_age if age is None else age
    drawn_framing = "face" if rng.random() < 0.65 else "bust"
    setting = choose_setting(derived_seed(seed, 0x51))
    look = sample_look(rng, person, age, setting)
    yaw = float(np.clip(rng.normal(0, 0.26), -0.65, 0.65))
    look = replace(
        look,
        yaw=yaw,
        pitch=float(np.clip(rng.normal(0, 0.08), -0.2, 0.2)),
        roll=float(np.clip(rng.normal(0, 0.07), -0.18, 0.18)),
        turn=float(np.clip(0.35 * yaw + rng.normal(0, 0.18), -0.5, 0.5)),
        gaze=None if rng.random() < 0.72 else (float(rng.uniform(-0.35, 0.35)), float(rng.uniform(-0.12, 0.12))),
    )
    build = Build.of(person, age)
    size = build.crown - build.chin
    top = build.crown + hair_height(look) + size * rng.uniform(0.06, 0.12)
    below = rng.uniform(0.16, 0.30) if (framing or drawn_framing) == "face" else rng.uniform(0.45, 0.65)
    bottom = build.chin - size * below
    middle = 0.35 * math.sin(yaw) + rng.normal(0, 0.04) - 0.6 * size * look.roll
    half = (top - bottom) / 2
    camera = Camera.framing(
        middle - half, middle + half, bottom, top, aspect=1.0, distance=float(rng.uniform(9.0, 13.0)), depth=0.5
    )
    return Scene(
        seed=seed,
        kind="portrait",
        aspect=1.0,
        setting=setting,
        camera=camera,
        members=(Member(identity=identity, appearance=look),),
        interaction=None,
        blur=float(rng.uniform(0.035, 0.06)),
    )


def plan_reference(seed: int, identity: int, age: float) -> Scene:
    """A portrait of a given person for a group picture: another place, light, outfit, pose and expression; no hat and
    no sunglasses, so that the face is all there."""
    scene = plan_portrait(seed, identity=identity, age=age, framing="face")
    member = scene.members[0]
    look = member.appearance
    glasses = look.glasses if look.glasses is None or not look.glasses.dark else None
    return replace(scene, members=(replace(member, appearance=replace(look, hat=None, glasses=glasses)),))


def plan_group(
    seed: int,
    *,
    people: int | None = None,
    identities: Sequence[int] | None = None,
    ages: Sequence[float] | None = None,
    aspect: float | None = None,
    split: Split = "train",
) -> Scene:
    """One to four people from left to right in one place and light; every face at least SMALLEST_FACE wide.

    `identities` (seeds, left to right) and `ages` (years) are drawn where not given; so is the number of `people`:
    1 to 4, mostly two or three. `aspect` forces a shape of the picture, else the narrowest of ASPECTS that leaves
    the faces large enough. Raises ValueError when the numbers contradict each other or are outside 1..4.
    """
    rng = np.random.default_rng([seed, 0x60])
    drawn = int(rng.choice([1, 2, 3, 4], p=[0.08, 0.47, 0.32, 0.13]))
    count = next((len(given) for given in (identities, ages) if given is not None), people or drawn)
    if not 1 <= count <= 4:
        raise ValueError(f"A group has 1 to 4 people, not {count}.")
    for name, given in (("identities", identities), ("ages", ages)):
        if given is not None and len(given) != count:
            raise ValueError(f"{len(given)} {name} for {count} people.")
    if identities is None:
        identities = _distinct_identities(rng, count, split)
    persons = [sample_identity(i) for i in identities]
    ages = _draw_ages(rng, count) if ages is None else ages
    setting = choose_setting(derived_seed(seed, 0x61))
    interaction = str(rng.choice(list(INTERACTIONS), p=[0.45, 0.25, 0.15, 0.15]))
    if interaction == "looking" and count != 2:
        interaction = "together"
    looks = [sample_look(rng, p, a, setting) for p, a in zip(persons, ages, strict=True)]
    builds = [Build.of(p, a) for p, a in zip(persons, ages, strict=True)]
    posed = _pose_group(rng, looks, builds, interaction if count > 1 else "apart")
    shoulders = float(rng.uniform(0.7, 1.1))
    distance = float(rng.uniform(13, 17))
    for across, up in _CLOSER:
        looks = [_moved(look, across, up) for look in posed]
        shape, camera, face = _frame_group(looks, builds, aspect, below=shoulders * max(up, 0.5), distance=distance)
        if face >= SMALLEST_FACE:
            break
    return Scene(
        seed=seed,
        kind="group",
        aspect=shape,
        setting=setting,
        camera=camera,
        members=tuple(Member(identity=i, appearance=look) for i, look in zip(identities, looks, strict=True)),
        interaction=interaction if count > 1 else None,
        blur=float(rng.uniform(0.022, 0.04)),
    )


def sample_look(rng: np.random.Generator, identity: Identity, age: float, setting: Setting) -> Appearance:
    """Clothes, hair, glasses, hat and expression of somebody at an age, in a place; looking straight ahead."""
    age = float(np.clip(age, YOUNGEST, OLDEST))
    hat = None
    kind, chance = _HATS.get(setting.place, ("cap", 0.0))
    if rng.random() < chance:
        hat = replace(sample_hat(rng), kind=kind)
    lips = None
    if identity.female and age >= 18 and rng.random() < 0.25:
        lips = linear(tuple(float(c) for c in rng.uniform([0.55, 0.12, 0.18], [0.75, 0.32, 0.38])))
    return Appearance(
        age=age,
        expression=str(
            rng.choice(["neutral", "smile", "grin", "serious", "surprised"], p=[0.27, 0.36, 0.22, 0.10, 0.05])
        ),
        intensity=float(rng.uniform(0.7, 1.0)),
        clothes=sample_clothes(rng, female=identity.female, age=age),
        hair_style=identity.hair_style,
        beard=identity.beard,
        lipstick=lips,
        glasses=usual_glasses(identity, age, rng, setting),
        hat=hat,
    )


def usual_glasses(identity: Identity, age: float, rng: np.random.Generator, setting: Setting) -> Glasses | None:
    """The glasses somebody wears in most pictures, always the same ones; in the sun now and then dark ones."""
    own = np.random.default_rng([identity.seed, 0x61A])
    wearer, glasses = own.random() < 0.12 + 0.25 * min(1.0, max(0.0, (age - 5) / 60)), sample_glasses(own)
    if rng.random() < 0.02 and age >= 10 and setting.light in ("midday", "sunset"):
        return replace(glasses, dark=True)
    return replace(glasses, dark=False) if wearer and age >= 4 and rng.random() < 0.85 else None


def hair_height(look: Appearance) -> float:
    """How far hair or hat stand above the crown, dm, roughly."""
    volume = STYLES[style_at_age(look.hair_style, look.age)].volume
    return max(volume, 0.35 if look.hat else 0.0)


def _distinct_identities(rng: np.random.Generator, count: int, split: Split) -> list[int]:
    drawn = rng.choice(HELD_OUT_IDENTITIES, size=count, replace=False)
    return [identity_seed(split, int(index)) for index in drawn]


def _draw_ages(rng: np.random.Generator, count: int) -> list[float]:
    """Adults, and in a third of the groups children beside them."""
    ages = [float(rng.uniform(18, 78)) for _ in range(count)]
    if count > 1 and rng.random() < 0.35:
        for k in rng.choice(count, size=1 if count == 2 else int(rng.integers(1, count)), replace=False):
            ages[k] = float(rng.uniform(3, 16))
    return ages


def _pose_group(
    rng: np.random.Generator, looks: list[Appearance], builds: list[Build], interaction: str
) -> list[Appearance]:
    """Positions with overlapping shoulders, heights by age, heads inclined to each other."""
    count = len(looks)
    hair = [_hair_width(look) for look in looks]
    front = _front_row(builds, hair)
    closeness = {"apart": 0.62, "together": 0.54, "heads": 0.50, "looking": 0.58}[interaction]
    crowd = 1.0 - 0.08 * (count - 2)
    x = [0.0]
    for k, (left, right) in enumerate(pairwise(builds)):
        heads = (left.face + right.face) * 1.06 + max(
            hair[j] for j in (k, k + 1) if front[j] or front[k] == front[k + 1]
        )
        x.append(x[-1] + max(heads, closeness * crowd * (left.shoulder + right.shoulder)))
    middle = (x[0] + x[-1]) / 2
    tallest = max(b.stature for b in builds)
    posed = []
    for k, (look, build) in enumerate(zip(looks, builds, strict=True)):
        # A photographer brings children's faces up to the others': only part of the difference in height is left.
        drop = tallest - build.stature
        y = -(min(drop, 1.2) * 0.75 + max(0.0, drop - 1.2) * 0.22) + rng.normal(0, 0.10)
        child = build.stature < _CHILD_STATURE
        z = 1.25 * front[k] + 0.45 * child
        side = float(np.clip((x[k] - middle) / 2.2, -1, 1))
        if interaction == "looking":
            yaw = -math.copysign(rng.uniform(0.38, 0.52), side)
            gaze = (-math.copysign(0.2, side), 0.0)
        else:
            yaw = float(np.clip(-0.12 * side + rng.normal(0, 0.14), -0.45, 0.45))
            gaze = None if rng.random() < 0.8 else (float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.1, 0.05)))
        lean_in = {"heads": 0.15, "together": 0.06}.get(interaction, 0.0)
        posed.append(
            replace(
                look,
                position=(x[k] - middle, float(y), float(z)),
                yaw=yaw,
                pitch=float(np.clip(rng.normal(0.0, 0.05) - (0.05 if child else 0.0), -0.15, 0.15)),
                roll=float(np.clip(lean_in * side + rng.normal(0, 0.04), -0.22, 0.22)),
                turn=float(-0.30 * side + rng.normal(0, 0.08)),
                lean=float(0.25 * lean_in * side),
                gaze=gaze,
            )
        )
    return posed


def _front_row(builds: list[Build], hair: list[float]) -> list[bool]:
    """Who stands a step in front: neighbours in one row would run into each other with arms and shoulders. Children
    do, and of adults those who hide least of the people behind them."""
    front = [build.stature < _CHILD_STATURE for build in builds]
    for k in sorted(range(len(builds)), key=lambda k: builds[k].crown + hair[k]):
        if not any(front[j] for j in (k - 1, k + 1) if 0 <= j < len(builds)):
            front[k] = True
    return front


def _moved(look: Appearance, across: float, up: float) -> Appearance:
    x, y, z = look.position
    return replace(look, position=(x * across, y * up, z))


def _hair_width(look: Appearance) -> float:
    style = STYLES[style_at_age(look.hair_style, look.age)]
    return style.volume + (0.28 if style.long and not style.tied else 0.0)


def _frame_group(
    looks: list[Appearance], builds: list[Build], aspect: float | None, *, below: float, distance: float
) -> tuple[float, Camera, float]:
    """The narrowest picture that leaves every face large enough (else the one with the largest faces), the camera
    for it, and the width of the smallest face in picture heights. below: dm of the picture under the lowest chin."""
    edges, tops, bottoms = [], [], []
    for look, build in zip(looks, builds, strict=True):
        x, y, _ = look.position
        half = build.face * 1.05 + _hair_width(look) + 0.12
        tilt = -look.roll * (build.crown + build.chin) / 2
        edges += [x + tilt - half, x + tilt + half]
        tops.append(y + build.crown + hair_height(look) + 0.15)
        bottoms.append(y + build.chin - below)
    left, right, top, bottom = min(edges), max(edges), max(tops), min(bottoms)
    nearness = [distance / (distance + _GROUP_DEPTH - look.position[2] - _FACE_DEPTH) for look in looks]
    smallest = min(2 * _DETECTED * build.face * near for build, near in zip(builds, nearness, strict=True))
    heights = {choice: max(top - bottom, (right - left) / choice) for choice in ([aspect] if aspect else ASPECTS)}
    large_enough = [choice for choice, tall in heights.items() if smallest / tall >= SMALLEST_FACE]
    shape = large_enough[0] if large_enough else min(heights, key=heights.get)
    tall = heights[shape]
    spare = (tall * shape - (right - left)) / 2
    # Room that is left over goes below the faces, where the clothes are.
    camera = Camera.framing(
        left - spare, right + spare, top - tall, top, aspect=shape, distance=distance, depth=_GROUP_DEPTH
    )
    return shape, camera, smallest / tall
