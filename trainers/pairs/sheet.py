"""A contact sheet of pairs: references, chosen, rejected, and what was decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEIGHT = 160
"""Of the pictures, in pixels."""
GAP, TEXT_WIDTH = 6, 300
GREEN, RED, INK = (22, 130, 70), (190, 40, 40), (40, 40, 40)


@dataclass(frozen=True, eq=False)
class SheetRow:
    """pictures: references, chosen, rejected, each (H, W, 3) uint8; lines: what is written beside them."""

    pictures: Sequence[np.ndarray]
    lines: Sequence[str]
    kept: bool


def save_sheet(path: Path, rows: Sequence[SheetRow]) -> None:
    """Write a picture file with a row for each pair; a green bar says kept, a red one dropped."""
    if not rows:
        raise ValueError("There is no pair to show.")
    scaled = [[_scaled(picture) for picture in row.pictures] for row in rows]
    width = max(sum(picture.width + GAP for picture in row) for row in scaled) + 2 * GAP + TEXT_WIDTH
    sheet = Image.new("RGB", (width, len(rows) * (HEIGHT + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (row, pictures) in enumerate(zip(rows, scaled, strict=True)):
        y = GAP + number * (HEIGHT + GAP)
        draw.rectangle((0, y, GAP - 2, y + HEIGHT), fill=GREEN if row.kept else RED)
        x = 2 * GAP
        for picture in pictures:
            sheet.paste(picture, (x, y))
            x += picture.width + GAP
        draw.multiline_text((x, y), "\n".join(row.lines), fill=INK, font=font, spacing=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _scaled(picture: np.ndarray) -> Image.Image:
    height, width = picture.shape[:2]
    return Image.fromarray(picture).resize((max(1, round(width * HEIGHT / height)), HEIGHT), Image.Resampling.LANCZOS)
