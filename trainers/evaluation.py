"""An adapter on held-out people: the same pictures before and after, and what changed.

The cases are those of `trainers.held_out`. Every picture is kept as a generation of the round with the purpose
`evaluation`, side `A` before and `B` after: people can look at them, and a killed evaluation goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.adapters import AdapterCard
from core.backbones.bundles import Bundle
from core.clip import installed_clip
from core.faces import FaceAnalyzer, FacePackError
from core.generate import Candidate, GenerationRequest, generate
from core.images import read_picture
from core.prompts import Task
from core.sampler import Cancel
from studio.store import NewCandidate, NewGeneration, Store
from studio.store.models import Generation, GenerationState, Purpose, Round
from trainers.held_out import Case
from trainers.promotion import CaseValues, Change, Verdict, changes, decide
from trainers.stored_pictures import keep_pictures

CHILD_AGE = 8
"""The age that the template of the age task asks for, in years."""
BEFORE, AFTER, BASE = "A", "B", "base"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the pictures of one side are made with. adapter: weights' file and card; None is the base model."""

    side: str
    adapter: tuple[Path, AdapterCard] | None
    adapter_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What changed on the held-out cases, and what follows.

    face_pack: that faces were measured with; None where there was none.
    steps, identity_guidance: that the pictures were made with.
    picture_distance: root mean square difference in [0, 1] from the base model's picture of the same seed, mean over
        all pictures; keys `before` and `after`.
    """

    cases: int
    pictures: int
    steps: int
    identity_guidance: float
    face_pack: str | None
    changes: tuple[Change, ...]
    picture_distance: dict[str, float]
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the store; each change with its label and whether it is for better or worse."""
        rows = [
            {**dataclasses.asdict(change), "label": change.label, "better": change.better, "worse": change.worse}
            for change in self.changes
        ]
        return {
            "cases": self.cases,
            "pictures": self.pictures,
            "steps": self.steps,
            "identity_guidance": self.identity_guidance,
            "face_pack": self.face_pack,
            "changes": rows,
            "picture_distance": self.picture_distance,
            "verdict": self.verdict.state.value,
            "reason": self.verdict.reason,
        }


