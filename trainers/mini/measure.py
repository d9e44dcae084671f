"""Measures a mini bundle on people it was never trained on.

    python -m trainers.mini.measure --bundle assets/mini --pictures DIR --out measured.json [--packs DIR ...]

All at fixed seeds, one candidate for each held-out example. The ceiling is the same measure on the true pictures.
FaceSim and Coverage compare with the portraits that were given, as the application does; what begins with "gallery"
compares with another look of the same people, and so does the rank-1 test, among one portrait of each of up to 100
people, the held-out ones first. Other face packs may be given for a second opinion on the same pictures.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from tqdm import tqdm

from core.backbones.bundles import Bundle, load_bundle
from core.face_detail import detail_targets, settings_for
from core.faces import Face, FaceAnalyzer
from core.identity import measure_faces
from core.pixels import to_tensor, to_uint8
from core.precision import Precision
from core.prompt_writer import writer_adapter
from core.prompts import Task
from core.sampler import sample
from trainers.held_out import default_schedule
from trainers.mini.captions import caption_of
from trainers.mini.compose import FACE
from trainers.mini.data import Example, Shard, save_grid, shard_paths
from trainers.mini.obedience import Obedience, colours_worn, place_said
from trainers.mini.vae import psnr
from trainers.mini.vlm import attribute_scores, write_prompt

GALLERY = 100
GROUPS = 50
KINDS = (("group", 1), ("group", 2), ("group", 3), ("child", 2), ("child", 3))
OBEDIENCE_SHARDS = 25
"""Shards of pictures with known prompts that places and colours of clothes are told by."""
PADDING = 32
"""Grey pixels around a picture before faces are looked for: detectors miss faces that touch the border."""


@dataclass(frozen=True)
class Held:
    """A held-out example with its pictures: references and truth, uint8 RGB."""

    example: Example
    references: list[np.ndarray]
    picture: np.ndarray

    def is_of(self, task: str, people: int, size: tuple[int, int]) -> bool:
        return (self.example.task, len(self.example.people), self.example.size) == (task, people, size)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a mini bundle on held-out people.")
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; a sheet of pictures goes beside it")
    parser.add_argument("--packs", type=Path, nargs="*", default=[], help="face packs besides the bundle's own")
    parser.add_argument("--groups", type=int, default=GROUPS, help="pictures of each kind")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32", help="of the transformer")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_bundle(arguments.bundle, precision=arguments.precision)
    analyzers = [FaceAnalyzer(pack, threads=arguments.threads) for pack in (bundle.face_pack, *arguments.packs)]
    held = load_held_out(arguments.pictures)
    galleries = {analyzer: build_gallery(arguments.pictures, analyzer) for analyzer in analyzers}
    known = [Shard.load(path) for path in shard_paths(arguments.pictures, "train")[:OBEDIENCE_SHARDS]]
    results: dict[str, object] = {
        "bundle": bundle.revision,
        "gallery": {analyzer.name: len(gallery) for analyzer, gallery in galleries.items()},
        "vae": measure_vae(bundle, [h for h in held if h.example.size == held[0].example.size][:48]),
        "prompt_writer": measure_writer(bundle, held[: arguments.groups]),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    obedience = {size: Obedience(known, size) for size in sorted({h.example.size for h in held})}
    for (height, width), (task, people) in itertools.product(obedience, KINDS):
        chosen = [h for h in held if h.is_of(task, people, (height, width))][: arguments.groups]
        if not chosen:
            continue
        kind = f"{task}-{people}-{width}x{height}"
        generated = [generate_one(bundle, h, seed) for seed, h in enumerate(tqdm(chosen, desc=kind, unit="picture"))]
        save_sheet(arguments.out.with_name(f"{arguments.out.stem}_{kind}.png"), chosen[:8], generated[:8])
        compared = {"generated": generated, "true": [h.picture for h in chosen]}
        results[kind] = {"pictures": len(chosen)} | {
            name: {
                "obedience": measure_obedience(pictures, chosen, obedience[height, width]),
                **{
                    analyzer.name: measure_identity(pictures, chosen, gallery, analyzer)
                    for analyzer, gallery in galleries.items()
                },
            }
            for name, pictures in compared.items()
        }
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")  # after every kind: hours may be behind it
    print(json.dumps(results, indent=2))


def load_held_out(folder: Path) -> list[Held]:
    """All held-out examples, the first of every shard first, so that few of them show many people."""
    shards = [_held_in(Shard.load(path)) for path in shard_paths(folder, "held_out")]
    return [h for row in itertools.zip_longest(*shards) for h in row if h is not None]


def _held_in(shard: Shard) -> list[Held]:
    return [
        Held(e, [shard.portraits[index] for index in e.references], shard.pictures[e.size][e.picture])
        for e in shard.examples
    ]


def build_gallery(folder: Path, analyzer: FaceAnalyzer) -> dict[int, np.ndarray]:
    """Embedding of the first portrait of every person in which the face is found; held-out people first."""
    gallery: dict[int, np.ndarray] = {}
    for path in (*shard_paths(folder, "held_out"), *shard_paths(folder, "train")):
        shard = Shard.load(path)
        for portrait, person in zip(shard.portraits, shard.portrait_people.tolist(), strict=True):
            if len(gallery) == GALLERY:
                return gallery
            if person not in gallery and (embedding := embed_portrait(portrait, analyzer)) is not None:
                gallery[person] = embedding
    return gallery


def embed_portrait(portrait: np.ndarray, analyzer: FaceAnalyzer) -> np.ndarray | None:
    """Embedding of its surest face; None where there is none."""
    faces = find_faces(portrait, analyzer)
    return max(faces, key=lambda face: face.score).embedding if faces else None


def find_faces(picture: np.ndarray, analyzer: FaceAnalyzer) -> list[Face]:
    padded = np.pad(picture, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), constant_values=110)
    return analyzer.analyze(padded)


def generate_one(bundle: Bundle, held: Held, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 at the bundle's defaults, from the example's references and its true caption."""
    height, width = held.example.size
    conditioning = bundle.backbone.encode_prompt(held.example.prompt, held.references)
    task, card = Task(held.example.task), bundle.card
    guidance = card.guidance_of(task)
    latents = sample(
        bundle.backbone,
        conditioning,
        seeds=[seed],
        height=height,
        width=width,
        steps=card.steps,
        schedule=default_schedule(task, card),
        identity_guidance=card.identity_guidance,
        negative=bundle.backbone.encode_prompt("", held.references) if guidance > 1 else None,
        guidance=guidance,
        guidance_above=card.guidance_above,
    )
    picture = to_uint8(bundle.backbone.decode(latents))[0]
    return picture if bundle.face_detail is None else _paint_faces_again(bundle, picture, held, seed)


