"""Faces painted once more, at twice their size.

A latent token stands for 16 x 16 px. The face of one of three people is four tokens wide, and what makes it that
person's face does not fit into them: a true picture that the VAE has merely encoded and decoded is less like its
portraits than it was. So every face is cut out upright, doubled, noised to START_SIGMA and denoised again (SDEdit,
arXiv 2108.01073) by a transformer of its own, which sees the person's portrait at the same size and in the same place;
at half the size the result goes back into the picture. The identity schedule holds here too.

The transformer learns the straight way from a noised draft to the true picture (`trainers/mini/face_detail.py`), so few
steps are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import cv2
import numpy as np
import torch
from torch import Tensor

from core.backbones.protocol import Backbone, Conditioning
from core.faces import Face, FaceAnalyzer
from core.identity import measure_faces
from core.pixels import to_tensor, to_uint8
from core.portraits import align_face, alignment, reference_landmarks
from core.prompts import Task, is_child
from core.sampler import Cancel, OnStep, Start, StepReport, sample
from core.schedule import IdentitySchedule

SIDE = 192
"""Of a face's cut-out, in pixels at twice the size."""
START_SIGMA = 0.35
"""Far enough up to give a face other features, far enough down to leave it its pose, light and expression."""
STEPS = 4
ALIGNED_SIDE = 256
"""Of the aligned head that the cut-out is the middle of, in pixels: twice a reference."""
TOP, LEFT = 40, 32
"""Of the cut-out in the aligned head, in pixels: from above the brows to below the chin."""
FEATHER = 10
"""Pixels of the picture over which a face passes into what surrounds it."""


@dataclass(frozen=True)
class FaceDetailSettings:
    """How somebody's faces are painted.

    prompt: what the transformer is told, and was told while it learned: the portrait says nothing of another age.
    identity_guidance: scale of guidance towards the portrait (core/injection.py); 1 is none.
    share: of the new face in the finished picture, in [0, 1]; the rest is the face before. Their faults differ, so
        their mean is more alike than either.
    """

    prompt: str
    identity_guidance: float
    share: float


SAME_AGE = FaceDetailSettings(prompt="", identity_guidance=4.5, share=0.75)
# Further towards the portrait is also further towards its age.
AS_CHILD = FaceDetailSettings(prompt="a child", identity_guidance=3.0, share=0.5)
OTHER_AGE = FaceDetailSettings(prompt="", identity_guidance=2.0, share=0.5)


def settings_for(task: Task, age: int | None = None) -> FaceDetailSettings:
    """For somebody of whom a task makes a picture; age: in years, None for a child, where the task is another age."""
    if task is Task.GROUP:
        return SAME_AGE
    return AS_CHILD if is_child(task, age) else OTHER_AGE


@dataclass(frozen=True, eq=False)
class DetailTarget:
    """A face to be painted again. picture: its index; face: where it is; person: index of whose portrait it follows."""

    picture: int
    face: Face
    person: int


