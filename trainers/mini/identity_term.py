"""The identity loss in the transformer's training, late: clean estimates are decoded and their faces recognised (IdGlow
3.3, eq. 2 to 5).

The true picture shows the same people in the same places, in the same light and at the wanted age. Its faces are
therefore both the landmarks and the references: who belongs to whom is known, and nothing but the face itself differs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.backbones.qwen_image_21 import QwenImage21Backbone
from core.face_encoder import FaceEncoder
from core.faces import FaceAnalyzer
from core.identity import detect_landmarks, identity_loss
from core.schedule import IdentitySchedule

SCHEDULES = {"group": IdentitySchedule.anneal(0.4), "child": IdentitySchedule.gate()}
"""lambda(sigma) by the task of what is drawn; "portrait" and "row" have no face size of their own and get none."""


class IdentityTerm:
    """Mean of 1 - cosine between the faces of clean estimates and of the true pictures, weighed by lambda(sigma).

    Args:
        backbone: decodes; its VAE collects no gradient.
        analyzer: finds the faces of the true pictures, and names the recogniser.
        estimates: how many clean estimates of a step are decoded; each costs about as much as its denoising.
    """

    def __init__(self, backbone: QwenImage21Backbone, analyzer: FaceAnalyzer, *, estimates: int) -> None:
        self._backbone, self._analyzer, self._estimates = backbone, analyzer, estimates
        self._encoder = FaceEncoder.from_onnx(analyzer.recogniser_path).to(backbone.device)

    def __call__(
        self, task: str, estimates: Tensor, targets: Tensor, sigma: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Scalar with gradient into `estimates`.

        task: "group" or "child". estimates, targets: clean latents (B, C, rows, columns); sigma: (B,) the noise levels
        that the estimates were made at.
        """
        weights = SCHEDULES[task].weight(sigma)
        rows = weights.nonzero().flatten().cpu()
        rows = rows[torch.randperm(len(rows), generator=generator)[: self._estimates]].to(sigma.device)
        if not len(rows):
            return estimates.sum() * 0  # hangs on the estimates, so backward works
        with torch.no_grad():
            true = self._backbone.decode(targets[rows]).clamp(0, 1)
            landmarks = detect_landmarks(true, self._analyzer)
            counts = [len(found) for found in landmarks]
            if not any(counts):
                return estimates.sum() * 0
            index = torch.repeat_interleave(torch.arange(len(true)), torch.tensor(counts))
            references = self._encoder.embed_faces(true, torch.cat(landmarks), picture_index=index).split(counts)
        return identity_loss(
            self._backbone.decode(estimates[rows]),
            references,
            landmarks,
            self._encoder,
            weights=weights[rows],
            pairs=[[(face, face) for face in range(len(found))] for found in landmarks],
        ).loss
