"""Rendering the portraits: every person several times, at all ages, in other poses, lights, clothes and glasses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from trainers.mini.faces.portraits import Portrait, shard_is_finished, write_shard
from trainers.mini.render import soft_alpha
from trainers.people.identity import SHAPE_TARGETS, Identity
from trainers.people.mesh import PeopleMesh
from trainers.people.places import light_of
from trainers.people.renderer import Renderer
from trainers.people.scene import derived_seed, identity_seed, plan_portrait

PEOPLE_IN_A_SHARD = 20
HELD_OUT_EVERY = 16
# The renderer's boxes begin above the brows, InsightFace's at the hairline: this share of the height higher.
HAIRLINE = 0.1
# The renderer counts from the outer edge of the first pixel, OpenCV and InsightFace from its middle.
PIXEL_MIDDLE = 0.5


def render_people(out: Path, *, first: int, people: int, pictures: int, size: int, device: str = "cpu") -> None:
    """Render people number `first` to `first + people`; finished shards are kept, so a stopped run goes on.

    One in HELD_OUT_EVERY is a person of the project's held-out half, whom nothing is trained on.
    """
    if pictures < 2 or people < 1 or size < 32:
        raise ValueError(f"need at least 2 pictures of 1 person of 32 pixels, got {pictures}, {people}, {size}")
    renderer = Renderer(PeopleMesh(device=device))
    for start in tqdm(range(first, first + people, PEOPLE_IN_A_SHARD), unit=f"{PEOPLE_IN_A_SHARD} people"):
        if shard_is_finished(out, start):
            continue
        shard = []
        for number in range(start, min(start + PEOPLE_IN_A_SHARD, first + people)):
            identity = identity_seed("held-out" if number % HELD_OUT_EVERY == 0 else "train", number)
            ages = draw_ages(np.random.default_rng([number, 0xFACE]), pictures)
            shard += [
                render_portrait(renderer, identity, age, derived_seed(number, picture), size)
                for picture, age in enumerate(ages)
            ]
        write_shard(out, start, shard)


def draw_ages(rng: np.random.Generator, count: int) -> list[float]:
    """Ages in years of `count` pictures of one person: mostly around one adult age, the rest from 2 to 80."""
    middle = rng.uniform(18, 65)
    ages = np.clip(rng.normal(middle, 5, count), 18, 75)
    others = [rng.uniform(3, 9), rng.uniform(8, 16), rng.uniform(2, 80)][: max(1, 3 * count // 8)]
    ages[-len(others) :] = others
    return [float(age) for age in ages]


def render_portrait(renderer: Renderer, identity: int, age: float, seed: int, size: int) -> Portrait:
    """One cut-out of `size` pixels, with more turned heads than pictures of a person have."""
    rng = np.random.default_rng([seed, 0xFACE])
    scene = plan_portrait(seed, identity=identity, age=age, framing="face")
    member = scene.members[0]
    if rng.random() < 0.35:
        look = replace(
            member.appearance,
            yaw=float(np.clip(rng.normal(0, 0.5), -0.95, 0.95)),
            pitch=float(np.clip(rng.normal(0, 0.18), -0.4, 0.4)),
        )
        member = replace(member, appearance=look)
    grey = torch.full((size, size, 3), 0.2, device=renderer.device)
    rendered = renderer.render(renderer.build([member.person]), scene.camera, light_of(scene.setting), grey)
    alpha = soft_alpha(rendered.people >= 0)
    box, landmarks = (part[0].cpu().numpy() - PIXEL_MIDDLE for part in (rendered.boxes, rendered.landmarks))
    box[1] -= HAIRLINE * (box[3] - box[1])
    return Portrait(
        rgba=torch.cat([rendered.picture, alpha[..., None]], 2).cpu().numpy(),
        landmarks=landmarks,
        box=box,
        identity=identity,
        age=age,
        female=member.person.identity.female,
        traits=traits_of(member.person.identity),
    )


def traits_of(identity: Identity) -> np.ndarray:
    """(T,) the shape, ancestry, colouring and build of a person, scaled to about unit deviation."""
    shape = np.array(identity.shape) / [target.deviation for target in SHAPE_TARGETS]
    brows = identity.brows
    other = [
        (identity.masculinity - 0.5) / 0.42,
        *((np.array(identity.ethnicity) - 1 / 3) / 0.35),
        identity.weight / 0.4,
        (identity.melanin - 0.4) / 0.3,
        identity.undertone / 0.5,
        *((np.cbrt(identity.hair_colour) - 0.45) / 0.2),
        *((np.cbrt(identity.iris_colour) - 0.5) / 0.2),
        (brows.thickness - 1.1) / 0.25,
        (brows.arch - 0.7) / 0.3,
    ]
    return np.concatenate([shape, other]).astype(np.float32)
