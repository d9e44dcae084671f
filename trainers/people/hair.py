"""The head hair of a person: strands of their style on their head, and how strands of hair look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.people.beard import facial_cover, facial_hair
from trainers.people.combing import comb, tied_ends
from trainers.people.hairstyles import STYLES, HairStyle, style_at_age
from trainers.people.identity import Person
from trainers.people.mesh import Body
from trainers.people.scalp import KNOTS, LOCKS, ROOTS, HeadFrame, above_hairline
from trainers.people.skull import CENTRE, Skull
from trainers.people.strands import BROW, HEAD, Strands
from trainers.people.surface import Surface, SurfacePoints, mix, smoothstep, unit

GREY = (0.42, 0.42, 0.43)
_STRANDS_PER_SAMPLE = 12  # of head width; a lock stays as dense at every picture size
_FEWEST = 500


@dataclass(frozen=True)
class Growth:
    """How one person's hair grows at one age: style after age and hat, recession and thin_crown (0..1)."""

    style: HairStyle
    recession: float
    thin_crown: float

    @classmethod
    def of(cls, person: Person) -> Growth:
        identity, look = person.identity, person.appearance
        draw = np.random.default_rng([77, identity.seed]).random(3)
        late = min(max((look.age - 24) / 40, 0.0), 1.0)
        strength = max(draw[0] - 0.35, 0.0) / 0.65 * (0.25 if identity.female else 1.0)
        crown = strength * late * 1.2 - 0.35 if draw[1] < 0.6 and not identity.female else 0.0
        return cls(STYLES[style_at_age(look.hair_style, look.age)], strength * late + 0.08 * draw[2], max(crown, 0.0))


def strands(body: Body, samples_per_dm: float) -> list[Strands]:
    """All hair of a person: on the head, brows and beard. samples_per_dm: of the picture, at the person."""
    frame = HeadFrame(body)
    head = hair_strands(body, frame, samples_per_dm)
    return [facial_hair(body, frame)] + ([] if head is None else [head])


