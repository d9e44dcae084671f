"""Glasses and hats: what they are, their geometry on a body, and how they look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from core.colours import COLOURS
from trainers.people.cloth import KNITTED, PLAIN, RIBBED, linear_colour, weave
from trainers.people.scalp import HeadFrame
from trainers.people.skull import CENTRE
from trainers.people.surface import Material, Part, Surface, SurfacePoints, unit

if TYPE_CHECKING:
    from trainers.people.mesh import Body

FRAMES: dict[str, tuple[float, float, float, float]] = {
    "round": (2.0, 0.36, 0.34, 0.013),
    "oval": (2.3, 0.41, 0.29, 0.013),
    "rectangular": (4.5, 0.43, 0.26, 0.018),
    "square": (3.4, 0.42, 0.32, 0.024),
    "thick-rimmed": (3.0, 0.43, 0.33, 0.034),
}
"""Shape of a rim: exponent of its superellipse, half width and half height (in distances between the pupils),
half thickness of the wire (dm)."""
FRAME_COLOURS: dict[str, tuple[float, float, float]] = {
    "black": (0.012, 0.012, 0.014),
    "brown": (0.11, 0.045, 0.018),
    "gold": (0.55, 0.40, 0.16),
    "silver": (0.45, 0.46, 0.48),
    "red": (0.35, 0.03, 0.03),
    "blue": (0.03, 0.06, 0.22),
}
HATS = {"beanie": "knitted beanie", "cap": "baseball cap", "sun hat": "sun hat"}
_RIM_POINTS, _TUBE_POINTS = 28, 5
_ROUND, _RINGS = 48, 9


@dataclass(frozen=True, kw_only=True)
class Glasses:
    """frame: key of FRAMES; colour: key of FRAME_COLOURS; dark: sunglasses."""

    frame: str = "round"
    colour: str = "black"
    dark: bool = False

    def __post_init__(self) -> None:
        if self.frame not in FRAMES:
            raise ValueError(f"unknown frame {self.frame!r}; choose one of {', '.join(FRAMES)}")
        if self.colour not in FRAME_COLOURS:
            raise ValueError(f"unknown frame colour {self.colour!r}; choose one of {', '.join(FRAME_COLOURS)}")

    @property
    def words(self) -> str:
        return "sunglasses" if self.dark else f"{self.frame} {self.colour} glasses"


@dataclass(frozen=True, kw_only=True)
class Hat:
    """kind: key of HATS; colour: a colour word of garments."""

    kind: str = "beanie"
    colour: str = "red"

    def __post_init__(self) -> None:
        if self.kind not in HATS:
            raise ValueError(f"unknown hat {self.kind!r}; choose one of {', '.join(HATS)}")
        linear_colour(self.colour)

    @property
    def words(self) -> str:
        return f"{self.colour} {HATS[self.kind]}"

    @property
    def rim(self) -> tuple[float, float]:
        """(height, slope) in head units: the hat covers what is above height + slope * z."""
        return {"beanie": (0.66, 0.20), "cap": (0.74, 0.14), "sun hat": (0.76, 0.10)}[self.kind]


def sample_glasses(rng: np.random.Generator) -> Glasses:
    return Glasses(
        frame=str(rng.choice(list(FRAMES))),
        colour=str(rng.choice(list(FRAME_COLOURS), p=[0.4, 0.2, 0.12, 0.14, 0.07, 0.07])),
        dark=bool(rng.random() < 0.06),
    )


def sample_hat(rng: np.random.Generator) -> Hat:
    return Hat(kind=str(rng.choice(list(HATS))), colour=str(rng.choice(list(COLOURS))))


def glasses(body: Body) -> list[Part]:
    """Rims, bridge and temples, and the two lenses."""
    worn = body.person.appearance.glasses
    if worn is None:
        return []
    device = body.vertices.device
    (left, _), (right, _) = body.eyes["l"], body.eyes["r"]
    across = unit(left - right)
    up = body.head_rotation[:, 1]
    up = unit(up - across * (up @ across))
    ahead = torch.linalg.cross(across, up)
    between = (left - right).norm()
    size = between / 0.58  # against an adult's
    exponent, half_width, half_height, wire = FRAMES[worn.frame]
    wire = wire * float(size)
    angle = torch.arange(_RIM_POINTS, device=device) * (2 * math.pi / _RIM_POINTS)
    c, s = angle.cos(), angle.sin()
    radius = (c.abs() ** exponent + s.abs() ** exponent) ** (-1 / exponent)
    tubes, lenses = [], []
    for centre, side in ((left, 1.0), (right, -1.0)):
        middle = centre + ahead * (0.33 * size) + across * (side * 0.035 * between) - up * (0.05 * size)
        # The frame curves back towards the temples.
        wide, high = radius * c * half_width * between, radius * s * half_height * between
        back = 0.22 * (side * wide).clamp(min=0) ** 2
        rim = middle + wide[:, None] * across + high[:, None] * up - back[:, None] * ahead
        tubes.append(_tube(rim, wire, ahead, closed=True))
        lenses.append(torch.cat([rim, middle[None] + 0.02 * ahead]))
        hinge = middle + across * (side * half_width * between * 1.0) + up * (0.12 * size) - ahead * (0.02 * size)
        ear = centre + across * (side * 0.60 * size) - ahead * (0.98 * size) + up * (0.10 * size)
        bow = torch.stack([hinge, hinge + across * (side * 0.05 * size) - ahead * (0.10 * size), ear])
        tubes.append(_tube(bow, max(wire * 0.8, 0.010), up, closed=False))
    middle = (left + right) / 2 + ahead * (0.36 * size) - up * (0.01 * size)
    gap = 0.5 * between - (half_width - 0.035) * between
    bridge = torch.stack([middle + across * (x * gap) + up * (0.045 * size * (1 - abs(x))) for x in (-1.0, 0.0, 1.0)])
    tubes.append(_tube(bridge, wire, up, closed=False))
    frame_vertices, frame_faces = _joined(tubes)
    fan = torch.arange(_RIM_POINTS, device=device)
    faces = torch.stack([torch.full_like(fan, _RIM_POINTS), fan, (fan + 1) % _RIM_POINTS], 1)
    lens_vertices, lens_faces = _joined([(lens, faces) for lens in lenses])
    return [
        Part(
            material=Material.GLASSES,
            vertices=frame_vertices,
            template=frame_vertices,
            faces=frame_faces,
            two_sided=True,
            casts_shadow=False,
        ),
        Part(
            material=Material.LENS,
            vertices=lens_vertices,
            template=lens_vertices,
            faces=lens_faces,
            two_sided=True,
            blended=True,
            casts_shadow=False,
        ),
    ]


def _tube(path: Tensor, radius: float, beside: Tensor, *, closed: bool) -> tuple[Tensor, Tensor]:
    """A tube along the (n, 3) path; beside: (3,) direction across it. Vertices and faces."""
    count, device = len(path), path.device
    following = torch.roll(path, -1, 0) if closed else torch.cat([path[1:], 2 * path[-1:] - path[-2:-1]])
    before = torch.roll(path, 1, 0) if closed else torch.cat([2 * path[:1] - path[1:2], path[:-1]])
    along = unit(following - before)
    first = unit(torch.linalg.cross(along, beside.expand_as(along)))
    second = torch.linalg.cross(along, first)
    angle = torch.arange(_TUBE_POINTS, device=device) * (2 * math.pi / _TUBE_POINTS)
    ring = angle.cos()[None, :, None] * first[:, None] + angle.sin()[None, :, None] * second[:, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    return vertices, _grid_faces(count, _TUBE_POINTS, closed, device)


def _grid_faces(rows: int, columns: int, closed: bool, device: torch.device) -> Tensor:
    """Faces of a grid whose columns wrap around and whose rows do so when closed."""
    row = torch.arange(rows if closed else rows - 1, device=device)[:, None]
    column = torch.arange(columns, device=device)[None]
    after, beside = (row + 1) % rows, (column + 1) % columns
    a, b, c, d = (
        (r * columns + k).expand(len(row), columns)
        for r, k in ((row, column), (row, beside), (after, column), (after, beside))
    )
    return torch.cat([torch.stack([a, b, d], -1), torch.stack([a, d, c], -1)]).reshape(-1, 3)


def _joined(meshes: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    offsets = np.cumsum([0] + [len(v) for v, _ in meshes])
    faces = [f + int(offset) for (_, f), offset in zip(meshes, offsets[:-1], strict=True)]
    return torch.cat([v for v, _ in meshes]), torch.cat(faces)


def hat(body: Body) -> list[Part]:
    """A crown that follows the skull down to the rim, and a fold, a peak or a brim."""
    worn = body.person.appearance.hat
    if worn is None:
        return []
    frame = HeadFrame(body)
    skull = body.mesh.scalp.skull(frame.rest)
    around = np.arange(_ROUND, dtype=np.float32) * np.float32(2 * math.pi / _ROUND)
    flat = np.stack([np.sin(around), np.zeros_like(around), np.cos(around)], 1)

    def on_skin(direction: np.ndarray, gap: float) -> np.ndarray:
        direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        _, skin = skull.at(*(CENTRE + direction).T)
        return CENTRE + direction * (skin + gap)[:, None]

    def ring(height: float, gap: float) -> np.ndarray:
        """(_ROUND, 3) around the head at a height above the rim, `gap` away from the skin."""
        point = flat * 0.8
        for _ in range(4):
            level = worn.rim[0] + worn.rim[1] * point[:, 2] + height - CENTRE[1]
            point = on_skin(np.stack([point[:, 0], level, point[:, 2]], 1), gap)
        return point

    top = np.array([0.0, 1.0, -0.12], dtype=np.float32)
    top /= np.linalg.norm(top)
    low, high = {"beanie": (0.11, 0.20), "cap": (0.12, 0.18), "sun hat": (0.13, 0.25)}[worn.kind]
    start = ring(0.0, 0.10) - CENTRE
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    shares = np.linspace(0, 0.999, _RINGS)
    rings = [on_skin(start + (top - start) * share, low + (high - low) * share**0.7) for share in shares]
    crown = np.stack(rings)
    meshes = [(crown, KNITTED if worn.kind == "beanie" else PLAIN)]
    if worn.kind == "beanie":
        fold = [ring(h, g) for h, g in ((-0.05, 0.08), (-0.06, 0.16), (0.05, 0.19), (0.16, 0.19), (0.24, 0.15))]
        meshes.append((np.stack(fold), RIBBED))
    elif worn.kind == "cap":
        ahead = np.clip((1.15 - np.arctan2(np.abs(flat[:, 0]), flat[:, 2])) / 0.4, 0, 1)[:, None]
        edge = rings[0] + ahead * (flat * [0.22, 0.0, 0.62] + [0.0, -0.06, 0.0])
        middle = (rings[0] + edge) / 2 + ahead * [0.0, 0.035, 0.0]
        meshes.append((np.stack([rings[0], middle, edge]), PLAIN))
    else:
        drop = np.stack([0 * around, 0.04 * np.sin(3 * around) - 0.10, 0 * around], 1)
        brim = [rings[0] + (flat * 0.62 + drop) * share for share in (0.0, 0.33, 0.66, 1.0)]
        meshes.append((np.stack(brim), PLAIN))
    device = body.vertices.device
    parts = []
    for grid, fabric in meshes:
        points = torch.from_numpy(grid.reshape(-1, 3).astype(np.float32)).to(device)
        parts.append(
            Part(
                material=Material.HAT,
                vertices=frame.pose(points),
                template=points,
                faces=_grid_faces(len(grid), _ROUND, False, device),
                extra=torch.tensor([[fabric]], device=device).expand(len(points), 1),
                two_sided=True,
            )
        )
    return parts


def shade_hat(points: SurfacePoints) -> Surface:
    """extra: fabric."""
    colours = [linear_colour(p.appearance.hat.colour) if p.appearance.hat else (0.0, 0.0, 0.0) for p in points.people]
    nothing = points.constant(0.0)
    return weave(points, points.gather(colours), points.extra[:, 0].round(), nothing - 1, nothing + 9)


def shade_glasses(points: SurfacePoints) -> Surface:
    worn = [p.appearance.glasses for p in points.people]
    colours = [FRAME_COLOURS[g.colour] if g else (0.0, 0.0, 0.0) for g in worn]
    return Surface(albedo=points.gather(colours), specular=points.constant(0.9), gloss=points.constant(60.0))


def shade_lens(points: SurfacePoints) -> Surface:
    """Almost clear with a faint mirror image of the lights; dark for sunglasses."""
    dark = points.gather([float(bool(p.appearance.glasses and p.appearance.glasses.dark)) for p in points.people])
    return Surface(
        albedo=points.constant(0.02)[:, None].expand(-1, 3),
        specular=points.constant(0.4),
        gloss=points.constant(200.0),
        alpha=0.05 + 0.82 * dark,
        reflection=points.constant(0.35),
    )
