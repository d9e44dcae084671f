"""What the picks say: numbers for the plots, each with its sample size. Every method is one or two indexed queries."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date

from sqlalchemy import BigInteger, ColumnElement, and_, case, func, literal, select, union_all
from sqlalchemy.orm import aliased

from studio.store.agreement import Share, krippendorff_alpha, wilson_share
from studio.store.engine import Database
from studio.store.generations import SCHEDULE_MODES
from studio.store.models import (
    Annotator,
    Candidate,
    Comparison,
    Outcome,
    Pick,
    PickPair,
    Standing,
)

BASE = 512
"""More people than this never judge the same comparison; six digits of it fit into 64 bits."""
CATEGORIES = ("0", "1", "2", "3", Outcome.TIE.value, Outcome.BOTH_BAD.value)
"""Values of `Pick.choice`."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    picks: int
    """Those that count."""
    gold: int
    repeats: int
    superseded: int
    annotators: int
    candidates: int


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """How often pictures made one way were preferred to those made another way; ties count half."""

    label: str
    share: Share


@dataclass(frozen=True, kw_only=True)
class GateCell:
    """A gate window in the heat map."""

    start: float
    end: float
    share: Share


@dataclass(frozen=True, kw_only=True)
class ThresholdPoint:
    """An annealing threshold and its win rate."""

    form: str
    threshold: float
    share: Share


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A candidate in the scatter plot."""

    candidate_id: str
    face_sim: float
    aesthetic: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Krippendorff's alpha over comparisons that two or more people judged."""

    alpha: float | None
    comparisons: int
    picks: int


@dataclass(frozen=True, kw_only=True)
class PositionShare:
    """How often the winner stood at a position, among comparisons of `size` pictures that had one winner."""

    size: int
    position: int
    """0 is leftmost; without bias each position has a share of 1 / size."""
    share: Share


@dataclass(frozen=True, kw_only=True)
class AnnotatorQuality:
    annotator: Annotator
    picks: int
    gold: Share
    """Right answers on gold comparisons."""


