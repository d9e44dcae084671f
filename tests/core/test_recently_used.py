"""The cache of encoded prompts and portraits."""

from __future__ import annotations

import pytest

from core.recently_used import RecentlyUsed


def test_a_value_is_computed_once_until_it_is_the_longest_unused():
    computed: list[str] = []

    def value_of(key: str) -> str:
        computed.append(key)
        return key.upper()

    cache = RecentlyUsed(2)
    assert [cache.get(key, lambda key=key: value_of(key)) for key in "abab"] == list("ABAB")
    assert computed == ["a", "b"]
    cache.get("c", lambda: value_of("c"))
    cache.get("b", lambda: value_of("b"))
    assert computed == ["a", "b", "c"]
    cache.get("a", lambda: value_of("a"))
    assert computed == ["a", "b", "c", "a"]


def test_a_failed_computation_leaves_nothing_behind():
    cache = RecentlyUsed(1)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0)
    assert cache.get("key", lambda: "value") == "value"


def test_clearing_forgets_everything():
    cache = RecentlyUsed(2)
    cache.get("key", lambda: "old")
    cache.clear()
    assert cache.get("key", lambda: "new") == "new"


def test_a_cache_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="size is 0"):
        RecentlyUsed(0)
