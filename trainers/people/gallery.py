"""Portraits that come with the app, of people who do not exist.

    python -m trainers.people.gallery --out assets/portraits
    python -m trainers.people.gallery --set evaluation --size 256 --out assets/evaluation

`examples` are ten people to try the studio with, two pictures of each; `evaluation` are twenty-four others, one picture
of each, that training rounds are measured on. All are held-out identities, so no model of this project has been trained
on them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from trainers.people.mesh import MeshMissing, PeopleMesh
from trainers.people.photograph import photograph
from trainers.people.places import choose_setting
from trainers.people.renderer import Renderer
from trainers.people.scene import Scene, derived_seed, identity_seed, plan_portrait


@dataclass(frozen=True)
class Example:
    """The held-out person `index` at `age` years; expressions of the two portraits."""

    index: int
    age: float
    expressions: tuple[str, str]


EXAMPLES = (
    Example(12, 34, ("smile", "neutral")),
    Example(22, 30, ("smile", "neutral")),
    Example(25, 24, ("neutral", "smile")),
    Example(30, 52, ("neutral", "smile")),
    Example(26, 45, ("smile", "neutral")),
    Example(28, 38, ("neutral", "smile")),
    Example(20, 72, ("smile", "neutral")),
    Example(33, 11, ("smile", "neutral")),
    Example(9, 8, ("neutral", "smile")),
    Example(35, 60, ("smile", "neutral")),
)
_EVALUATION_AGES = (
    *(27, 41, 33, 58, 22, 46, 36, 64, 29, 52, 38, 24),
    *(69, 31, 44, 19, 35, 49, 26, 55, 61, 30, 40, 23),
)
EVALUATION = tuple(
    Example(index, age, ("neutral" if index % 3 else "smile", "neutral"))
    for index, age in enumerate(_EVALUATION_AGES, start=40)
)
SETS = {"examples": (EXAMPLES, "ab"), "evaluation": (EVALUATION, "a")}
"""People, and a letter for each picture of them."""
_LIGHTS = ("window", "morning", "softbox", "overcast")
_CALMER = 0.6


def plan_example(example: Example, number: int) -> Scene:
    """Portrait `number` (0 or 1): soft light, no hat, eyes on the camera, the head turned a little."""
    identity = identity_seed("held-out", example.index)
    seed = derived_seed(identity, number, 0x6A)
    scene = plan_portrait(seed, identity=identity, age=example.age, framing="bust")
    (member,) = scene.members
    look = member.appearance
    look = replace(
        look,
        expression=example.expressions[number],
        hat=None,
        gaze=None,
        yaw=look.yaw * _CALMER,
        pitch=look.pitch * _CALMER,
    )
    setting = choose_setting(derived_seed(seed, 1), lights=_LIGHTS)
    return replace(scene, setting=setting, members=(replace(member, appearance=look),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, default="examples", dest="people")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        renderer = Renderer(PeopleMesh())
    except MeshMissing as error:
        raise SystemExit(str(error)) from error
    options.out.mkdir(parents=True, exist_ok=True)
    people, letters = SETS[options.people]
    for person, example in enumerate(tqdm(people, unit="person"), 1):
        for number, letter in enumerate(letters):
            shot = photograph(renderer, plan_example(example, number), options.size, samples=3)
            path = options.out / f"person-{person:02d}-{letter}.jpg"
            Image.fromarray(shot.picture.numpy()).save(path, quality=92, subsampling=0)


if __name__ == "__main__":
    main()
