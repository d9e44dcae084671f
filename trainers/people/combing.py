"""Growing the locks of a hair style: from the root along the comb, over the skull, down the body, to the
barber's cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from trainers.people.hairstyles import HairStyle
from trainers.people.scalp import KNOTS, Guides
from trainers.people.skull import CENTRE, Skull, Torso

# Steps of growing; the path is then smoothed into KNOTS.
_STEPS, _SHORT_STEPS = 9, 6
_WHORL = (0.08, 1.30, -0.45)
# Half the width of the face that hanging hair leaves free, by height.
_FACE_HEIGHT = (-1.2, -0.8, -0.3, 0.3, 0.7, 0.95, 1.1)
_FACE_HALF_WIDTH = (0.45, 0.50, 0.66, 0.70, 0.62, 0.35, 0.0)
_TIE = {"tail": (0.0, 0.62, -1.22), "bun": (0.0, 0.75, -1.22)}


@dataclass(frozen=True, eq=False)
class Locks:
    """knots: (locks, KNOTS, 3) float32 head units, root first; layer: (locks,) 0 at the scalp .. 1
    outermost."""

    knots: np.ndarray
    layer: np.ndarray


def comb(
    style: HairStyle,
    root: np.ndarray,
    guides: Guides,
    skull: Skull,
    torso: Torso | None,
    rng: np.random.Generator,
    *,
    pressed_above: tuple[float, float] | None = None,
) -> Locks:
    """Locks that grow from (locks, 3) roots in head units.

    pressed_above: (height, slope): under a hat, hair above height + slope * z lies flat.
    """
    count = len(root)
    layer, jitter, ahead_draw, side_draw, cut_draw = rng.random((5, count), dtype=np.float32)
    start_x, start_y, start_z = guides.template.T
    on_top = _ramp(0.55, 1.05, start_y)
    length = style.length * (style.sides + (1 - style.sides) * on_top) * (0.85 + 0.3 * jitter)
    if not style.long and not style.tied:
        # Clippers: short towards the lower edge, so that sides and nape taper.
        length = length * np.where(start_y < 0.6, 0.3 + 0.7 * _ramp(0.0, 0.5, guides.inside), 1)
    away_side = np.where(start_x + 0.06 * (side_draw - 0.5) > style.parting, 1.0, -1.0).astype(np.float32)
    fringe = np.zeros(count, dtype=bool)
    if style.fringe is not None:
        fringe = (guides.azimuth < 0.85) & (start_y > 0.85) & (start_z > 0.2)
    in_front = guides.azimuth + 0.5 * (ahead_draw - 0.5) < 1.55
    hangs_anywhere = fringe | (start_y < -0.2)
    thickness = style.volume * (0.25 + 0.75 * layer)
    tie = np.array(_TIE[style.tied], dtype=np.float32) if style.tied else None
    weight = style.gravity * min(style.length / 0.35, 1.0)
    # Long hair bends near the head and hangs straight below it: short steps first.
    steps = _STEPS if style.long or style.tied else _SHORT_STEPS
    shares = (1 + min(style.length / 3, 1.0) * np.linspace(-0.75, 0.75, steps)) / steps

    x, y, z = root.T
    heading = _unit(*(_outward(x, y, z) * style.lift + 0.15 * (rng.random((3, count), dtype=np.float32) - 0.5)))
    path = [(x, y, z)]
    for k in range(1, steps + 1):
        t = k / steps
        step = length * np.float32(shares[k - 1])
        keep = np.exp(step / -(0.04 + 0.1 * style.lift))
        if tie is not None:
            want = _unit(tie[0] - x, tie[1] - y, tie[2] - z)
            step = np.minimum(step, 0.9 * np.sqrt((tie[0] - x) ** 2 + (tie[1] - y) ** 2 + (tie[2] - z) ** 2))
        else:
            want = style.crown * _unit(x - _WHORL[0], y - _WHORL[1], z - _WHORL[2])
            want[0] += style.side * away_side * _ramp(0.2, 0.9, y)
            want[1] += style.up * on_top
            want[2] -= style.back * on_top
            if style.fringe is not None:
                over = np.stack([0.15 * x, -0.2 - 0.8 * _ramp(0.9, 1.15, z), np.full_like(x, 0.9)])
                want = np.where(fringe, over, want)
            if style.crown == 0:
                want = want + 0.6 * _outward(x, y, z)
            want = _unit(*want)
            if style.long:
                hanging = _ramp(0.85, 0.2, y)
                want *= 1 - 0.97 * hanging
                keep = keep * (1 - 0.5 * hanging)
            want[1] -= weight * (0.4 + 1.2 * t)
        heading = _unit(*(want + (heading - want) * keep))
        x, y, z = x + step * heading[0], y + step * heading[1], z + step * heading[2]

        # Hair lies on the head at the height of its layer; below the ears long hair hangs free.
        distance, skin = skull.at(x, y, z)
        gap = thickness * min(t * max(style.length, 0.3) / 0.2, 1.0)
        if pressed_above is not None:
            flat = _ramp(0.0, 0.12, y - pressed_above[0] - pressed_above[1] * z)
            gap = gap * (1 - flat) + 0.02 * flat
        near = skin + gap
        far = near + 0.03 + (9 * (1 - _ramp(0.1, 0.5, y)) if style.long else 0.0)
        scale = np.maximum(np.minimum(distance, far), np.where(y > -0.75, near, 0)) / distance
        x, y, z = x * scale, CENTRE[1] + (y - CENTRE[1]) * scale, z * scale
        if style.long:
            x, z = _around_neck(x, y, z, thickness)
            if torso is not None:
                z = torso.drape(x, y, z, in_front, 0.05 + 0.12 * layer)
        if tie is None and style.length > 0.5:
            x, z = _off_the_face(x, y, z, layer, hangs_anywhere, away_side)
        last = path[-1]
        heading = _unit(x - last[0], y - last[1], z - last[2])
        path.append((x, y, z))
    knots = np.einsum("kp,pcn->nkc", _smoothing(steps), np.array(path, dtype=np.float32))
    if not style.tied:
        # The barber: hanging hair all at one height, short hair along the edge of the hair behind the temples.
        edge = np.where(guides.azimuth > 1.1, start_y - guides.inside - style.overhang, -9.0)
        ends = np.full(count, style.cut) if style.long else edge
        if style.fringe is not None:
            ends = np.where(fringe, style.fringe, ends)
        knots = cut_below(knots, ends + 0.08 * (cut_draw - 0.5))
    return Locks(knots.astype(np.float32), layer)


def _unit(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.stack([x, y, z]) / np.maximum(np.sqrt(x * x + y * y + z * z), 1e-9)


def _outward(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _unit(x, y - CENTRE[1], z)


def _ramp(low: float, high: float, x: np.ndarray) -> np.ndarray:
    return np.clip((x - low) * (1 / (high - low)), 0, 1)


@cache
def _smoothing(steps: int) -> np.ndarray:
    """(KNOTS, steps + 1) weights that resample a path and round its corners (a quadratic B-spline with fixed
    ends)."""
    place = np.linspace(0, steps, KNOTS)[:, None]
    distance = np.abs(place - np.arange(steps + 1)[None])
    weights = np.where(distance < 0.5, 0.75 - distance**2, np.clip(1.5 - distance, 0, None) ** 2 / 2)
    weights[0], weights[-1] = 0, 0
    weights[0, 0] = weights[-1, -1] = 1
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def cut_below(knots: np.ndarray, height: np.ndarray) -> np.ndarray:
    """(n, k, 3) curves shortened to where they first pass below (n,) height, with k knots again."""
    count = knots.shape[1]
    below = knots[..., 1] < height[:, None]
    crosses = below.any(1)
    after = np.maximum(np.where(crosses, below.argmax(1), count - 1), 1)
    rows = np.arange(len(knots))
    above, under = knots[rows, after - 1, 1], knots[rows, after, 1]
    share = np.where(crosses, np.clip((above - height) / np.maximum(above - under, 1e-4), 0, 1), 1)
    place = np.linspace(0, 1, count)[None] * (after - 1 + share)[:, None]
    first = np.minimum(place.astype(np.int64), count - 2)
    rest = (place - first)[..., None]
    return knots[rows[:, None], first] * (1 - rest) + knots[rows[:, None], first + 1] * rest


def _around_neck(x: np.ndarray, y: np.ndarray, z: np.ndarray, thickness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z = z + 0.15
    away = np.maximum((0.62 + 0.3 * thickness) / np.maximum(np.hypot(x, z), 1e-4), 1)
    scale = np.where(y < -0.45, away, 1)
    return x * scale, z * scale - 0.15


def _off_the_face(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, layer: np.ndarray, exempt: np.ndarray, away_side: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    half = np.interp(y, _FACE_HEIGHT, _FACE_HALF_WIDTH) + 0.12 * layer
    over = (z > 0.25) & (np.abs(x) < half) & ~exempt
    x = np.where(over, np.where(np.abs(x) < 1e-3, away_side, np.sign(x)) * half, x)
    beside = (y < 0.35) & (y > -0.8) & ~exempt
    return x, np.where(beside, np.minimum(z, 0.55 - 0.1 * layer), z)


def tied_ends(style: HairStyle, count: int, rng: np.random.Generator) -> np.ndarray:
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
        knots = knots + spread * [0.30, 0.05, 0.18] * np.sin(math.pi * np.minimum(0.8 * t + 0.05, 1))[..., None]
        knots[..., 1] -= length * np.maximum(t - 0.08, 0) ** 1.1
    return knots.astype(np.float32)
