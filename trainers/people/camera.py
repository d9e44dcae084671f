"""The camera that looks at rendered people: where points of the scene fall in the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera in front of the people, looking along -z.

    focal: focal length in picture heights; distance: of the camera from `target`, dm; target: (x, y, z) of the
    scene point in the middle of the picture, dm.
    """

    focal: float
    distance: float
    target: tuple[float, float, float]

    def project(self, points: Tensor, height: int, width: int) -> Tensor:
        """(k, 3) scene points in dm -> (k, 3): x and y in pixels from the top left corner, and depth in dm."""
        x, y, z = (points - torch.tensor(self.target, dtype=points.dtype, device=points.device)).unbind(-1)
        depth = self.distance - z
        scale = self.focal * height / depth
        return torch.stack([width / 2 + x * scale, height / 2 - y * scale, depth], -1)

    @classmethod
    def framing(
        cls, left: float, right: float, bottom: float, top: float, *, aspect: float, distance: float, depth: float = 0.0
    ) -> Camera:
        """The camera that shows a rectangle of the plane z = `depth` as large as a picture of `aspect` (width /
        height) allows, from `distance` dm in front of that plane."""
        tall = max(top - bottom, (right - left) / aspect)
        target = ((left + right) / 2, (top + bottom) / 2, depth)
        return cls(focal=distance / tall, distance=distance, target=target)