def hair_strands(body: Body, frame: HeadFrame, samples_per_dm: float) -> Strands | None:
    """The head hair, as many strands as a picture with `samples_per_dm` at the head can show; None for the
    bald."""
    person, mesh = body.person, body.mesh
    growth = Growth.of(person)
    style = growth.style
    if not style.length:
        return None
    scalp, device = mesh.scalp, mesh.device
    rng = np.random.default_rng([78, person.identity.seed])
    head = frame.rest
    hat = person.appearance.hat
    pressed = None if hat is None else hat.rim
    roots = scalp.roots
    torso = scalp.torso(head) if style.long and style.cut < -0.9 else None
    skull = scalp.skull(head)
    root = roots.on(head)
    locks = comb(style, root[roots.guide].cpu().numpy(), scalp.guides, skull, torso, rng, pressed_above=pressed)
    lock_knots, lock_layer = (torch.from_numpy(a).to(device) for a in (locks.knots, locks.layer))
    # All roots draw, whatever the picture size: the same person has the same locks in a small and a large
    # picture.
    tone, layer, phase, pigment, scatter, reach = scalp.draws.roll(int(rng.integers(ROOTS)), 1)
    lock_phase, lock_turns, lock_tone = torch.from_numpy(rng.random((3, LOCKS))).to(device, torch.float32)
    density = _STRANDS_PER_SAMPLE * (0.75 if style.long else 1.0)
    wanted = int(min(max(density * 1.7 * frame.size * samples_per_dm, _FEWEST), ROOTS))
    inside = above_hairline(roots.template[:wanted], growth.recession, growth.thin_crown)
    kept = (inside > 0.05 * (scatter[:wanted] - 0.4)).nonzero()[:, 0]
    lock = roots.lock[kept]
    t = torch.linspace(0, 1, KNOTS, device=device)[None, :, None]
    guide = lock_knots[lock]
    own = (root[kept] - guide[:, 0])[:, None] * (1 - style.clump * smoothstep(0.0, 0.8, t))
    rough = scalp.rough[kept]
    knots = guide + own + rough[:, :1] * (style.volume * 0.8 * smoothstep(0.0, 0.5, t))
    knots = knots + rough * (2 * style.frizz * smoothstep(0.0, 0.3, t))
    if style.curl:
        knots = knots + _curl(style, guide, lock_phase[lock], lock_turns[lock], phase[kept], reach[kept])
    if pressed is not None:
        knots = _pressed(knots, skull, pressed)
    tone = 0.6 * (lock_tone[lock] - 0.5) + 0.6 * (tone[kept] - 0.5)
    layer = (lock_layer[lock] + 0.3 * (layer[kept] - 0.5)).clamp(0, 1)
    pigment = pigment[kept]
    if style.tied and pressed is None:
        ends = torch.from_numpy(tied_ends(style, wanted // 3, rng)).to(device)
        more = scalp.draws[:3, : len(ends)]
        knots = torch.cat([knots, ends])
        tone = torch.cat([tone, more[0] * 0.7 - 0.35])
        layer, pigment = torch.cat([layer, more[1]]), torch.cat([pigment, more[2]])
    return Strands(
        knots=frame.pose(knots),
        template=knots,
        layer=layer,
        tone=tone,
        pigment=pigment,
        kind=torch.full_like(tone, HEAD),
    )


def _pressed(knots: Tensor, skull: Skull, pressed_above: tuple[float, float]) -> Tensor:
    """(n, k, 3) strands with everything above a hat's rim laid flat."""
    flat = knots.reshape(-1, 3)
    under = (flat[:, 1] > pressed_above[0] + pressed_above[1] * flat[:, 2] - 0.06).nonzero()[:, 0]
    distance, skin = skull.at(*flat[under].T.cpu().numpy())
    shrink = torch.from_numpy(np.minimum((skin + 0.03) / distance, 1)).to(flat)
    centre = torch.from_numpy(CENTRE).to(knots.device)
    flat[under] = centre + (flat[under] - centre) * shrink[:, None]
    return flat.reshape(knots.shape)


def _curl(style: HairStyle, guide: Tensor, phase: Tensor, turns: Tensor, own: Tensor, radius: Tensor) -> Tensor:
    """(n, KNOTS, 3) offsets that wind strands around their lock."""
    t = torch.linspace(0, 1, KNOTS, device=guide.device)[None, :]
    chord = unit(guide[:, -1] - guide[:, 0])
    across = unit(torch.linalg.cross(chord, unit(guide[:, KNOTS // 2])))
    over = torch.linalg.cross(chord, across)
    angle = (
        2 * math.pi * style.turns * (0.85 + 0.3 * turns[:, None]) * t
        + 2 * math.pi * phase[:, None]
        + 0.9 * own[:, None]
    )
    amplitude = style.curl * smoothstep(0.0, 0.25, t) * (0.6 + 0.8 * radius[:, None])
    return (amplitude * angle.cos())[..., None] * across[:, None] + (amplitude * angle.sin())[..., None] * over[:, None]


def shade(points: SurfacePoints) -> Surface:
    """extra: tone, layer, along (0 root .. 1 tip), pigment, kind, tangent (3)."""
    tone, layer, along, pigment, kind = points.extra[:, :5].unbind(1)
    people = points.people
    hair = points.gather([p.identity.pigment_at(p.appearance.age) for p in people])
    grey_share = points.gather([p.identity.grey_at(p.appearance.age) for p in people])
    # Brows keep their colour longest.
    grey = smoothstep(0.0, 0.6, grey_share * torch.where(kind == BROW, 1.1, 1.6) - pigment)
    colour = mix(hair, torch.tensor(GREY, device=points.device), grey)
    brightness = (1 + 0.55 * tone).clamp(0.3, 2.0) * (0.72 + 0.4 * along)
    occlusion = (0.42 + 0.58 * layer) * (0.55 + 0.45 * smoothstep(0.0, 0.35, along))
    on_face = kind > HEAD
    occlusion = torch.where(on_face, 0.75 + 0.25 * occlusion, occlusion)
    return Surface(
        albedo=colour * brightness[:, None],
        specular=torch.where(on_face, 0.35, layer),
        occlusion=occlusion,
        tangent=points.extra[:, 5:8],
    )


def skin_cover(points: SurfacePoints, noise: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the skin the roots of all hair hide, (P,) 0..1, and their colour, (P, 3); arguments as
    below."""
    scalp, scalp_colour = scalp_cover(points, noise)
    face, face_colour = facial_cover(points, noise)
    return torch.maximum(scalp, face), mix(scalp_colour, face_colour, (face > scalp).float())


def scalp_cover(points: SurfacePoints, noise: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the skin the roots of head hair hide, (P,) 0..1, and their colour (P, 3).

    points: of skin; noise: (P,) of about unit variance, fine as hair roots.
    """
    people = [Growth.of(p) for p in points.people]
    cover, colours = [], []
    for person, growth in zip(points.people, people, strict=True):
        length = growth.style.length
        cover.append(0.10 if not length else 0.72 if length < 0.2 else 0.92)
        identity, age = person.identity, person.appearance.age
        grey = identity.grey_at(age)
        colours.append(
            [0.5 * (c * (1 - grey) + 0.7 * g * grey) for c, g in zip(identity.pigment_at(age), GREY, strict=True)]
        )
    inside = above_hairline(
        points.template,
        points.gather([g.recession for g in people]),
        points.gather([g.thin_crown for g in people]),
    )
    edge = smoothstep(-0.03, 0.12, inside + 0.03 * noise)
    return edge * points.gather(cover) * (1 - 0.12 * noise.clamp(-1, 1)), points.gather(colours)
