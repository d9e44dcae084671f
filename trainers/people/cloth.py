"""Garments: layers of the body suit that the mesh brings, moved outwards, cut at necklines and hems, and
their fabric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from core.colours import COLOURS
from trainers.people.surface import (
    Material,
    Part,
    Surface,
    SurfacePoints,
    mix,
    smoothstep,
    unit,
    vertex_normals,
)

if TYPE_CHECKING:
    from trainers.people.mesh import Body, PeopleMesh

GARMENTS: dict[str, str] = {
    "t-shirt": "T-shirt",
    "striped t-shirt": "striped T-shirt",
    "shirt": "shirt",
    "jacket": "jacket",
    "sweater": "knitted sweater",
    "roll neck": "roll-neck sweater",
    "hoodie": "hoodie",
    "dress": "dress",
}
"""Kinds of garments and their word in captions."""

_LONG_SLEEVES = ("shirt", "jacket", "sweater", "roll neck", "hoodie")
# Where the plane of a neckline is measured, on the template.
_THROAT_Z, _NAPE_Z = 0.35, -0.7
_NECK = (0.0, -0.95, -0.2)
# Fabrics, in the second extra channel.
PLAIN, STRIPED, KNITTED, RIBBED = 0.0, 1.0, 2.0, 3.0


def linear_colour(word: str) -> tuple[float, float, float]:
    """Linear RGB of a colour word. Raises ValueError with the known words."""
    if word not in COLOURS:
        raise ValueError(f"unknown colour word {word!r}; choose one of {', '.join(COLOURS)}")
    srgb = [c / 255 for c in COLOURS[word]]
    return tuple(c / 12.92 if c < 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb)


@dataclass(frozen=True, kw_only=True)
class Clothes:
    """What somebody wears above the waist. garment: key of GARMENTS; colour, second_colour: keys of COLOURS,
    the second for stripes and for the shirt under a jacket."""

    garment: str = "t-shirt"
    colour: str = "blue"
    second_colour: str = "white"

    def __post_init__(self) -> None:
        if self.garment not in GARMENTS:
            raise ValueError(f"unknown garment {self.garment!r}; choose one of {', '.join(GARMENTS)}")
        for word in (self.colour, self.second_colour):
            linear_colour(word)

    @property
    def words(self) -> str:
        """As a caption says it: "red and white striped T-shirt", "navy jacket over a white shirt"."""
        if self.garment == "striped t-shirt":
            return f"{self.colour} and {self.second_colour} striped T-shirt"
        if self.garment == "jacket":
            return f"{self.colour} jacket over a {self.second_colour} shirt"
        return f"{self.colour} {GARMENTS[self.garment]}"


def sample_clothes(rng: np.random.Generator, *, female: bool, age: float) -> Clothes:
    weights = {
        "t-shirt": 3.0,
        "striped t-shirt": 2.0,
        "shirt": 2.0,
        "jacket": 2.0,
        "sweater": 2.0,
        "roll neck": 1.0,
        "hoodie": 1.5,
    }
    if female:
        weights["dress"] = 2.0
    if age < 12:
        weights["jacket"] = 0.4
    kinds = list(weights)
    garment = str(rng.choice(kinds, p=np.array([weights[k] for k in kinds]) / sum(weights.values())))
    colour = str(rng.choice(list(COLOURS)))
    if garment == "jacket":
        second = str(rng.choice([w for w in ("white", "light blue", "grey", "black", "red", "beige") if w != colour]))
    else:
        second = str(rng.choice([w for w in ("white", "grey", "black", "navy", "beige", "yellow") if w != colour]))
    return Clothes(garment=garment, colour=colour, second_colour=second)


class Suit:
    """The body suit of the mesh, as garments cut it. Template fields of its vertices, (k,): side = |x|, y, z,
    and sleeve: dm along the arm beyond the shoulder joint, far below 0 on the trunk."""

    def __init__(self, mesh: PeopleMesh) -> None:
        faces = mesh.faces_of("helper-tights")
        self._index, self._whole = faces.unique(return_inverse=True)
        self._edges, self.faces = _split_edges(mesh.template[self._index], self._whole, above=-2.7)
        self.template = self.on(mesh.template)
        self.side, self.y, self.z = self.template[:, 0].abs(), self.template[:, 1], self.template[:, 2]
        along = (self.side - 1.72) * 0.664 - (self.y + 1.98) * 0.747
        across = (self.side - 1.72) * 0.747 + (self.y + 1.98) * 0.664
        on_arm = smoothstep(-0.95, -0.65, across)
        self.sleeve = along - 9.0 * (1 - on_arm)
        # Stripes run around the trunk and around the arms.
        self.stripe = torch.lerp(self.y, -along - 2.2, on_arm * smoothstep(-0.1, 0.5, along))

    def on(self, values: Tensor) -> Tensor:
        """(k, 3) values of the suit's vertices from those of the body's (n, 3)."""
        own = values[self._index]
        return torch.cat([own, own[self._edges].mean(1)])

    def surface(self, body: Body) -> tuple[Tensor, Tensor]:
        """(k, 3) posed vertices and normals. The normals of split edges are those of their ends, so that a
        lifted suit has no cracks where split faces meet whole ones."""
        normals = vertex_normals(body.vertices[self._index], self._whole)
        return self.on(body.vertices), torch.cat([normals, normals[self._edges].mean(1)])

    def below(self, front: float, back: float) -> Tensor:
        """(k,) dm below a plane across the neck, at height `front` at the throat and `back` at the nape."""
        tilt = (back - front) / (_NAPE_Z - _THROAT_Z)
        return front + tilt * (self.z - _THROAT_Z) - self.y

    def outside(self, radius: float | Tensor) -> Tensor:
        """(k,) dm outside a ball around the base of the neck, leaning forwards as collars do: it meets
        shoulders, chest and back squarely, where a plane would graze them."""
        z = self.z - _NECK[2]
        y = self.y - _NECK[1] + 0.5 * z.clamp(min=0)
        return (self.side.square() + y.square() + torch.where(z > 0, z, 1.2 * z).square()).sqrt() - radius

    def neckline(self, radius: float) -> Tensor:
        """(k,) dm inside a garment with a round neck; the planes keep it off the neck itself."""
        ball = self.outside(radius)
        return torch.stack([ball, self.below(-1.25, -0.38), -0.78 - self.y]).amin(0)

    def short_of(self, length: float) -> Tensor:
        """(k,) dm before the end of sleeves of a length."""
        return length - self.sleeve


def _split_edges(vertices: Tensor, faces: Tensor, *, above: float) -> tuple[Tensor, Tensor]:
    """Each face that reaches above a height split into four at the middles of its edges, so that necklines
    come out round.

    Returns the (e, 2) vertex pairs whose middles follow the vertices, and the new faces. Neighbours below
    stay whole: the T-junctions lie on their straight edges.
    """
    upper = (vertices[faces][..., 1] > above).any(1)
    split = faces[upper]
    pairs = torch.stack([split, split[:, [1, 2, 0]]], -1).sort(-1).values
    edges, middle = pairs.reshape(-1, 2).unique(dim=0, return_inverse=True)
    ab, bc, ca = (middle.reshape(-1, 3) + len(vertices)).unbind(1)
    a, b, c = split.unbind(1)
    quarters = [torch.stack(corners, 1) for corners in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return edges, torch.cat([faces[~upper], *quarters])


@dataclass(frozen=True, eq=False)
class _Layer:
    """One sheet of a garment. edge: (k,) dm inside its outline; lift: dm above the skin, number or (k,)."""

    edge: Tensor
    lift: float | Tensor
    fabric: float = PLAIN
    second: float = 0.0
    band: float = 0.06


def clothes(body: Body) -> list[Part]:
    """The garment of a person as cut layers of the body suit."""
    suit = body.mesh.suit
    surface, normals = suit.surface(body)
    parts = []
    for layer in _layers(suit, body.person.appearance.clothes.garment):
        inside = (layer.edge >= 0)[suit.faces].any(1)
        lift = layer.lift if isinstance(layer.lift, float) else layer.lift[:, None]
        kind = torch.tensor([layer.second, layer.fabric, layer.band], device=surface.device).expand(len(surface), 3)
        parts.append(
            Part(
                material=Material.CLOTH,
                vertices=surface + normals * lift,
                template=suit.template,
                faces=suit.faces[inside],
                extra=torch.cat([kind, layer.edge[:, None], suit.stripe[:, None]], 1),
                cut=layer.edge,
                normals=normals,
                two_sided=True,
                casts_shadow=False,
            )
        )
    return parts


def _layers(suit: Suit, garment: str) -> list[_Layer]:
    def least(*fields: Tensor) -> Tensor:
        return torch.stack(fields).amin(0)

    side, y, front = suit.side, suit.y, suit.z > -0.25
    everywhere = torch.full_like(y, 9.0)
    sleeves = suit.short_of(9.0 if garment in _LONG_SLEEVES else 1.5)
    if garment in ("t-shirt", "striped t-shirt"):
        fabric = STRIPED if garment == "striped t-shirt" else PLAIN
        return [_Layer(least(suit.neckline(0.70), sleeves), 0.05, fabric, band=0.08)]
    if garment == "dress":
        scoop = torch.where(front, -1.98 + 0.8 * side - y, everywhere)
        return [_Layer(least(suit.neckline(0.84), scoop, suit.short_of(0.55)), 0.035, band=0.04)]
    if garment == "sweater":
        return [_Layer(least(suit.neckline(0.63), sleeves), 0.08, KNITTED, band=0.12)]
    if garment == "roll neck":
        roll = least(suit.below(-1.00, -0.56), -suit.below(-1.34, -0.94))
        return [_Layer(least(suit.below(-1.1, -0.66), sleeves), 0.07, KNITTED), _Layer(roll, 0.12, RIBBED)]
    if garment == "hoodie":
        behind = smoothstep(0.3, -0.5, suit.z)
        hood = least(suit.outside(0.48), suit.below(-1.30, -0.62), -suit.outside(0.80 + 0.25 * behind))
        return [
            _Layer(least(suit.neckline(0.54), sleeves), 0.09, band=0.06),
            _Layer(hood, 0.12 + 0.18 * behind, band=0.0),
        ]

    # A shirt, alone or under a jacket: its collar leaves open a narrow gap at the throat.
    second = 1.0 if garment == "jacket" else 0.0
    gap = torch.where(front, side - 0.04 - 0.42 * (y + 1.85).clamp(0, 0.75), everywhere)
    # Straight lower edges, from points on the chest up to the shoulders.
    lower = torch.where(front, torch.minimum(y + 2.66 - 2.3 * side, y + 1.92), -suit.outside(0.76))
    leaf = least(suit.below(-1.14, -0.70), lower, gap)
    shirt = least(suit.below(-1.08, -0.64), sleeves, torch.where(front, side - 0.42 * (y + 1.85), everywhere))
    layers = [_Layer(shirt, 0.045, second=second), _Layer(leaf, 0.10, second=second, band=0.04)]
    if garment == "jacket":
        line = 0.05 + 0.32 * (y + 3.4).clamp(min=0)
        open_front = torch.where(front, side - line, everywhere)
        lapel = torch.where(front, line + 0.36 - 0.12 * (y + 3.4).clamp(min=0) - side, -suit.outside(0.90))
        collar = least(suit.below(-1.20, -0.76), open_front, torch.maximum(lapel, -suit.outside(0.88)))
        layers.append(_Layer(least(suit.neckline(0.56), sleeves, open_front), 0.12))
        layers.append(_Layer(collar, 0.16, band=0.03))
    return layers


def shade(points: SurfacePoints) -> Surface:
    """extra: second colour (0 or 1), fabric, width of the hem band, dm inside the outline, stripe
    coordinate."""
    second, fabric, band, inside, along = points.extra[:, :5].unbind(1)
    clothes = [p.appearance.clothes for p in points.people]
    first_colour = points.gather([linear_colour(c.colour) for c in clothes])
    second_colour = points.gather([linear_colour(c.second_colour) for c in clothes])
    fabric = fabric.round()
    # Stripes as wide as a finger, fading to their mean where a pixel cannot show them.
    wave = torch.sin(along * (2 * np.pi / 0.62))
    soft = 0.12 + 6 * points.footprint
    stripes = smoothstep(-soft, soft, wave) * (fabric == STRIPED)
    albedo = mix(first_colour, second_colour, torch.maximum(second, stripes))
    return weave(points, albedo, fabric, band, inside)


def weave(points: SurfacePoints, albedo: Tensor, fabric: Tensor, band: Tensor, inside: Tensor) -> Surface:
    """Fabric of a colour: folds, threads, knit, and a seam where the hem band ends."""
    place = points.template
    folds = points.noise(place * torch.tensor([1.0, 0.45, 1.0], device=points.device), 2.6)[:, :3]
    threads = points.noise(place, 55.0)[:, 0]
    fine = smoothstep(0.10, 0.03, points.footprint)
    knit = ((fabric == KNITTED) | (fabric == RIBBED) | (inside < band) & (fabric != STRIPED)).float()
    around = torch.atan2(place[:, 0], place[:, 2] + 0.4)
    ribs = torch.cos(
        torch.where(fabric == RIBBED, around * 44, torch.where(inside < band, around * 60, place[:, 0] * 34))
    )
    seam = torch.exp(-(((inside - band) / 0.018) ** 2)) * (band > 0)
    shadow = 1 - 0.22 * seam - 0.10 * knit * fine * (0.5 - 0.5 * ribs)
    normal = points.normal + 0.13 * folds
    across = torch.stack([around.cos(), torch.zeros_like(around), -around.sin()], 1)
    normal = unit(normal + (0.22 * knit * fine * torch.sin(torch.acos(ribs.clamp(-0.999, 0.999))))[:, None] * across)
    return Surface(
        albedo=(albedo * (shadow * (1 + 0.04 * threads * fine))[:, None]).clamp(0, 1),
        specular=points.constant(0.04),
        gloss=points.constant(12.0),
        occlusion=0.85 + 0.15 * smoothstep(0.0, 0.1, inside),
        normal=normal,
    )
