"""Renders single people and cuts them out: everybody several times as an adult, once as a child, and once turned
further or at any age, which only the face pack learns from.

    python -m trainers.mini.render --out DIR --people 400

Finished shards are kept, so a killed job goes on where it was, and several jobs may share the work (`--part 1/2`,
`--part 2/2`). Needs the mesh of the rendered people (see trainers/people/mesh.py).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from trainers.mini.cutouts import HELD_OUT_PEOPLE, PEOPLE_PER_SHARD, Cutouts
from trainers.mini.data import share_of
from trainers.people.camera import Camera
from trainers.people.identity import sample_identity
from trainers.people.mesh import PeopleMesh
from trainers.people.places import choose_setting, light_of
from trainers.people.record import Face, PersonRecord, describe
from trainers.people.renderer import Renderer
from trainers.people.scene import Build, Scene, derived_seed, hair_height, identity_seed, plan_reference

CANVAS = (236, 192)
"""Rows and columns of a cut-out: down to where a square picture ends."""
HEAD = 88
"""Pixels from chin to crown."""
LIGHTS = ("overcast", "sunset", "window")
ADULT_PICTURES, CHILD_PICTURES, WIDE_PICTURES = 3, 1, 1
PICTURES = ADULT_PICTURES + CHILD_PICTURES + WIDE_PICTURES


def main() -> None:
    parser = argparse.ArgumentParser(description="Render cut-outs of people for the mini bundle.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=400, help=f"the first {HELD_OUT_PEOPLE} are held out")
    parser.add_argument("--part", default="1/1", help="share of this job, such as 1/2")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    renderer = Renderer(PeopleMesh(device=arguments.device))
    shards = share_of(_training_first(range(-(-arguments.people // PEOPLE_PER_SHARD))), arguments.part)
    for shard in tqdm(shards, desc="cut-outs", unit="shard"):
        path = arguments.out / f"cutouts-{shard:05d}"
        if not path.with_suffix(".json").exists():
            people = range(PEOPLE_PER_SHARD * shard, min(PEOPLE_PER_SHARD * (shard + 1), arguments.people))
            render_people(renderer, people).save(path)


def _training_first(shards: range) -> list[int]:
    """One shard of held-out people after every three of training: training may begin before everybody is rendered."""
    held_out = HELD_OUT_PEOPLE // PEOPLE_PER_SHARD
    return sorted(shards, key=lambda s: 4 * s + 3 if s < held_out else (s - held_out) // 3 * 4 + (s - held_out) % 3)


def render_people(renderer: Renderer, people: range) -> Cutouts:
    cuts = [cut_out(renderer, person, number) for person in people for number in range(PICTURES)]
    return Cutouts(
        rgba=np.stack([cut[0] for cut in cuts]),
        boxes=np.array([cut[2].box for cut in cuts], np.float32),
        people=np.repeat(np.array(people), PICTURES),
        lights=np.array([cut[1] for cut in cuts]),
        wide=np.tile(np.arange(PICTURES) >= PICTURES - WIDE_PICTURES, len(people)),
        looks=tuple(cut[2] for cut in cuts),
    )


def cut_out(renderer: Renderer, person: int, number: int) -> tuple[np.ndarray, str, PersonRecord]:
    """(rows, columns, 4) uint8, the light's key and what is seen; see `plan_cutout`."""
    scene, light = plan_cutout(person, number)
    actors = renderer.build(scene.people)
    grey = torch.full((*CANVAS, 3), 0.2, device=renderer.device)
    rendered = renderer.render(actors, scene.camera, light_of(scene.setting), grey)
    face = Face(
        box=tuple(round(v, 1) for v in rendered.boxes[0].tolist()),
        landmarks=tuple((round(x, 1), round(y, 1)) for x, y in rendered.landmarks[0].tolist()),
        visible=round(float(rendered.visible[0]), 3),
    )
    alpha = soft_alpha(rendered.people >= 0)
    rgba = torch.cat([rendered.picture, alpha[..., None]], dim=2).cpu().numpy()
    return rgba, light, describe(scene, [face], CANVAS[0]).people[0]


def plan_cutout(person: int, number: int) -> tuple[Scene, str]:
    """The scene of one cut-out: first the adults, all of one age, then the child, both facing the camera more or less;
    last a head turned further, of any age."""
    split = "held-out" if person < HELD_OUT_PEOPLE else "train"
    identity = identity_seed(split, person)
    own = np.random.default_rng([identity, 0xC07])
    adult, child = float(own.uniform(20, 70)), float(own.uniform(6, 11))
    wide = number >= ADULT_PICTURES + CHILD_PICTURES
    other = float(own.uniform(3, 80)) if own.random() < 0.5 else adult
    age = other if wide else adult if number < ADULT_PICTURES else child
    seed = derived_seed(identity, number, 0xC07)
    scene = plan_reference(seed, identity, age)
    rng = np.random.default_rng([seed, 0xC08])
    light = LIGHTS[(person + number) % len(LIGHTS)]
    member = scene.members[0]
    look = replace(
        member.appearance,
        yaw=float(np.clip(rng.normal(0, 0.45), -0.9, 0.9) if wide else np.clip(rng.normal(0, 0.16), -0.35, 0.35)),
        pitch=float(np.clip(rng.normal(0, 0.15), -0.35, 0.35)) if wide else member.appearance.pitch,
        turn=float(np.clip(rng.normal(0, 0.12), -0.3, 0.3)),
        roll=float(np.clip(rng.normal(0, 0.05), -0.12, 0.12)),
        expression=str(rng.choice(["neutral", "smile", "grin", "serious"], p=[0.35, 0.4, 0.15, 0.1])),
        gaze=None,
    )
    build = Build.of(sample_identity(identity), age)
    size = build.crown - build.chin
    tall = CANVAS[0] / HEAD * size
    top = build.crown + hair_height(look) + 0.06 * size
    middle = 0.35 * math.sin(look.yaw)
    half = tall * CANVAS[1] / CANVAS[0] / 2
    camera = Camera.framing(
        middle - half, middle + half, top - tall, top, aspect=CANVAS[1] / CANVAS[0], distance=12.0, depth=0.5
    )
    setting = choose_setting(derived_seed(seed, 0xC09), lights=[light])
    return (
        replace(
            scene,
            aspect=CANVAS[1] / CANVAS[0],
            setting=setting,
            camera=camera,
            members=(replace(member, appearance=look),),
        ),
        light,
    )


def soft_alpha(mask: Tensor) -> Tensor:
    """(H, W) uint8: 255 inside of `mask`, less towards its edge, where the render mixes in the grey behind it."""
    mean = F.avg_pool2d(mask.float()[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    return (255 * mean * mask).round().byte()


if __name__ == "__main__":
    main()