def evaluate(
    store: Store,
    row: Round,
    bundle: Bundle,
    cases: Sequence[Case],
    *,
    before: tuple[str, tuple[Path, AdapterCard]] | None,
    after: tuple[Path, AdapterCard],
    tasks: Collection[Task],
    cancel: Cancel | None = None,
    on_case: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Make and measure the pictures that are not there yet, compare, decide.

    Args:
        before: id, and file and card, of the adapter that the round went out from; None for the base model.
        after: file and card of the new adapter, which has no id before the round has ended.
        tasks: of the pictures that it was trained on, which say what it has to improve.
        cancel: asked before every denoising step; then Cancelled is raised, and another call goes on.
        on_case: told the number of cases done, of all.

    Raises:
        AdapterError: an adapter cannot be loaded. Cancelled. StoreError.
    """
    # 1. Whose pictures: the base model's as well where the round went out from an adapter.
    policies = [Policy(side=BASE if before else BEFORE, adapter=None)]
    if before is not None:
        policies.append(Policy(side=BEFORE, adapter=before[1], adapter_id=before[0]))
    policies.append(Policy(side=AFTER, adapter=after))
    analyzer = _analyzer(bundle)
    total = len(policies) * len(cases)
    pictures = _Pictures(store, row, bundle, analyzer)
    pictures.forget_all_but(policies, cases)

    # 2. Pictures, one adapter after the other.
    made: dict[str, dict[str, Generation]] = {}
    for policy in policies:
        made[policy.side] = {}
        for case in cases:
            made[policy.side][case.name] = pictures.of(policy, case, cancel)
            if on_case is not None:
                on_case(sum(len(of_case) for of_case in made.values()), total)

    # 3. What changed.
    found = changes(_values(made[BEFORE], cases), _values(made[AFTER], cases))
    base = made.get(BASE, made[BEFORE])
    return Evaluation(
        cases=len(cases),
        pictures=sum(len(case.seeds) for case in cases),
        steps=cases[0].steps,
        identity_guidance=cases[0].identity_guidance,
        face_pack=analyzer and analyzer.name,
        changes=tuple(found),
        picture_distance={
            "before": _distance(store, base, made[BEFORE]),
            "after": _distance(store, base, made[AFTER]),
        },
        verdict=decide(found, tasks),
    )


class _Pictures:
    """The pictures of a round's evaluation: found in the store, copied from an earlier round, or made."""

    def __init__(self, store: Store, row: Round, bundle: Bundle, analyzer: FaceAnalyzer | None) -> None:
        self._store, self._round, self._bundle, self._analyzer = store, row, bundle, analyzer
        self._clip = installed_clip()
        self._here: dict[tuple[str, str], Generation] = {}

    def forget_all_but(self, policies: Sequence[Policy], cases: Sequence[Case]) -> None:
        """Find what is there already; delete what a kill left unfinished, or an adapter made that was trained again."""
        wanted = {(policy.side, self._key(policy, case)) for policy in policies for case in cases}
        stale = []
        for made in self._store.generations.of_round(self._round.id):
            place = made.ab_side, made.options.get("key")
            if made.purpose is Purpose.EVALUATION and (place not in wanted or made.state is not GenerationState.DONE):
                stale.append(made.id)
            elif made.purpose is Purpose.EVALUATION:
                self._here[place] = made
        if stale:
            self._store.deletions.delete_generations(stale)

    def of(self, policy: Policy, case: Case, cancel: Cancel | None) -> Generation:
        key = self._key(policy, case)
        here = self._here.get((policy.side, key))
        if here is not None:
            return here
        earlier = self._store.generations.evaluated(key)
        if earlier is not None:
            candidates = [_copy_of(candidate) for candidate in earlier.candidates]
        else:
            self._use(policy)
            request = GenerationRequest(
                prompt=case.prompt,
                portraits=case.portraits,
                task=case.task,
                seeds=case.seeds,
                schedule=case.schedule,
                identity_guidance=case.identity_guidance,
                steps=case.steps,
                expected_order=tuple(range(len(case.portraits))),
            )
            candidates = keep_pictures(
                self._store,
                generate(self._bundle, request, cancel=cancel),
                pack=self._analyzer.name if self._analyzer else "",
                metrics=self._metrics,
            )
        return self._save(policy, case, key, candidates)

    def _use(self, policy: Policy) -> None:
        adapters = self._bundle.adapters
        if policy.adapter is None:
            adapters.use(None)
        elif adapters.active is None or adapters.active.card.digest != policy.adapter[1].digest:
            adapters.swap(*policy.adapter)

    def _key(self, policy: Policy, case: Case) -> str:
        """Everything the pictures depend on: where it is the same, they are."""
        content = hashlib.sha256()
        for portrait in case.portraits:
            content.update(str(portrait.shape).encode() + np.ascontiguousarray(portrait).data)
        card = self._bundle.card
        parts = [
            self._bundle.revision, policy.adapter and policy.adapter[1].digest, self._analyzer and self._analyzer.name,
            self._clip and self._clip.aesthetic_name,
            case.task.value, case.prompt, list(case.seeds), str(case.schedule), case.steps,
            case.identity_guidance, card.guidance_of(case.task), card.guidance_above, card.width, card.height,
            content.hexdigest(),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _metrics(self, candidate: Candidate) -> dict[str, float]:
        """Looks and apparent age; only what the models here can tell."""
        metrics = {}
        looks = self._clip and self._clip.aesthetic(candidate.picture)
        if looks is not None:
            metrics["aesthetic"] = looks
        return metrics | apparent_age(candidate, self._analyzer)

    def _save(self, policy: Policy, case: Case, key: str, candidates: list[NewCandidate]) -> Generation:
        card = self._bundle.card
        made = self._store.generations.create(
            NewGeneration(
                purpose=Purpose.EVALUATION,
                round_id=self._round.id,
                task=case.task.value,
                prompt=case.prompt,
                schedule=str(case.schedule),
                strength=1.0,
                steps=case.steps,
                guidance=card.guidance_of(case.task),
                identity_guidance=case.identity_guidance,
                width=card.width,
                height=card.height,
                seeds=case.seeds,
                bundle=card.name,
                bundle_revision=self._bundle.revision,
                adapter_id=policy.adapter_id,
                options={"case": case.name, "key": key, "portraits": list(case.files)},
                # The same for both sides, also when one of them is made after a restart.
                ab_group=hashlib.sha256(f"{self._round.id} {case.name}".encode()).hexdigest()[:32],
                ab_side=policy.side,
            )
        )
        self._store.generations.finish(made.id, candidates)
        return self._store.generations.get(made.id)


def apparent_age(candidate: Candidate, analyzer: FaceAnalyzer | None) -> dict[str, float]:
    """`age`: mean apparent age in years of the faces that were matched; nothing where the pack cannot tell."""
    if candidate.faces is None or analyzer is None:
        return {}
    faces = analyzer.analyze(candidate.picture)
    ages = [faces[row.face].age for row in candidate.faces.rows if row.face is not None]
    return {"age": float(np.mean(ages))} if ages and None not in ages else {}


def measures_of(candidate: Any, task: Task) -> Iterator[tuple[str, float]]:
    """What was measured on a stored candidate: face_sim, coverage, in the age task age_error in years, ..."""
    report = candidate.face_report
    if report is not None:
        yield "face_sim", report["face_sim"]
        yield "coverage", report["coverage"]
        if task is Task.GROUP:
            yield "duplicates", float(report["duplicates"])
            yield "count_correct", float(report["count_correct"])
    if task is Task.CHILD and "age" in candidate.metrics:
        yield "age_error", abs(candidate.metrics["age"] - CHILD_AGE)
    if candidate.aesthetic is not None:
        yield "aesthetic", candidate.aesthetic


def _analyzer(bundle: Bundle) -> FaceAnalyzer | None:
    try:
        return bundle.face_analyzer
    except FacePackError:
        return None


def _copy_of(candidate: Any) -> NewCandidate:
    names = [field.name for field in dataclasses.fields(NewCandidate)]
    return NewCandidate(**{name: getattr(candidate, name) for name in names})


def _values(made: Mapping[str, Generation], cases: Sequence[Case]) -> CaseValues:
    values: dict[str, dict[str, float]] = {}
    for case in cases:
        prefix = "child_" if case.task is Task.CHILD else ""
        measured = [dict(measures_of(candidate, case.task)) for candidate in made[case.name].candidates]
        names = set.intersection(*(set(one) for one in measured))
        values[case.name] = {f"{prefix}{name}": float(np.mean([one[name] for one in measured])) for name in names}
    return values


def _distance(store: Store, base: Mapping[str, Generation], made: Mapping[str, Generation]) -> float:
    distances = []
    for name, generation in made.items():
        for one, other in zip(base[name].candidates, generation.candidates, strict=True):
            if one.media_sha256 == other.media_sha256:
                distances.append(0.0)
                continue
            first, second = (read_picture(store.media.path(c.media_sha256)).astype(np.float64) for c in (one, other))
            distances.append(float(np.sqrt(np.mean((first - second) ** 2)) / 255))
    return float(np.mean(distances))
