"""From portraits and a prompt to candidates: the one function behind the command, the studio and the
benchmarks.

    python -m core.generate --bundle mini --portraits A.png B.png --task group --scene "in a park at sunset"
    --out DIR
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.backbones.protocol import Conditioning
from core.face_detail import detail_targets, settings_for
from core.faces import FaceAnalyzer, FacePackError
from core.identity import FaceReport, measure_faces
from core.pixels import to_uint8
from core.portraits import Person, prepare_person
from core.prompts import Task, refuse_unsafe
from core.sampler import Cancel, OnStep, sample
from core.schedule import IdentitySchedule

if TYPE_CHECKING:
    # Brings diffusers, transformers and peft; who only makes a request does not wait for them.
    from core.backbones.bundles import Bundle


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationRequest:
    """What a person asked for.

    prompt: as shown to and edited by the person; portrait k is "image k" in it.
    portraits: (H, W, 3) uint8 RGB, one for each person; the face is found and cut out here.
    face_boxes: left, top, right, bottom in pixels of the face that is meant in each portrait; empty, or None for one of
        them, takes the largest face.
    task: group (everybody at their own age) or child (the same people as children, or at the ages given).
    target_ages: where the task is child, years, one for each portrait, as the prompt says them; None for one of them,
        or none at all, is a child.
    seeds: one candidate for each.
    schedule, strength: when identity is imposed, and how much of that schedule's effect is wanted, in [0, 1].
    negative_prompt, guidance: classifier-free guidance; 1 is none.
    identity_guidance: scale of guidance towards the portraits (core/injection.py); 1 is none.
    guidance, identity_guidance, steps, height, width: None for the bundle's own.
    expected_order: portrait indices from left to right, where the prompt says so; lets swaps be counted.
    face_detail: paint the faces once more at twice their size (core/face_detail.py), where the bundle can.
    """

    prompt: str
    portraits: tuple[np.ndarray, ...]
    task: Task = Task.GROUP
    target_ages: tuple[int | None, ...] = ()
    seeds: tuple[int, ...] = (0,)
    schedule: IdentitySchedule = dataclasses.field(default_factory=IdentitySchedule.constant)
    strength: float = 1.0
    negative_prompt: str = ""
    guidance: float | None = None
    identity_guidance: float | None = None
    steps: int | None = None
    height: int | None = None
    width: int | None = None
    expected_order: tuple[int, ...] | None = None
    face_boxes: tuple[tuple[float, ...] | None, ...] = ()
    face_detail: bool = True

    def __post_init__(self) -> None:
        # A plain "child" must not slip past the stricter rules for children.
        object.__setattr__(self, "task", Task(self.task))
        for name, given in (("face boxes", self.face_boxes), ("target ages", self.target_ages)):
            if given and len(given) != len(self.portraits):
                raise ValueError(
                    f"There are {len(given)} {name} for {len(self.portraits)} portraits; give one for each."
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One picture, and all it takes to make it again.

    picture: (height, width, 3) uint8 RGB.
    seed: its own seed.
    settings: JSON of everything else: bundle, revision, adapter, prompt, schedule, sizes; goes into the PNG
        file.
    faces: who is in it; None where there is no face pack, or a portrait without a face.
    seconds: wall time of each stage, for all candidates of the request together.
    notes: what a person should know about this generation.
    """

    picture: np.ndarray
    seed: int
    settings: dict[str, Any]
    faces: FaceReport | None
    seconds: dict[str, float]
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Everything but the picture, as JSON."""
        faces = None if self.faces is None else dataclasses.asdict(self.faces)
        return {
            **self.settings,
            "seed": self.seed,
            "faces": faces,
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "notes": list(self.notes),
        }


def generate(
    bundle: Bundle, request: GenerationRequest, *, on_step: OnStep | None = None, cancel: Cancel | None = None
) -> list[Candidate]:
    """Make one candidate for each seed of the request.

    What is encoded once is kept on the bundle (`bundle.encodings`): a second request with the same prompt and
    portraits begins at the first denoising step.

    Raises:
        PromptRefused: sexual content; stricter where children are the task.
        ValueError: an argument out of range.
        Cancelled: `cancel` said so; see `core.sampler.sample` for it and `on_step`.
    """
    clock = _Stopwatch()
    backbone, card = bundle.backbone, bundle.card

    # 1. Validate before anything is computed.
    for text in (request.prompt, request.negative_prompt):
        refuse_unsafe(text, children=request.task is Task.CHILD)
    if not request.prompt.strip():
        raise ValueError("The prompt is empty; describe the people and the scene.")
    if not request.portraits:
        raise ValueError("There is no portrait; give one for each person.")
    backbone.limits.check_references(len(request.portraits))
    steps = card.steps if request.steps is None else request.steps
    height = card.height if request.height is None else request.height
    width = card.width if request.width is None else request.width
    guidance = card.guidance_of(request.task) if request.guidance is None else request.guidance
    identity_guidance = card.identity_guidance if request.identity_guidance is None else request.identity_guidance
    backbone.latent_shape(height, width)

    # 2. Faces of the portraits.
    with clock.stage("faces"):
        analyzer, notes = face_analyzer(bundle)
        boxes = request.face_boxes or (None,) * len(request.portraits)
        people = people_of(bundle, analyzer, request.portraits, boxes)
    notes += [person.note for person in people if person.note is not None]
    if card.trained_sizes and (height, width) not in card.trained_sizes:
        known = " and ".join(f"{w} x {h} px" for h, w in card.trained_sizes)
        notes.append(f"{card.name} has learned from pictures of {known} alone; others may repeat themselves.")

    # 3. Prompt and references, by VLM and VAE.
    with clock.stage("encode"):
        conditioning = _encode(bundle, request.prompt, people)
        negative = _encode(bundle, request.negative_prompt, people) if guidance > 1 else None

    # 4. Denoise.
    with clock.stage("sample"):
        latents = sample(
            backbone,
            conditioning,
            seeds=request.seeds,
            height=height,
            width=width,
            steps=steps,
            schedule=request.schedule,
            strength=request.strength,
            identity_guidance=identity_guidance,
            negative=negative,
            guidance=guidance,
            guidance_above=card.guidance_above,
            on_step=on_step,
            cancel=cancel,
        )

    # 5. Decode.
    with clock.stage("decode"), torch.no_grad():
        pictures = list(to_uint8(backbone.decode(latents)))

    # 6. Paint the faces once more, at twice their size.
    known = analyzer is not None and all(person.embedding is not None for person in people)
    painted_again = request.face_detail and bundle.face_detail is not None and known
    if painted_again:
        ages = request.target_ages or (None,) * len(people)
        with clock.stage("face detail"):
            pictures = bundle.face_detail(
                pictures,
                detail_targets(pictures, [person.embedding for person in people], analyzer),
                [person.crop for person in people],
                seeds=request.seeds,
                settings=[settings_for(request.task, age) for age in ages],
                schedule=request.schedule,
                strength=request.strength,
                on_step=on_step,
                cancel=cancel,
            )

    # 7. Who is in the pictures.
    with clock.stage("measure"):
        reports = [
            _measure(picture, people, analyzer, request.expected_order) if known else None for picture in pictures
        ]

    settings = {
        **_settings(bundle, request),
        "guidance": guidance,
        "guidance_above": card.guidance_above,
        "identity_guidance": identity_guidance,
        "face_detail": painted_again,
        "steps": steps,
        "height": height,
        "width": width,
    }
    return [
        Candidate(
            picture=picture,
            seed=seed,
            settings=settings,
            faces=report,
            seconds=clock.seconds,
            notes=tuple(notes),
        )
        for picture, seed, report in zip(pictures, request.seeds, reports, strict=True)
    ]


def face_analyzer(bundle: Bundle) -> tuple[FaceAnalyzer | None, list[str]]:
    """The bundle's face pack, or None and a note that says why faces are not measured."""
    try:
        return bundle.face_analyzer, []
    except FacePackError as error:
        return None, [f"Faces are not measured: {error}"]


