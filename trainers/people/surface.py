"""What geometry and material modules of the rendered people hand to each other.

A geometry module returns `Part`s (triangle meshes of one person). The renderer finds what each pixel sees and asks the
material's `shade(points: SurfacePoints) -> Surface` for the look of the seen points, all people of a picture at once.

Units are decimetres. Axes: x to the picture's right, y up, z towards the camera. Colours are linear RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from trainers.people.identity import Person

EXTRA_CHANNELS = 8


class Material(IntEnum):
    """Which module shades a part (the table is `renderer.SHADERS`)."""

    SKIN = 0
    EYE = 1
    LASHES = 2
    TEETH = 3
    TONGUE = 4
    HAIR = 5
    CLOTH = 6
    HAT = 7
    GLASSES = 8
    LENS = 9


@dataclass(frozen=True, eq=False)
class Part:
    """A triangle mesh of one person, in that person's space (origin: the base of the neck).

    vertices: (n, 3) posed positions; template: (n, 3) the same points on the unposed average person, origin at the head
    joint, for textures that stay put under pose and age; faces: (m, 3) int64, counter-clockwise from outside.
    extra: (n, <= EXTRA_CHANNELS) anything the material wants interpolated.
    cut: (n,) the surface exists where its linear interpolation is >= 0: clean edges (collars, necklines) on any mesh.
    two_sided: seen from behind as well. blended: drawn over the opaque parts with the material's alpha, the nearest
    BLENDED_LAYERS surfaces of a pixel (hair tips, lashes, lenses). normals: (n, 3), computed from the faces when None.
    """

    material: Material
    vertices: Tensor
    template: Tensor
    faces: Tensor
    extra: Tensor | None = None
    cut: Tensor | None = None
    normals: Tensor | None = None
    two_sided: bool = False
    blended: bool = False
    casts_shadow: bool = True


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points of one material seen in a picture, P in all.

    template, position, normal, view: (P, 3), normal and view (towards the camera) of length 1, the normal facing the
    camera; extra: (P, EXTRA_CHANNELS) as given by the part, zeros where it gave none.
    person: (P,) int64 index into people. footprint: (P,) width of a pixel at the point in dm: fade out detail smaller
    than it.
    """

    template: Tensor
    position: Tensor
    normal: Tensor
    view: Tensor
    extra: Tensor
    person: Tensor
    footprint: Tensor
    people: Sequence[Person]
    noise: Noise

    @property
    def device(self) -> torch.device:
        return self.template.device

    def __len__(self) -> int:
        return len(self.template)

    def gather(self, values: Sequence[float | Sequence[float]]) -> Tensor:
        """One value (or row of values) for each person -> (P,) or (P, k) for each point."""
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)[self.person]

    def constant(self, value: float) -> Tensor:
        return torch.full((len(self),), value, device=self.device)


@dataclass(frozen=True, eq=False)
class Surface:
    """How P points look. albedo: (P, 3) in 0..1; specular: (P,) scale of the dielectric highlight, 1 = like skin oil;
    gloss: (P,) Blinn-Phong exponent; subsurface: (P,) 0..1 share of light that scatters sideways (skin); occlusion:
    (P,) 0..1 of the ambient light that arrives; normal: (P, 3), None keeps the geometric one; alpha: (P,) only read for
    blended parts; tangent: (P, 3) unit fibre direction, given for hair: fibre highlights replace the dielectric one;
    reflection: (P,) strength of a mirror image of the lights (cornea, lenses)."""

    albedo: Tensor
    specular: Tensor | None = None
    gloss: Tensor | None = None
    subsurface: Tensor | None = None
    occlusion: Tensor | None = None
    normal: Tensor | None = None
    alpha: Tensor | None = None
    tangent: Tensor | None = None
    reflection: Tensor | None = None


class Noise:
    """Smooth periodic 3-D value noise with four channels, the same on every device."""

    def __init__(self, device: torch.device | str = "cpu", *, seed: int = 1, cells: int = 48) -> None:
        values = torch.randn(1, 4, cells, cells, cells, generator=torch.Generator().manual_seed(seed))
        self._values = F.pad(values, (0, 1, 0, 1, 0, 1), mode="circular").to(device)
        self._cells = cells

    def __call__(self, points: Tensor, frequency: float) -> Tensor:
        """points (P, 3) times frequency (cells per dm) -> (P, 4) with about unit variance."""
        grid = torch.remainder(points * (frequency / self._cells), 1.0) * 2 - 1
        sampled = F.grid_sample(
            self._values, grid[None, None, None], mode="bilinear", padding_mode="border", align_corners=True
        )
        return sampled[0, :, 0, 0].T


def smoothstep(low: float | Tensor, high: float | Tensor, x: Tensor) -> Tensor:
    """0 below low, 1 above high (or the reverse when low > high), smooth between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def bump(squared_distance: Tensor, width: float | Tensor) -> Tensor:
    """Gaussian of a squared distance."""
    return torch.exp(-squared_distance / (2 * width * width))


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """(P, 3) a towards (P, 3) or (3,) b by (P,) share."""
    return a + (b - a) * share[:, None]


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(n, 3) unit normals, area weighted."""
    a, b, c = vertices[faces].unbind(1)
    face_normals = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(0, faces[:, corner], face_normals)
    return unit(normals)
