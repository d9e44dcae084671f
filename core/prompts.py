"""Prompts: static templates and the model that writes richer ones; checks and refusals beside them.

A prompt binds every person to "image k", the k-th reference portrait, says clothing, place, light and order,
and can always be edited by the person before anything is generated (IdGlow section 3.2).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from core.prompt_ambiguity import Ambiguity, AmbiguityKind, find_ambiguities
from core.prompt_safety import PromptRefused, refuse_unsafe

__all__ = [
    "Ambiguity",
    "AmbiguityKind",
    "PromptRefused",
    "PromptWriter",
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


class _HasWriter(Protocol):
    """The two parts of a bundle that write: a Qwen3-VL or Qwen2.5-VL model and its processor."""

    text_encoder: Any
    processor: Any


WRITER = "writer"
"""Name of the LoRA adapter that some bundles bring along for writing, and of its folder."""


@contextmanager
def writer_adapter(text_encoder: Any) -> Iterator[None]:
    """The writer's adapter, where the model has one, is on within and off again afterwards.

    A prompt is encoded by the plain weights, the ones that the transformer has learned to read.
    """
    if WRITER not in getattr(text_encoder, "peft_config", {}):
        yield
        return
    text_encoder.enable_adapters()
    try:
        yield
    finally:
        text_encoder.disable_adapters()


class PromptWriter:
    """Lets the vision-language model of a bundle write the prompt; the same weights encode it afterwards."""

    def __init__(self, bundle: _HasWriter) -> None:
        self._model = bundle.text_encoder
        self._processor = bundle.processor

    def write(
        self,
        portraits: Sequence[np.ndarray],
        task: Task | str,
        scene: str,
        *,
        ages: Sequence[int | None] = (),
        writing: Writing | None = None,
    ) -> Iterator[str]:
        """Yield the prompt piece by piece as it is written; joined, the pieces are the prompt.

        Closing the iterator stops the model at its next token. The result is not checked here: pass it to
        `refuse_unsafe` and `find_ambiguities`.

        Args:
            portraits: (H, W, 3) uint8 RGB, in the order of "image 1", "image 2", ...
            scene: scene words of the person; refused as any prompt is.
            ages: as in `static_prompt`.

        Raises:
            PromptRefused: on the scene words, before anything is written.
        """
        task, writing = Task(task), writing or Writing()
        refuse_unsafe(scene, children=task is Task.CHILD)
        inputs = self._inputs(portraits, writer_instruction(task, len(portraits), scene, ages))
        return self._stream(inputs, writing)

    def _inputs(self, portraits: Sequence[np.ndarray], instruction: str) -> dict[str, torch.Tensor]:
        content = [{"type": "text", "text": instruction}, *({"type": "image"} for _ in portraits)]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        pictures = [Image.fromarray(portrait) for portrait in portraits]
        return dict(self._processor(text=[text], images=pictures, return_tensors="pt").to(self._model.device))

    def _stream(self, inputs: dict[str, torch.Tensor], writing: Writing) -> Iterator[str]:
        streamer = TextIteratorStreamer(
            self._processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=None
        )
        closed = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            # sampling draws from the global generator; fork it so that a seed means the same words every time
            # and nothing else that draws random numbers is disturbed
            devices = [self._model.device] if self._model.device.type == "cuda" else []
            try:
                with torch.random.fork_rng(devices=devices), torch.inference_mode(), writer_adapter(self._model):
                    torch.manual_seed(writing.seed)
                    self._model.generate(
                        **inputs,
                        max_new_tokens=writing.max_tokens,
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([_StopWhen(closed)]),
                        **_sampling(writing),
                    )
            except BaseException as error:
                failure.append(error)
                streamer.end()

        thread = threading.Thread(target=run, name="prompt-writer", daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            closed.set()
            thread.join()
        if failure:
            raise failure[0]


class _StopWhen(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device)


def _sampling(writing: Writing) -> dict[str, Any]:
    if writing.temperature == 0:
        # None silences the checkpoint's own sampling defaults, which generate() would warn about
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": writing.temperature, "top_p": writing.top_p, "top_k": 0}


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


def _is_child(task: Task, age: int | None) -> bool:
    return task is Task.CHILD and (age is None or age < ADULT)


def _who(task: Task, age: int | None) -> str:
    who = "child" if _is_child(task, age) else "person"
    return who if age is None else f"{age}-year-old {who}"


def _clothes(task: Task, age: int | None) -> str:
    return "in children's clothes" if _is_child(task, age) else "dressed as in the portrait"


def _subject(ages: Sequence[int | None]) -> str:
    if all(age is None for age in ages):
        return " of the same people as children about eight years old"
    children = all(_is_child(Task.CHILD, age) for age in ages)
    return " of the same people as children" if children else " of the same people at another age"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
