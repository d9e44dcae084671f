"""What a browser remembers between visits: ids only. The database holds everything they stand for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from studio.store import Store
from studio.store.models import Annotator


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One browser's work in hand.

    visitor: a random name that owns uploads where nobody has logged in. portraits: ids in the order of the prompt.
    generations: ids of the run on show, one or the two of an A/B run.
    """

    visitor: str
    portraits: tuple[str, ...] = ()
    generations: tuple[str, ...] = ()

    @classmethod
    def read(cls, state: Mapping[str, Any] | None) -> Draft:
        """The draft of a browser's state; a new one where there is none yet. The browser may send anything."""
        state = state if isinstance(state, Mapping) else {}
        visitor = state.get("visitor")
        return cls(
            visitor=visitor if isinstance(visitor, str) and visitor else f"visitor-{secrets.token_hex(8)}",
            portraits=_ids(state.get("portraits")),
            generations=_ids(state.get("generations")),
        )

    def write(self) -> dict[str, Any]:
        return asdict(self)

    def owner(self, store: Store) -> Annotator:
        """The annotator behind this browser."""
        return store.people.annotator(self.visitor)

    def with_portrait(self, portrait_id: str) -> Draft:
        return replace(self, portraits=(*self.portraits, portrait_id))

    def without_portrait(self, portrait_id: str) -> Draft:
        return replace(self, portraits=tuple(known for known in self.portraits if known != portrait_id))

    def replaced(self, old: str, new: str) -> Draft:
        return replace(self, portraits=tuple(new if known == old else known for known in self.portraits))

    def moved(self, portrait_id: str, to: int) -> Draft:
        """The portrait at index `to`, counted without it; beyond the ends means at the end."""
        others = list(self.without_portrait(portrait_id).portraits)
        others.insert(min(max(to, 0), len(others)), portrait_id)
        return replace(self, portraits=tuple(others))


def _ids(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        return ()
    return tuple(value for value in values if isinstance(value, str) and len(value) == 32)
