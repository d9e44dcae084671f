"""Which pairs are trained on: votes that agree, and differences that the metrics see (IdGlow 3.4.3, eq. 8 and 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TIE = "tie: nobody was preferred"
BOTH_BAD = "both bad: neither is worth learning from"
NO_METRICS = "nothing could be measured on both pictures"


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What one pick says of one pair of pictures.

    winner: 0 or 1, which of the two it prefers; None for a tie or both bad. time: sorts votes, oldest first.
    """

    annotator: str
    time: str
    winner: int | None
    both_bad: bool = False


def settle(votes: Sequence[Vote]) -> list[str]:
    """The reason to drop each vote on one pair of pictures; "" for the one vote, if any, that stands for all.

    The rule: of each annotator the newest vote counts. Ties and both-bad prefer nobody. Where more annotators prefer
    one side than the other, the newest of their votes makes the pair; where equally many do, there is no pair.
    """
    newest = {vote.annotator: vote for vote in sorted(votes, key=lambda vote: vote.time)}
    counts = [sum(vote.winner == side for vote in newest.values()) for side in (0, 1)]
    winner = None if counts[0] == counts[1] else int(counts[1] > counts[0])
    standing = [vote for vote in newest.values() if vote.winner is not None and vote.winner == winner]
    chosen = max(standing, key=lambda vote: vote.time, default=None)
    reasons = []
    for vote in votes:
        if vote is chosen:
            reasons.append("")
        elif vote is not newest[vote.annotator]:
            reasons.append("the same annotator decided anew later")
        elif vote.winner is None:
            reasons.append(BOTH_BAD if vote.both_bad else TIE)
        elif winner is None:
            reasons.append(f"annotators contradict each other {counts[0]} to {counts[1]}")
        elif vote.winner == winner:
            reasons.append("duplicate: another annotator said the same")
        else:
            reasons.append(f"outvoted {counts[winner]} to {counts[1 - winner]}")
    return reasons


def objection(deltas: Mapping[str, float], thresholds: Mapping[str, float]) -> str:
    """Why the metrics do not let a pair pass, "" where they do (eq. 9).

    A pair passes when some delta_k exceeds its threshold tau_k and none is below -tau_k. Metrics that are absent, or
    have no threshold, say nothing.
    """
    known = {name: delta for name, delta in deltas.items() if name in thresholds}
    if not known:
        return NO_METRICS
    against = {name: delta for name, delta in known.items() if delta < -thresholds[name]}
    if against:
        name = min(against, key=lambda k: against[k] / thresholds[k] if thresholds[k] else against[k])
        return f"{name} prefers the rejected picture"
    if not any(delta > thresholds[name] for name, delta in known.items()):
        return "no metric sees a difference"
    return ""
