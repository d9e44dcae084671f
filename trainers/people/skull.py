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
    """Distance of the skin from CENTRE by direction: rows from the top down, columns around from straight ahead."""

    def __init__(self, skin: np.ndarray) -> None:
        """skin: (n, 3) vertices of the head's outside, without ears."""
        distance, row, column = _direction(*skin.T)
        top, left = row.astype(np.int64), column.astype(np.int64)
        size = LATITUDES * LONGITUDES
        # Each vertex speaks for the four directions around it, the nearer the more.
        total, weight = np.zeros(size), np.zeros(size)
        for down in (0, 1):
            for right in (0, 1):
                cell = (top + down) * LONGITUDES + (left + right) % LONGITUDES
                near = (1 - np.abs(row - top - down)) * (1 - np.abs(column - left - right))
                total += np.bincount(cell, near * distance, size)
                weight += np.bincount(cell, near, size)
        total, weight = (a.reshape(LATITUDES, LONGITUDES) for a in (total, weight))
        # A direction without vertices takes over its neighbours' distance.
        around = _neighbours(total) / np.maximum(_neighbours(weight), 1e-6)
        radius = np.where(weight > 1e-3, total / np.maximum(weight, 1e-6), around)
        self._radius = np.concatenate([radius, radius[:, :1]], 1).astype(np.float32).ravel()

    def at(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of points from the centre, and of the skin in their direction, all (n,)."""
        distance, row, column = _direction(x, y, z)
        top, left = row.astype(np.int64), column.astype(np.int64)
        down, right = row - top, column - left
        cell = top * (LONGITUDES + 1) + left
        above = self._radius[cell] * (1 - right) + self._radius[cell + 1] * right
        cell = cell + (LONGITUDES + 1)
        below = self._radius[cell] * (1 - right) + self._radius[cell + 1] * right
        return distance, above * (1 - down) + below * down


def _direction(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance from CENTRE, row and column of the map, as fractions below its last ones."""
    y = y - CENTRE[1]
    distance = np.sqrt(x * x + y * y + z * z)
    row = np.arccos(np.clip(y / distance, -1, 1)) * (LATITUDES / math.pi) - 0.5
    column = (np.arctan2(x, z) * (LONGITUDES / (2 * math.pi))) % LONGITUDES
    return distance, np.clip(row, 0, LATITUDES - 1.001), np.minimum(column, LONGITUDES - 1e-3)


def _neighbours(grid: np.ndarray) -> np.ndarray:
    """Sum over 5 rows and 5 columns, the columns going round."""
    padded = np.pad(np.pad(grid, ((2, 2), (0, 0)), mode="edge"), ((0, 0), (2, 2)), mode="wrap")
    return np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).sum((2, 3))


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
