"""The identity loss in the transformer's training, late: clean estimates are decoded and their faces recognised (IdGlow
3.3, eq. 2 and 3, weighed by eq. 4 and 5).

The true picture shows the same people in the same places, in the same light and at the wanted age. Its faces are
therefore the references: who belongs to whom and where the faces lie is known, and nothing but the face itself differs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.backbones.qwen_image_21 import QwenImage21Backbone
from core.face_encoder import FaceEncoder
from core.schedule import IdentitySchedule

SCHEDULES = {"group": IdentitySchedule.anneal(0.4), "child": IdentitySchedule.gate()}
"""lambda(sigma) by the task of what is drawn; "portrait" and "row" have no face size of their own and get none."""


class IdentityTerm:
    """Mean of 1 - cosine between the faces of clean estimates and of the true pictures, weighed by lambda(sigma).

    Args:
        backbone: decodes; its VAE collects no gradient.
        encoder: recognises; its parameters collect no gradient.
        estimates: how many clean estimates of a step are decoded; each costs about as much as its denoising.
    """

    def __init__(self, backbone: QwenImage21Backbone, encoder: FaceEncoder, *, estimates: int) -> None:
        self._backbone, self._estimates = backbone, estimates
        self._encoder = encoder.to(backbone.device)

    def __call__(
        self,
        task: str,
        estimates: Tensor,
        targets: Tensor,
        landmarks: Tensor,
        sigma: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Scalar with gradient into `estimates`.

        task: "group" or "child". estimates, targets: clean latents (B, C, rows, columns); landmarks (B, people, 5, 2)
        of the faces in pixels; sigma: (B,) the noise levels that the estimates were made at.
        """
        weights = SCHEDULES[task].weight(sigma)
        rows = weights.nonzero().flatten().cpu()
        rows = rows[torch.randperm(len(rows), generator=generator)[: self._estimates]].to(sigma.device)
        if not len(rows):
            return estimates.sum() * 0  # hangs on the estimates, so backward works
        people = landmarks.shape[1]
        points = landmarks[rows].flatten(0, 1)
        index = torch.arange(len(rows), device=rows.device).repeat_interleave(people)
        with torch.no_grad():
            true = self._encoder.embed_faces(
                self._backbone.decode(targets[rows]).clamp(0, 1), points, picture_index=index
            )
        found = self._encoder.embed_faces(self._backbone.decode(estimates[rows]), points, picture_index=index)
        costs = 1 - (true * found).sum(1)
        return (weights[rows] * costs.view(-1, people).mean(1)).mean()
