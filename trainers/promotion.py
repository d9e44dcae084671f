"""Whether a new adapter takes the place of the current one.

Both make pictures of the same held-out cases from the same seeds. What counts is the change of each metric, case by
case, with a bootstrap interval over the cases: the pictures of one case share people and prompt, so cases are what was
sampled, not pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from core.prompts import Task
from studio.store.models import AdapterState

CONFIDENCE = 0.95
RESAMPLES = 10_000
FEWEST_CASES = 6
"""Of fewer, all rise by chance more often than an interval of 95 % may be wrong: 2 ** -5 is above 0.025."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """label: as people read it. higher_is_better: which way is better.

    smallest_gain: of a target, what its whole interval has to lie beyond. The same seeds before and after show any
        drift, that of training on random picks too.
    """

    label: str
    higher_is_better: bool = True
    smallest_gain: float = 0.0


METRICS = {
    "face_sim": Metric(label="FaceSim", smallest_gain=0.005),
    "coverage": Metric(label="Coverage"),
    "duplicates": Metric(label="Duplicates", higher_is_better=False),
    "count_correct": Metric(label="Right number of faces"),
    "aesthetic": Metric(label="Aesthetics"),
    "child_face_sim": Metric(label="FaceSim as children", smallest_gain=0.005),
    "child_coverage": Metric(label="Coverage as children"),
    "child_age_error": Metric(label="Years away from a child's age", higher_is_better=False, smallest_gain=0.5),
    "child_aesthetic": Metric(label="Aesthetics as children"),
}
"""What is measured on held-out cases, in the order of the table; those of the age task begin with `child`."""
TARGETS = {Task.GROUP: ("face_sim",), Task.CHILD: ("child_face_sim", "child_age_error")}
"""What a round has to improve, by the task of the pictures that were judged: one of these; nothing at all must get
worse."""

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

    @property
    def beyond_drift(self) -> bool:
        """Whether the whole interval lies further on the better side than training on random picks goes."""
        metric = METRICS[self.metric]
        return self.better and (self.low if metric.higher_is_better else -self.high) > metric.smallest_gain

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


def decide(found: Sequence[Change], tasks: Collection[Task] = (Task.GROUP,)) -> Verdict:
    """What the changes say of an adapter that was trained on picks of these tasks.

    Promoted: a target of the tasks improved beyond drift, and no metric's interval lies on its worse side. Rejected:
    some metric's does. Candidate: everything else, also where no target could be measured; people may promote it with a
    note.
    """
    targets = [change for change in found if any(change.metric in TARGETS[task] for task in tasks)]
    worse = [change for change in found if change.worse]
    if worse:
        return Verdict(state=AdapterState.REJECTED, reason=f"Worse on held-out people: {_listed(worse)}.")
    if not targets:
        return Verdict(
            state=AdapterState.CANDIDATE,
            reason="FaceSim could not be measured (is there a face pack?), so nothing says that it is better.",
        )
    gains = [change for change in targets if change.beyond_drift]
    if gains:
        return Verdict(
            state=AdapterState.PROMOTED,
            reason=f"{_listed(gains)} on {gains[0].cases} held-out cases, and nothing measured got worse.",
        )
    return Verdict(
        state=AdapterState.CANDIDATE,
        reason=f"{_listed(targets)} on held-out cases could be chance or drift, so the current adapter stays.",
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
