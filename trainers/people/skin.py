"""Skin: the body's part of the mesh, and how skin looks at any tone and age."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainers.people import hair
from trainers.people.identity import linear
from trainers.people.surface import Material, Part, Surface, SurfacePoints, bump, mix, smoothstep, unit

if TYPE_CHECKING:
    from trainers.people.identity import Identity, Person
    from trainers.people.mesh import Body

# sRGB of skin at melanin 0, 0.2, ... 1.
_TONES = (
    (0.84, 0.675, 0.59),
    (0.79, 0.61, 0.51),
    (0.69, 0.51, 0.40),
    (0.54, 0.375, 0.28),
    (0.40, 0.265, 0.195),
    (0.29, 0.19, 0.145),
)
_MOUTH_INSIDE = (0.16, 0.035, 0.03)


def part(body: Body) -> Part:
    """extra: `PeopleMesh.skin_fields`."""
    mesh = body.mesh
    index, faces = mesh.bare_skin
    return Part(
        material=Material.SKIN,
        vertices=body.vertices[index],
        template=mesh.template[index],
        faces=faces,
        extra=mesh.skin_fields,
    )


def skin_colour(identity: Identity) -> tuple[float, float, float]:
    """Linear RGB albedo of the bare skin."""
    place = identity.melanin * (len(_TONES) - 1)
    tones = np.array(_TONES)
    tone = [np.interp(place, range(len(tones)), tones[:, channel]) for channel in range(3)]
    warm = identity.undertone
    return linear((tone[0] * (1 + 0.015 * warm), tone[1], tone[2] * (1 - 0.05 * warm)))


def shade(points: SurfacePoints) -> Surface:
    place, people = points.template, points.people
    x, y, z = place.unbind(1)
    side = x.abs()
    lips, ears, eyelids, inside, sky, upper_lid, lower_lid = points.extra[:, :7].unbind(1)
    lips, inside = smoothstep(0.30, 0.75, lips), smoothstep(0.4, 0.7, inside)
    own = points.gather([(p.identity.seed * 0.6180339) % 1.0 * 40 for p in people])
    shifted = place + own[:, None]
    ages = [p.appearance.age for p in people]
    age = points.gather(ages)
    blotch = points.noise(shifted, 7.0) + 0.6 * points.noise(shifted, 16.0)
    pores = _detail(points, shifted, 45.0, finest=0.012, coarsest=0.036)
    grain = _detail(points, shifted, 110.0, finest=0.008, coarsest=0.035)

    albedo = points.gather([skin_colour(p.identity) for p in people])
    grown = 0.4 + 0.6 * smoothstep(6.0, 30.0, age)
    albedo = albedo * (1 + 0.03 * blotch[:, :1] + grown[:, None] * (0.03 * pores[:, 1:2] + 0.02 * grain[:, 2:3]))
    cheeks = bump((side - 0.42) ** 2 + (y + 0.08) ** 2, 0.20) * smoothstep(0.45, 0.75, z)
    nose = bump(side**2 + (y - 0.02) ** 2, 0.12) * smoothstep(1.0, 1.2, z)
    ruddy = points.gather([p.identity.ruddiness * (1 - 0.55 * p.identity.melanin) for p in people])
    young = points.gather([1.25 if a < 12 else 1.0 for a in ages])
    red = ((0.55 + 0.10 * blotch[:, 3]) * cheeks + 0.45 * nose + 0.35 * ears).clamp(min=0) * ruddy * young
    albedo = albedo * (1 - red[:, None] * torch.tensor([0.03, 0.24, 0.22], device=points.device))
    hollow = bump(((side - 0.30) / 1.5) ** 2 + (y - 0.20) ** 2, 0.065) * smoothstep(0.6, 0.75, z)
    tired = points.gather([0.25 + 0.5 * _ramp(a, 10, 40) + 0.6 * _ramp(a, 50, 80) for a in ages])
    albedo = albedo * (1 - (hollow * tired)[:, None] * torch.tensor([0.14, 0.20, 0.16], device=points.device))
    albedo = _with_spots(points, albedo, shifted)
    albedo = _with_moles(points, albedo)
    lid = smoothstep(0.35, 0.9, eyelids)
    albedo = albedo * (1 - 0.10 * lid[:, None] * torch.tensor([0.6, 1.0, 1.0], device=points.device))
    # Where lashes leave the lids they read as one dark line.
    made_up = points.gather([float(p.identity.female and p.appearance.age > 13) for p in people])
    line = (0.72 + 0.20 * made_up) * upper_lid.sqrt() + 0.30 * lower_lid
    albedo = albedo * (1 - line.clamp(max=0.92))[:, None]

    lip_colour = points.gather([_lip_colour(p) for p in people])
    albedo = mix(albedo, lip_colour * (1 + 0.05 * pores[:, :1]), 0.85 * lips)
    albedo = mix(albedo, torch.tensor(_MOUTH_INSIDE, device=points.device), inside)
    cover, hair_colour = hair.skin_cover(points, (grain[:, 0] + 0.5 * pores[:, 3]))
    bare = (1 - lips) * (1 - inside)
    albedo = mix(albedo, hair_colour, cover * bare)

    wrinkles, folds = _wrinkles(points, age, blotch)
    dents = (pores[:, :3] * 0.025 + grain[:, :3] * 0.030) * grown[:, None] + wrinkles
    normal = unit(points.normal + dents)
    oily = 0.32 * (1 + 0.20 * pores[:, 3]) * (1 - 0.85 * cover)
    return Surface(
        albedo=albedo.clamp(0, 1),
        specular=(oily + 0.30 * lips) * (1 - inside) * sky,
        gloss=16 + 26 * lips,
        subsurface=(1 - 0.8 * cover) * (1 - inside),
        occlusion=sky**1.3 * (1 - 0.9 * inside) * (1 - folds),
        normal=normal,
    )


def _detail(points: SurfacePoints, place: Tensor, frequency: float, *, finest: float, coarsest: float) -> Tensor:
    """(P, 4) noise that fades out where a pixel (dm) is larger than its grain."""
    strength = smoothstep(coarsest, finest, points.footprint)
    if float(strength.amax()) == 0:
        return torch.zeros(len(points), 4, device=points.device)
    return points.noise(place, frequency) * strength[:, None]


def _with_spots(points: SurfacePoints, albedo: Tensor, place: Tensor) -> Tensor:
    """Freckles of those who have some, and the spots of age."""
    x, y, z = points.template.unbind(1)
    freckled = [p.identity.freckles for p in points.people]
    if any(freckled):
        where = bump((x.abs() - 0.25) ** 2 + (y + 0.02) ** 2, 0.35) * smoothstep(0.5, 0.9, z)
        spots = smoothstep(1.1, 1.7, points.noise(place, 26.0)[:, 0]) * where * points.gather(freckled)
        albedo = albedo * (1 - spots[:, None] * torch.tensor([0.25, 0.38, 0.42], device=points.device))
    old = [_ramp(p.appearance.age, 45, 80) for p in points.people]
    if any(old):
        spots = smoothstep(0.9, 1.8, points.noise(place, 9.0)[:, 1]) * points.gather(old)
        albedo = albedo * (1 - 0.22 * spots[:, None] * torch.tensor([0.7, 1.0, 1.1], device=points.device))
    return albedo


def _with_moles(points: SurfacePoints, albedo: Tensor) -> Tensor:
    most = max(len(p.identity.moles) for p in points.people)
    front = smoothstep(0.3, 0.6, points.template[:, 2])
    for i in range(most):
        moles = [p.identity.moles[i] if i < len(p.identity.moles) else None for p in points.people]
        where = points.gather([(m.x, m.y, m.radius) if m else (9.0, 9.0, 0.01) for m in moles])
        distance = (points.template[:, :2] - where[:, :2]).square().sum(1)
        width = torch.maximum(where[:, 2], 0.5 * points.footprint)
        albedo = albedo * (1 - (0.62 * (where[:, 2] / width) ** 2 * bump(distance, width) * front)[:, None])
    return albedo


def _lip_colour(person: Person) -> tuple[float, float, float]:
    """Linear RGB. Lips are skin with less melanin and more blood; lipstick lets some of them through."""
    red, dark = person.identity.lip_redness, person.identity.melanin
    r, g, b = skin_colour(person.identity)
    own = (0.92 * r, (0.60 - 0.12 * red) * g, (0.63 - 0.08 * red) * b)
    pink = (0.42, 0.16, 0.15)
    share = (0.30 + 0.25 * red) * (1 - 0.8 * dark)
    lips = tuple(o * (1 - share) + p * share for o, p in zip(own, pink, strict=True))
    stick = person.appearance.lipstick
    return lips if stick is None else tuple(0.4 * l + 0.6 * s for l, s in zip(lips, stick, strict=True))


def _wrinkles(points: SurfacePoints, age: Tensor, blotch: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 3) what wrinkles add to the normal, and (P,) how dark their folds are."""
    old = smoothstep(35.0, 75.0, age)
    if not float(old.amax()):
        return torch.zeros_like(points.template), torch.zeros_like(age)
    x, y, z = points.template.unbind(1)
    side = x.abs()
    fine = smoothstep(0.06, 0.02, points.footprint)
    forehead = (
        smoothstep(0.58, 0.72, y) * smoothstep(1.15, 0.95, y) * smoothstep(0.5, 0.8, z) * smoothstep(0.62, 0.3, side)
    )
    lines = torch.sin(y * 40 + 1.1 * blotch[:, 1] + 3 * side**2)
    crow = bump((side - 0.68) ** 2 + (y - 0.27) ** 2, 0.11)
    rays = torch.sin(torch.atan2(y - 0.27, side - 0.45) * 15 + 0.5 * blotch[:, 2])
    # From the nose to the corners of the mouth.
    cheek = side - (0.20 + 0.20 * (-0.02 - y).clamp(0, 0.5) / 0.34)
    nasolabial = (
        bump(cheek**2, 0.030) * smoothstep(-0.44, -0.30, y) * smoothstep(0.06, -0.04, y) * smoothstep(0.6, 0.8, z)
    )
    dents = torch.zeros_like(points.template)
    dents[:, 1] = old * fine * (0.16 * forehead * lines + 0.20 * crow * rays)
    dents[:, 0] = -0.35 * old * nasolabial * x.sign() * torch.sign(cheek)
    return dents, old * (0.22 * nasolabial + fine * 0.10 * forehead * (lines < -0.5))


def _ramp(x: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (x - low) / (high - low)))
