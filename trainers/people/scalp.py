"""Where hair grows: roots on the scalp, the locks they belong to, and the shape of the skull that hair lies
on.

Positions are in head units: relative to the head joint, divided by the head's size, so that brows, ears and
crown of every head are at about the same place as on the template (eyes at y = 0.34, hair line at 1.05, top
at 1.4, chin at -0.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainers.people.skull import CENTRE, Skull, Torso
from trainers.people.surface import smoothstep

if TYPE_CHECKING:
    from trainers.people.mesh import Body, PeopleMesh

LOCKS, ROOTS = 320, 4500
KNOTS = 16  # of each strand of head hair
_CROWN_HEIGHT = 1.45  # of the joint "head-2" on the template
_CROWN = (0.0, 1.12, -0.62)
# Azimuth from straight ahead -> height where hair begins: forehead, temples, sideburn, over and behind the
# ear, nape.
_LINE_AZIMUTH = (0.0, 0.35, 0.6, 0.75, 0.88, 1.0, 1.12, 1.2, 1.28, 1.4, 1.8, 1.95, 2.1, 2.4, math.pi)
_LINE_HEIGHT = (1.06, 1.05, 1.00, 0.90, 0.74, 0.58, 0.44, 0.28, 0.22, 0.46, 0.46, 0.15, -0.10, -0.32, -0.36)


def interpolate(x: Tensor, knots: tuple[float, ...], values: tuple[float, ...]) -> Tensor:
    """Piecewise linear function of x (any shape), constant beyond the ends."""
    at = torch.tensor(knots, device=x.device)
    height = torch.tensor(values, device=x.device)
    right = torch.searchsorted(at, x.contiguous()).clamp(1, len(knots) - 1)
    share = ((x - at[right - 1]) / (at[right] - at[right - 1])).clamp(0, 1)
    return torch.lerp(height[right - 1], height[right], share)


def azimuth(points: Tensor) -> Tensor:
    """Angle from straight ahead, 0..pi, of (..., 3) points."""
    return torch.atan2(points[..., 0].abs(), points[..., 2])


def above_hairline(points: Tensor, recession: Tensor | float = 0.0, thin_crown: Tensor | float = 0.0) -> Tensor:
    """Signed distance (about dm) of (..., 3) template points from the edge of the hair, positive where hair
    grows.

    recession: 0 a full hair line .. 1 far back, most at the temples; thin_crown: 0..1 size of the bald patch
    on the crown.
    """
    ahead = azimuth(points)
    line = interpolate(ahead, _LINE_AZIMUTH, _LINE_HEIGHT)
    temple = torch.exp(-(((ahead - 0.55) / 0.28) ** 2))
    line = line + recession * (0.16 * smoothstep(1.0, 0.6, ahead) + 0.24 * temple)
    inside = points[..., 1] - line
    patch = (points - torch.tensor(_CROWN, device=points.device)).norm(dim=-1) - 0.85 * thin_crown
    return torch.where(torch.as_tensor(thin_crown, device=points.device) > 0, torch.minimum(inside, patch), inside)


class HeadFrame:
    """Head units of one body: unposed positions relative to the head joint, divided by the size of the head.

    size: dm of one unit, 1 on the template.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._origin = body.rest_joint("head")
        self.size = float(body.rest_joint("head-2")[1] - self._origin[1]) / _CROWN_HEIGHT
        self.rest = (body.rest - self._origin) / self.size

    def pose(self, points: Tensor) -> Tensor:
        """(..., 3) head units -> posed positions in the person's space."""
        flat = points.reshape(-1, 3)
        return self._body.pose(flat * self.size + self._origin, flat, arms=False).reshape(points.shape)


