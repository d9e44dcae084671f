"""Insights against the same numbers counted in plain Python from every pick."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import datetime

import pytest
import sqlalchemy as sa

from studio.store import NewAdapter
from studio.store.agreement import wilson_share
from studio.store.models import Pick, Standing
from tests.studio.conftest import opened
from tests.studio.store_samples import add_comparison, add_generation, new_pick

SCHEDULES = ("off", "constant", "anneal-hold-0.4", "anneal-ramp-0.2", "gate-0.3-0.6", "gate-0.2-0.5")


@pytest.fixture(scope="module")
def busy(place_in, tmp_path_factory):
    """A store with some 60 picks of every kind by three people; tests only look at it."""
    with place_in(tmp_path_factory.mktemp("insights") / "data") as place, opened(place) as store:
        fill(store)
        yield store


def fill(store):
    rng = random.Random(5)
    adapters = [
        None,
        *(
            store.adapters.add(
                NewAdapter(name=name, media_sha256=store.media.add(name.encode(), ".safetensors")), bundle="mini"
            ).id
            for name in ("first", "second")
        ),
    ]
    people = [store.people.annotator(name).id for name in ("Ada", "Bob", "Cleo")]
    generations = [
        add_generation(store, schedule=SCHEDULES[number % len(SCHEDULES)], adapter_id=rng.choice(adapters))
        for number in range(10)
    ]
    pool = [candidate.id for generation in generations for candidate in generation.candidates]
    session = store.sessions.create("Evening", overlap=2, repeat_share=0.2, gold_share=0.1)
    comparisons = [
        store.comparisons.create(rng.sample(pool, rng.choice((2, 2, 2, 3))), blind=rng.random() < 0.9)
        for _ in range(22)
    ]
    good, bad = pool[:2]
    gold = store.comparisons.create([good, bad], kind="gold", gold_winner_id=good)
    store.sessions.add(session.id, [comparison.id for comparison in (*comparisons, gold)])
    while any(claims := [store.sessions.claim(session.id, who, count=1) for who in people]):
        for who, assignments in zip(people, claims, strict=True):
            for assignment in assignments:
                shown = list(assignment.shown)
                answer = {"outcome": rng.choice(("left", "left", "right", "tie", "both_bad"))}
                if len(shown) > 2:
                    rng.shuffle(shown)
                    answer = {"outcome": "ranking", "ranking": [shown[:1], shown[1:]]}
                store.picks.save(new_pick(assignment.comparison, who, lease_id=assignment.lease_id, **answer))
                if rng.random() < 0.1:
                    store.picks.undo_last(who)


def every_pick(store):
    return store.picks.standing(limit=1000)


def expected_rates(store, label):
    hits, totals = Counter(), Counter()
    for pick in every_pick(store):
        if pick.standing is not Standing.COUNTED or not pick.comparison.blind:
            continue
        by_id = {candidate.id: candidate.generation for candidate in pick.comparison.candidates}
        for i, left in enumerate(pick.shown):
            for right in pick.shown[i + 1 :]:
                one, other = label(by_id[left]), label(by_id[right])
                if one == other:
                    continue
                score = 0.5
                if pick.outcome == "ranking":
                    place = {candidate: k for k, group in enumerate(pick.ranking) for candidate in group}
                    score = 0.5 if place[left] == place[right] else float(place[left] < place[right])
                elif pick.winner_id is not None:
                    score = float(pick.winner_id == left)
                hits[one] += score
                hits[other] += 1 - score
                totals.update((one, other))
    return {name: wilson_share(hits[name], totals[name]) for name in totals}


def as_dict(rates):
    return {rate.label: rate.share for rate in rates}


def test_win_rates(busy):
    by_schedule = expected_rates(busy, lambda generation: generation.schedule)
    assert len(by_schedule) > 3
    assert as_dict(busy.insights.win_rates_by_schedule()) == by_schedule
    assert as_dict(busy.insights.win_rates_by_mode()) == expected_rates(busy, lambda g: g.schedule.split("-")[0])
    by_adapter = expected_rates(busy, lambda generation: generation.adapter_id or "base")
    assert as_dict(busy.insights.win_rates_by_adapter()) == by_adapter
    gates = {(cell.start, cell.end): cell.share for cell in busy.insights.gate_windows()}
    assert gates == {(0.3, 0.6): by_schedule["gate-0.3-0.6"], (0.2, 0.5): by_schedule["gate-0.2-0.5"]}
    points = {(point.form, point.threshold): point.share for point in busy.insights.thresholds()}
    assert points == {("hold", 0.4): by_schedule["anneal-hold-0.4"], ("ramp", 0.2): by_schedule["anneal-ramp-0.2"]}


def test_one_adapter_against_another_adds_up(busy):
    rates, duels = as_dict(busy.insights.win_rates_by_adapter()), busy.insights.adapter_duels()
    assert {one for one, _ in duels} == {None if label == "base" else label for label in rates}
    for adapter_id, rate in rates.items():
        mine = [share for (one, _), share in duels.items() if (one or "base") == adapter_id]
        assert sum(share.total for share in mine) == rate.total
        assert sum(share.hits for share in mine) == rate.hits
    for (one, other), share in duels.items():
        assert duels[other, one].total == share.total
        assert duels[other, one].hits == share.total - share.hits


def test_agreement_counts_what_two_people_judged(busy):
    labels = defaultdict(list)
    for pick in every_pick(busy):
        if pick.standing is Standing.COUNTED:
            labels[pick.comparison_id].append(pick.choice)
    shared = [row for row in labels.values() if len(row) > 1]
    found = busy.insights.agreement()
    assert (found.comparisons, found.picks) == (len(shared), sum(map(len, shared)))
    pool = [label for row in shared for label in row]
    disagree = sum(row[0] != row[1] for row in shared) * 2
    expected = sum(a != b for i, a in enumerate(pool) for j, b in enumerate(pool) if i != j)
    assert found.alpha == pytest.approx(1 - (len(pool) - 1) * disagree / expected)
    session_id = busy.sessions.list()[0].id
    assert busy.insights.agreement(session_id) == found


def test_self_consistency(busy):
    picks = every_pick(busy)
    first = {(p.comparison_id, p.annotator_id): p.choice for p in picks if p.standing is Standing.COUNTED}
    repeats = [p for p in picks if p.standing is Standing.REPEAT and (p.comparison_id, p.annotator_id) in first]
    same = sum(first[p.comparison_id, p.annotator_id] == p.choice for p in repeats)
    assert len(repeats) > 2
    assert busy.insights.self_consistency() == wilson_share(same, len(repeats))
    of_people = [busy.insights.self_consistency(row.annotator.id) for row in busy.insights.annotators()]
    assert sum(share.total for share in of_people) == len(repeats)


def test_position_bias(busy):
    counted = [p for p in every_pick(busy) if p.standing is Standing.COUNTED and p.winner_id is not None]
    wins = Counter((p.size, p.shown.index(p.winner_id)) for p in counted)
    sizes = Counter(p.size for p in counted)
    found = {(row.size, row.position): row.share for row in busy.insights.position_bias()}
    assert found == {
        (size, position): wilson_share(wins[size, position], sizes[size]) for size in sizes for position in range(size)
    }


def test_overview_and_people(busy):
    picks = every_pick(busy)
    standings = Counter(pick.standing for pick in picks)
    overview = busy.insights.overview()
    assert (overview.picks, overview.gold, overview.repeats) == (
        standings[Standing.COUNTED],
        standings[Standing.GOLD],
        standings[Standing.REPEAT],
    )
    assert overview.superseded > 0
    assert (overview.annotators, overview.candidates) == (3, 20)
    people = busy.insights.annotators()
    assert sum(row.picks for row in people) == overview.picks
    gold = [pick for pick in picks if pick.standing is Standing.GOLD]
    right = sum(pick.winner_id == pick.comparison.gold_winner_id for pick in gold)
    assert sum(row.gold.total for row in people) == len(gold) > 0
    assert sum(row.gold.hits for row in people) == right
    assert sum(count for _, count in busy.insights.picks_per_day()) == overview.picks


def test_picks_per_day_are_days_in_utc(store):
    ada = store.people.annotator("Ada").id
    for day in ("2026-03-01", "2026-03-01", "2026-03-04"):
        pick = store.picks.save(new_pick(add_comparison(store), ada))
        with store.database.write() as session:
            moment = datetime.fromisoformat(f"{day}T23:59:59+00:00")
            session.execute(sa.update(Pick).where(Pick.id == pick.id).values(created_at=moment))
    assert [(day.isoformat(), count) for day, count in store.insights.picks_per_day()] == [
        ("2026-03-01", 2),
        ("2026-03-04", 1),
    ]


def test_the_scatter_has_only_what_was_measured(store):
    first, _ = add_generation(store).candidates
    store.generations.save_metrics(first.id, aesthetic=5.0)
    (point,) = store.insights.measured()
    assert (point.candidate_id, point.face_sim, point.aesthetic) == (first.id, 0.5, 5.0)


def test_an_empty_studio_has_empty_insights(store):
    insights = store.insights
    assert (
        insights.picks_per_day() == insights.win_rates_by_mode() == insights.gate_windows() == insights.measured() == []
    )
    assert insights.agreement().alpha is None
    assert insights.self_consistency().value is None
    assert insights.position_bias() == insights.annotators() == []
    assert insights.overview().picks == 0
