"""Prompts: static templates, and what a model is asked that writes richer ones (core/prompt_writer.py); checks and
refusals beside them.

A prompt binds every person to "image k", the k-th reference portrait, says clothing, place, light and order,
and can always be edited by the person before anything is generated (IdGlow section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.prompt_ambiguity import Ambiguity, AmbiguityKind, find_ambiguities
from core.prompt_safety import PromptRefused, refuse_unsafe

__all__ = [
    "Ambiguity",
    "AmbiguityKind",
    "PromptRefused",
    "Task",
    "Writing",
    "find_ambiguities",
    "refuse_unsafe",
    "static_prompt",
    "writer_instruction",
]

_PLACES = {
    1: ("in the middle",),
    2: ("on the left", "on the right"),
    3: ("on the left", "in the middle", "on the right"),
}


YOUNGEST, OLDEST, ADULT = 1, 90, 18
"""Ages that can be asked for, and the one from which somebody is no child, in years."""


class Task(StrEnum):
    GROUP = "group"
    """The people of the portraits together in one picture, at their own age (direct group fusion)."""
    CHILD = "child"
    """The same people at another age, as children unless ages are given (age transformation)."""


def static_prompt(task: Task | str, people: int, scene: str, ages: Sequence[int | None] = ()) -> str:
    """The template of a task: every person bound to an image and a place, one light for all, the scene words.

    Args:
        people: number of portraits, at least 1; portrait k is "image k".
        scene: a few words such as "in a park at sunset"; may be empty.
        ages: years, one for each portrait where the task is another age; None, or none at all, is a child of about
            eight.
    """
    task = Task(task)
    _check_people(people)
    ages = _checked_ages(ages, people) if task is Task.CHILD else (None,) * people
    places = _PLACES.get(people) or tuple(f"{_ordinal(k)} from the left" for k in range(1, people + 1))
    each = [
        f"the {_who(task, age)} from image {k} {place}, {_clothes(task, age)}"
        for k, (place, age) in enumerate(zip(places, ages, strict=True), 1)
    ]
    kind = "A picture" if people == 1 else "A group picture"
    subject = "" if task is Task.GROUP else _subject(ages)
    where = f" {scene.strip().rstrip('.')}" if scene.strip() else ""
    light = "Everyone looks at the camera. The same soft light falls on all."
    return f"{kind}{subject}{where}: {_listed(each)}. {light}"


def writer_instruction(task: Task | str, people: int, scene: str, ages: Sequence[int | None] = ()) -> str:
    """What the prompt writer is asked, in words; the portraits follow it as images 1 to `people`.

    `ages` as in `static_prompt`.
    """
    task = Task(task)
    _check_people(people)
    of = "this person" if people == 1 else f"these {people} people"
    goal = f"a picture of {of} together" if task is Task.GROUP else f"a picture of {of} as children"
    place = scene.strip().rstrip(".") or "in a place of your choice"
    known = enumerate(_checked_ages(ages, people), 1) if task is Task.CHILD else ()
    years = "".join(f" Image {k} is {age} years old in it." for k, age in known if age is not None)
    return (
        f"Write the prompt for {goal}, {place}. Say of each person, bound to image 1"
        f"{'' if people == 1 else f' to image {people}'}: looks, clothes, place in the group. Say the light.{years}"
    )


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a prompt is written. `temperature` 0 is greedy: the same words every time."""

    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0
    max_tokens: int = 320

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")


def _check_people(people: int) -> None:
    if people < 1:
        raise ValueError(f"people is {people}; a prompt needs at least one portrait")


def _checked_ages(ages: Sequence[int | None], people: int) -> Sequence[int | None]:
    if not ages:
        return (None,) * people
    if len(ages) != people:
        raise ValueError(f"there are {len(ages)} ages for {people} portraits; give one for each, or none")
    wrong = [age for age in ages if age is not None and not YOUNGEST <= age <= OLDEST]
    if wrong:
        raise ValueError(f"age {wrong[0]} cannot be asked for; give {YOUNGEST} to {OLDEST} years")
    return ages


def is_child(task: Task, age: int | None) -> bool:
    """Whether somebody of a task is to be a child; `age` as in `static_prompt`."""
    return task is Task.CHILD and (age is None or age < ADULT)


def _who(task: Task, age: int | None) -> str:
    who = "child" if is_child(task, age) else "person"
    return who if age is None else f"{age}-year-old {who}"


def _clothes(task: Task, age: int | None) -> str:
    return "in children's clothes" if is_child(task, age) else "dressed as in the portrait"


def _subject(ages: Sequence[int | None]) -> str:
    if all(age is None for age in ages):
        return " of the same people as children about eight years old"
    children = all(is_child(Task.CHILD, age) for age in ages)
    return " of the same people as children" if children else " of the same people at another age"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
