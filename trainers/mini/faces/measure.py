"""How good a face pack is: on held-out rendered people, and on photographs where there are some.

Every pack goes through the same `FaceAnalyzer` the application uses, so InsightFace's packs can be put beside
ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from core.faces import Face, FaceAnalyzer
from trainers.mini.faces.backgrounds import random_background
from trainers.mini.faces.portraits import PortraitSet
from trainers.mini.faces.scenes import Scene, degrade, paste, random_scene

SCENE_SIZE = 256
LARGE = 40
ADULT, CHILD = 18.0, 13.0
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number and how it was measured; `count` is how many cases it is made of."""

    name: str
    value: float
    unit: str
    count: int


def measure_scenes(analyzer: FaceAnalyzer, portraits: PortraitSet, *, count: int, seed: int = 1) -> list[Measurement]:
    """Finding faces in composed pictures of 256 px with none to ten people, lightly damaged.

    Faces below 16 px are not counted against anybody. A found face is right when it overlaps a true one by
    half.
    """
    rng = np.random.default_rng(seed)
    true = found = false = 0
    errors: list[float] = []
    heights: list[float] = []
    for _ in range(count):
        scene = random_scene(rng, portraits, SCENE_SIZE, damaged=False)
        faces = analyzer.analyze(degrade(rng, scene.picture, 0.4))
        result = _match(scene, faces)
        true, found, false = true + result[0], found + result[1], false + result[2]
        errors += result[3]
        heights += result[4]
    large = [error for error, height in zip(errors, heights, strict=True) if height >= LARGE]
    return [
        Measurement(name="faces found in composed pictures", value=100 * found / max(1, true), unit="%", count=true),
        Measurement(name="false faces", value=false / count, unit="per picture", count=count),
        Measurement(
            name="landmark error",
            value=100 * float(np.mean(errors or [np.nan])),
            unit="% of eye distance",
            count=found,
        ),
        Measurement(
            name=f"landmark error, faces of {LARGE} px and more",
            value=100 * float(np.mean(large or [np.nan])),
            unit="% of eye distance",
            count=len(large),
        ),
    ]


def _match(scene: Scene, faces: Sequence[Face]) -> tuple[int, int, int, list[float], list[float]]:
    """True, found and false faces; of each found one the mean landmark error in eye distances and its height in
    pixels."""
    free = set(range(len(faces)))
    found, errors, heights = 0, [], []
    for box, landmarks in zip(scene.box, scene.landmarks, strict=True):
        overlaps = {index: overlap(box, faces[index].box) for index in free}
        best = max(overlaps, key=overlaps.get, default=None)
        if best is None or overlaps[best] < 0.5:
            continue
        free.remove(best)
        found += 1
        eyes = max(float(np.linalg.norm(landmarks[1] - landmarks[0])), 0.2 * float(box[3] - box[1]))
        errors.append(float(np.linalg.norm(faces[best].landmarks - landmarks, axis=1).mean()) / eyes)
        heights.append(float(box[3] - box[1]))
    false = [i for i in free if all(overlap(box, faces[i].box) < 0.3 for box in scene.hidden)]
    return len(scene.box), found, len(false), errors, heights


def measure_people(
    analyzer: FaceAnalyzer, portraits: PortraitSet, *, seed: int = 2, limit: int = 1000
) -> list[Measurement]:
    """Telling held-out people apart, and their sex and age: one portrait a picture, 192 px, lightly damaged.

    Verification compares all pairs; rank-1 asks which of 100 people (fewer when there are fewer), one adult
    picture each, a further picture shows.
    """
    rng = np.random.default_rng(seed)
    order = np.sort(rng.permutation(len(portraits))[:limit])
    faces: list[Face] = []
    kept: list[int] = []
    for index in order:
        picture = random_background(rng, 192, 192)
        rgba = portraits[int(index)].rgba
        scale = 176 / len(rgba)
        paste(picture, rgba, np.array([[scale, 0, 8], [0, scale, 16]], float))
        largest = largest_face(analyzer.analyze(degrade(rng, picture, 0.4)))
        if largest is not None:
            faces.append(largest)
            kept.append(int(index))
    found = Measurement(name="portraits found", value=100 * len(faces) / len(order), unit="%", count=len(order))
    if not faces:
        return [found]
    embeddings = np.stack([face.embedding for face in faces])
    person, age, female = portraits.identity[kept], portraits.age[kept], portraits.female[kept]
    adult, child = age >= ADULT, age < CHILD
    similarity = embeddings @ embeddings.T
    same = person[:, None] == person[None]
    upper = np.triu(np.ones_like(same), 1)

    results = [
        found,
        *_verification("adults", similarity, same, upper & adult[:, None] & adult[None]),
        *_verification("adult and child", similarity, same, adult[:, None] & child[None]),
        *_rank_one("adults", similarity, person, adult, adult),
        *_rank_one("children against adult pictures", similarity, person, adult, child),
    ]
    if faces[0].age is not None:
        error = np.abs(np.array([face.age for face in faces]) - age)
        right = np.array([face.sex == ("female" if f else "male") for face, f in zip(faces, female, strict=True)])
        results += [
            Measurement(name="age, mean error", value=float(error.mean()), unit="years", count=len(faces)),
            Measurement(
                name="sex right, adults",
                value=100 * float(right[adult].mean()),
                unit="%",
                count=int(adult.sum()),
            ),
        ]
    return results


