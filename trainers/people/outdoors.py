"""Painters of places under the open sky."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from trainers.people.canvas import Canvas, Colour, colour, mix, vary
from trainers.people.daylight import Daylight

if TYPE_CHECKING:
    from trainers.people.places import Setting


def _sky(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight, horizon: float) -> None:
    """Sky with thin clouds, brightest towards the sun."""
    high, low = light.sky
    c.fill(c.gradient([(-0.1, high), (horizon * 0.6, mix(high, low, 0.6)), (horizon, low)]))
    if setting.light in ("midday", "morning", "sunset"):
        cover = ((c.noise(rng, 1.6, 5.0, 3) - rng.uniform(0.0, 0.6)) * 0.6).clamp(0, 1)
        c.cover(cover * cover * (3 - 2 * cover) * 0.7, mix(low, np.ones(3), 0.5))
    side = np.sign(setting.azimuth)
    glow = torch.exp(-(((c.x - side * c.half_width * 0.8) ** 2) + (c.y - horizon * 0.8) ** 2) / 0.25)
    if light.key > 0.5:
        c.add(glow, light.key_colour * 0.25 * light.surface)


def foliage(
    c: Canvas,
    rng: np.random.Generator,
    setting: Setting,
    light: Daylight,
    x: float,
    y: float,
    across: float,
    down: float,
    leaf: Colour,
    *,
    blur: float = 1.0,
) -> None:
    """A tree crown or bush: an uneven ellipse, lit from the side of the sun, with gaps and highlights."""
    c = c.window(x - across * 1.5, y - down * 1.5, x + across * 1.5, y + down * 1.5)
    if c is None:
        return
    ragged = c.noise(rng, 7, 7, 3)
    distance = (torch.hypot((c.x - x) / across, (c.y - y) / down) - 1) * min(across, down) + 0.03 * ragged
    lit = 0.5 + 0.3 * ragged + 0.35 * ((c.x - x) / across * np.sign(setting.azimuth) - (c.y - y) / down)
    contrast = 0.35 if light.key < 0.5 else 0.75
    shade = (lit.clamp(0, 1.4) - 0.5) * contrast + 0.75
    c.cover(c.inside(distance, blur), c.tone(leaf * light.surface) * shade)


def _tree(
    c: Canvas,
    rng: np.random.Generator,
    setting: Setting,
    light: Daylight,
    x: float,
    foot: float,
    size: float,
    leaf: Colour,
) -> None:
    """A broad-leaved tree standing at height `foot` of the picture."""
    c.box(x - size * 0.03, foot - size * 0.6, size * 0.07, size * 0.6, colour("4a3a2c") * light.surface * 0.8, 0.6)
    for _ in range(3):
        dx, dy = rng.uniform(-0.18, 0.18) * size, rng.uniform(-0.12, 0.12) * size
        foliage(
            c, rng, setting, light, x + dx, foot - size * 0.75 + dy, size * 0.3, size * 0.27, vary(rng, leaf), blur=0.8
        )


def park(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    horizon = rng.uniform(0.42, 0.54)
    _sky(c, rng, setting, light, horizon)
    season = rng.choice(["3f6b2e", "55793a", "48703f", "7d7a33"], p=[0.35, 0.3, 0.25, 0.1])
    leaf, grass = colour(season) * 1.25, colour("68913f")
    line = horizon - 0.10 - 0.05 * c.wave(rng, 3.0)
    texture = (0.62 + 0.14 * c.noise(rng, 8, 8, 2))[None]
    c.cover(c.inside(line - c.y, 1.3), c.tone(mix(vary(rng, leaf), light.sky[1], 0.15) * light.surface) * texture)
    lawn = c.gradient([(horizon, grass * 1.1), (1.0, grass * 0.75)]) * c.tone(light.surface)
    c.below(horizon + 0.02, lawn * (1 + 0.10 * c.noise(rng, 5, 16, 2)), 0.8)
    if light.key > 0.8:
        c.cover(
            c.inside(c.noise(rng, 2, 9, 1) - 0.5, 4.0) * (c.y > horizon + 0.03) * 0.35, grass * 0.25 * light.surface
        )
    if rng.random() < 0.75:
        bend, middle, wide = rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4), rng.uniform(0.10, 0.18)
        depth = ((c.y - horizon - 0.02) / (0.98 - horizon)).clamp(0, 1)
        way = (c.x - middle - bend * (1 - depth) ** 2).abs() - wide * (0.12 + 1.6 * depth)
        c.cover(c.inside(way, 1.0) * (c.y > horizon + 0.02), colour("b9a88a") * light.surface)
    for x in sorted(rng.uniform(-1, 1, rng.integers(2, 5)), key=abs, reverse=True):
        near = rng.uniform(0.35, 0.8)
        _tree(c, rng, setting, light, x * c.half_width, horizon + 0.04 + 0.12 * near, near, leaf)


def beach(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    horizon = rng.uniform(0.36, 0.5)
    _sky(c, rng, setting, light, horizon)
    waters = [("2a6d92", "6fb3b6"), ("3c6f86", "8fb8ae")]
    deep, shallow = (colour(tone) for tone in waters[int(rng.random() < 0.3)])
    shore = horizon + rng.uniform(0.16, 0.28)
    water = c.gradient([(horizon, mix(deep, light.sky[0], 0.25)), (shore, mix(shallow, light.sky[1], 0.2))])
    if rng.random() < 0.4:
        c.cover(
            c.inside(horizon - 0.035 - 0.03 * c.wave(rng, 1.5) - c.y, 1.0),
            mix(colour("5d7180"), light.sky[1], 0.4) * light.surface,
        )
    c.below(horizon, water * c.tone(light.surface) * (1 + 0.16 * c.noise(rng, 3, 34, 2)), 0.5)
    if setting.light == "sunset":
        at = np.sign(setting.azimuth) * c.half_width * 0.6
        path = torch.exp(-(((c.x - at) / 0.12) ** 2)) * (c.y > horizon) * c.inside(0.2 - c.noise(rng, 4, 30, 1), 4)
        c.add(path, colour("ffb060") * 0.6)
    for k in range(3):
        crest = shore - 0.075 * k + 0.012 * c.wave(rng, 2.0)
        foam = torch.exp(-(((c.y - crest) / (0.010 + 0.004 * k)) ** 2)) * (0.75 - 0.2 * k)
        c.cover(foam * (c.y > horizon + 0.02), np.full(3, 0.85) * light.surface)
    sand = vary(rng, colour("d8c093"), 0.06)
    edge = shore + 0.02 + 0.015 * c.wave(rng, 1.5)
    c.below(
        edge,
        c.gradient([(shore, sand * 0.62), (shore + 0.1, sand * 0.95), (1.0, sand * 1.02)]) * c.tone(light.surface),
        1.2,
    )
    c.shade(torch.where(c.y > edge, 1 + 0.05 * c.noise(rng, 9, 14, 2), 1.0))


def snow(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    horizon = rng.uniform(0.42, 0.52)
    _sky(c, rng, setting, light, horizon)
    snow = np.array([0.86, 0.89, 0.95])
    for layer in range(3):
        ridge = horizon - 0.16 + 0.11 * layer + 0.06 * c.wave(rng, 1.2, 3)
        tone = mix(snow * light.surface, mix(light.sky[0], light.sky[1], 0.5), 0.45 - 0.2 * layer)
        c.below(ridge, c.tone(tone) * (1 + 0.05 * c.noise(rng, 2, 8, 2)), 1.2 - 0.3 * layer)
        for x in rng.uniform(-1, 1, 3 + 3 * layer) * c.half_width * 1.1:
            size = (0.08 + 0.12 * layer) * rng.uniform(0.8, 1.4)
            column = min(c.image.shape[2] - 1, max(0, int((x + c.half_width) * c.rows_per_unit)))
            foot = float(ridge[0, column]) + 0.02 * layer
            part = c.window(x - size * 0.5, foot - size * 1.1, x + size * 0.5, foot + size * 0.1)
            if part is None:
                continue
            depth = (part.y - foot + size) / size
            tier = torch.remainder(depth * 5, 1.0)
            half = size * 0.32 * (depth * 0.9 + 0.16 * tier).clamp(min=0)
            mask = (
                c.inside((part.x - x).abs() - half, 0.8) * c.inside(-depth * size, 0.3) * c.inside(part.y - foot, 0.5)
            )
            green = mix(colour("2c4536"), snow, float(rng.uniform(0.1, 0.25)))
            laden = (1.6 - 1.1 * tier) * (1 + 0.25 * part.noise(rng, 20, 20, 1))
            part.cover(mask, part.tone(green * light.surface * 0.75) * laden)
    c.below(0.86 + 0.02 * c.wave(rng, 1.0), snow * light.surface * 1.02, 1.0)
    if rng.random() < 0.6:
        for _ in range(45):
            c.disc(
                rng.uniform(-1, 1) * c.half_width, rng.uniform(0, 0.95), rng.uniform(0.004, 0.012), np.full(3, 0.95),
                0.5, light=float(rng.uniform(0.2, 0.5)) * float(light.surface.mean()),
            )  # fmt: skip


def _facade(
    c: Canvas, rng: np.random.Generator, light: Daylight, x: float, width: float, top: float, foot: float, blur: float
) -> None:
    """One house front with rows of windows and a shop at its foot."""
    wall = vary(rng, colour(rng.choice(["c9b79c", "b5674f", "d8d0c4", "8d8f94", "cfa06a", "9fb0b8", "e2cfae"])), 0.08)
    shade = rng.uniform(0.65, 1.0)
    c.box(x, top, width, foot - top, wall * light.surface * shade, blur)
    dark = light.brightness < 0.8
    columns, storey = max(2, round(width / 0.12)), 0.13
    pitch = width / columns
    for row in range(int((foot - top - 0.14) / storey)):
        for column in range(columns):
            lit = rng.random() < (0.45 if dark else 0.04)
            pane = (
                colour("ffca7a") * 0.7
                if lit
                else mix(colour("2f3c4a") * light.surface, light.sky[1], 0.22) * rng.uniform(0.7, 1.2)
            )
            at_x, at_y = x + (column + 0.25) * pitch, top + 0.04 + row * storey
            c.box(
                at_x - 0.008,
                at_y - 0.008,
                pitch * 0.5 + 0.016,
                0.086,
                wall * light.surface * min(1.15, shade * 1.25),
                blur,
            )
            c.box(at_x, at_y, pitch * 0.5, 0.07, pane, blur)
    shop = colour("ffd89a") * 0.8 if dark else colour("3a4046") * light.surface + 0.08 * light.sky[1]
    c.box(x + width * 0.08, foot - 0.10, width * 0.84, 0.10, shop, blur)
    awning = vary(rng, colour(rng.choice(["a33a32", "35655a", "39527d", "d7b25b"])), 0.1)
    c.box(x + width * 0.05, foot - 0.13, width * 0.9, 0.035, awning * light.surface, blur)


def street(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    foot = rng.uniform(0.66, 0.76)
    _sky(c, rng, setting, light, 0.5)
    x = -c.half_width - rng.uniform(0, 0.3)
    while x < c.half_width:
        width = rng.uniform(0.3, 0.6)
        _facade(c, rng, light, x, width, rng.uniform(-0.12, 0.25), foot, 0.8)
        x += width
    c.below(foot, c.gradient([(foot, colour("9b958c")), (1.0, colour("7d7a76"))]) * c.tone(light.surface), 0.6)
    c.below(foot + 0.09, colour("56575a") * light.surface, 0.5)
    c.box(-c.half_width, foot + 0.085, 2 * c.half_width, 0.012, colour("b9b5ac") * light.surface, 0.4)
    for _ in range(rng.integers(1, 3)):
        at = rng.uniform(-1, 1) * c.half_width
        if rng.random() < 0.5:
            _tree(c, rng, setting, light, at, foot + 0.05, 0.55, colour("587c3c"))
        else:
            body = vary(rng, colour(rng.choice(["8c2f2b", "2f4f7d", "d9d9d6", "2b2c2f", "6f7d77"])), 0.1)
            c.box(at - 0.2, foot - 0.005, 0.4, 0.075, body * light.surface, 0.7)
            c.box(at - 0.12, foot - 0.06, 0.24, 0.065, mix(body, light.sky[1], 0.35) * light.surface, 0.7)
            for wheel in (-0.12, 0.12):
                c.disc(at + wheel, foot + 0.07, 0.032, np.full(3, 0.015), 0.6)


def night(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    c.fill(c.gradient([(0.0, light.sky[0]), (0.55, light.sky[1]), (1.0, light.sky[0] * 1.5)]))
    x = -c.half_width
    while x < c.half_width:
        width, top = rng.uniform(0.12, 0.3), rng.uniform(0.1, 0.5)
        c.box(x, top, width, 0.75 - top, colour("11141f") * rng.uniform(0.5, 1.6), 1.0)
        for _ in range(rng.integers(3, 9)):
            pane = colour("ffc27a") if rng.random() < 0.8 else colour("a9c8ff")
            c.box(
                x + rng.uniform(0.1, 0.8) * width,
                rng.uniform(top + 0.03, 0.7),
                0.02,
                0.028,
                pane * rng.uniform(0.2, 0.6),
                0.8,
            )
        x += width * rng.uniform(0.9, 1.3)
    c.below(0.75, c.gradient([(0.75, colour("1b1a1e")), (1.0, colour("0d0d10"))]), 1.0)
    tones = [colour(t) for t in ("ffb45e", "ffd9a0", "ff7a4a", "ff4f43", "9fc4ff", "e9f0ff", "7be0a0")]
    weights = np.array([0.32, 0.25, 0.12, 0.1, 0.09, 0.08, 0.04])
    for _ in range(rng.integers(26, 44)):
        tone = tones[rng.choice(len(tones), p=weights)]
        at_x, at_y = rng.uniform(-1, 1) * c.half_width, np.clip(rng.normal(0.5, 0.17), 0.03, 0.95)
        radius, strength = c.blur * rng.uniform(0.45, 1.0), float(rng.uniform(0.25, 0.9))
        c.disc(at_x, at_y, radius, tone, 0.22, light=strength)
        c.disc(at_x, at_y, radius * 0.82, tone, 0.22, light=-0.25 * strength)
