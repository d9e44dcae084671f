"""The light of a scene, and what it does to seen points.

A key light with a shadow, a fill without, and a soft environment (sky above, ground below). All of them show in
mirrors, so that eyes have catch lights where the lamps are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


class Lighting:
    """A light on a device, with what each of its lamps and the environment do to seen points.

    Everywhere lit: (P,) is the 0..1 share of the key that is not shadowed, ambient: (P,) the 0..1 share of the
    environment that arrives.
    """

    def __init__(self, light: Light, device: torch.device) -> None:
        tensor = lambda values: torch.tensor(values, device=device)  # noqa: E731
        self._softness = (light.key.softness, light.fill.softness)
        # Lamps in columns: key, fill.
        self._directions = unit(tensor([light.key.direction, light.fill.direction])).T.contiguous()
        self._colours = tensor([light.key.colour, light.fill.colour])
        self._blur = 0.02 * tensor(self._softness)
        self._sky, self._ground = tensor(light.sky), tensor(light.ground)
        self._wrap = tensor([*_SUBSURFACE_WRAP])
        self._red_edge = tensor([-0.25, 0.0, 0.0])

    @property
    def key(self) -> Tensor:
        """(3,) unit direction towards the key light."""
        return self._directions[:, 0]

    def irradiance(self, surface: Surface, lit: Tensor, ambient: Tensor) -> Tensor:
        """(P, 3) diffuse light on the points."""
        if surface.tangent is not None:
            return self._fibre_irradiance(surface, lit, ambient)
        cosines = surface.normal @ self._directions
        soft = surface.subsurface[:, None] * self._wrap + 0.25 * self._softness[0]
        key = ((cosines[:, :1] + soft) / (1 + soft)).clamp(min=0)
        # A shadow's edge on skin is red.
        shadow = lit[:, None] ** (1 + (surface.subsurface[:, None] > 0.2) * self._red_edge)
        fill = ((cosines[:, 1] + 0.4) / 1.4).clamp(min=0) * ambient
        return (
            key * shadow * self._colours[0]
            + fill[:, None] * self._colours[1]
            + self._environment(surface.normal) * ambient[:, None]
        )

    def _environment(self, normal: Tensor) -> Tensor:
        up = (0.5 + 0.5 * normal[:, 1])[:, None]
        return self._ground + (self._sky - self._ground) * up

    def _fibre_irradiance(self, surface: Surface, lit: Tensor, ambient: Tensor) -> Tensor:
        """Of a hair and of the volume it lies in."""
        tangent = surface.tangent
        outward = unit(surface.normal - tangent * (surface.normal * tangent).sum(1, keepdim=True))
        across = (1 - (tangent @ self._directions) ** 2).clamp(min=0).sqrt()
        lamps = ((outward @ self._directions) * 0.75 + 0.25).clamp(min=0) * (0.35 + 0.65 * across)
        lamps = lamps * torch.stack([lit, ambient], 1)
        return lamps @ self._colours + self._environment(outward) * ambient[:, None]

    def highlights(self, points: SurfacePoints, surface: Surface, lit: Tensor, ambient: Tensor) -> Tensor:
        """(P, 3) light mirrored by the points: dielectric highlights, fibre highlights where there is a tangent."""
        if surface.tangent is not None:
            return self._fibre_highlights(points, surface, lit, ambient)
        normal, view = surface.normal, points.view
        half = unit(self._directions.T + view[:, None])  # (P, lamps, 3)
        # A large source blurs its own highlight.
        gloss = surface.gloss[:, None] / (1 + surface.gloss[:, None] * self._blur)
        fresnel = 0.04 + 0.96 * (1 - (half * view[:, None]).sum(-1).clamp(0, 1)) ** 5
        lobes = (normal[:, None] * half).sum(-1).clamp(min=0) ** gloss * (gloss + 8) / 25 * fresnel
        lobes = lobes * smoothstep(-0.05, 0.35, normal @ self._directions) * torch.stack([lit, ambient], 1)
        result = (lobes * surface.specular[:, None]) @ self._colours
        # The sheen of the sky at grazing angles.
        facing = (normal * view).sum(1)
        grazing = (1 - facing.clamp(0, 1)) ** 4 * ambient * surface.specular * 0.18
        result = result + grazing[:, None] * self._sky
        if surface.reflection is not None:
            mirror = self._mirror(2 * facing[:, None] * normal - view, lit)
            result = result + surface.reflection[:, None] * mirror
        return result

    def _mirror(self, ray: Tensor, lit: Tensor) -> Tensor:
        """(P, 3) the environment along (P, 3) rays: the lamps as soft discs, a bright sky, a dark ground."""
        result = smoothstep(-0.1, 0.9, ray[:, 1])[:, None] * self._sky * 0.25
        cosines = ray @ self._directions
        for lamp, strength in enumerate((6.0, 1.2)):
            radius = 0.22 + 0.16 * self._softness[lamp]
            disc = smoothstep(math.cos(radius * 1.35), math.cos(radius * 0.75), cosines[:, lamp])
            if lamp == 0:
                disc = disc * lit
            result = result + disc[:, None] * self._colours[lamp] * (strength / (1 + 2 * self._softness[lamp]))
        return result

    def _fibre_highlights(self, points: SurfacePoints, surface: Surface, lit: Tensor, ambient: Tensor) -> Tensor:
        """Kajiya-Kay with two shifted lobes: a white one from the surface, a coloured one from inside the fibre.
        The first extra channel of hair is its tone, which shifts them a little from strand to strand."""
        tangent, shift = surface.tangent, points.extra[:, :1]
        outward = unit(surface.normal - tangent * (surface.normal * tangent).sum(1, keepdim=True))
        strength = smoothstep(-0.2, 0.4, outward @ self._directions) * torch.stack([lit, ambient], 1)
        strength = strength * surface.specular[:, None]
        along = (tangent[:, None] * unit(self._directions.T + points.view[:, None])).sum(-1)
        white = (1 - (along + 0.08 + 0.10 * shift) ** 2).clamp(min=0) ** (60 - 1250 * self._blur)
        inner = (1 - (along - 0.10 + 0.15 * shift) ** 2).clamp(min=0) ** 16
        return 0.05 * (white * strength) @ self._colours + 0.5 * surface.albedo * ((inner * strength) @ self._colours)
