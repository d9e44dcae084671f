"""Painters of rooms, and the photographer's studio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from trainers.people.canvas import Canvas, Colour, colour, mix, vary
from trainers.people.daylight import Daylight
from trainers.people.outdoors import foliage

if TYPE_CHECKING:
    from trainers.people.places import Setting

BACKDROPS: dict[str, Colour] = {
    "white": colour("efeeec"), "light grey": colour("bcbcbe"), "dark grey": colour("47484b"), "black":
    colour("161617"), "red": colour("a5302f"), "orange": colour("d9823c"), "yellow": colour("e0bf4e"), "green":
    colour("55805c"), "teal": colour("34797c"), "blue": colour("3f68a8"), "light blue": colour("9dbfdc"), "purple":
    colour("6b4d89"), "pink": colour("dd9fae"), "beige": colour("d3c0a2"), "brown": colour("76543c"),
}  # fmt: skip
"""Colours of studio paper, by the word a caption uses."""


def studio(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    paper = BACKDROPS[setting.backdrop]
    c.fill(c.gradient([(0.0, paper * 0.92), (1.0, paper * 1.02)]))
    spot_x = rng.uniform(-0.25, 0.25) + 0.15 * np.sign(setting.azimuth)
    spot = torch.exp(-(((c.x - spot_x) / 0.55) ** 2 + ((c.y - rng.uniform(0.3, 0.6)) / 0.5) ** 2))
    floor = 0.42 if setting.light == "side" else 0.8
    c.shade((floor + (1.06 - floor) * spot) * (0.75 if setting.light == "side" else 0.95))
    c.shade(1 + 0.015 * c.noise(rng, 3, 3, 2))


def _wall_and_floor(
    c: Canvas, rng: np.random.Generator, light: Daylight, walls: tuple[str, ...], floor: float, wood: str = "8a6545"
) -> Colour:
    """A wall lit unevenly and a floor; returns the wall colour."""
    wall = vary(rng, colour(rng.choice(walls)), 0.06)
    c.fill(c.gradient([(0.0, wall * 0.9), (floor, wall)]) * c.tone(light.surface))
    c.box(-c.half_width, floor - 0.025, 2 * c.half_width, 0.025, np.full(3, 0.75) * light.surface, 0.5)
    c.below(floor, colour(wood) * light.surface, 0.6)
    return wall


def _window(
    c: Canvas, rng: np.random.Generator, light: Daylight, x: float, y: float, width: float, height: float
) -> None:
    frame = np.full(3, 0.8) * light.surface
    c.box(x - 0.02, y - 0.02, width + 0.04, height + 0.04, frame, 0.7)
    c.box(x, y, width, height, c.gradient([(y, light.sky[0]), (y + height, light.sky[1])]) * 1.0, 0.7)
    if light.brightness > 0.9:
        c.box(x, y + height * 0.6, width, height * 0.4, mix(colour("7d9a6c"), light.sky[1], 0.55), 1.6)
    c.box(x + width / 2 - 0.008, y, 0.016, height, frame, 0.7)
    c.box(x, y + height * 0.45, width, 0.014, frame, 0.7)
    cloth = vary(rng, colour(rng.choice(["d9cdb8", "8fa3ad", "a9786a", "c8c8c2"])), 0.08) * light.surface
    folds = 0.85 + 0.2 * torch.sin(c.x * 75)
    for edge in (x - 0.11, x + width - 0.02):
        c.box(edge, y - 0.05, 0.13, height + 0.3, c.tone(cloth) * folds, 0.7)


def _lamp(c: Canvas, light: Daylight, x: float, y: float, foot: float) -> None:
    """A floor lamp with a paper shade; it shines where the light of the picture is lamp light."""
    on = light.brightness < 0.9
    c.box(x - 0.007, y, 0.014, foot - y, colour("3a3028") * light.surface, 0.5)
    c.box(x - 0.07, y - 0.06, 0.14, 0.12, colour("ffdca0") * 1.3 if on else colour("e8dcc6") * light.surface, 0.8)
    if on:
        c.add(torch.exp(-torch.hypot(c.x - x, c.y - y) / 0.28), colour("ffb45e") * 0.42)


def _picture_frame(c: Canvas, rng: np.random.Generator, light: Daylight, x: float, y: float, size: float) -> None:
    wide = size * rng.uniform(0.7, 1.4)
    c.box(x, y, wide, size, colour(rng.choice(["2a2420", "8b6a45", "d7d2c8"])) * light.surface, 0.7)
    c.box(x + 0.014, y + 0.014, wide - 0.028, size - 0.028, colour("e9e5dc") * light.surface, 0.7)
    art = vary(rng, colour(rng.choice(["7fa0b5", "b98a62", "8a9a72", "a8626a"])), 0.2)
    c.box(x + 0.04, y + 0.04, max(0.02, wide - 0.08), max(0.02, size - 0.08), art * light.surface, 1.0)


def _room_light(c: Canvas, setting: Setting, light: Daylight) -> None:
    """Rooms are brighter on the side their light comes from."""
    side = float(np.sign(setting.azimuth))
    c.shade(1 + 0.28 * (side * c.x / c.half_width).clamp(-1, 1) * (1.0 if light.key > 0.8 else 0.3))


def living_room(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    floor = rng.uniform(0.82, 0.9)
    _wall_and_floor(c, rng, light, ("d8cdbb", "b9c4bd", "c7cfd6", "d9c3ae", "a9b4a6", "cdbfc4"), floor)
    side = np.sign(setting.azimuth)
    if setting.light == "window" or rng.random() < 0.4:
        _window(c, rng, light, side * c.half_width * 0.62 - 0.14, rng.uniform(0.06, 0.14), 0.28, rng.uniform(0.4, 0.5))
    for _ in range(rng.integers(1, 3)):
        at = -side * c.half_width * rng.uniform(0.05, 0.8) - 0.1
        _picture_frame(c, rng, light, at, rng.uniform(0.08, 0.24), rng.uniform(0.14, 0.24))
    sofa = (
        vary(rng, colour(rng.choice(["5d6f7e", "8c5a48", "6f7a5e", "9a8a76", "3f4d66", "a08d55"])), 0.08)
        * light.surface
    )
    left, wide = -side * rng.uniform(0.0, 0.3) - 0.45, rng.uniform(0.8, 1.1)
    c.box(left, 0.60, wide, 0.3, sofa * 0.9, 0.9)
    c.box(left - 0.06, 0.68, 0.12, 0.25, sofa * 0.8, 0.8)
    c.box(left + wide - 0.06, 0.68, 0.12, 0.25, sofa * 0.8, 0.8)
    for k in range(2):
        cushion = vary(rng, colour(rng.choice(["d3a14c", "b9564a", "dcd3c3", "5f8a86"])), 0.1) * light.surface
        c.box(left + 0.1 + k * (wide - 0.36), 0.62, 0.16, 0.13, cushion, 1.0)
    _lamp(c, light, -side * c.half_width * rng.uniform(0.72, 0.92), rng.uniform(0.26, 0.36), floor)
    if rng.random() < 0.5:
        plant_x = side * c.half_width * rng.uniform(0.3, 0.5)
        foliage(c, rng, setting, light, plant_x, 0.58, 0.10, 0.16, colour("4c7245"), blur=0.8)
    _room_light(c, setting, light)


def cafe(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    _wall_and_floor(c, rng, light, ("8b5f47", "5f6b5c", "a58a6c", "6b5448", "7d4c43"), 0.92, "5b4330")
    bricks = 0.92 + 0.06 * c.noise(rng, 16, 30, 1)
    c.shade(bricks)
    side = np.sign(setting.azimuth)
    if setting.light == "window":
        _window(c, rng, light, side * c.half_width * 0.6 - 0.17, 0.05, 0.34, 0.5)
    for shelf in (0.2, 0.36):
        left = -side * c.half_width * 0.5 - 0.3
        c.box(left, shelf, 0.6, 0.018, colour("5a4028") * light.surface, 0.6)
        for x in np.arange(left + 0.02, left + 0.56, 0.055):
            tall = rng.uniform(0.05, 0.11)
            glass = vary(rng, colour(rng.choice(["c9b38a", "6f8a6a", "d8d4cc", "9a5d3c", "4d6a80"])), 0.15)
            c.box(x, shelf - tall, 0.032, tall, glass * light.surface, 0.8)
    c.box(-c.half_width, 0.66, 2 * c.half_width, 0.04, colour("a67c52") * light.surface, 0.7)
    c.box(-c.half_width, 0.70, 2 * c.half_width, 0.3, colour("4f3a2c") * light.surface, 0.7)
    glow = 0.9 if light.brightness < 0.9 else 0.45
    for x in np.linspace(-0.75, 0.75, rng.integers(3, 5)) * c.half_width + rng.uniform(-0.1, 0.1):
        hang = rng.uniform(0.08, 0.18)
        c.box(x - 0.004, 0, 0.008, hang, np.full(3, 0.02), 0.4)
        c.disc(x, hang, 0.035, colour("ffd08a"), 0.7, light=1.6 * glow)
        c.add(torch.exp(-torch.hypot(c.x - x, c.y - hang) / 0.12), colour("ffb45e") * 0.3 * glow)
    _room_light(c, setting, light)


def library(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    wood = vary(rng, colour("6e4b31"), 0.12) * light.surface
    c.fill(wood * 0.45)
    shelf_height, bay = rng.uniform(0.17, 0.22), rng.uniform(0.5, 0.75)
    spines = [colour(t) for t in ("7c2f2a", "2f4a63", "3f5a3e", "b08d4f", "d8ccb2", "4a3a52", "8a5a35", "1f2a33")]
    top = -rng.uniform(0, 0.1)
    while top < 1.0:
        widths = rng.uniform(0.018, 0.042, int(2 * c.half_width / 0.018) + 1)
        book = torch.as_tensor(
            np.searchsorted(np.cumsum(widths), (c.x[0].cpu().numpy() + c.half_width)), device=c.device
        )
        tones = np.stack([vary(rng, spines[k], 0.15) for k in rng.integers(len(spines), size=len(widths))])
        heights = shelf_height * rng.uniform(0.66, 0.9, len(widths))
        row = c.window(-c.half_width, top, c.half_width, top + shelf_height)
        upper = top + shelf_height - torch.as_tensor(heights, dtype=torch.float32, device=c.device)[book]
        spine = torch.as_tensor(tones * light.surface, dtype=torch.float32, device=c.device)[book].T[:, None]
        row.cover(row.inside(upper - row.y, 0.5), spine)
        c.box(-c.half_width, top + shelf_height - 0.005, 2 * c.half_width, 0.022, wood, 0.5)
        top += shelf_height + 0.017
    for x in np.arange(-c.half_width + rng.uniform(0, bay), c.half_width, bay):
        c.box(x, 0, 0.035, 1.0, wood * 1.1, 0.6)
    if setting.light == "lamp":
        _lamp(c, light, np.sign(setting.azimuth) * c.half_width * 0.75, 0.4, 1.0)
    _room_light(c, setting, light)


def kitchen(c: Canvas, rng: np.random.Generator, setting: Setting, light: Daylight) -> None:
    _wall_and_floor(c, rng, light, ("e4e0d6", "d6dcd8", "e6d9c4", "c9d4dc"), 0.95)
    door = vary(rng, colour(rng.choice(["e9e7e1", "7f9a94", "4f6478", "c7a67c", "a9b7a0"])), 0.05) * light.surface
    side = np.sign(setting.azimuth)
    _window(c, rng, light, side * c.half_width * 0.5 - 0.16, 0.08, 0.32, 0.34)
    for x in np.arange(0.05, c.half_width + 0.4, 0.23):
        at = -side * x - (0.0 if side < 0 else 0.22)
        c.box(at, -0.02, 0.22, 0.3, door * rng.uniform(0.93, 1.03), 0.6)
        c.box(at + 0.02, 0.24, 0.035, 0.012, np.full(3, 0.25) * light.surface, 0.5)
    tile = c.gradient([(0.44, colour("dfe5e2")), (0.62, colour("c9d2cf"))]) * c.tone(light.surface)
    c.box(-c.half_width, 0.46, 2 * c.half_width, 0.14, tile * (1 + 0.03 * c.noise(rng, 16, 16, 1)), 0.6)
    c.box(
        -c.half_width,
        0.60,
        2 * c.half_width,
        0.035,
        colour(rng.choice(["8a6a48", "3b3c3f", "d8d6d0"])) * light.surface,
        0.6,
    )
    c.box(-c.half_width, 0.635, 2 * c.half_width, 0.4, door * 0.85, 0.6)
    for x in np.arange(-c.half_width, c.half_width, 0.3):
        c.box(x, 0.64, 0.008, 0.4, door * 0.5, 0.4)
    for x in rng.uniform(-1, 1, 7) * c.half_width:
        tall = rng.uniform(0.05, 0.14)
        jar = vary(rng, colour(rng.choice(["b9543f", "d8b45a", "6f8f5f", "e6e2da", "5b7f96", "8d5f3c"])), 0.12)
        c.box(x, 0.60 - tall, rng.uniform(0.04, 0.08), tall, jar * light.surface, 0.8)
    if setting.light == "lamp":
        for x in (-0.3, 0.3):
            c.add(torch.exp(-torch.hypot((c.x - x) / 1.4, c.y - 0.25) / 0.2), colour("ffc27a") * 0.25)
    _room_light(c, setting, light)
