"""The figures say their sample size, and are absent rather than empty."""

import json

from studio.panels.insights import figures_of, missing_html, summary_html
from studio.store import NewAdapter
from studio.store.models import new_id
from tests.studio.store_samples import add_generation, add_picture, new_pick

HOSTILE = "<img src=x onerror=alert(1)>"


def compare(store, left, right, outcome, annotator, **settings):
    """A blind pick between the sides of an A/B run with these schedules."""
    group = new_id()
    sides = [
        add_generation(store, candidates=1, schedule=schedule, ab_group=group, ab_side=side, **settings.get(side, {}))
        for side, schedule in (("A", left), ("B", right))
    ]
    shown = [side.candidates[0].id for side in sides]
    comparison = store.comparisons.create(shown)
    return store.picks.save(new_pick(comparison, annotator.id, outcome, shown=[c.id for c in comparison.candidates]))


def test_nothing_is_drawn_of_nothing(store):
    figures = figures_of(store)
    assert set(figures.values()) == {None}
    assert "aesthetic model" in missing_html(figures)


def test_win_rates_carry_their_counts(store):
    ada = store.people.annotator("Ada")
    adapter = store.adapters.add(NewAdapter(name="round-1", media_sha256=add_picture(store)), bundle="mini")
    for _ in range(3):
        compare(store, "gate-0.3-0.6", "anneal-hold-0.4", "tie", ada, B={"adapter_id": adapter.id})
    figures = figures_of(store)
    assert "n = 3" in figures["time"].layout.title.text
    assert list(figures["modes"].data[0].x) == ["anneal", "gate"]
    assert list(figures["modes"].data[0].y) == [0.5, 0.5]
    assert [note.text for note in figures["modes"].layout.annotations] == ["n = 3", "n = 3"]
    assert figures["gates"].data[0].text[0][0] == "50%<br>n = 3"
    assert list(figures["thresholds"].data[0].x) == [0.4]
    assert set(figures["adapters"].data[0].x) == {"base model", "round-1"}
    assert figures["positions"] is None  # ties have no winner
    assert figures["looks"] is None
    for figure in figures.values():
        assert figure is None or json.loads(figure.to_json())


def test_the_scatter_appears_with_its_measures(store):
    candidate = add_generation(store).candidates[0]
    store.generations.save_metrics(candidate.id, face_sim=0.6, aesthetic=5.0)
    points = figures_of(store)["looks"].data[0]
    assert (list(points.x), list(points.y)) == ([0.6], [5.0])


def test_the_summary_gives_sample_sizes_and_escapes_names(store):
    hostile = store.people.annotator(HOSTILE)
    pick = compare(store, "off", "constant", "left", hostile)
    other = store.people.annotator("Ada")
    store.picks.save(new_pick(store.comparisons.get(pick.comparison_id), other.id, "right"))
    html = summary_html(store.insights)
    assert HOSTILE not in html
    assert "agreement, 1 comparison<" in html
    assert "self-consistency, 0 repeats" in html
