"""A small cache that forgets what has not been used for longest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")


class RecentlyUsed:
    """At most `size` values by key; safe to share between threads, which may compute one value twice."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size is {size}, but must be at least 1.")
        self._size = size
        self._values: OrderedDict[Hashable, object] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of `key`, computed if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = compute()
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget everything: portraits are personal data."""
        with self._lock:
            self._values.clear()