def _paint_faces_again(bundle: Bundle, picture: np.ndarray, held: Held, seed: int) -> np.ndarray:
    """As `core.generate` does; a picture of somebody whose face is not found in the portrait stays as it is."""
    analyzer = bundle.face_analyzer
    embeddings = [embed_portrait(reference, analyzer) for reference in held.references]
    if any(embedding is None for embedding in embeddings):
        return picture
    task = Task(held.example.task)
    return bundle.face_detail(
        [picture],
        detail_targets([picture], embeddings, analyzer),
        held.references,
        seeds=[seed],
        settings=[settings_for(task)] * len(embeddings),
        schedule=default_schedule(task, bundle.card),
    )[0]


def measure_identity(
    pictures: Sequence[np.ndarray], held: Sequence[Held], gallery: dict[int, np.ndarray], analyzer: FaceAnalyzer
) -> dict[str, float]:
    """Means over people (identity, age) or pictures (duplicates, order); see `FaceReport` for the terms.

    Pictures of people whose face was not found in a portrait are left out."""
    values: dict[str, list[float]] = defaultdict(list)
    names = list(gallery)
    matrix = np.stack(list(gallery.values()))
    for picture, h in zip(pictures, held, strict=True):
        people = h.example.people
        given = [embed_portrait(portrait, analyzer) for portrait in h.references]
        others = [gallery.get(person) for person in people]
        if any(embedding is None for embedding in (*given, *others)):
            continue
        faces = find_faces(picture, analyzer)
        report, elsewhere = (
            measure_faces(
                np.stack(embeddings),
                faces,
                threshold=analyzer.same_person_threshold,
                expected_order=list(range(len(people))),
            )
            for embeddings in (given, others)
        )
        values["face_sim"].append(report.face_sim)
        values["coverage"].append(report.coverage)
        values["gallery_face_sim"].append(elsewhere.face_sim)
        values["gallery_coverage"].append(elsewhere.coverage)
        values["duplicates"].append(report.duplicates / len(people))
        values["count_correct"].append(report.count_correct)
        values["faces_found"].append(min(1.0, len(faces) / len(people)))
        values["order_kept"].append(report.swaps == 0)
        for person, box in zip(people, h.example.boxes, strict=True):
            face = nearest_face(faces, box)
            values["rank_1"].append(face is not None and names[int((matrix @ face.embedding).argmax())] == person)
            if face is not None and face.age is not None:
                values["age_seen"].append(face.age)
    return _means(values)