class FaceDetail:
    """The transformer for faces, with the VAE and the VLM of its bundle.

    Args:
        backbone: takes one reference of SIDE pixels.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._prompt = cache(partial(prompt_conditioning, backbone))

    def __call__(
        self,
        pictures: Sequence[np.ndarray],
        targets: Sequence[DetailTarget],
        references: Sequence[np.ndarray],
        *,
        seeds: Sequence[int],
        settings: Sequence[FaceDetailSettings],
        schedule: IdentitySchedule | None = None,
        strength: float = 1.0,
        on_step: OnStep | None = None,
        cancel: Cancel | None = None,
    ) -> list[np.ndarray]:
        """The pictures (H, W, 3) uint8 with the faces of `targets` painted again.

        Args:
            references: of each person, an aligned portrait (side, side, 3) uint8, cut by `core.portraits.align_face`.
            seeds: of each picture; a face's noise comes from it alone.
            settings: of each person.
            schedule, strength, cancel: as for `core.sampler.sample`.
            on_step: told after every step of everybody's faces; its preview are the pictures with those done before.
        """
        painted = [picture.copy() for picture in pictures]
        people = sorted({target.person for target in targets})

        def tell(before: int, report: StepReport) -> None:
            on_step(
                replace(
                    report,
                    stage="faces",
                    step=before + report.step,
                    total=len(people) * STEPS,
                    preview=lambda: to_tensor(np.stack(painted)),
                )
            )

        for number, person in enumerate(people):
            own = [target for target in targets if target.person == person]
            cuts = [cut_face(pictures[target.picture], target.face.landmarks) for target in own]
            latents = sample(
                self.backbone,
                self._conditioning(settings[person].prompt, references[person]),
                seeds=[seeds[target.picture] for target in own],
                height=SIDE,
                width=SIDE,
                steps=STEPS,
                schedule=schedule,
                strength=strength,
                identity_guidance=settings[person].identity_guidance,
                start=Start(self._encode(cuts), START_SIGMA),
                on_step=None if on_step is None else partial(tell, number * STEPS),
                cancel=cancel,
            )
            with torch.no_grad():
                faces = self.backbone.decode(latents)
            for target, face in zip(own, to_uint8(faces), strict=True):
                lay_back(painted[target.picture], target.face.landmarks, face, share=settings[person].share)
        return painted

    def _conditioning(self, prompt: str, reference: np.ndarray) -> Conditioning:
        return replace(self._prompt(prompt), reference_latents=(self._encode([double_reference(reference)]),))

    @torch.no_grad()
    def _encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        return self.backbone.encode(to_tensor(np.stack(pictures), self.backbone.device))


def prompt_conditioning(backbone: Backbone, prompt: str) -> Conditioning:
    """A prompt of the settings, read with a black picture; whose face it is, the latents of its reference say."""
    return backbone.encode_prompt(prompt, [np.zeros((SIDE, SIDE, 3), np.uint8)])


def detail_targets(
    pictures: Sequence[np.ndarray], embeddings: Sequence[np.ndarray], analyzer: FaceAnalyzer
) -> list[DetailTarget]:
    """The faces of the pictures that belong to somebody, each of them to one person.

    embeddings: of each person's portrait, of unit length. Faces that are nobody's stay as they are.
    """
    targets = []
    for number, picture in enumerate(pictures):
        faces = analyzer.analyze(picture)
        report = measure_faces(np.stack(embeddings), faces, threshold=analyzer.same_person_threshold)
        targets += [DetailTarget(number, faces[row.face], row.reference) for row in report.rows if row.face is not None]
    return targets


def cut_face(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: the face upright and in its place, at twice the size it has in a reference."""
    return _window(align_face(picture, landmarks, ALIGNED_SIDE))


def cut_landmarks() -> np.ndarray:
    """(5, 2) x, y in pixels: where the landmarks of every cut-out lie."""
    return reference_landmarks(ALIGNED_SIDE) - (LEFT, TOP)


def double_reference(reference: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: the same part of an aligned reference, at the same size."""
    return _window(cv2.resize(reference, (ALIGNED_SIDE, ALIGNED_SIDE), interpolation=cv2.INTER_LINEAR))


def _window(aligned: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(aligned[TOP : TOP + SIDE, LEFT : LEFT + SIDE])


def lay_back(picture: np.ndarray, landmarks: np.ndarray, face: np.ndarray, *, share: float = 1.0) -> None:
    """Put a cut-out (SIDE, SIDE, 3) uint8 back, in place, where `cut_face` took it; its border fades out.

    share: of the cut-out, in [0, 1]; the rest is what was there.
    """
    matrix = alignment(landmarks, ALIGNED_SIDE)
    matrix[:, 2] -= LEFT, TOP
    # First to the size that it has in the picture: a warp reads four pixels for each it writes, and would flicker.
    side = round(SIDE / max(1.0, float(np.hypot(*matrix[:, 0]))))
    shrunk = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    matrix *= side / SIDE
    matrix[:, 2] += (side / SIDE - 1) / 2  # the middles of pixels lie at whole numbers
    size, flags = picture.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(shrunk, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    shares = cv2.warpAffine(share * _feather(side), matrix, size, flags=flags)[..., None]
    picture[:] = (laid * shares + picture * (1 - shares)).round().clip(0, 255).astype(np.uint8)


def _feather(side: int) -> np.ndarray:
    """(side, side) float32: 1 inside, falling to 0 over FEATHER pixels towards the border."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    ramp = np.clip(distance / FEATHER, 0, 1)
    return np.minimum.outer(ramp, ramp).astype(np.float32)