def measure_photographs(
    analyzer: FaceAnalyzer, directory: Path, reference: FaceAnalyzer | None = None
) -> list[Measurement]:
    """Real photographs, one folder a person under `ids`, and groups under `groups`; never trained on.

    Faces found are those that `reference`, a pack trained on photographs, finds as well; verification takes
    the largest face of each picture of a person.
    """
    found = total = extra = 0
    embeddings, person = [], []
    pictures = sorted(file for file in directory.rglob("*") if file.suffix.lower() in PICTURES)
    for file in pictures:
        picture = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        faces = analyzer.analyze(picture)
        if reference is not None:
            expected = reference.analyze(picture)
            hits = [any(overlap(e.box, f.box) > 0.35 for f in faces) for e in expected]
            found, total = found + sum(hits), total + len(hits)
            extra += sum(all(overlap(e.box, f.box) <= 0.35 for e in expected) for f in faces)
        if file.parent.parent.name == "ids" and (largest := largest_face(faces)) is not None:
            embeddings.append(largest.embedding)
            person.append(file.parent.name)
    results = []
    if reference is not None:
        results += [
            Measurement(name="photographs: faces found", value=100 * found / max(1, total), unit="%", count=total),
            Measurement(
                name="photographs: other faces",
                value=extra / len(pictures),
                unit="per picture",
                count=len(pictures),
            ),
        ]
    if len(set(person)) > 1:
        similarity = np.stack(embeddings) @ np.stack(embeddings).T
        same = np.equal.outer(person, person)
        results += _verification("photographs", similarity, same, np.triu(np.ones_like(same), 1))
    return results


def measure_speed(analyzer: FaceAnalyzer, portraits: PortraitSet, *, count: int = 12) -> list[Measurement]:
    """Milliseconds for one 256 px picture with one face: detector in both views, recogniser, sex and age."""
    picture = random_background(np.random.default_rng(3), 256, 256)
    scale = 200 / len(portraits[0].rgba)
    paste(picture, portraits[0].rgba, np.array([[scale, 0, 20], [0, scale, 30]], float))
    analyzer.analyze(picture)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        analyzer.analyze(picture)
        times.append(time.perf_counter() - start)
    return [Measurement(name="time for a picture", value=1000 * float(np.median(times)), unit="ms", count=count)]


def as_table(columns: dict[str, list[Measurement]]) -> str:
    """A Markdown table, one column a pack."""
    names = list(dict.fromkeys(item.name for column in columns.values() for item in column))
    lines = [f"| measured | cases | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for name in names:
        cells, count = [], 0
        for column in columns.values():
            item = next((item for item in column if item.name == name), None)
            cells.append("-" if item is None else f"{_number(item.value)} {item.unit}".strip())
            count = count if item is None else max(count, item.count)
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a same-person pair is more similar than a different one; ties count half."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    through = np.searchsorted(ordered, positive, side="right")
    return float((below + through).mean() / 2 / len(ordered))


def best_accuracy(positive: np.ndarray, negative: np.ndarray) -> float:
    """Verification accuracy at its best threshold, both kinds of pairs weighing the same."""
    thresholds = np.unique(np.concatenate([positive, negative]))
    accepted = 1 - np.searchsorted(np.sort(positive), thresholds, side="left") / len(positive)
    rejected = np.searchsorted(np.sort(negative), thresholds, side="left") / len(negative)
    return float(((accepted + rejected) / 2).max())


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    total = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - shared
    return shared / total if total > 0 else 0.0


def largest_face(faces: Sequence[Face]) -> Face | None:
    area: Callable[[Face], float] = lambda face: float(np.prod(face.box[2:] - face.box[:2]))  # noqa: E731
    return max(faces, key=area, default=None)


def _verification(name: str, similarity: np.ndarray, same: np.ndarray, pairs: np.ndarray) -> list[Measurement]:
    pairs = pairs.astype(bool)
    positive, negative = similarity[pairs & same], similarity[pairs & ~same]
    if not len(positive) or not len(negative):
        return []
    return [
        Measurement(name=f"{name}: AUC", value=area_under_curve(positive, negative), unit="", count=len(positive)),
        Measurement(
            name=f"{name}: verification",
            value=100 * best_accuracy(positive, negative),
            unit="%",
            count=len(positive),
        ),
        Measurement(name=f"{name}: mean cosine, same", value=float(positive.mean()), unit="", count=len(positive)),
        Measurement(name=f"{name}: mean cosine, different", value=float(negative.mean()), unit="", count=len(negative)),
    ]


def _rank_one(
    name: str, similarity: np.ndarray, person: np.ndarray, in_gallery: np.ndarray, is_probe: np.ndarray
) -> list[Measurement]:
    """The first gallery picture of each of up to 100 people against all other pictures of them."""
    gallery = [int(np.flatnonzero((person == p) & in_gallery)[0]) for p in np.unique(person[in_gallery])][:100]
    probes = [i for i in np.flatnonzero(is_probe) if i not in gallery and person[i] in person[gallery]]
    if not probes:
        return []
    best = similarity[np.ix_(probes, gallery)].argmax(1)
    right = person[gallery][best] == person[probes]
    return [
        Measurement(
            name=f"rank-1 among {len(gallery)}, {name}",
            value=100 * float(right.mean()),
            unit="%",
            count=len(probes),
        )
    ]


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 2 else f"{value:.1f}"
