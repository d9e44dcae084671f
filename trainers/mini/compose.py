"""Portraits and group pictures put together from cut-outs of single people.

Rendering is the slow part, and a person cut out of the background can stand in many pictures: references are cut
around the face exactly as the application cuts an uploaded portrait, group pictures place cut-outs in the same light
before a painted place. Faces have about the same size in reference and picture, which is what a small model can
learn to carry over.

    python -m trainers.mini.compose --cutouts DIR --out DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from core.portraits import FACE_MIDDLE, align_face, reference_landmarks
from trainers.mini.cutouts import HELD_OUT_PEOPLE, PEOPLE_PER_SHARD, Cutouts, landmarks_of
from trainers.mini.data import Box, Example, Shard, share_of
from trainers.mini.geometry import CENTRES, HEIGHT, REFERENCE_SIDE, SQUARE, WIDTH
from trainers.mini.vary import vary_people
from trainers.people.captions import facts_of, rich_caption, user_words
from trainers.people.places import Setting, choose_setting, paint
from trainers.people.record import POSITIONS, SceneRecord

FACE = REFERENCE_SIDE / 2
"""Height of a face from brow to chin in references and pictures, roughly, in pixels."""
BELOW_MIDDLE = (FACE_MIDDLE[1] - 0.5) * REFERENCE_SIDE
"""Faces lie as far below the middle of a picture, whatever its height, as below that of a reference."""
CHILDREN = 0.3
"""Share of pictures in which everybody is a child."""
SQUARES = 0.3
"""Share of pictures that are square, where nothing else is said."""
PAINTED = {"wide": (160, 320), "square": (256, 320)}
"""Rows and columns that places are painted at, for pictures of either shape."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Compose examples for the mini bundle from cut-outs.")
    parser.add_argument("--cutouts", type=Path, required=True, help="folder written by trainers.mini.render")
    parser.add_argument("--out", type=Path, required=True, help="folder of shards; finished ones are kept")
    parser.add_argument("--per-person", type=int, default=6, help="pictures for each person of a shard")
    parser.add_argument("--same", type=float, default=0.0, help="share of pictures that repeat the portraits' looks")
    parser.add_argument("--squares", type=float, default=SQUARES, help="share of pictures that are square")
    parser.add_argument("--varied", type=int, default=0, help="how often everybody comes again as another person")
    parser.add_argument("--part", default="1/1", help="share of this job, such as 1/2")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = share_of(sorted(arguments.cutouts.glob("cutouts-*.json")), arguments.part)
    for path in tqdm(paths, desc="compose", unit="shard"):
        number = int(path.stem.removeprefix("cutouts-"))
        held_out = number * PEOPLE_PER_SHARD < HELD_OUT_PEOPLE
        names = [f"{'held_out' if held_out else 'train'}-{number:05d}"]
        names += [] if held_out else [f"{names[0]}-{again}" for again in range(1, arguments.varied + 1)]
        missing = [(again, name) for again, name in enumerate(names) if not (arguments.out / f"{name}.json").exists()]
        cutouts = Cutouts.load(path) if missing else None
        for again, name in missing:
            rng = np.random.default_rng([arguments.seed, number, again])
            people = vary_people(cutouts, again, rng) if again else cutouts
            count = arguments.per_person * len(np.unique(people.people))
            shard = compose_shard(people, count, rng, same=arguments.same, squares=arguments.squares)
            shard.save(arguments.out / name)


