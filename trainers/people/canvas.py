"""A small out-of-focus painter: the brushes with which the places behind rendered people are painted.

Coordinates are in frame heights: x runs from -half_width to +half_width (0 in the middle), y from 0 (top) to 1
(bottom), so a disc is round in every frame. Colours are linear RGB; `colour` turns the usual sRGB hex notation
into it. Every brush takes its blur as a multiple of the canvas's own, which is how depth of field is painted: far
things get much, near ones little. All randomness comes from the numpy generator that the caller seeds, so a
picture is the same on every device.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Colour = np.ndarray
"""Linear RGB, shape (3,): 0 is black, 1 is white, lights may be brighter."""


def colour(code: str) -> Colour:
    """Linear RGB of an sRGB colour written as "rrggbb"."""
    srgb = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255.0
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` at share 0, `second` at share 1."""
    return first * (1 - share) + second * share


def vary(rng: np.random.Generator, tone: Colour, amount: float = 0.12) -> Colour:
    """The same colour a little lighter or darker and a little off in hue."""
    return tone * np.exp(rng.normal(0, amount)) * np.exp(rng.normal(0, amount / 3, 3))


class Canvas:
    """A picture being painted, (3, height, width) linear RGB on one device, with soft brushes.

    A tone is a colour or a (3, height, width) tensor (any axis may be 1); a mask is (height, width), values in [0,
    1].
    """

    def __init__(self, height: int, width: int, *, blur: float, device: str | torch.device = "cpu"):
        """`blur`, in frame heights, is how wide the edges of the things at the far end of the place are."""
        self.device = torch.device(device)
        self.blur = max(blur, 1.0 / height)
        self.half_width = width / height / 2
        self.rows_per_unit = height
        self.image = torch.zeros(3, height, width, device=device)
        self.y = ((torch.arange(height, device=device) + 0.5) / height)[:, None]
        self.x = ((torch.arange(width, device=device) + 0.5) / height - self.half_width)[None, :]

    def window(self, left: float, top: float, right: float, bottom: float) -> Canvas | None:
        """The part of the canvas inside a rectangle, sharing its memory; None where it is out of the frame."""
        edges = []
        for low, high, size in (
            (left + self.half_width, right + self.half_width, self.image.shape[2]),
            (top, bottom, self.image.shape[1]),
        ):
            first = min(max(int(low * self.rows_per_unit), 0), size)
            edges.append((first, min(max(int(high * self.rows_per_unit) + 1, first), size)))
        (x0, x1), (y0, y1) = edges
        if x0 == x1 or y0 == y1:
            return None
        part = object.__new__(Canvas)
        part.__dict__.update(self.__dict__)
        part.image = self.image[:, y0:y1, x0:x1]
        part.x, part.y = self.x[:, x0:x1], self.y[y0:y1]
        return part

    def tone(self, tone: Colour | Tensor) -> Tensor:
        """A colour as a (3, 1, 1) tensor on the canvas's device; tensors pass."""
        if isinstance(tone, Tensor):
            return tone
        return torch.as_tensor(tone, dtype=torch.float32, device=self.device)[:, None, None]

    def inside(self, distance: Tensor, blur: float = 1.0) -> Tensor:
        """The mask of a signed distance (frame heights, negative inside): 1 inside, 0 outside, a soft edge."""
        t = (0.5 - distance / (2 * self.blur * blur)).clamp(0, 1)
        return t * t * (3 - 2 * t)

    def gradient(self, stops: list[tuple[float, Colour]]) -> Tensor:
        """A tone (3, height, 1) between (y, colour) stops."""
        heights = self.y[:, 0].cpu().numpy()
        at = [height for height, _ in stops]
        channels = [np.interp(heights, at, [tone[c] for _, tone in stops]) for c in range(3)]
        return torch.as_tensor(np.stack(channels), dtype=torch.float32, device=self.device)[:, :, None]

    def noise(self, rng: np.random.Generator, across: float, down: float, octaves: int = 2) -> Tensor:
        """Smooth noise (height, width) of about unit variance; `across` and `down` are waves per frame height."""
        height, width = self.image.shape[1:]
        total = torch.zeros(height, width, device=self.device)
        for octave in range(octaves):
            rows = round(down * 2**octave * height / self.rows_per_unit) + 4
            columns = round(across * 2**octave * width / self.rows_per_unit) + 4
            grid = torch.as_tensor(rng.standard_normal((1, 1, rows, columns)), dtype=torch.float32)
            total += F.interpolate(grid.to(self.device), (height, width), mode="bicubic")[0, 0] / 2**octave
        return total

    def wave(self, rng: np.random.Generator, across: float, octaves: int = 3) -> Tensor:
        """Smooth noise along x only, (1, width): hills, hedges, shore lines."""
        width = self.image.shape[2]
        total = torch.zeros(1, width, device=self.device)
        for octave in range(octaves):
            columns = round(across * 2**octave * width / self.rows_per_unit) + 4
            grid = torch.as_tensor(rng.standard_normal((1, 1, 1, columns)), dtype=torch.float32)
            total += F.interpolate(grid.to(self.device), (1, width), mode="bicubic")[0, 0] / 2**octave
        return total

    def cover(self, mask: Tensor, tone: Colour | Tensor) -> None:
        """Paint `tone` over the picture where `mask` is 1."""
        self.image += (self.tone(tone) - self.image) * mask

    def add(self, mask: Tensor, tone: Colour) -> None:
        """Add light."""
        self.image += self.tone(tone) * mask

    def shade(self, factor: Tensor | float) -> None:
        """Multiply the picture: shadows, and light falling on it."""
        self.image *= factor

    def fill(self, tone: Colour | Tensor) -> None:
        self.image.copy_(self.tone(tone).expand_as(self.image))

    def below(self, line: float | Tensor, tone: Colour | Tensor, blur: float = 1.0) -> None:
        """Everything under a height: a number, or (1, width) for an uneven line."""
        self.cover(self.inside(line - self.y, blur), tone)

    def box(self, x: float, y: float, width: float, height: float, tone: Colour | Tensor, blur: float = 1.0) -> None:
        """An upright rectangle with its top left corner at (x, y)."""
        edge = self.blur * blur
        part = self.window(x - edge, y - edge, x + width + edge, y + height + edge)
        if part is None:
            return
        if isinstance(tone, Tensor):
            tone = _cut(tone, self, part)
        across = self.inside((part.x - (x + width / 2)).abs() - width / 2, blur)
        down = self.inside((part.y - (y + height / 2)).abs() - height / 2, blur)
        part.cover(down * across, tone)

    def disc(self, x: float, y: float, radius: float, tone: Colour, blur: float = 1.0, *, light: float = 0.0) -> None:
        """A disc; with `light` other than 0 it is added as light of that strength instead of painted over."""
        reach = radius + self.blur * blur
        part = self.window(x - reach, y - reach, x + reach, y + reach)
        if part is None:
            return
        mask = self.inside(torch.hypot(part.x - x, part.y - y) - radius, blur)
        if light:
            part.add(mask * light, tone)
        else:
            part.cover(mask, tone)

    def defocus(self, blur: float) -> None:
        """Blur everything painted so far: a step edge becomes `blur` times the canvas's blur wide."""
        radius = round(self.blur * blur * self.rows_per_unit / 2)
        if radius < 1:
            return
        padded = F.pad(self.image[None], (2 * radius,) * 4, mode="replicate")
        for _ in range(2):
            padded = F.avg_pool2d(padded, 2 * radius + 1, 1)
        self.image.copy_(padded[0])


def _cut(tone: Tensor, whole: Canvas, part: Canvas) -> Tensor:
    """The piece of a tone of the whole canvas that belongs to a window of it."""
    top = round(float(part.y[0, 0] - whole.y[0, 0]) * whole.rows_per_unit)
    left = round(float(part.x[0, 0] - whole.x[0, 0]) * whole.rows_per_unit)
    rows = slice(None) if tone.shape[1] == 1 else slice(top, top + part.image.shape[1])
    columns = slice(None) if tone.shape[2] == 1 else slice(left, left + part.image.shape[2])
    return tone[:, rows, columns]