class Insights:
    """Win rates use blind picks only, and only pairs that differ in what is compared."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def overview(self) -> Overview:
        with self._database.read() as session:
            standings = dict(session.execute(select(Pick.standing, func.count()).group_by(Pick.standing)).all())
            annotators = session.scalar(
                select(func.count(Annotator.id)).where(
                    select(Pick.id).where(Pick.annotator_id == Annotator.id).exists()
                )
            )
            candidates = session.scalar(select(func.count(Candidate.id)))
        return Overview(
            picks=standings.get(Standing.COUNTED, 0),
            gold=standings.get(Standing.GOLD, 0),
            repeats=standings.get(Standing.REPEAT, 0),
            superseded=standings.get(Standing.SUPERSEDED, 0),
            annotators=annotators or 0,
            candidates=candidates or 0,
        )

    def picks_per_day(self) -> list[tuple[date, int]]:
        """Counted picks by day (UTC), oldest first; days without picks are left out."""
        day = func.date(Pick.created_at)
        query = select(day, func.count()).where(Pick.standing == Standing.COUNTED).group_by(day).order_by(day)
        with self._database.read() as session:
            return [(_as_date(value), count) for value, count in session.execute(query)]

    def win_rates_by_mode(self) -> list[WinRate]:
        """By schedule mode: off, constant, anneal, gate."""
        # Three letters tell the modes apart, and every database can cut them off.
        left, right = (func.substr(column, 1, 3) for column in (PickPair.left_schedule, PickPair.right_schedule))
        modes = {mode[:3]: mode for mode in SCHEDULE_MODES}
        return [replace(rate, label=modes[rate.label]) for rate in self._win_rates(left, right)]

    def win_rates_by_schedule(self) -> list[WinRate]:
        """By exact schedule, such as `gate-0.3-0.6`."""
        return self._win_rates(PickPair.left_schedule, PickPair.right_schedule)

    def gate_windows(self) -> list[GateCell]:
        """Win rate of each gate window that met another schedule, for a heat map."""
        return [
            GateCell(start=float(parts[1]), end=float(parts[2]), share=rate.share)
            for rate in self.win_rates_by_schedule()
            if (parts := rate.label.split("-"))[0] == "gate"
        ]

    def thresholds(self) -> list[ThresholdPoint]:
        """Win rate of each annealing threshold that met another schedule."""
        return [
            ThresholdPoint(form=parts[1], threshold=float(parts[2]), share=rate.share)
            for rate in self.win_rates_by_schedule()
            if (parts := rate.label.split("-"))[0] == "anneal"
        ]

    def win_rates_by_adapter(self) -> list[WinRate]:
        """By adapter id; the base model has the label `base`."""
        return self._win_rates(PickPair.left_adapter_id, PickPair.right_adapter_id)

    def adapter_duels(self) -> dict[tuple[str | None, str | None], Share]:
        """(adapter, other adapter) -> how often the first was preferred in blind pairs; None is the base model."""
        here, there, score = PickPair.left_adapter_id, PickPair.right_adapter_id, PickPair.left_score
        query = (
            select(here, there, func.sum(score), func.count())
            .where(PickPair.blind.is_(True), here.is_distinct_from(there))
            .group_by(here, there)
        )
        hits: dict[tuple[str | None, str | None], float] = defaultdict(float)
        totals: dict[tuple[str | None, str | None], int] = defaultdict(int)
        with self._database.read() as session:
            for left, right, wins, total in session.execute(query):
                hits[left, right] += wins
                hits[right, left] += total - wins
                totals[left, right] += total
                totals[right, left] += total
        return {pair: wilson_share(hits[pair], total) for pair, total in totals.items()}

    def measured(self, *, limit: int = 2000) -> list[Measured]:
        """The newest candidates that have both a similarity and an aesthetic score."""
        query = (
            select(Candidate.id, Candidate.face_sim, Candidate.aesthetic)
            .where(Candidate.aesthetic.is_not(None), Candidate.face_sim.is_not(None))
            .order_by(Candidate.id.desc())
            .limit(limit)
        )
        with self._database.read() as session:
            return [
                Measured(candidate_id=row.id, face_sim=row.face_sim, aesthetic=row.aesthetic)
                for row in session.execute(query)
            ]

    def agreement(self, session_id: str | None = None) -> Agreement:
        """Agreement between annotators, in one session or in all; repeats, gold and superseded picks are left out."""
        # One number for each comparison: the count of every category is a digit of it. Comparisons that look alike are
        # then counted together, and one sum for each row is three times as fast as six.
        digits = {category: literal(BASE**place, BigInteger) for place, category in enumerate(CATEGORIES)}
        per_comparison = select(func.sum(case(digits, value=Pick.choice)).label("pattern"))
        per_comparison = per_comparison.where(Pick.standing == Standing.COUNTED)
        if session_id is not None:
            per_comparison = per_comparison.where(Pick.session_id == session_id)
        units = per_comparison.group_by(Pick.comparison_id).having(func.count() > 1).subquery()
        query = select(units.c.pattern, func.count()).group_by(units.c.pattern)
        with self._database.read() as session:
            patterns = [(_digits(int(pattern)), count) for pattern, count in session.execute(query)]
        return Agreement(
            alpha=krippendorff_alpha(patterns),
            comparisons=sum(count for _, count in patterns),
            picks=sum(sum(counts) * count for counts, count in patterns),
        )

    def self_consistency(self, annotator_id: str | None = None) -> Share:
        """How often people answered a repeated comparison, with its sides reversed, as the first time."""
        again, first = aliased(Pick), aliased(Pick)
        query = (
            select(func.count(), func.coalesce(func.sum(case((again.choice == first.choice, 1), else_=0)), 0))
            .select_from(again)
            .join(
                first,
                and_(
                    first.comparison_id == again.comparison_id,
                    first.annotator_id == again.annotator_id,
                    first.standing == Standing.COUNTED,
                ),
            )
            .where(again.standing == Standing.REPEAT)
        )
        if annotator_id is not None:
            query = query.where(again.annotator_id == annotator_id)
        with self._database.read() as session:
            total, same = session.execute(query).one()
        return wilson_share(same, total)

    def position_bias(self) -> list[PositionShare]:
        """Where winners stood on the screen, by the number of pictures shown; ties are left out."""
        query = (
            select(Pick.size, Pick.winner_position, func.count())
            .where(Pick.standing == Standing.COUNTED, Pick.winner_position.is_not(None))
            .group_by(Pick.size, Pick.winner_position)
        )
        with self._database.read() as session:
            counts = {(size, position): count for size, position, count in session.execute(query)}
        totals: dict[int, int] = defaultdict(int)
        for (size, _), count in counts.items():
            totals[size] += count
        return [
            PositionShare(
                size=size, position=position, share=wilson_share(counts.get((size, position), 0), totals[size])
            )
            for size in sorted(totals)
            for position in range(size)
        ]

    def annotators(self) -> list[AnnotatorQuality]:
        """Everybody who made picks that count, most first, with their answers on gold comparisons."""
        picks = select(Pick.annotator_id, func.count()).where(Pick.standing == Standing.COUNTED)
        gold = (
            select(
                Pick.annotator_id,
                func.count(),
                func.sum(case((Pick.winner_id == Comparison.gold_winner_id, 1), else_=0)),
            )
            .join(Pick.comparison)
            .where(Pick.standing == Standing.GOLD)
            .group_by(Pick.annotator_id)
        )
        with self._database.read() as session:
            made = dict(session.execute(picks.group_by(Pick.annotator_id)).all())
            right = {annotator_id: (hits, total) for annotator_id, total, hits in session.execute(gold)}
            people = session.scalars(select(Annotator).where(Annotator.id.in_({*made, *right}))).all()
        return sorted(
            (
                AnnotatorQuality(
                    annotator=person, picks=made.get(person.id, 0), gold=wilson_share(*right.get(person.id, (0, 0)))
                )
                for person in people
            ),
            key=lambda quality: -quality.picks,
        )

    def _win_rates(self, left: ColumnElement[str], right: ColumnElement[str]) -> list[WinRate]:
        """A win rate for each label over the blind pairs whose labels differ; equal labels say nothing.

        No label at all is the base model's.
        """
        sides = [
            select(label.label("label"), func.sum(score).label("hits"), func.count().label("total"))
            .where(PickPair.blind.is_(True), left.is_distinct_from(right))
            .group_by(label)
            for label, score in ((left, PickPair.left_score), (right, 1 - PickPair.left_score))
        ]
        both = union_all(*sides).subquery()
        query = select(both.c.label, func.sum(both.c.hits), func.sum(both.c.total)).group_by(both.c.label)
        with self._database.read() as session:
            rows = session.execute(query).all()
        rates = [WinRate(label=label or "base", share=wilson_share(hits, int(total))) for label, hits, total in rows]
        return sorted(rates, key=lambda rate: rate.label)


def _digits(pattern: int) -> tuple[int, ...]:
    return tuple(pattern // BASE**place % BASE for place in range(len(CATEGORIES)))


def _as_date(value: date | str) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value