def compose_shard(
    cutouts: Cutouts, count: int, rng: np.random.Generator, *, same: float = 0.0, squares: float = SQUARES
) -> Shard:
    """`count` pictures of the people of `cutouts` and a portrait of every cut-out.

    `same` is the share of pictures in which everybody looks exactly as in the portrait: the smallest change, which a
    curriculum begins with. `squares` is the share of square ones.
    """
    rows = np.flatnonzero(~cutouts.wide)
    backgrounds = Backgrounds(np.unique(cutouts.lights[rows]).tolist(), rng)
    portraits = np.stack([portrait(cutouts, row, backgrounds, rng) for row in rows])
    box = face_box(np.array(FACE_MIDDLE) * REFERENCE_SIDE)
    index_of = {int(row): index for index, row in enumerate(rows)}
    pictures: dict[tuple[int, int], list[np.ndarray]] = {}
    examples = []
    while len(examples) < count:
        size = (SQUARE, SQUARE) if rng.random() < squares else (HEIGHT, WIDTH)
        of_size = pictures.setdefault(size, [])
        made = _group(cutouts, rows, index_of, size, len(of_size), backgrounds, rng, same=rng.random() < same)
        if made is not None:
            of_size.append(made[0])
            examples.append(made[1])
    return Shard(
        portraits=portraits,
        portrait_people=cutouts.people[rows],
        portrait_boxes=np.tile(np.array(box, np.float32), (len(rows), 1)),
        pictures={size: np.stack(of_size) for size, of_size in pictures.items() if of_size},
        examples=tuple(examples),
    )


def face_box(middle: np.ndarray) -> Box:
    """Left, top, right, bottom of a face whose landmarks have their middle (x, y) there."""
    x, y = (float(v) for v in middle)
    return (x - 0.4 * FACE, y - 0.62 * FACE, x + 0.4 * FACE, y + 0.5 * FACE)


def portrait(cutouts: Cutouts, row: int, backgrounds: Backgrounds, rng: np.random.Generator) -> np.ndarray:
    """(side, side, 3) uint8: the cut-out before a painted place, aligned as the application aligns portraits."""
    rgba = cutouts.rgba[row]
    height, width = rgba.shape[:2]
    margin = height // 2
    canvas = backgrounds.draw(str(cutouts.lights[row]), height + margin, width + 2 * margin, rng)[0]
    paste(canvas, rgba, margin, margin)
    # as inexact as a detector's landmarks
    landmarks = landmarks_of(cutouts, row) + margin + rng.normal(0, 0.6, (5, 2))
    return align_face(canvas, landmarks, REFERENCE_SIDE)


class Backgrounds:
    """A few painted places for each light, cropped and mirrored anew for every picture: painting is the slow part."""

    def __init__(self, lights: Sequence[str], rng: np.random.Generator, *, per_light: int = 6) -> None:
        self._painted: dict[tuple[str, str], list[tuple[np.ndarray, Setting]]] = {}
        for light in lights:
            settings = [choose_setting(int(rng.integers(1 << 30)), lights=[light]) for _ in range(per_light)]
            for shape, size in PAINTED.items():
                self._painted[light, shape] = [(_srgb(paint(s, *size).numpy()), s) for s in settings]

    def draw(self, light: str, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, Setting]:
        """(height, width, 3) uint8 of a place that can be seen in `light`, and what it is."""
        known = self._painted[light, "square" if height == width else "wide"]
        painted, setting = known[rng.integers(len(known))]
        zoom = max(height / painted.shape[0], width / painted.shape[1], rng.uniform(0.8, 1.0))
        rows, columns = min(painted.shape[0], round(height / zoom)), min(painted.shape[1], round(width / zoom))
        top = rng.integers(painted.shape[0] - rows + 1)
        left = rng.integers(painted.shape[1] - columns + 1)
        part = Image.fromarray(painted[top : top + rows, left : left + columns])
        cropped = np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))
        return np.array(cropped[:, ::-1] if rng.random() < 0.5 else cropped), setting


def _srgb(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * srgb).round().astype(np.uint8)


