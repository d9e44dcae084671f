"""How far to trust labels: agreement between people and intervals around shares. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its sample size and 95 % Wilson interval; all three None when nothing was counted."""

    hits: float
    """Ties may count half."""
    total: int
    value: float | None
    low: float | None
    high: float | None


def wilson_share(hits: float, total: int) -> Share:
    """`hits` of `total`, with the Wilson score interval (Wilson 1927, without continuity correction)."""
    if not 0 <= hits <= total:
        raise ValueError(f"{hits} hits of {total}: hits must lie between 0 and the total")
    if total == 0:
        return Share(hits=hits, total=total, value=None, low=None, high=None)
    value = hits / total
    spread = Z_95**2 / total
    center = (value + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(value * (1 - value) / total + spread / (4 * total))
    return Share(hits=hits, total=total, value=value, low=max(0.0, center - half), high=min(1.0, center + half))


def krippendorff_alpha(units: Iterable[tuple[Sequence[int], int]]) -> float | None:
    """Krippendorff's alpha for nominal labels (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

    `units`: (how many people chose each category, how many units look like that). Units with fewer than two labels
    cannot be paired and are left out. 1 is perfect agreement, 0 is chance. None when nothing can be paired or only
    one category was ever used: then there is no disagreement to expect.
    """
    labels = 0
    observed = 0.0
    per_category: list[int] = []
    for counts, multiplicity in units:
        judges = sum(counts)
        if judges < 2:
            continue
        per_category.extend([0] * (len(counts) - len(per_category)))
        for category, count in enumerate(counts):
            per_category[category] += multiplicity * count
        labels += multiplicity * judges
        observed += multiplicity * sum(count * (judges - count) for count in counts) / (judges - 1)
    expected = sum(count * (labels - count) for count in per_category)
    if expected == 0:
        return None
    return 1 - (labels - 1) * observed / expected
