"""Training examples of rendered people: portrait sets of one person, and groups with the portraits of their people.

All of it is a function of seeds. `group_examples` yields examples rendered on the renderer's device, endlessly and
without touching the disk, for training loops on a GPU; `dataset` writes the same examples into shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from trainers.people.captions import Caption, bad_captions, facts_of, rich_caption, static_caption, user_words
from trainers.people.photograph import Photograph, photograph
from trainers.people.renderer import Renderer
from trainers.people.scene import (
    HELD_OUT_IDENTITIES,
    Scene,
    Split,
    derived_seed,
    identity_seed,
    plan_group,
    plan_portrait,
    plan_reference,
)

Task = Literal["group", "child"]
LEAST_VISIBLE = 0.6
"""Share of a face that must not be hidden by others in a group picture."""
_ATTEMPTS = 4
_RICH_CAPTIONS = 3


@dataclass(frozen=True, kw_only=True)
class PortraitSet:
    """Pictures of one identity: several at one adult age, one as a child, one in old age."""

    identity: int
    portraits: tuple[Photograph, ...]

    def to_json(self) -> dict:
        return {"identity": self.identity, "portraits": [p.record.to_json() for p in self.portraits]}


@dataclass(frozen=True, kw_only=True)
class GroupExample:
    """A group picture and a reference portrait of each of its people.

    task: "group" (references at the age of the picture) or "child" (references as adults, the picture as children).
    references: in the order of the image numbers that captions use; order: the number of the image that shows the i-th
    person from the left.
    """

    seed: int
    task: Task
    target: Photograph
    references: tuple[Photograph, ...]
    order: tuple[int, ...]

    @property
    def captions(self) -> dict[str, Caption | list[Caption] | str]:
        """rich: several phrasings; static: the template; user: what somebody types; bad: with their faults."""
        record = self.target.record
        facts = facts_of(record, self.order, as_children=self.task == "child")
        return {
            "rich": [rich_caption(facts, derived_seed(self.seed, k)) for k in range(_RICH_CAPTIONS)],
            "static": static_caption(facts),
            "user": user_words(record, self.seed),
            "bad": bad_captions(facts, record, self.seed),
        }

    def to_json(self) -> dict:
        captions = self.captions
        return {
            "seed": self.seed,
            "task": self.task,
            "order": list(self.order),
            "target": self.target.record.to_json(),
            "references": [reference.record.to_json() for reference in self.references],
            "captions": {
                "rich": [caption.text for caption in captions["rich"]],
                "static": captions["static"].text,
                "user": captions["user"],
                "bad": [{"text": c.text, "fault": c.fault, "variety": c.variety} for c in captions["bad"]],
            },
        }


def plan_portrait_set(seed: int, identity: int) -> list[Scene]:
    """Four pictures at one adult age that share nothing else, one as a child, one in old age."""
    rng = np.random.default_rng([seed, identity, 0x70])
    adult, child, old = (float(rng.uniform(*span)) for span in ((20, 62), (3, 12), (66, 80)))
    ages = [adult] * 4 + [child, old]
    return [
        plan_portrait(derived_seed(seed, identity, number), identity=identity, age=age)
        for number, age in enumerate(ages)
    ]


def portrait_set(renderer: Renderer, seed: int, identity: int, height: int) -> PortraitSet:
    scenes = plan_portrait_set(seed, identity)
    return PortraitSet(identity=identity, portraits=tuple(photograph(renderer, scene, height) for scene in scenes))


def group_example(
    renderer: Renderer,
    seed: int,
    *,
    height: int,
    portrait_height: int,
    split: Split = "train",
    identities: int = HELD_OUT_IDENTITIES,
    people: int | None = None,
    aspect: float | None = None,
    child_share: float = 0.2,
) -> GroupExample:
    """The example of a seed. `identities`: people are drawn from the first so many of the split; `child_share`: of
    examples that show adults of the references as children; `people` and `aspect` as in `plan_group`."""
    rng = np.random.default_rng([seed, 0x71])
    task: Task = "child" if rng.random() < child_share else "group"
    for attempt in range(_ATTEMPTS):
        scene = _plan_target(
            derived_seed(seed, attempt), split=split, identities=identities, people=people, aspect=aspect, task=task
        )
        target = photograph(renderer, scene, height)
        if min(person.visible for person in target.record.people) >= LEAST_VISIBLE:
            break
    order = tuple(int(k) + 1 for k in rng.permutation(len(scene.members)))
    references = []
    for image in range(1, len(order) + 1):
        member = scene.members[order.index(image)]
        age = member.appearance.age if task == "group" else float(rng.uniform(20, 60))
        plan = plan_reference(derived_seed(seed, 0x72, image), member.identity, age)
        references.append(photograph(renderer, plan, portrait_height))
    return GroupExample(seed=seed, task=task, target=target, references=tuple(references), order=order)


def group_examples(
    renderer: Renderer,
    seed: int,
    *,
    height: int,
    portrait_height: int,
    split: Split = "train",
    start: int = 0,
    **options,
) -> Iterator[GroupExample]:
    """Endless examples number start, start + 1, ...; options as in `group_example`."""
    for number in count(start):
        yield group_example(
            renderer,
            derived_seed(seed, number, 0x73),
            height=height,
            portrait_height=portrait_height,
            split=split,
            **options,
        )


def _plan_target(
    seed: int, *, split: Split, identities: int, people: int | None, aspect: float | None, task: Task
) -> Scene:
    rng = np.random.default_rng([seed, 0x74])
    number = people or int(rng.choice([1, 2, 3, 4], p=[0.08, 0.47, 0.32, 0.13]))
    number = min(number, identities)
    chosen = [identity_seed(split, int(k)) for k in rng.choice(identities, number, replace=False)]
    ages = [float(rng.uniform(4, 13)) for _ in chosen] if task == "child" else None
    return plan_group(seed, identities=chosen, ages=ages, aspect=aspect)