def paste(canvas: np.ndarray, rgba: np.ndarray, x: int, y: int) -> None:
    """Lay `rgba` over `canvas` (H, W, 3) with its top left corner at x, y; what lies outside is cut off."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = (
        max(x, 0),
        max(y, 0),
        min(x + rgba.shape[1], width),
        min(y + rgba.shape[0], height),
    )
    if left >= right or top >= bottom:
        return
    part = rgba[top - y : bottom - y, left - x : right - x].astype(np.float32)
    alpha = part[..., 3:] / 255
    under = canvas[top:bottom, left:right]
    canvas[top:bottom, left:right] = (part[..., :3] * alpha + under * (1 - alpha)).round().astype(np.uint8)


def _group(
    cutouts: Cutouts,
    rows: np.ndarray,
    index_of: dict[int, int],
    size: tuple[int, int],
    number: int,
    backgrounds: Backgrounds,
    rng: np.random.Generator,
    *,
    same: bool,
) -> tuple[np.ndarray, Example] | None:
    """One picture and its example; None where the drawn people have no cut-outs in a common light."""
    count = int(rng.choice([1, 2, 2, 2, 3]))
    task = "child" if not same and rng.random() < CHILDREN else "group"
    light = str(rng.choice(np.unique(cutouts.lights[rows])))
    shows_child = np.array([cutouts.looks[row].age < 16 for row in rows])
    targets = rows[(shows_child == (task == "child")) & (cutouts.lights[rows] == light)]
    present = np.unique(cutouts.people[targets])
    if len(present) < count:
        return None
    chosen = rng.choice(present, size=count, replace=False)
    shown = [int(rng.choice(targets[cutouts.people[targets] == person])) for person in chosen]
    references = (
        shown
        if same
        else [
            _reference(cutouts, rows[(cutouts.people[rows] == person) & ~shows_child & (rows != target)], target, rng)
            for person, target in zip(chosen, shown, strict=True)
        ]
    )

    height, width = size
    picture, setting = backgrounds.draw(light, height, width, rng)
    boxes: list[Box] = [(0.0, 0.0, 0.0, 0.0)] * count
    landmarks = np.zeros((count, 5, 2))
    for person in rng.permutation(count):
        jitter = np.zeros(2) if same else rng.normal(0, 1.0, 2)
        middle = np.array((CENTRES[count][person], height / 2 + BELOW_MIDDLE)) + jitter
        row = shown[person]
        landmarks[person] = place(picture, cutouts.rgba[row], landmarks_of(cutouts, row), middle)
        boxes[person] = face_box(middle)
    record = SceneRecord(
        seed=int(rng.integers(1 << 30)),
        kind="group",
        height=height,
        width=width,
        setting=setting,
        interaction="together" if count > 1 else None,
        people=tuple(
            replace(cutouts.looks[row], box=box, position=position)
            for row, box, position in zip(shown, boxes, POSITIONS[count], strict=True)
        ),
    )
    facts = facts_of(record, as_children=task == "child")
    return picture, Example(
        task=task,
        people=tuple(int(person) for person in chosen),
        references=tuple(index_of[row] for row in references),
        picture=number,
        size=size,
        boxes=tuple(boxes),
        landmarks=tuple(tuple((round(x, 2), round(y, 2)) for x, y in face.tolist()) for face in landmarks),
        scene=user_words(record, record.seed),
        prompt=rich_caption(facts, record.seed).text,
        attributes=tuple({name: value for name, value in asdict(person).items() if value} for person in facts.people),
    )


def _reference(cutouts: Cutouts, others: np.ndarray, target: int, rng: np.random.Generator) -> int:
    """One of the person's `others` rows, with glasses like the target's where there is one: a caption says them, and
    whoever writes it has seen the portrait alone."""
    alike = [row for row in others if cutouts.looks[row].glasses == cutouts.looks[target].glasses]
    return int(rng.choice(alike or others))


def place(picture: np.ndarray, rgba: np.ndarray, landmarks: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Lay a cut-out into `picture`: its face as large as in a reference, the middle of its landmarks at `middle`.

    Returns where its landmarks (5, 2) come to lie."""
    wanted = reference_landmarks(REFERENCE_SIDE)
    scale = float(np.sqrt((wanted - wanted.mean(0)).var() / (landmarks - landmarks.mean(0)).var()))
    # premultiplied, so that what lies behind a soft edge does not bleed in
    premultiplied = rgba.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    matrix = np.column_stack([scale * np.eye(2), middle - scale * landmarks.mean(0)])
    laid = cv2.warpAffine(premultiplied, matrix, picture.shape[1::-1], flags=cv2.INTER_LINEAR)
    picture[:] = (laid[..., :3] + picture * (1 - laid[..., 3:] / 255)).round().clip(0, 255).astype(np.uint8)
    return scale * (landmarks - landmarks.mean(0)) + middle


if __name__ == "__main__":
    main()
