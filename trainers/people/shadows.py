"""How much light arrives: the shadow of the key light, and occlusion by what is near."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.people import raster
from trainers.people.strands import strand_keys
from trainers.people.surface import unit
from trainers.people.visibility import Points, Scene, View

_TAPS = ((-0.5, -0.9), (0.9, -0.3), (-0.4, 1.0), (-2.0, 0.4), (1.9, 1.2), (0.6, -2.1))
_SMALLEST_MAP, _LARGEST_MAP = 112, 400


class Shadows:
    """Depth of the scene as the key light sees it, around the (P, 3) seen positions. towards: (3,) the light."""

    def __init__(self, scene: Scene, seen: Tensor, towards: Tensor, softness: float, view: View) -> None:
        device = seen.device
        self._towards = towards
        across = unit(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0], device=device), self._towards))
        self._axes = torch.stack([across, torch.linalg.cross(self._towards, across), self._towards], 1)
        flat = seen @ self._axes if len(seen) else torch.zeros(1, 3, device=device)
        low, high = flat.amin(0), flat.amax(0)
        size = self._size = int(min(max(0.85 * max(view.height, view.width), _SMALLEST_MAP), _LARGEST_MAP))
        self._low, self._far = low[:2], float(high[2]) + 30
        self._scale = (size - 1) / float((high - low)[:2].amax().clamp(min=1e-3))
        self._reach = max(1.0, (0.013 + 0.026 * softness) * self._scale)
        found = raster.fragments(self._project(scene.positions), scene.casters.faces, size, size, cut=scene.cut)
        keys = raster.nearest(found, size * size)
        for _, strands in scene.strands:
            if strands.casts_shadow:
                keys = torch.minimum(
                    keys, strand_keys(self._project(strands.knots), size, size, wide=2, spacing=1.4)[0]
                )
        self._depth = raster.depth_image(keys, 1e4)

    def _project(self, positions: Tensor) -> Tensor:
        x, y, z = (positions @ self._axes).unbind(-1)
        return torch.stack([(x - self._low[0]) * self._scale, (y - self._low[1]) * self._scale, self._far - z], -1)

    def lit(self, points: Points) -> Tensor:
        """(P,) 0..1 share of the key light that reaches the points."""
        x, y, depth = self._project(points.position).unbind(1)
        bias = 0.035 + 0.03 * (1 - (points.normal @ self._towards).clamp(0, 1)) + 0.7 / self._scale
        total = torch.zeros_like(x)
        for dx, dy in _TAPS:
            column = (x + dx * self._reach).round().long().clamp(0, self._size - 1)
            row = (y + dy * self._reach).round().long().clamp(0, self._size - 1)
            total += 2 - ((depth - self._depth[row * self._size + column]) / bias).clamp(1, 2)
        return total / len(_TAPS)


class Nearness:
    """How open the surroundings of each pixel are: what lies nearer than it all around takes light."""

    def __init__(self, depth: Tensor, view: View) -> None:
        """depth: (1, 1, H, W)."""
        taken = torch.zeros_like(depth)
        for radius, strength in ((0.10, 2.0), (0.32, 1.0)):
            reach = max(1, round(radius * view.pixels_per_dm))
            coarse = max(1, reach // 3)
            small = F.avg_pool2d(depth, coarse, ceil_mode=True, count_include_pad=False) if coarse > 1 else depth
            mean = box_blur(small, max(1, round(reach / coarse)))
            if coarse > 1:
                mean = F.interpolate(mean, depth.shape[2:], mode="bilinear", align_corners=False)
            taken += strength * (depth - mean).clamp(0, 0.22)
        self._open = (1 - 1.5 * taken.flatten()).clamp(0.4, 1)

    def at(self, points: Points) -> Tensor:
        """(P,) 0..1."""
        return self._open[points.pixel]


def box_blur(image: Tensor, radius: int) -> Tensor:
    """(1, C, H, W) mean over squares of 2 * radius + 1 pixels, of what lies inside the image."""
    wide = F.avg_pool2d(image, (1, 2 * radius + 1), 1, (0, radius), count_include_pad=False)
    return F.avg_pool2d(wide, (2 * radius + 1, 1), 1, (radius, 0), count_include_pad=False)
