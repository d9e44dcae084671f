"""How long what is left will take, from how long the last few parts took."""

from __future__ import annotations

import time
from collections import deque
from statistics import median

LAST = 5
"""Parts that are looked at: few, because the pace of a shared machine changes."""


class Pace:
    """Times the parts of something long. The median keeps out a part that had to wait, or that was there already."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=LAST)
        self.start()

    def start(self) -> None:
        """A part begins."""
        self._began = time.perf_counter()

    def lap(self) -> None:
        """A part has ended, and the next one begins."""
        now = time.perf_counter()
        self._seconds.append(now - self._began)
        self._began = now

    def left(self, parts: int) -> float:
        """Seconds that so many parts will take; there has to be one that has ended."""
        return parts * median(self._seconds)
