"""Growing the locks of a hair style: from the root along the comb, over the skull, down the body, to the
barber's cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.people.hairstyles import HairStyle
from trainers.people.scalp import Skull, Torso, above_hairline, azimuth, interpolate
from trainers.people.surface import smoothstep, unit

KNOTS = 16
_STEPS = 9  # of growing; the path is then smoothed into KNOTS
_WHORL = (0.08, 1.30, -0.45)
# Half the width of the face that hanging hair leaves free, by height.
_FACE_HEIGHT = (-1.2, -0.8, -0.3, 0.3, 0.7, 0.95, 1.1)
_FACE_HALF_WIDTH = (0.45, 0.50, 0.66, 0.70, 0.62, 0.35, 0.0)
_TIE = {"tail": (0.0, 0.62, -1.22), "bun": (0.0, 0.75, -1.22)}


@dataclass(frozen=True, eq=False)
class Locks:
    """knots: (locks, KNOTS, 3) head units, root first; layer: (locks,) 0 at the scalp .. 1 outermost."""

    knots: Tensor
    layer: Tensor


def comb(
    style: HairStyle,
    root: Tensor,
    normal: Tensor,
    template: Tensor,
    skull: Skull,
    torso: Torso | None,
    rng: np.random.Generator,
    *,
    pressed_above: tuple[float, float] | None = None,
) -> Locks:
    """Locks from (n, 3) roots and outward normals in head units; template: (n, 3) the same roots on the
    template.

    pressed_above: (height, slope): under a hat, hair above height + slope * z lies flat.
    """
    count, device = len(root), root.device

    def random(*shape: int) -> Tensor:
        return torch.from_numpy(rng.random(shape)).to(device, torch.float32)

    layer, jitter, ahead_draw, side_draw, cut_draw = random(5, count)
    inside = above_hairline(template)
    on_top = smoothstep(0.55, 1.05, template[:, 1])
    ahead = azimuth(template)
    length = style.length * (style.sides + (1 - style.sides) * on_top) * (0.85 + 0.3 * jitter)
    if not style.long and not style.tied:
        # Clippers: short towards the lower edge, so that sides and nape taper.
        taper = 0.3 + 0.7 * smoothstep(0.0, 0.5, inside)
        length = length * torch.where(template[:, 1] < 0.6, taper, torch.ones_like(taper))
    away_side = torch.where(template[:, 0] + 0.06 * (side_draw - 0.5) > style.parting, 1.0, -1.0)
    fringe = torch.zeros(count, dtype=torch.bool, device=device)
    if style.fringe is not None:
        fringe = (ahead < 0.85) & (template[:, 1] > 0.85) & (template[:, 2] > 0.2)
    in_front = ahead + 0.5 * (ahead_draw - 0.5) < 1.55
    thickness = style.volume * (0.25 + 0.75 * layer)
    whorl = torch.tensor(_WHORL, device=device)
    parted = away_side * style.side
    along_head = torch.stack([torch.zeros_like(on_top), style.up * on_top, -style.back * on_top], 1)
    tie = torch.tensor(_TIE[style.tied], device=device) if style.tied else None
    weight = style.gravity * min(style.length / 0.35, 1.0)

    # Long hair bends near the head and hangs straight below it: short steps first.
    uneven = min(style.length / 3, 1.0)
    shares = 1 + uneven * np.linspace(-0.75, 0.75, _STEPS)
    point, heading = root, unit(normal * style.lift + 0.15 * (random(count, 3) - 0.5))
    path = [point]
    for k in range(1, _STEPS + 1):
        t = k / _STEPS
        step = (length * float(shares[k - 1] / _STEPS))[:, None]
        keep = torch.exp(step / -(0.04 + 0.1 * style.lift))
        height = point[:, 1]
        if tie is not None:
            want = unit(tie - point)
        else:
            want = style.crown * unit(point - whorl) + along_head
            want[:, 0] += parted * _ramp(0.2, 0.9, height)
            if style.fringe is not None:
                over = torch.stack(
                    [0.15 * point[:, 0], -0.2 - 0.8 * _ramp(0.9, 1.15, point[:, 2]), 0 * height + 0.9], 1
                )
                want = torch.where(fringe[:, None], over, want)
            if style.crown == 0:
                want = want + 0.6 * unit(point - skull.centre)
            want = unit(want)
            if style.long:
                hanging = _ramp(0.85, 0.2, height)[:, None]
                want = want * (1 - 0.97 * hanging)
                keep = keep * (1 - 0.5 * hanging)
            want[:, 1] -= weight * (0.4 + 1.2 * t)
        heading = unit(torch.lerp(want, heading, keep))
        point = point + step * heading

        # Hair lies on the head at the height of its layer; below the ears long hair hangs free.
        distance, skin = skull.at(point)
        risen = min(t * max(style.length, 0.3) / 0.2, 1.0)
        gap = thickness * risen
        if pressed_above is not None:
            flat = smoothstep(0.0, 0.12, point[:, 1] - pressed_above[0] - pressed_above[1] * point[:, 2])
            gap = gap * (1 - flat) + 0.02 * flat
        least = torch.where(point[:, 1] > -0.75, skin + gap, torch.zeros_like(skin))
        slack = (1 - _ramp(0.1, 0.5, point[:, 1])) * 9 if style.long else 0.0
        radius = torch.maximum(torch.minimum(distance, skin + gap + 0.03 + slack), least)
        point = skull.centre + (point - skull.centre) * (radius / distance)[:, None]
        if style.long:
            point = _around_neck(point, thickness)
            if torso is not None:
                point = torso.drape(point, in_front, 0.05 + 0.12 * layer)
        if tie is None:
            point = _off_the_face(point, layer, fringe | (template[:, 1] < -0.2), away_side)
        heading = unit(point - path[-1])
        path.append(point)
    knots = torch.einsum("kp,npc->nkc", _smoothing(device), torch.stack(path, 1))
    if style.long or style.fringe is not None:
        ends = torch.full((count,), style.cut if style.long else -9.0, device=device)
        if style.fringe is not None:
            ends = torch.where(fringe, torch.full_like(ends, style.fringe), ends)
        knots = cut_below(knots, ends + 0.08 * (cut_draw - 0.5))
    return Locks(knots, layer)


def _ramp(low: float, high: float, x: Tensor) -> Tensor:
    return ((x - low) * (1 / (high - low))).clamp(0, 1)


def _smoothing(device: torch.device) -> Tensor:
    """(KNOTS, _STEPS + 1) weights that resample a path and round its corners (a quadratic B-spline with fixed
    ends)."""
    place = np.linspace(0, _STEPS, KNOTS)[:, None]
    distance = np.abs(place - np.arange(_STEPS + 1)[None])
    weights = np.where(distance < 0.5, 0.75 - distance**2, np.clip(1.5 - distance, 0, None) ** 2 / 2)
    weights[0], weights[-1] = 0, 0
    weights[0, 0] = weights[-1, -1] = 1
    weights /= weights.sum(1, keepdims=True)
    return torch.from_numpy(weights).to(device, torch.float32)


def cut_below(knots: Tensor, height: Tensor) -> Tensor:
    """(n, k, 3) curves shortened to where they first pass below (n,) height, with k knots again."""
    count = knots.shape[1]
    below = knots[..., 1] < height[:, None]
    crosses = below.any(1)
    after = torch.where(
        crosses, below.float().argmax(1), torch.full_like(height, count - 1, dtype=torch.long)
    ).clamp(min=1)
    rows = torch.arange(len(knots), device=knots.device)
    above, under = knots[rows, after - 1, 1], knots[rows, after, 1]
    share = torch.where(
        crosses, ((above - height) / (above - under).clamp(min=1e-4)).clamp(0, 1), torch.ones_like(above)
    )
    place = torch.linspace(0, 1, count, device=knots.device) * (after - 1 + share)[:, None]
    first = place.long().clamp(max=count - 2)
    index = first[..., None].expand(-1, -1, 3)
    return torch.lerp(knots.gather(1, index), knots.gather(1, index + 1), (place - first)[..., None])


def _around_neck(point: Tensor, thickness: Tensor) -> Tensor:
    x, y, z = point.unbind(1)
    z = z + 0.15
    distance = torch.hypot(x, z).clamp(min=1e-4)
    scale = torch.where(y < -0.45, ((0.62 + 0.3 * thickness) / distance).clamp(min=1), torch.ones_like(y))
    return torch.stack([x * scale, y, z * scale - 0.15], 1)


def _off_the_face(point: Tensor, layer: Tensor, exempt: Tensor, away_side: Tensor) -> Tensor:
    x, y, z = point.unbind(1)
    half = interpolate(y, _FACE_HEIGHT, _FACE_HALF_WIDTH) + 0.12 * layer
    over = (z > 0.25) & (x.abs() < half) & ~exempt
    x = torch.where(over, torch.where(x.abs() < 1e-3, away_side, x.sign()) * half, x)
    z = torch.where((y < 0.35) & (y > -0.8) & ~exempt, torch.minimum(z, 0.55 - 0.1 * layer), z)
    return torch.stack([x, y, z], 1)


def tied_ends(style: HairStyle, count: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """(count, KNOTS, 3) strands of the tail or the bun beyond the tie."""
    t = np.linspace(0, 1, KNOTS)[None, :]
    centre = np.array(_TIE[style.tied])
    if style.tied == "bun":
        axis = np.array([0.0, 0.33, -0.94])
        across, over = np.array([1.0, 0.0, 0.0]), np.cross(axis, [1.0, 0.0, 0.0])
        angle = rng.uniform(0, 2 * math.pi, (count, 1)) + 3.0 * t
        latitude = rng.uniform(-1.1, 1.1, (count, 1)) + 0.4 * np.sin(angle)
        radius = 0.33 * rng.uniform(0.85, 1.0, (count, 1))
        ring = np.cos(angle)[..., None] * across + np.sin(angle)[..., None] * over
        ball = np.cos(latitude)[..., None] * ring + np.sin(latitude)[..., None] * axis
        knots = centre + 0.24 * axis + radius[..., None] * ball
    else:
        spread = rng.normal(size=(count, 1, 3)) / 2
        length = rng.uniform(1.5, 2.3, (count, 1))
        out = np.minimum(t * 4, 1)
        knots = centre + spread * 0.08 + (np.array([0.0, 0.25, -1.0]) + 0.3 * spread) * 0.25 * out[..., None]
        knots = (
            knots + spread * [0.30, 0.05, 0.18] * np.sin(math.pi * np.minimum(0.8 * t + 0.05, 1))[..., None]
        )
        knots[..., 1] -= length * np.maximum(t - 0.08, 0) ** 1.1
    return torch.from_numpy(knots).to(device, torch.float32)
