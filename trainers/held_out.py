"""People that no round may train on (`assets/evaluation`, or another folder), and the cases that are made of them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.backbones.cards import BundleCard
from core.images import read_picture
from core.prompts import Task, static_prompt
from core.schedule import IdentitySchedule
from studio.store import Store

PORTRAITS = Path(__file__).resolve().parents[1] / "assets" / "evaluation"
SCENES = (
    "in a park at sunset",
    "in a kitchen",
    "on a beach",
    "in front of a bookshelf",
    "on a snowy street",
    "in a studio",
)
GROUP_SCHEDULE = IdentitySchedule.anneal(0.4)
FIRST_SEED = 7000


class NoCases(RuntimeError):
    """There are no people to evaluate on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One prompt for some held-out people; a picture for each seed.

    portraits: uint8 (H, W, 3) RGB, in the order of the prompt; files: their names. steps: of denoising.
    identity_guidance: scale of guidance towards the portraits.
    """

    name: str
    task: Task
    schedule: IdentitySchedule
    prompt: str
    portraits: tuple[np.ndarray, ...]
    files: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    identity_guidance: float


def default_schedule(task: Task, card: BundleCard) -> IdentitySchedule:
    """The timing that people begin with."""
    return IdentitySchedule.parse(card.child_schedule) if task is Task.CHILD else GROUP_SCHEDULE


def portrait_files(folder: Path) -> list[Path]:
    """One picture of each person of a folder: `NAME-a`, `NAME-b`, ... show the same one, and the first is taken."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]
    people: dict[str, Path] = {}
    for path in files:
        people.setdefault(re.sub("-[a-z]$", "", path.stem), path)
    return list(people.values())


def held_out_references(store: Store, folder: Path) -> set[str]:
    """`Portrait.picture_sha256` of everybody in the studio who was uploaded from a file of the folder."""
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    return store.people.references_from([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])


def held_out_cases(
    folder: Path,
    card: BundleCard,
    *,
    seeds: int = 1,
    steps: int | None = None,
    identity_guidance: float | None = None,
) -> list[Case]:
    """Everybody in a pair, once at their own age and once as children, and in a group of three where the model can.

    People meet in one pair and one trio only, so that cases are as independent as the portraits allow. `seeds` is the
    number of pictures of each case; `steps` and `identity_guidance` are the bundle's own where they are None.

    Raises:
        NoCases: fewer than two people; PictureError: a portrait cannot be read.
    """
    if not folder.is_dir():
        raise NoCases(f"There is no folder {folder} with portraits to evaluate on.")
    files = portrait_files(folder)
    people = [read_picture(path) for path in files]
    if len(people) < 2 or card.max_references < 2:
        raise NoCases(
            f"{folder} holds portraits of {len(people)} people and {card.name} takes {card.max_references} references; "
            "an evaluation needs two of each."
        )
    pairs = [(k, k + 1) for k in range(0, len(people) - 1, 2)]
    third = len(people) // 3 if card.max_references >= 3 else 0
    trios = [(k, k + third, k + 2 * third) for k in range(third)]
    groups = [*((Task.GROUP, members) for members in (*pairs, *trios)), *((Task.CHILD, members) for members in pairs)]
    cases = []
    for number, (task, members) in enumerate(groups):
        scene = SCENES[number % len(SCENES)]
        first = FIRST_SEED + number * seeds
        cases.append(
            Case(
                name=f"{task.value} {'+'.join(str(member + 1) for member in members)}",
                task=task,
                schedule=default_schedule(task, card),
                prompt=static_prompt(task, len(members), scene),
                portraits=tuple(people[member] for member in members),
                files=tuple(files[member].name for member in members),
                seeds=tuple(range(first, first + seeds)),
                steps=steps or card.steps,
                identity_guidance=identity_guidance or card.identity_guidance,
            )
        )
    return cases
