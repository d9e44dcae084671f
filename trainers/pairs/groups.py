"""Real or rendered group pictures, preferred to what a bundle makes of the same people and prompt (IdGlow 3.4.3)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from core.backbones.bundles import Bundle
from core.clip import ClipScorer
from core.faces import FaceAnalyzer
from core.generate import GenerationRequest, generate
from core.identity import measure_faces
from core.images import read_picture
from core.metrics import differences, measure_picture
from core.portraits import prepare_person
from core.prompts import Task
from trainers.pairs.filter import objection
from trainers.people.dataset import read_samples
from trainers.training_pairs import TrainingPair

REAL_LIST = "groups.jsonl"


@dataclass(frozen=True, eq=False)
class GroupPicture:
    """A picture that shows the people of some portraits as its prompt says.

    name: unique within its source. task: of `core.prompts.Task`. picture and portraits: (H, W, 3) uint8 RGB.
    """

    name: str
    prompt: str
    task: str
    picture: np.ndarray
    portraits: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedPair:
    """A pair, its differences, and the reason to drop it, "" where it is kept; pair is None where it cannot be read."""

    pair: TrainingPair | None
    origin: str
    deltas: Mapping[str, float] = field(default_factory=dict)
    drop_reason: str = ""


def rendered_groups(folder: Path) -> Iterator[GroupPicture]:
    """The group examples of a data set that `trainers.people.dataset` wrote."""
    for sample in read_samples(folder, "group"):
        portraits = tuple(sample.pictures[f"reference{k}"] for k in range(1, len(sample.record["references"]) + 1))
        prompt = sample.record["captions"]["rich"][0]
        yield GroupPicture(sample.key, prompt, sample.record["task"], sample.pictures["target"], portraits)


def real_groups(folder: Path) -> Iterator[GroupPicture]:
    """The pictures that `groups.jsonl` lists: {"picture": FILE, "portraits": [FILE, ...], "prompt": TEXT}.

    Raises:
        ValueError: a line is not as above, or a picture cannot be read.
    """
    for number, line in enumerate((folder / REAL_LIST).read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            files, prompt = [row["picture"], *row["portraits"]], row["prompt"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Line {number} of {folder / REAL_LIST} is no group picture ({error}).") from error
        picture, *portraits = (read_picture(folder / file) for file in files)
        yield GroupPicture(row["picture"], prompt, row.get("task", Task.GROUP.value), picture, tuple(portraits))


def group_pairs(
    groups: Iterable[GroupPicture],
    bundle: Bundle,
    *,
    origin: str,
    analyzer: FaceAnalyzer | None,
    clip: ClipScorer | None,
    thresholds: Mapping[str, float],
    limit: int,
    seed: int = 0,
) -> Iterator[JudgedPair]:
    """A pair for each of the first `limit` groups that the bundle has references for, the generated picture rejected.

    The group picture is cut to the shape of the bundle's pictures. origin: "rendered" or "real".
    """
    card = bundle.card
    fitting = (group for group in groups if 1 <= len(group.portraits) <= bundle.backbone.limits.max_references)
    for number, group in enumerate(islice(fitting, limit)):
        request = GenerationRequest(
            prompt=group.prompt, portraits=group.portraits, task=Task(group.task), seeds=(seed + number,)
        )
        (generated,) = generate(bundle, request)
        chosen = np.asarray(ImageOps.fit(Image.fromarray(group.picture), (card.width, card.height)))
        people = [prepare_person(p, k, analyzer, card.reference_side) for k, p in enumerate(group.portraits, 1)]
        report = None
        if analyzer is not None and all(person.embedding is not None for person in people):
            report = measure_faces(
                np.stack([person.embedding for person in people]),
                analyzer.analyze(chosen),
                threshold=analyzer.same_person_threshold,
            )
        pack = analyzer.name if analyzer else ""
        deltas = differences(
            measure_picture(chosen, group.prompt, report, pack=pack, clip=clip),
            measure_picture(generated.picture, group.prompt, generated.faces, pack=pack, clip=clip),
        )
        references = tuple(person.crop for person in people)
        pair = TrainingPair(f"{origin}-{group.name}", group.prompt, references, chosen, generated.picture)
        yield JudgedPair(pair=pair, origin=origin, deltas=deltas, drop_reason=objection(deltas, thresholds))
