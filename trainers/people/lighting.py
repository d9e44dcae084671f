"""The light of a scene, and what it does to seen points.

A key light with a shadow, a fill without, and a soft environment (sky above, ground below). All of them show in
mirrors, so that eyes have catch lights where the lamps are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.people.surface import Surface, SurfacePoints, smoothstep, unit

Colour = tuple[float, float, float]
LUMINANCE = (0.2126, 0.7152, 0.0722)
# Light that enters skin leaves it beside the shadow line, red the furthest.
_SUBSURFACE_WRAP = (0.26, 0.10, 0.06)


@dataclass(frozen=True, kw_only=True)
class AreaLight:
    """direction: towards the light, any length; colour: linear RGB it gives a surface that faces it, white paper = 1;
    softness: 0 the sun .. 1 a window or an overcast sky."""

    direction: Colour
    colour: Colour
    softness: float = 0.5

    @classmethod
    def at(cls, azimuth: float, elevation: float, *, colour: Colour, softness: float) -> AreaLight:
        """azimuth: degrees from the camera towards the picture's right; elevation: degrees above the horizon."""
        a, e = math.radians(azimuth), math.radians(elevation)
        return cls(
            direction=(math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)),
            colour=colour,
            softness=softness,
        )


@dataclass(frozen=True, kw_only=True)
class Light:
    """key casts the shadows; sky and ground: linear RGB from above and below; brightness: how the picture is exposed
    against a correct exposure of the faces (the renderer measures them), 1 = correct."""

    key: AreaLight
    fill: AreaLight
    sky: Colour
    ground: Colour
    brightness: float = 1.0


def sample_light(rng: np.random.Generator) -> Light:
    """A portrait light: from a soft window to the low sun."""
    side, softness = rng.choice([-1, 1]), float(rng.uniform(0.2, 1.0))
    warm = rng.normal(0, 0.10)
    tint = lambda strength, w: tuple(strength * c for c in (1 + w, 1.0, 1 - w))  # noqa: E731
    return Light(
        key=AreaLight.at(
            side * rng.uniform(10, 65),
            rng.uniform(18, 55),
            colour=tint(rng.uniform(0.6, 1.5), warm),
            softness=softness,
        ),
        fill=AreaLight.at(
            -side * rng.uniform(30, 70),
            rng.uniform(-5, 20),
            colour=tint(rng.uniform(0.1, 0.35), -warm),
            softness=1.0,
        ),
        sky=tint(rng.uniform(0.4, 0.7), -0.5 * warm),
        ground=tint(rng.uniform(0.15, 0.35), 0.5 * abs(warm)),
        brightness=float(rng.uniform(0.85, 1.1)),
    )


def irradiance(points: SurfacePoints, surface: Surface, light: Light, lit: Tensor, ambient: Tensor) -> Tensor:
    """(P, 3) diffuse light on the points. lit: (P,) 0..1 share of the key that is not shadowed; ambient: (P,) 0..1
    share of the environment that arrives."""
    normal, device = surface.normal, points.device
    wrap = surface.subsurface[:, None] * torch.tensor(_SUBSURFACE_WRAP, device=device)
    key = unit(torch.tensor(light.key.direction, device=device))
    fill = unit(torch.tensor(light.fill.direction, device=device))
    soft = 0.25 * light.key.softness
    key_cosine = ((normal @ key)[:, None] + wrap + soft) / (1 + wrap + soft)
    fill_cosine = ((normal @ fill)[:, None] + 0.4) / 1.4
    # A shadow's edge on skin is red.
    shadow = lit[:, None] ** torch.where(
        surface.subsurface[:, None] > 0.2, torch.tensor([0.75, 1.0, 1.0], device=device), torch.ones(3, device=device)
    )
    up = (0.5 + 0.5 * normal[:, 1])[:, None]
    environment = torch.tensor(light.sky, device=device) * up + torch.tensor(light.ground, device=device) * (1 - up)
    return (
        key_cosine.clamp(min=0) * shadow * torch.tensor(light.key.colour, device=device)
        + fill_cosine.clamp(min=0) * ambient[:, None] * torch.tensor(light.fill.colour, device=device)
        + environment * ambient[:, None]
    )