@dataclass(frozen=True, eq=False)
class Roots:
    """Points on the body where hair grows. faces: (n, 3) vertex indices and weights: (n, 3) place them on any
    body; template: (n, 3); lock: (n,) index of the lock that each belongs to; guide: (locks,) the root in the
    middle of each."""

    faces: Tensor
    weights: Tensor
    template: Tensor
    lock: Tensor
    guide: Tensor

    def on(self, values: Tensor) -> Tensor:
        """(n, k) values of the roots from (vertices, k)."""
        return (values[self.faces] * self.weights[..., None]).sum(1)


def scatter_roots(mesh: PeopleMesh, region: Tensor, count: int, locks: int, *, seed: int) -> Roots:
    """`count` roots spread evenly over the (m, 3) faces `region`, in locks of even size around the farthest
    points."""
    rng = np.random.default_rng(seed)
    a, b, c = mesh.template[region].cpu().unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1).double().numpy()
    picked = rng.choice(len(region), count, p=area / area.sum())
    uv = rng.random((count, 2))
    uv = np.where(uv.sum(1, keepdims=True) > 1, 1 - uv, uv)
    weights = torch.tensor(np.concatenate([1 - uv.sum(1, keepdims=True), uv], 1), dtype=torch.float32)
    faces = region.cpu()[torch.from_numpy(picked)]
    template = (mesh.template.cpu()[faces] * weights[..., None]).sum(1)
    guide = [0]
    distance = torch.full((count,), math.inf)
    for _ in range(locks - 1):
        distance = torch.minimum(distance, (template - template[guide[-1]]).square().sum(1))
        guide.append(int(distance.argmax()))
    guide = torch.tensor(guide)
    lock = torch.cdist(template, template[guide]).argmin(1)
    return Roots(*(t.to(mesh.device) for t in (faces, weights, template, lock, guide)))


@dataclass(frozen=True, eq=False)
class Guides:
    """What combing needs to know of the roots in the middle of each lock, as arrays. template: (locks, 3);
    azimuth and inside, the distance from the edge of the hair: (locks,)."""

    template: np.ndarray
    azimuth: np.ndarray
    inside: np.ndarray


class Scalp:
    """Roots of the head hair of a mesh, random numbers for their strands, and the rays along which its skull
    is measured. Made once per mesh."""

    def __init__(self, mesh: PeopleMesh) -> None:
        skin = mesh.faces_of("body")
        centre = mesh.template[skin].mean(1)
        ears = mesh.masks["ears"][skin].amax(1) > 0.3
        region = (above_hairline(centre) > -0.02) & (centre[:, 1] > -0.5) & ~ears
        self.roots = scatter_roots(mesh, skin[region], ROOTS, LOCKS, seed=5)
        guides = self.roots.template[self.roots.guide]
        self.guides = Guides(
            *(a.cpu().numpy() for a in (guides, azimuth(guides), above_hairline(guides))),
        )
        rng = np.random.default_rng(8)
        # Differences between single strands are the same for everybody; what tells people apart are the
        # locks.
        self.draws = torch.from_numpy(rng.random((6, ROOTS))).to(mesh.device, torch.float32)
        self.rough = torch.from_numpy(rng.random((ROOTS, KNOTS, 3)) - 0.5).to(mesh.device, torch.float32)
        body = mesh.vertices_of("body")
        x, y = mesh.template[body, 0].abs(), mesh.template[body, 1]
        self._trunk = body[(y < -0.6) & (y > -4.0) & (x < 2.3)]
        outside = (mesh.masks["ears"] < 0.1) & (mesh.masks["inside-mouth"] < 0.1) & (mesh.template[:, 1] > -1.3)
        far = (mesh.template - torch.tensor(CENTRE, device=mesh.device)).norm(dim=1) > 0.6
        self._skin = body[(outside & far)[body]]

    def torso(self, head: Tensor) -> Torso:
        """The trunk of (vertices, 3) positions in head units."""
        return Torso(head[self._trunk].cpu().numpy())

    def skull(self, head: Tensor) -> Skull:
        """The skull of (vertices, 3) positions in head units."""
        return Skull(head[self._skin].cpu().numpy())
