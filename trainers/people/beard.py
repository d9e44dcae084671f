"""Beards, stubble and brows: a soft density on the skin, and short strands that grow where it is high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainers.people.scalp import HeadFrame, Roots, azimuth, interpolate, scatter_roots
from trainers.people.strands import BEARD, BROW, Strands
from trainers.people.surface import SurfacePoints, bump, mix, smoothstep, unit

if TYPE_CHECKING:
    from trainers.people.identity import Brows, Person
    from trainers.people.mesh import Body, PeopleMesh

_BEARD_ROOTS, _BROW_ROOTS, _KNOTS = 3600, 1400, 5
# Azimuth from straight ahead -> upper edge of a beard on chin, cheek and sideburn.
_CHEEK_AZIMUTH = (0.0, 0.25, 0.45, 0.7, 0.95, 1.15, 1.3, 1.5)
_CHEEK_HEIGHT = (-0.42, -0.40, -0.34, -0.26, -0.05, 0.25, 0.36, 0.30)


@dataclass(frozen=True, kw_only=True)
class BeardStyle:
    """words: for captions. cheeks, chin, moustache: density there, 0..1; length in head units; cover: share
    of the skin that the roots hide."""

    words: str
    cheeks: float = 0.0
    chin: float = 0.0
    moustache: float = 0.0
    length: float = 0.0
    cover: float = 0.0


BEARDS: dict[str, BeardStyle] = {
    "none": BeardStyle(words="no beard"),
    "stubble": BeardStyle(words="stubble", cheeks=0.8, chin=0.9, moustache=0.9, length=0.018, cover=0.38),
    "moustache": BeardStyle(words="a moustache", moustache=1.0, length=0.10, cover=0.80),
    "goatee": BeardStyle(words="a goatee", chin=1.0, moustache=0.9, length=0.10, cover=0.75),
    "short": BeardStyle(words="a short beard", cheeks=0.9, chin=1.0, moustache=1.0, length=0.06, cover=0.72),
    "full": BeardStyle(words="a full beard", cheeks=1.0, chin=1.0, moustache=1.0, length=0.17, cover=0.85),
}


def sample_beard(rng: np.random.Generator) -> str:
    """What a man wears on his face."""
    return str(rng.choice(list(BEARDS), p=[0.48, 0.17, 0.07, 0.08, 0.12, 0.08]))


def beard_at_age(beard: str, age: float) -> str:
    """Boys have no beard, and the youngest men no full one."""
    if age < 17:
        return "none"
    return "stubble" if age < 21 and beard in ("full", "short") else beard


def beard_density(points: Tensor, style: BeardStyle) -> Tensor:
    """(P,) 0..1 where a beard grows on (P, 3) template points of the skin; lips are not left out."""
    x, y, z = points.unbind(1)
    side = x.abs()
    ahead = azimuth(points)
    jaw = smoothstep(0.07, -0.07, y - interpolate(ahead, _CHEEK_AZIMUTH, _CHEEK_HEIGHT))
    jaw = (
        jaw
        * smoothstep(-0.90, -0.72, y + 0.30 * (1.0 - z).clamp(min=0))
        * smoothstep(1.52, 1.38, ahead)
        * smoothstep(-0.05, 0.15, z)
    )
    middle = smoothstep(0.34, 0.20, side) * smoothstep(0.45, 0.7, z)
    lip = bump((side / 2.1).square() + (y + 0.165 + 0.16 * side).square(), 0.045) * smoothstep(0.75, 0.95, z)
    corner = bump((side - 0.29).square() / 1.2 + ((y + 0.34) / 1.7).square(), 0.055) * smoothstep(0.6, 0.8, z)
    chin = torch.maximum(jaw * middle, corner * min(style.moustache, style.chin))
    cheeks = torch.maximum(jaw, corner)
    found = torch.maximum(style.chin * chin, style.cheeks * cheeks)
    return torch.maximum(found, style.moustache * lip.clamp(max=1))


def brow_density(points: Tensor, brows: Brows) -> tuple[Tensor, Tensor]:
    """(P,) 0..1 of a brow on (P, 3) template points, and the place along it, 0 at the nose .. 1 at the
    temple."""
    inward = points[:, 0].abs() - 0.10
    along = (inward / 0.42).clamp(0, 1)
    line = 0.475 + brows.height + 0.10 * brows.arch * torch.sin(2.2 * along) - 0.03 * along
    width = 0.046 * brows.thickness * (0.75 + 0.25 * smoothstep(0.0, 0.25, along)) * (1 - 0.62 * along**1.6)
    across = (points[:, 1] - line) / width
    ends = smoothstep(-0.03, 0.06, inward) * smoothstep(0.46, 0.36, inward)
    return torch.exp(-1.1 * across.square()) * ends * smoothstep(0.5, 0.7, points[:, 2]), along


class FaceRoots:
    """Roots of beard and brows on a mesh, made once."""

    def __init__(self, mesh: PeopleMesh) -> None:
        skin = mesh.faces_of("body")
        centre = mesh.template[skin].mean(1)
        outside = (mesh.masks["inside-mouth"][skin].amax(1) < 0.2) & (mesh.masks["ears"][skin].amax(1) < 0.3)
        bare = outside & (mesh.masks["lips"][skin].amax(1) < 0.5)
        everything = BeardStyle(words="", cheeks=1.0, chin=1.0, moustache=1.0)
        self.beard = scatter_roots(
            mesh, skin[bare & (beard_density(centre, everything) > 0.05)], _BEARD_ROOTS, 60, seed=6
        )
        near = (centre[:, 0].abs() < 0.68) & (centre[:, 1] > 0.36) & (centre[:, 1] < 0.76) & (centre[:, 2] > 0.45)
        self.brow = scatter_roots(mesh, skin[outside & near], _BROW_ROOTS, 8, seed=7)


def facial_hair(body: Body, frame: HeadFrame) -> Strands:
    """Strands of brows and beard."""
    person, mesh = body.person, body.mesh
    rng = np.random.default_rng([79, person.identity.seed])
    look = person.appearance
    style = BEARDS[beard_at_age(look.beard, look.age)]
    pieces = [_brow_strands(mesh.face_roots.brow, person, frame, rng)]
    if style.length > 0.03:
        pieces.append(_beard_strands(mesh.face_roots.beard, style, frame, rng))
    knots = torch.cat(pieces)
    kind = torch.full((len(knots),), BEARD, device=knots.device)
    kind[: len(pieces[0])] = BROW
    layer, tone, pigment = torch.from_numpy(rng.random((3, len(knots)))).to(knots.device, torch.float32)
    return Strands(
        knots=frame.pose(knots),
        template=knots,
        layer=layer,
        tone=0.5 * (tone - 0.5),
        pigment=pigment,
        kind=kind,
        casts_shadow=False,
    )


def _brow_strands(roots: Roots, person: Person, frame: HeadFrame, rng: np.random.Generator) -> Tensor:
    brows, age = person.identity.brows, person.appearance.age
    density, along = brow_density(roots.template, brows)
    draw, turn, size = torch.from_numpy(rng.random((3, len(density)))).to(density.device, torch.float32)
    kept = (draw < density * brows.density * _brow_strength(person)).nonzero()[:, 0]
    root = roots.on(frame.rest)[kept]
    along = along[kept]
    # Hairs stand up at the nose and lie towards the temple further out.
    angle = 1.25 * (1 - along / 0.55).clamp(0, 1) - 0.25 * along + 0.5 * (turn[kept] - 0.5)
    outward = roots.template[kept, 0].sign()
    heading = torch.stack([outward * angle.cos(), angle.sin(), -0.45 * along], 1)
    length = (0.050 + 0.05 * size[kept]) * (1.1 if age > 60 else 0.95) * (1 - 0.45 * along)
    return _arcs(root, heading, length, rise=0.012)


def _brow_strength(person: Person) -> float:
    age = person.appearance.age
    return (0.55 + 0.45 * min(max((age - 4) / 12, 0), 1)) * (1 - 0.25 * min(max((age - 55) / 25, 0), 1))


def _beard_strands(roots: Roots, style: BeardStyle, frame: HeadFrame, rng: np.random.Generator) -> Tensor:
    density = beard_density(roots.template, style)
    draw, size = torch.from_numpy(rng.random((2, len(density)))).to(density.device, torch.float32)
    kept = (draw < density).nonzero()[:, 0]
    lock = torch.from_numpy(rng.normal(size=(len(roots.guide), 3))).to(density.device, torch.float32)
    at = roots.template[kept]
    moustache = (at[:, 1] > -0.28) & (at[:, 0].abs() < 0.26)
    aside = at[:, 0].sign() * torch.where(moustache, 1.3, 0.15)
    heading = torch.stack([aside, torch.full_like(aside, -0.8), torch.where(moustache, 0.05, 0.25)], 1)
    heading = heading + 0.22 * lock[roots.lock[kept]]
    shorter = torch.where(moustache, 0.45, 0.55 + 0.45 * smoothstep(0.1, -0.5, at[:, 1]))
    length = style.length * shorter * (0.7 + 0.6 * size[kept]) * (0.35 + 0.65 * density[kept])
    return _arcs(roots.on(frame.rest)[kept], heading, length, rise=0.3)


def _arcs(root: Tensor, heading: Tensor, length: Tensor, *, rise: float) -> Tensor:
    """(n, _KNOTS, 3) strands that leave the skin by `rise` of their length and bend into their heading."""
    normal = unit(root - torch.tensor([0.0, 0.1, 0.1], device=root.device))
    heading = unit(heading)
    along_skin = unit(heading - normal * (heading * normal).sum(1, keepdim=True) * 0.9)
    t = torch.linspace(0, 1, _KNOTS, device=root.device)[None, :, None]
    size = length[:, None, None]
    return (
        root[:, None] + along_skin[:, None] * (size * t) + normal[:, None] * (0.012 + rise * size * (1 - (1 - t) ** 2))
    )


def facial_cover(points: SurfacePoints, noise: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the skin beard and brows hide, (P,) 0..1, and their colour, (P, 3).

    points: of skin; noise: (P,) of about unit variance, fine as hair roots.
    """
    cover = points.constant(0.0)
    for index, person in enumerate(points.people):
        here = (points.person == index).nonzero()[:, 0]
        look, at = person.appearance, points.template[here]
        style = BEARDS[beard_at_age(look.beard, look.age)]
        density, _ = brow_density(at, person.identity.brows)
        found = density * 0.85 * person.identity.brows.density * _brow_strength(person)
        if style.cover:
            found = torch.maximum(found, beard_density(at, style) * style.cover)
        cover[here] = found
    textured = (cover * (1 + 0.22 * noise)).clamp(0, 1)
    colours = points.gather([p.identity.hair_colour_at(p.appearance.age) for p in points.people])
    dark = points.gather([p.identity.pigment_at(p.appearance.age) for p in points.people])
    # Brows grey late.
    return textured, mix(colours, dark, 0.5 * (points.template[:, 1] > 0.3).float()) * 0.85
