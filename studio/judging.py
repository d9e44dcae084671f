"""One annotator at work: what is asked next, and what becomes of an answer. The store keeps all but the place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from typing import Any

from studio.store import NewPick, Store, StoreError
from studio.store.models import Candidate, Comparison, ComparisonKind, Generation, Outcome, Pick, Standing

LOADED_AHEAD = 3
"""Comparisons handed to the page: the one on show and those whose pictures it fetches meanwhile."""
MOST_AT_ONCE = 4
REASONS = {
    "identity_lost": "identity lost",
    "duplicate_face": "duplicate face",
    "wrong_age": "wrong age",
    "attribute_leaked": "attribute leaked",
    "light": "light",
    "artefact": "artefact",
    "looks": "looks",
    "other": "other",
}
"""What may be said against the pictures that were not chosen, by the name it is stored under."""
LONGEST_NOTE = 1000


@dataclass(frozen=True, kw_only=True)
class Judging:
    """A browser's place at the Compare page.

    annotator: the name that was typed; empty for the browser's own. session: the labelling session, None for the
    comparisons in `lineup`. done: those of the line-up that were answered or skipped, newest last.
    """

    annotator: str = ""
    session: str | None = None
    lineup: tuple[str, ...] = ()
    done: tuple[str, ...] = ()

    @classmethod
    def read(cls, state: Mapping[str, Any] | None) -> Judging:
        """From the browser's state, which may hold anything."""
        state = state if isinstance(state, Mapping) else {}
        annotator, session = state.get("annotator"), state.get("session")
        return cls(
            annotator=annotator if isinstance(annotator, str) else "",
            session=session if isinstance(session, str) and session else None,
            lineup=_ids(state.get("lineup")),
            done=_ids(state.get("done")),
        )

    def write(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A comparison as one annotator sees it: candidates from left to right, and its lease in a session."""

    comparison_id: str
    lease_id: str | None
    candidates: tuple[Candidate, ...]


def questions(store: Store, judging: Judging, annotator_id: str) -> list[Question]:
    """What is asked now and next; empty when nothing is left."""
    if judging.session is not None:
        return [
            Question(comparison_id=given.comparison.id, lease_id=given.lease_id, candidates=tuple(given.candidates))
            for given in store.sessions.claim(judging.session, annotator_id, count=LOADED_AHEAD)
        ]
    asked = []
    for comparison_id in judging.lineup:
        if len(asked) == LOADED_AHEAD:
            break
        if comparison_id in judging.done or _standing_pick(store, comparison_id, annotator_id):
            continue
        try:
            comparison = store.comparisons.get(comparison_id)
        except StoreError:  # its pictures were deleted meanwhile
            continue
        if all(candidate.deleted_at is None for candidate in comparison.candidates):
            asked.append(Question(comparison_id=comparison.id, lease_id=None, candidates=tuple(comparison.candidates)))
    return asked


def decide(store: Store, judging: Judging, annotator_id: str, answer: Mapping[str, Any]) -> tuple[Judging, Pick]:
    """Keep an answer as the page sends it; on the disk when this returns. The same `request` again changes nothing.

    Raises:
        StoreError, ValueError: the answer does not fit the question, or its pictures are gone.
    """
    reasons = [str(reason) for reason in answer.get("reasons") or ()]
    unknown = set(reasons) - set(REASONS)
    if unknown:
        raise ValueError(f"Reasons {sorted(unknown)} are not known; known are {', '.join(REASONS)}.")
    latency = answer.get("latency")
    pick = store.picks.save(
        NewPick(
            request_id=str(answer["request"])[:100],
            comparison_id=str(answer["comparison"]),
            annotator_id=annotator_id,
            outcome=Outcome(answer["outcome"]),
            shown=[str(one) for one in answer.get("shown") or ()],
            ranking=answer.get("ranking"),
            reasons=reasons,
            note=str(answer.get("note") or "")[:LONGEST_NOTE],
            latency_ms=None if latency is None else max(0, min(int(latency), 2**31 - 1)),
            lease_id=answer.get("lease"),
        )
    )
    return _marked_done(judging, pick.comparison_id), pick


def skip(store: Store, judging: Judging, annotator_id: str, answer: Mapping[str, Any]) -> Judging:
    """Leave a question to others."""
    if answer.get("lease") is not None:
        store.sessions.skip(str(answer["lease"]), annotator_id)
        return judging
    return _marked_done(judging, str(answer["comparison"]))


def undo(store: Store, judging: Judging, annotator_id: str) -> tuple[Judging, bool]:
    """Take the last answer or skip back and ask again; False when there was none."""
    if judging.session is not None:
        return judging, store.sessions.undo(judging.session, annotator_id) is not None
    done = [*_judged(store, judging, annotator_id), *judging.done]
    if not done:
        return judging, False
    last = done[-1]
    pick = _standing_pick(store, last, annotator_id)
    if pick is not None:
        store.picks.undo(pick.id)
    return replace(judging, done=tuple(one for one in judging.done if one != last)), True


def of_adapters(store: Store, judging: Judging) -> bool:
    """Whether the line-up compares two adapters, and has something left."""
    for comparison_id in judging.lineup:
        try:
            return store.comparisons.get(comparison_id).kind is ComparisonKind.ADAPTER
        except StoreError:  # its pictures were deleted meanwhile
            continue
    return False


def answered(store: Store, judging: Judging, annotator_id: str) -> set[str]:
    """Those of the line-up that were judged or skipped."""
    return {*_judged(store, judging, annotator_id), *judging.done}


def _judged(store: Store, judging: Judging, annotator_id: str) -> list[str]:
    """Judged comparisons of the line-up, newest last. The database knows them even where the browser forgot."""
    picks = [(_standing_pick(store, one, annotator_id), one) for one in judging.lineup]
    return [one for _, one in sorted((pick.id, one) for pick, one in picks if pick is not None)]


def line_up(store: Store, generations: Sequence[Generation], author_id: str, *, blind: bool = True) -> list[str]:
    """Comparisons of everything these generations show, made where they are missing.

    The sides of an A/B run meet seed by seed; candidates of one generation are ranked up to four at a time. Where the
    author has seen the evidence (`blind` False), what they judged before that stays, and the rest is asked with open
    eyes.
    """
    lineup = []
    for kind, group in _groups(generations):
        ids = [candidate.id for candidate in group]
        judged = None if blind else _judged_blind(store, ids, author_id)
        lineup.append(judged or comparison_of(store, ids, kind=kind, blind=blind, author_id=author_id))
    return lineup


def comparison_of(
    store: Store,
    candidate_ids: Sequence[str],
    *,
    kind: ComparisonKind = ComparisonKind.GENERATION,
    blind: bool = True,
    author_id: str | None = None,
) -> str:
    """The comparison of exactly these candidates; made where it is missing."""
    known = _known(store, candidate_ids, blind=blind)
    if known is not None:
        return known
    return store.comparisons.create(candidate_ids, kind=kind, blind=blind, created_by=author_id).id


def _known(store: Store, candidate_ids: Sequence[str], *, blind: bool) -> str | None:
    first = store.generations.candidate(candidate_ids[0])
    for known in store.comparisons.of_generation(first.generation_id):
        same = {candidate.id for candidate in known.candidates} == set(candidate_ids)
        if same and known.blind is blind and known.gold_winner_id is None:
            return known.id
    return None


def _judged_blind(store: Store, candidate_ids: Sequence[str], annotator_id: str) -> str | None:
    known = _known(store, candidate_ids, blind=True)
    return known if known is not None and _standing_pick(store, known, annotator_id) is not None else None


def known_answers(store: Store, annotator_id: str, count: int) -> list[str]:
    """Gold comparisons from the annotator's newest blind picks with one winner; made where they are missing."""
    made: list[str] = []
    if count < 1:
        return made
    for pick in store.picks.latest(annotator_id=annotator_id, limit=4 * count):
        if len(made) == count:
            break
        comparison = pick.comparison
        if pick.standing is not Standing.COUNTED or pick.winner_id is None or not comparison.blind:
            continue
        made.append(_gold(store, comparison, pick.winner_id) or _make_gold(store, comparison, pick, annotator_id))
    return made


def _gold(store: Store, comparison: Comparison, winner_id: str) -> str | None:
    ids = {candidate.id for candidate in comparison.candidates}
    for other in store.comparisons.of_generation(comparison.candidates[0].generation_id):
        if other.gold_winner_id == winner_id and {candidate.id for candidate in other.candidates} == ids:
            return other.id
    return None


def _make_gold(store: Store, comparison: Comparison, pick: Pick, annotator_id: str) -> str:
    return store.comparisons.create(
        [candidate.id for candidate in comparison.candidates],
        kind=ComparisonKind.GOLD,
        gold_winner_id=pick.winner_id,
        created_by=annotator_id,
    ).id


def _groups(generations: Sequence[Generation]) -> list[tuple[ComparisonKind, list[Candidate]]]:
    shown = [[one for one in row.candidates if one.deleted_at is None] for row in generations]
    if len(generations) > 1:
        everything = sorted((one for side in shown for one in side), key=lambda one: one.seed)
        by_seed = (list(same) for _, same in groupby(everything, key=lambda one: one.seed))
        return [(ComparisonKind.AB, same) for same in by_seed if 2 <= len(same) <= MOST_AT_ONCE]
    groups = []
    for side in shown:
        if len(side) < 2:
            continue
        # As even as possible, so that nobody is left alone: five become two and three.
        parts = math.ceil(len(side) / MOST_AT_ONCE)
        edges = [part * len(side) // parts for part in range(parts + 1)]
        groups += [(ComparisonKind.GENERATION, side[start:end]) for start, end in pairwise(edges)]
    return groups


def _standing_pick(store: Store, comparison_id: str, annotator_id: str) -> Pick | None:
    for pick in store.picks.of_comparison(comparison_id):
        if pick.annotator_id == annotator_id and pick.standing is not Standing.SUPERSEDED:
            return pick
    return None


def _marked_done(judging: Judging, comparison_id: str) -> Judging:
    if comparison_id not in judging.lineup:
        return judging
    others = tuple(known for known in judging.done if known != comparison_id)
    return replace(judging, done=(*others, comparison_id))


def _ids(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        return ()
    return tuple(value for value in values if isinstance(value, str) and len(value) == 32)
