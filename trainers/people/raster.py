"""Z-buffer rasteriser in plain torch operations: the same on CPU and CUDA, no custom kernels.

Triangles become scan-line spans, spans become fragments (sample, depth and face packed into one sortable key), and the
nearest fragment of each sample wins by an integer minimum, which no device can reorder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_EMPTY = torch.iinfo(torch.int64).max
# Neighbouring triangles compute their shared edge with different rounding; a hair of overlap closes the crack.
_OVERLAP = 1e-3


@dataclass(frozen=True, eq=False)
class Fragments:
    """sample: (K,) int64 index into height * width; key: (K,) int64, depth bits above the face index."""

    sample: Tensor
    key: Tensor


@dataclass(frozen=True, eq=False)
class Visible:
    """The nearest fragment of each sample that has one, S in all.

    sample: (S,) index into height * width, ascending; face: (S,); weights: (S, 3) barycentric; depth: (S,).
    """

    sample: Tensor
    face: Tensor
    weights: Tensor
    depth: Tensor


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
    corners = screen[faces]
    x, y, z = corners.unbind(-1)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    top = y.amin(1).ceil().clamp(min=0)
    bottom = y.amax(1).floor().clamp(max=height - 1)
    keep = (bottom >= top) & (x.amax(1) >= 0) & (x.amin(1) <= width - 1) & (area.abs() > 1e-9) & (z.amin(1) > 1e-3)
    if cull is not None:
        keep &= ~(cull & (area > 0))  # y runs down, so front faces have negative area
    if cut is not None:
        keep &= (cut[faces] >= 0).any(1)
    face = keep.nonzero()[:, 0]
    x, y, z, area = x[face], y[face], z[face], area[face]

    # Rows: every scan line of every triangle.
    first_row = top[face].long()
    rows_per_face = bottom[face].long() - first_row + 1
    owner = torch.repeat_interleave(torch.arange(len(face), device=device), rows_per_face)
    row_start = rows_per_face.cumsum(0) - rows_per_face
    row = torch.arange(len(owner), device=device) - row_start[owner] + first_row[owner]

    # Spans: between the left and right edges on that row. Orientation decides which edges bound which side.
    nxt = [1, 2, 0]
    dx, dy = x[:, nxt] - x, y[:, nxt] - y
    slope = dx / torch.where(dy.abs() < 1e-7, torch.ones_like(dy), dy)
    side = torch.sign(dy) * torch.sign(area)[:, None]
    side = torch.where(dy.abs() < 1e-7, torch.zeros_like(side), side)
    crossing = x[owner] + slope[owner] * (row[:, None] - y[owner])
    side = side[owner]
    infinity = torch.tensor(float("inf"), device=device)
    left = torch.where(side < 0, crossing, -infinity).amax(1)
    right = torch.where(side > 0, crossing, infinity).amin(1)
    start = (left - _OVERLAP).ceil().clamp(0, width).long()
    stop = (right + _OVERLAP).floor().clamp(-1, width - 1).long()
    length = (stop - start + 1).clamp(min=0)

    # Fragments: every sample of every span, depth linear along it.
    span = torch.repeat_interleave(torch.arange(len(length), device=device), length)
    column = torch.arange(len(span), device=device) - (length.cumsum(0) - length - start)[span]
    owner_of = owner[span]
    depth_dx = ((z[:, 1] - z[:, 0]) * (y[:, 2] - y[:, 0]) - (z[:, 2] - z[:, 0]) * (y[:, 1] - y[:, 0])) / area
    depth_dy = ((z[:, 2] - z[:, 0]) * (x[:, 1] - x[:, 0]) - (z[:, 1] - z[:, 0]) * (x[:, 2] - x[:, 0])) / area
    row_depth = z[owner, 0] + depth_dy[owner] * (row - y[owner, 0]) - depth_dx[owner] * x[owner, 0]
    depth = row_depth[span] + depth_dx[owner_of] * column
    sample = (row * width)[span] + column
    face_of = face[owner_of]
    if cut is not None:
        crossed = (cut[faces] < 0).any(1)
        mixed = crossed[face_of].nonzero()[:, 0]
        if len(mixed):
            weights = barycentric(screen, faces[face_of[mixed]], sample[mixed], width)
            inside = (weights * cut[faces[face_of[mixed]]]).sum(1) >= 0
            kept = torch.ones(len(sample), dtype=torch.bool, device=device)
            kept[mixed] = inside
            sample, depth, face_of = sample[kept], depth[kept], face_of[kept]
    bits = depth.clamp(min=1e-3).float().view(torch.int32).long()
    return Fragments(sample, (bits << 32) | face_of)


def nearest(found: Fragments, samples: int, *, behind: Tensor | None = None) -> Tensor:
    """(samples,) int64 smallest key of each sample, optionally only keys above `behind`; `_EMPTY` where there is none."""
    buffer = torch.full((samples,), _EMPTY, dtype=torch.int64, device=found.key.device)
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
    return torch.where(keys == _EMPTY, torch.full_like(depth, empty), depth)


def visible(keys: Tensor, screen: Tensor, faces: Tensor, width: int) -> Visible:
    """Unpack the winning keys of an image that is `width` samples wide."""
    sample = (keys != _EMPTY).nonzero()[:, 0]
    face = keys[sample] & 0xFFFFFFFF
    weights = barycentric(screen, faces[face], sample, width)
    depth = (keys[sample] >> 32).int().view(torch.float32)
    return Visible(sample, face, weights, depth)


def barycentric(screen: Tensor, corners: Tensor, sample: Tensor, width: int) -> Tensor:
    """(S, 3) weights of the samples in triangles given by (S, 3) vertex indices, kept inside the triangle."""
    x, y = screen[:, 0][corners], screen[:, 1][corners]
    column, row = (sample % width).to(x.dtype), torch.div(sample, width, rounding_mode="floor").to(x.dtype)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    first = ((y[:, 1] - y[:, 2]) * (column - x[:, 2]) + (x[:, 2] - x[:, 1]) * (row - y[:, 2])) / area
    second = ((y[:, 2] - y[:, 0]) * (column - x[:, 2]) + (x[:, 0] - x[:, 2]) * (row - y[:, 2])) / area
    weights = torch.stack([first, second, 1 - first - second], 1).clamp(0, 1)
    return weights / weights.sum(1, keepdim=True)