def highlights(points: SurfacePoints, surface: Surface, light: Light, lit: Tensor, ambient: Tensor) -> Tensor:
    """(P, 3) light mirrored by the points: dielectric highlights, fibre highlights where there is a tangent."""
    if surface.tangent is not None:
        return _fibre_highlights(points, surface, light, lit, ambient)
    normal, device = surface.normal, points.device
    result = torch.zeros_like(surface.albedo)
    for source, visible in ((light.key, lit), (light.fill, ambient)):
        direction = unit(torch.tensor(source.direction, device=device))
        half = unit(direction + points.view)
        # A large source blurs its own highlight.
        gloss = surface.gloss / (1 + surface.gloss * 0.02 * source.softness)
        fresnel = 0.04 + 0.96 * (1 - (half * points.view).sum(1).clamp(0, 1)) ** 5
        lobe = (normal * half).sum(1).clamp(min=0) ** gloss * (gloss + 8) / 25 * fresnel * surface.specular
        lobe = lobe * smoothstep(-0.05, 0.35, normal @ direction) * visible
        result = result + lobe[:, None] * torch.tensor(source.colour, device=device)
    # The sheen of the sky at grazing angles.
    grazing = (1 - (normal * points.view).sum(1).clamp(0, 1)) ** 4 * ambient * surface.specular * 0.18
    result = result + grazing[:, None] * torch.tensor(light.sky, device=device)
    if surface.reflection is not None:
        result = result + surface.reflection[:, None] * _mirror(points, normal, light, lit)
    return result


def _mirror(points: SurfacePoints, normal: Tensor, light: Light, lit: Tensor) -> Tensor:
    """(P, 3) the environment as a mirror shows it: the lamps as soft discs, a bright sky, a dark ground."""
    device = points.device
    facing = (normal * points.view).sum(1, keepdim=True)
    ray = 2 * facing * normal - points.view
    sky = smoothstep(-0.1, 0.9, ray[:, 1])[:, None] * torch.tensor(light.sky, device=device) * 0.25
    result = sky
    for source, visible, strength in ((light.key, lit, 6.0), (light.fill, torch.ones_like(lit), 1.2)):
        direction = unit(torch.tensor(source.direction, device=device))
        radius = 0.22 + 0.16 * source.softness
        disc = smoothstep(math.cos(radius * 1.35), math.cos(radius * 0.75), ray @ direction)
        colour = torch.tensor(source.colour, device=device) * (strength / (1 + 2 * source.softness))
        result = result + (disc * visible)[:, None] * colour
    return result


def fibre_irradiance(points: SurfacePoints, surface: Surface, light: Light, lit: Tensor, ambient: Tensor) -> Tensor:
    """(P, 3) diffuse light on hair: of a fibre and of the volume it lies in."""
    device, tangent = points.device, surface.tangent
    outward = unit(surface.normal - tangent * (surface.normal * tangent).sum(1, keepdim=True))
    result = torch.zeros_like(surface.albedo)
    for source, visible in ((light.key, lit), (light.fill, ambient)):
        direction = unit(torch.tensor(source.direction, device=device))
        across = (1 - (tangent @ direction) ** 2).clamp(min=0).sqrt()
        diffuse = ((outward @ direction) * 0.75 + 0.25).clamp(min=0) * (0.35 + 0.65 * across) * visible
        result = result + diffuse[:, None] * torch.tensor(source.colour, device=device)
    up = (0.5 + 0.5 * outward[:, 1])[:, None]
    environment = torch.tensor(light.sky, device=device) * up + torch.tensor(light.ground, device=device) * (1 - up)
    return result + environment * ambient[:, None]


def _fibre_highlights(points: SurfacePoints, surface: Surface, light: Light, lit: Tensor, ambient: Tensor) -> Tensor:
    """Kajiya-Kay with two shifted lobes: a white one from the surface, a coloured one from inside the fibre."""
    device, tangent = points.device, surface.tangent
    outward = unit(surface.normal - tangent * (surface.normal * tangent).sum(1, keepdim=True))
    shift = points.extra[:, 0]
    result = torch.zeros_like(surface.albedo)
    for source, visible in ((light.key, lit), (light.fill, ambient)):
        direction = unit(torch.tensor(source.direction, device=device))
        along = (tangent * unit(direction + points.view)).sum(1)
        white = (1 - (along + 0.08 + 0.10 * shift) ** 2).clamp(min=0) ** (60 - 25 * source.softness)
        inner = (1 - (along - 0.10 + 0.15 * shift) ** 2).clamp(min=0) ** 16
        strength = smoothstep(-0.2, 0.4, outward @ direction) * surface.specular * visible
        lobes = 0.05 * white[:, None] + 0.5 * inner[:, None] * surface.albedo
        result = result + lobes * strength[:, None] * torch.tensor(source.colour, device=device)
    return result
