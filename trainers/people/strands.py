"""Hair of any kind as strands: smooth curves through knots, drawn as rows of points into the sample grid.

Points need neither triangles nor texture: their silhouette is soft because every strand ends on its own, and
the cost is that of the samples they cover.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.people.surface import Material, unit

# Kinds of hair.
HEAD, BEARD, BROW = 0.0, 1.0, 2.0
# Points of a strand lie this far apart at most, in samples, except on its few longest stretches.
_SPACING = 0.9
_MOST_POINTS_BETWEEN_KNOTS = 24


@dataclass(frozen=True, eq=False)
class Strands:
    """The strands of one person.

    knots: (n, k, 3) posed positions in the person's space, root first; template: (n, k, 3) head units before
    the pose. layer: (n,) 0 at the scalp .. 1 outermost; tone: (n,) brightness against the average, about
    -1..1; pigment: (n,) 0..1, a strand is grey where this is less than the share of grey. kind: (n,) HEAD,
    BEARD or BROW.
    """

    knots: Tensor
    template: Tensor
    layer: Tensor
    tone: Tensor
    pigment: Tensor
    kind: Tensor
    casts_shadow: bool = True
    material: Material = Material.HAIR

    def __len__(self) -> int:
        return len(self.knots)


@dataclass(frozen=True, eq=False)
class StrandPoints:
    """Visible points of strands, S in all. sample: (S,); strand: (S,) index; along: (S,) 0 root .. 1 tip;
    depth: (S,)."""

    sample: Tensor
    strand: Tensor
    along: Tensor
    depth: Tensor

    def at(self, knots: Tensor) -> Tensor:
        """(S, 3) positions on the (n, k, 3) curves."""
        first, share = self._stretch(knots.shape[1])
        return torch.lerp(knots[self.strand, first], knots[self.strand, first + 1], share[:, None])

    def direction(self, knots: Tensor) -> Tensor:
        """(S, 3) unit tangents, root to tip."""
        first, _ = self._stretch(knots.shape[1])
        return unit(knots[self.strand, first + 1] - knots[self.strand, first])

    def _stretch(self, count: int) -> tuple[Tensor, Tensor]:
        place = self.along * (count - 1)
        first = place.long().clamp(max=count - 2)
        return first, place - first


def strand_points(screen: Tensor, spacing: float = _SPACING) -> tuple[Tensor, int]:
    """(3, n, p) screen positions of p points along each of the (n, k, 3) strands, and p."""
    knots = screen.shape[1]
    stretch = (screen[:, 1:, :2] - screen[:, :-1, :2]).norm(dim=-1).flatten()
    rank = max(1, int(0.93 * len(stretch)))
    longest = float(stretch.kthvalue(rank).values) / spacing
    between = min(max(math.ceil(longest), 1), _MOST_POINTS_BETWEEN_KNOTS)
    count = (knots - 1) * between + 1
    place = torch.linspace(0, knots - 1, count, device=screen.device)
    first = place.long().clamp(max=knots - 2)
    basis = torch.zeros(knots, count, device=screen.device)
    columns = torch.arange(count, device=screen.device)
    basis[first, columns] = 1 - (place - first)
    basis[first + 1, columns] += place - first
    return screen.permute(2, 0, 1).contiguous() @ basis, count


def strand_keys(
    screen: Tensor, height: int, width: int, *, wide: int = 1, spacing: float = _SPACING
) -> tuple[Tensor, int]:
    """(height * width,) sortable keys of the nearest strand point of each sample, and the points on each
    strand.

    screen: (n, k, 3) x, y in samples (y down) and depth > 0. The low 32 bits of a key are strand * points +
    point, the high ones the depth, as in `raster`. Each point covers `wide` samples side by side.
    """
    points, count = strand_points(screen, spacing)
    x, y, depth = points.reshape(3, -1)
    column, row = x - 0.5 * (wide - 2), y + 0.5
    seen = (column >= 0) & (column < width - wide + 1) & (row >= 0) & (row < height) & (depth > 1e-3)
    outside = height * width
    sample = torch.where(seen, row.long() * width + column.long(), outside)
    key = (depth.view(torch.int32).long() << 32) | torch.arange(len(depth), device=screen.device)
    buffer = torch.full((outside + wide,), torch.iinfo(torch.int64).max, device=screen.device)
    for step in range(wide):
        buffer[step:].scatter_reduce_(0, sample, key, "amin")
    return buffer[:outside], count


def visible_points(keys: Tensor, opaque: Tensor, count: int) -> StrandPoints:
    """The strand points nearer than the opaque keys, both (samples,)."""
    sample = (keys < opaque).nonzero()[:, 0]
    found = keys[sample]
    index = found & 0xFFFFFFFF
    strand = torch.div(index, count, rounding_mode="floor")
    depth = (found >> 32).int().view(torch.float32)
    return StrandPoints(sample, strand, (index - strand * count).float() / (count - 1), depth)
