"""Skull and shoulders as hair and hats meet them: small relief maps, in numpy because a few hundred locks are
too little work for tensors.

Positions are in head units (see `scalp`), float32 arrays.
"""

from __future__ import annotations

import math

import numpy as np

CENTRE = np.array([0.0, 0.35, 0.0], dtype=np.float32)
LATITUDES, LONGITUDES = 24, 48


class Skull:
    """Distance of the skin from CENTRE by direction. radius: (LATITUDES, LONGITUDES + 1), from the top down
    and once around from straight ahead."""

    def __init__(self, radius: np.ndarray) -> None:
        self._radius = np.ascontiguousarray(radius, dtype=np.float32).ravel()

    def at(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of points from the centre, and of the skin in their direction, all (n,)."""
        y = y - CENTRE[1]
        distance = np.sqrt(x * x + y * y + z * z)
        row = np.arccos(np.clip(y / distance, -1, 1)) * (LATITUDES / math.pi) - 0.5
        row = np.clip(row, 0, LATITUDES - 1.001)
        column = (np.arctan2(x, z) * (LONGITUDES / (2 * math.pi))) % LONGITUDES
        top, left = row.astype(np.int64), column.astype(np.int64)
        down, right = row - top, column - left
        cell = top * (LONGITUDES + 1) + left
        above = self._radius[cell] * (1 - right) + self._radius[cell + 1] * right
        cell = cell + (LONGITUDES + 1)
        below = self._radius[cell] * (1 - right) + self._radius[cell + 1] * right
        return distance, above * (1 - down) + below * down


class Torso:
    """Front and back of the shoulders and chest, for hair that falls on them."""

    _CELL, _COLUMNS, _ROWS, _TOP, _LEFT = 0.2, 24, 20, -0.7, -2.4

    def __init__(self, trunk: np.ndarray) -> None:
        """trunk: (n, 3) vertices of the body below the neck."""
        cell = self._cell(trunk[:, 0], trunk[:, 1])
        self._front, self._back = (self._relief(cell, side) for side in (trunk[:, 2], -trunk[:, 2]))

    def _relief(self, cell: np.ndarray, side: np.ndarray) -> np.ndarray:
        relief = np.full(self._ROWS * self._COLUMNS, -9.0, dtype=np.float32)
        np.maximum.at(relief, cell, side)
        padded = np.pad(relief.reshape(self._ROWS, self._COLUMNS), 1, constant_values=-9.0)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        return windows.max((2, 3)).ravel()

    def _cell(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        column = np.clip((x - self._LEFT) / self._CELL, 0, self._COLUMNS - 1).astype(np.int64)
        row = np.clip((self._TOP - y) / self._CELL, 0, self._ROWS - 1).astype(np.int64)
        return row * self._COLUMNS + column

    def drape(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, ahead: np.ndarray, gap: np.ndarray) -> np.ndarray:
        """z of points moved in front of the body where `ahead`, else behind it, `gap` away from it, all
        (n,)."""
        cell = self._cell(x, y)
        front = self._front[cell]
        moved = np.where(ahead, np.maximum(z, front + gap), np.minimum(z, -self._back[cell] - gap))
        return np.where((front > -8) & (y < self._TOP - 0.1), moved, z)
