"""Small complete rows for tests of the store."""

from __future__ import annotations

import io
import itertools

import numpy as np
from PIL import Image

from studio.store import NewCandidate, NewGeneration, NewPick, NewPortrait, Store
from studio.store.models import Comparison, Generation, Person, Portrait, new_id

_pictures = itertools.count()


def png(seed: int, size: int = 24) -> bytes:
    """A small real picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def add_picture(store: Store, content: bytes | None = None) -> str:
    """A file with content of its own."""
    return store.media.add(content or f"picture {next(_pictures)}".encode(), ".png")


def add_person(
    store: Store, name: str = "Ada", *, owner_id: str | None = None, content: bytes | None = None
) -> tuple[Person, Portrait]:
    """A person with one uploaded portrait."""
    person = store.people.add_person(name, owner_id=owner_id)
    portrait = store.people.add_portrait(
        person.id,
        NewPortrait(
            picture_sha256=add_picture(store, content),
            crop_sha256=add_picture(store, content),
            box=(1, 2, 30, 40),
            landmarks=[(5, 5), (9, 5), (7, 8), (5, 11), (9, 11)],
            embedding=np.array([0.6, 0.8]),
            face_pack="tiny",
            source_sha256="0" * 64,
            consent_id=store.people.give_consent("I may use these pictures.", owner_id).id,
        ),
    )
    return person, portrait


def add_generation(
    store: Store,
    portraits: list[Portrait] | None = None,
    *,
    candidates: int = 2,
    content: list[bytes] | None = None,
    **settings: object,
) -> Generation:
    """A finished generation."""
    values = {
        "task": "group",
        "prompt": "image 1 laughs",
        "schedule": "anneal-hold-0.4",
        "strength": 1.0,
        "steps": 8,
        "guidance": 1.0,
        "identity_guidance": 1.0,
        "width": 128,
        "height": 128,
        "bundle": "mini",
        "portrait_ids": [portrait.id for portrait in portraits or []],
        "seeds": list(range(candidates)),
    }
    generation = store.generations.create(NewGeneration(**(values | settings)))
    store.generations.start(generation.id)
    store.generations.finish(
        generation.id,
        [
            NewCandidate(
                position=position,
                seed=position,
                media_sha256=add_picture(store, content[position] if content else None),
                width=128,
                height=128,
                face_report={"face_sim": 0.5},
                face_sim=0.5,
                coverage=1.0,
            )
            for position in range(candidates)
        ],
    )
    return store.generations.get(generation.id)


def add_comparison(store: Store, **settings: object) -> Comparison:
    """A blind comparison of the two candidates of a new generation."""
    generation = add_generation(store)
    return store.comparisons.create([candidate.id for candidate in generation.candidates], **settings)


def new_pick(comparison: Comparison, annotator_id: str, outcome: str = "left", **settings: object) -> NewPick:
    """A decision with a request id of its own."""
    values = {"request_id": new_id(), "comparison_id": comparison.id, "annotator_id": annotator_id, "outcome": outcome}
    return NewPick(**(values | settings))
