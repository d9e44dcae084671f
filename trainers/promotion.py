"""Whether a new adapter takes the place of the current one.

Both make pictures of the same held-out cases from the same seeds. What counts is the change of each metric, case by
case, with a bootstrap interval over the cases: the pictures of one case share people and prompt, so cases are what was
sampled, not pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from studio.store.models import AdapterState

CONFIDENCE = 0.95
RESAMPLES = 10_000
FEWEST_CASES = 6
"""Of fewer, all rise by chance more often than an interval of 95 % may be wrong: 2 ** -5 is above 0.025."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """label: as people read it. higher_is_better: which way is better."""

    label: str
    higher_is_better: bool = True


METRICS = {
    "face_sim": Metric(label="FaceSim"),
    "coverage": Metric(label="Coverage"),
    "duplicates": Metric(label="Duplicates", higher_is_better=False),
    "count_correct": Metric(label="Right number of faces"),
    "aesthetic": Metric(label="Aesthetics"),
    "child_face_sim": Metric(label="FaceSim as children"),
    "child_coverage": Metric(label="Coverage as children"),
    "child_age_error": Metric(label="Years away from a child's age", higher_is_better=False),
    "child_aesthetic": Metric(label="Aesthetics as children"),
}
"""What is measured on held-out cases, in the order of the table; those of the age task begin with `child`."""
TARGET = "face_sim"
"""What a round has to improve; all others must not get worse."""

SMALLEST_GAIN = 0.005
"""What the target's whole interval has to lie above. The same seeds before and after show any drift, that of training
on random picks too: it raised FaceSim by 0.004 and 0.010, with intervals from 0.001 on."""

CaseValues = Mapping[str, Mapping[str, float]]
"""Case -> metric -> mean over its pictures. What could not be measured is left out."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a metric differs between two adapters.

    cases: how many have the metric on both sides. before, after: means over them.
    difference: after - before; low, high: ends of its bootstrap interval, None with fewer than FEWEST_CASES.
    """

    metric: str
    cases: int
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None

    @property
    def label(self) -> str:
        return METRICS[self.metric].label

    @property
    def better(self) -> bool:
        """Whether the whole interval lies on the better side of no change."""
        return self.low is not None and (self.low > 0 if METRICS[self.metric].higher_is_better else self.high < 0)

    @property
    def worse(self) -> bool:
        """Whether the whole interval lies on the worse side of no change."""
        return self.low is not None and (self.high < 0 if METRICS[self.metric].higher_is_better else self.low > 0)

    def __str__(self) -> str:
        interval = "" if self.low is None else f" ({self.low:+.3f} to {self.high:+.3f})"
        return f"{self.label} {self.difference:+.3f}{interval}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of an adapter, and the sentence why."""

    state: AdapterState
    reason: str


def changes(before: CaseValues, after: CaseValues, *, seed: int = 0) -> list[Change]:
    """The change of every metric that both sides have, in the order of METRICS."""
    found = []
    for metric in METRICS:
        cases = [case for case in before if metric in before[case] and metric in after.get(case, {})]
        if cases:
            old, new = (np.array([values[case][metric] for case in cases]) for values in (before, after))
            low, high = _interval(new - old, seed)
            found.append(
                Change(
                    metric=metric,
                    cases=len(cases),
                    before=float(old.mean()),
                    after=float(new.mean()),
                    difference=float((new - old).mean()),
                    low=low,
                    high=high,
                )
            )
    return found


def decide(found: Sequence[Change]) -> Verdict:
    """Promoted: the target's interval lies above SMALLEST_GAIN, and no metric's lies on its worse side.

    Rejected: some metric's interval lies on its worse side. Candidate: everything else, also where the target could not
    be measured; people may promote it with a note.
    """
    target = next((change for change in found if change.metric == TARGET), None)
    worse = [change for change in found if change.worse]
    if worse:
        return Verdict(state=AdapterState.REJECTED, reason=f"Worse on held-out people: {_listed(worse)}.")
    if target is None:
        return Verdict(
            state=AdapterState.CANDIDATE,
            reason="FaceSim could not be measured (is there a face pack?), so nothing says that it is better.",
        )
    if target.better and target.low > SMALLEST_GAIN:
        return Verdict(
            state=AdapterState.PROMOTED,
            reason=f"{target} on {target.cases} held-out cases, and nothing measured got worse.",
        )
    return Verdict(
        state=AdapterState.CANDIDATE,
        reason=f"{target} on {target.cases} held-out cases could be chance or drift, so the current adapter stays.",
    )


def _interval(differences: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    if len(differences) < FEWEST_CASES:
        return None, None
    found = bootstrap(
        (differences,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _listed(found: Sequence[Change]) -> str:
    return ", ".join(str(change) for change in found)
