"""What a browser remembers between visits: ids and what is not yet stored. The database holds all they stand for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from core.prompts import OLDEST, YOUNGEST
from studio.store import Store
from studio.store.models import Annotator


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One browser's work in hand.

    visitor: a random name that owns uploads where nobody has logged in.
    portraits: ids in the order of the prompt.
    ages: portrait id -> years, for pictures of people at another age.
    generations: ids of the run on show, one or the two of an A/B run.
    revealed: whether this browser has seen who is recognised in that run, and can no longer judge it blind.
    """

    visitor: str
    portraits: tuple[str, ...] = ()
    ages: Mapping[str, int] = field(default_factory=dict)
    generations: tuple[str, ...] = ()
    revealed: bool = False

    @classmethod
    def read(cls, state: Mapping[str, Any] | None) -> Draft:
        """The draft of a browser's state; a new one where there is none yet. The browser may send anything."""
        state = state if isinstance(state, Mapping) else {}
        visitor = state.get("visitor")
        return cls(
            visitor=visitor if isinstance(visitor, str) and visitor else f"visitor-{secrets.token_hex(8)}",
            portraits=_ids(state.get("portraits")),
            ages=_ages(state.get("ages")),
            generations=_ids(state.get("generations")),
            revealed=state.get("revealed") is True,
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
        ages = {new if known == old else known: age for known, age in self.ages.items()}
        return replace(self, portraits=tuple(new if known == old else known for known in self.portraits), ages=ages)

    def aged(self, portrait_id: str, age: int | None) -> Draft:
        """The person of a portrait at an age in years; None for a child's."""
        others = {known: years for known, years in self.ages.items() if known != portrait_id}
        return replace(self, ages=others if age is None else {**others, portrait_id: age})

    @property
    def target_ages(self) -> list[int | None]:
        """One for each portrait, in order; None where nobody asked for one."""
        return [self.ages.get(portrait_id) for portrait_id in self.portraits]

    def moved(self, portrait_id: str, to: int) -> Draft:
        """The portrait at index `to`, counted without it; beyond the ends means at the end."""
        others = list(self.without_portrait(portrait_id).portraits)
        others.insert(min(max(to, 0), len(others)), portrait_id)
        return replace(self, portraits=tuple(others))


def _ages(values: Any) -> dict[str, int]:
    if not isinstance(values, Mapping):
        return {}
    return {str(known): age for known, age in values.items() if isinstance(age, int) and YOUNGEST <= age <= OLDEST}


def _ids(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        return ()
    return tuple(value for value in values if isinstance(value, str) and len(value) == 32)
