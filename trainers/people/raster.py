"""Z-buffer rasteriser in plain torch operations: the same on CPU and CUDA, no custom kernels.

Triangles become scan-line spans, spans become fragments (sample, depth and face packed into one sortable key), and the
nearest fragment of each sample wins by an integer minimum, which no device can reorder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EMPTY = torch.iinfo(torch.int64).max
"""The key of a sample that nothing covers."""
FACE_BITS = 0xFFFFFFFF
"""The part of a key that says which face."""
# Neighbouring triangles compute their shared edge with different rounding; a hair of overlap closes the crack.
_OVERLAP = 1e-3


@dataclass(frozen=True, eq=False)
class Fragments:
    """sample: (K,) int64 index into height * width; key: (K,) int64, depth bits above the face index."""

    sample: Tensor
    key: Tensor


@dataclass(frozen=True, eq=False)
class Visible:
    """Fragments that won, S in all. sample: (S,) index into height * width; face: (S,); weights: (S, 3) barycentric."""

    sample: Tensor
    face: Tensor
    weights: Tensor


def fragments(
    screen: Tensor,
    faces: Tensor,
    height: int,
    width: int,
    *,
    cull: Tensor | None = None,
    cut: Tensor | None = None,
) -> Fragments:
    """Every sample that every triangle covers.

    screen: (V, 3) x, y in samples (y down) and depth > 0; faces: (M, 3) int64.
    cull: (M,) bool, True drops the triangle when seen from behind. cut: (V,) fragments with an interpolated value below
    0 do not exist.
    """
    device = screen.device
    corner = faces.T.contiguous()
    x, y = screen[:, 0].contiguous()[corner], screen[:, 1].contiguous()[corner]  # (3 corners, faces)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    top, bottom = y.amin(0).ceil().clamp(min=0), y.amax(0).floor().clamp(max=height - 1)
    keep = (bottom >= top) & (x.amax(0) >= 0) & (x.amin(0) <= width - 1) & (area.abs() > 1e-9)
    if cull is not None:
        keep &= ~(cull & (area > 0))  # y runs down, so front faces have negative area
    face = keep.nonzero()[:, 0]
    x, y, corner, area, top, bottom = x[:, face], y[:, face], corner[:, face], area[face], top[face], bottom[face]
    z = screen[:, 2].contiguous()[corner]

    def slopes(value: Tensor) -> tuple[Tensor, Tensor]:
        """Change per column and per row of a (3, faces) value at the corners."""
        along, down = value[1] - value[0], value[2] - value[0]
        per_column = (along * (y[2] - y[0]) - down * (y[1] - y[0])) / area
        return per_column, (down * (x[1] - x[0]) - along * (x[2] - x[0])) / area

    # Bounds: x where each edge meets the first row, how that moves per row, and whether it bounds the triangle on its
    # left or its right. A cut is one more edge.
    dx, dy = x[[1, 2, 0]] - x, y[[1, 2, 0]] - y
    level = dy.abs() < 1e-7
    slope = dx / torch.where(level, torch.ones_like(dy), dy)
    first = x + slope * (top - y)
    side = torch.where(level, torch.zeros_like(dy), torch.sign(dy) * torch.sign(area))
    exists = z.amin(0) > 1e-3
    if cut is not None:
        field = cut[corner]
        per_column, per_row = slopes(field)
        per_column = torch.where(per_column.abs() < 1e-6, torch.full_like(per_column, 1e-6), per_column)
        at_start = field[0] + per_row * (top - y[0])
        slope = torch.cat([slope, (-per_row / per_column)[None]])
        first = torch.cat([first, (x[0] - at_start / per_column)[None]])
        crossed = field.amin(0) < 0
        side = torch.cat([side, torch.where(crossed, -torch.sign(per_column), torch.zeros_like(area))[None]])
        exists &= field.amax(0) >= 0
    out, still = torch.full_like(first, float("inf")), torch.zeros_like(first)
    depth_dx, depth_dy = slopes(z)
    depth = z[0] + depth_dy * (top - y[0]) - depth_dx * x[0]
    bounds = [
        torch.where(side < 0, first, -out),
        torch.where(side < 0, slope, still),
        torch.where(side > 0, first, out),
        torch.where(side > 0, slope, still),
    ]
    edges = len(first)

    # Rows: every scan line of every triangle. Owners ascend, so these gathers are sequential.
    rows = torch.where(exists, bottom - top + 1, torch.zeros_like(top)).long()
    owner = torch.repeat_interleave(torch.arange(len(face), device=device), rows)
    down = (torch.arange(len(owner), device=device) - (rows.cumsum(0) - rows)[owner]).to(x.dtype)
    row = torch.cat([*bounds, torch.stack([depth, depth_dy, depth_dx, top])]).index_select(1, owner)
    left, right = row[0] + row[edges] * down, row[2 * edges] + row[3 * edges] * down
    for k in range(1, edges):
        left = torch.maximum(left, row[k] + row[edges + k] * down)
        right = torch.minimum(right, row[2 * edges + k] + row[3 * edges + k] * down)
    depth, depth_dy, depth_dx, top = row[4 * edges :]
    start = (left - _OVERLAP).ceil().clamp(0, width)
    length = ((right + _OVERLAP).floor().clamp(-1, width - 1) - start + 1).clamp(min=0).long()

    # Fragments: every sample of every span, depth linear along it.
    span = torch.repeat_interleave(torch.arange(len(length), device=device), length)
    before = length.cumsum(0) - length
    first_sample = (top + down).long() * width + start.long()
    numbers = torch.stack([first_sample - before, before, face[owner]]).index_select(1, span)
    depths = torch.stack([depth + depth_dy * down + depth_dx * start, depth_dx]).index_select(1, span)
    count = torch.arange(len(span), device=device)
    depth = depths[0] + depths[1] * (count - numbers[1])
    bits = depth.clamp(min=1e-3).view(torch.int32).long()
    return Fragments(count + numbers[0], (bits << 32) | numbers[2])


def nearest(found: Fragments, samples: int, *, behind: Tensor | None = None) -> Tensor:
    """(samples,) int64 smallest key of each sample, optionally only keys above `behind`; EMPTY where there is none."""
    buffer = torch.full((samples,), EMPTY, dtype=torch.int64, device=found.key.device)
    sample, key = found.sample, found.key
    if behind is not None:
        further = key > behind[sample]
        sample, key = sample[further], key[further]
    return buffer.scatter_reduce_(0, sample, key, "amin")


def in_front(found: Fragments, opaque: Tensor) -> Fragments:
    """The fragments nearer than the (samples,) opaque keys."""
    nearer = (found.key >> 32) < (opaque >> 32)[found.sample]
    return Fragments(found.sample[nearer], found.key[nearer])


def depth_image(keys: Tensor, empty: float) -> Tensor:
    """(samples,) float depth of the keys, `empty` where nothing is."""
    depth = (keys >> 32).int().view(torch.float32)
    return torch.where(keys == EMPTY, torch.full_like(depth, empty), depth)


def unpack(sample: Tensor, key: Tensor, screen: Tensor, faces: Tensor, width: int) -> Visible:
    """What (S,) winning keys at (S,) samples say, in an image that is `width` samples wide."""
    face = key & FACE_BITS
    return Visible(sample, face, barycentric(screen, faces[face], sample, width))


def barycentric(screen: Tensor, corners: Tensor, sample: Tensor, width: int) -> Tensor:
    """(S, 3) weights of the samples in triangles given by (S, 3) vertex indices, kept inside the triangle."""
    x, y = screen[:, 0][corners], screen[:, 1][corners]
    column, row = (sample % width).to(x.dtype), torch.div(sample, width, rounding_mode="floor").to(x.dtype)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    first = ((y[:, 1] - y[:, 2]) * (column - x[:, 2]) + (x[:, 2] - x[:, 1]) * (row - y[:, 2])) / area
    second = ((y[:, 2] - y[:, 0]) * (column - x[:, 2]) + (x[:, 0] - x[:, 2]) * (row - y[:, 2])) / area
    weights = torch.stack([first, second, 1 - first - second], 1).clamp(0, 1)
    return weights / weights.sum(1, keepdim=True)