def measure_obedience(pictures: Sequence[np.ndarray], held: Sequence[Held], obedience: Obedience) -> dict[str, float]:
    """Shares of pictures in the place, and of people in the colour, that the prompt names."""
    values: dict[str, list[float]] = defaultdict(list)
    for picture, h in zip(pictures, held, strict=True):
        if (place := place_said(h.example.prompt)) is not None:
            values["place"].append(obedience.place(picture) == place)
        for box, worn in zip(h.example.boxes, colours_worn(h.example), strict=True):
            if worn is not None and (colour := obedience.colour(picture, box)) is not None:
                values["clothing_colour"].append(colour == worn)
    return _means(values)


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(float(np.mean(rows)), 4) for name, rows in values.items()}


def nearest_face(faces: Sequence[Face], box: Sequence[float]) -> Face | None:
    """The face whose centre lies within half a face's height of where the person should stand."""
    centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]) + PADDING
    near = [(float(np.hypot(*(np.array(face.center) - centre))), face) for face in faces]
    distance, face = min(near, key=lambda pair: pair[0], default=(np.inf, None))
    return face if distance < FACE / 2 else None


@torch.no_grad()
def measure_vae(bundle: Bundle, held: Sequence[Held]) -> dict[str, float]:
    pictures = to_tensor(np.stack([h.picture for h in held]))
    decoded = torch.cat([bundle.backbone.decode(bundle.backbone.encode(part)) for part in pictures.split(16)])
    return {"psnr": round(psnr(decoded, pictures), 2)}


def measure_writer(bundle: Bundle, held: Sequence[Held]) -> dict[str, float]:
    """Shares of attributes right in greedy prompts, by kind; "leakage" is the share of wrongly borrowed ones."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for h in held:
        caption = caption_of(h.example, np.stack(h.references), bundle.processor)
        with writer_adapter(bundle.text_encoder):
            prompt = write_prompt(bundle.text_encoder, caption, bundle.processor)
        for name, (right, asked) in attribute_scores(prompt, h.example).items():
            totals[name][0] += right
            totals[name][1] += asked
    return {name: round(right / asked, 4) for name, (right, asked) in sorted(totals.items())}


def save_sheet(path: Path, held: Sequence[Held], generated: Sequence[np.ndarray]) -> None:
    """References, generated and true picture of each example."""
    rows = []
    for h, picture in zip(held, generated, strict=True):
        rows.append([to_tensor(p[None])[0] for p in (*h.references, picture, h.picture)])
    save_grid(path, rows)


if __name__ == "__main__":
    main()