def people_of(
    bundle: Bundle,
    analyzer: FaceAnalyzer | None,
    portraits: Sequence[np.ndarray],
    boxes: Sequence[tuple[float, ...] | None],
) -> list[Person]:
    """The person of each portrait, kept on the bundle; `boxes` as in `GenerationRequest.face_boxes`."""
    return [
        bundle.encodings.get(
            ("person", number, _digest(portrait), box),
            lambda portrait=portrait, number=number, box=box: prepare_person(
                portrait, number, analyzer, bundle.card.reference_side, box=box
            ),
        )
        for number, (portrait, box) in enumerate(zip(portraits, boxes, strict=True), start=1)
    ]


def _encode(bundle: Bundle, prompt: str, people: list[Person]) -> Conditioning:
    crops = [person.crop for person in people]
    key = ("conditioning", prompt, *(_digest(crop) for crop in crops))
    return bundle.encodings.get(key, lambda: bundle.backbone.encode_prompt(prompt, crops))


def _digest(picture: np.ndarray) -> str:
    return hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).data).hexdigest()


def _measure(
    picture: np.ndarray,
    people: list[Person],
    analyzer: FaceAnalyzer,
    expected_order: tuple[int, ...] | None,
) -> FaceReport:
    return measure_faces(
        np.stack([person.embedding for person in people]),
        analyzer.analyze(picture),
        threshold=analyzer.same_person_threshold,
        expected_order=expected_order,
    )


def _settings(bundle: Bundle, request: GenerationRequest) -> dict[str, Any]:
    adapter = bundle.adapters.active
    return {
        "bundle": bundle.card.name,
        "revision": bundle.revision,
        "precision": str(bundle.backbone.transformer.dtype).removeprefix("torch."),
        "adapter": None
        if adapter is None
        else {"name": adapter.card.name, "digest": adapter.card.digest, "scale": adapter.scale},
        "task": request.task.value,
        "people": len(request.portraits),
        **({"target_ages": list(request.target_ages)} if any(request.target_ages) else {}),
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "schedule": str(request.schedule),
        "strength": request.strength,
    }


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


if __name__ == "__main__":
    from core.generate_command import main

    sys.exit(main())
