"""A store with a little of everything, to send elsewhere and take back."""

from __future__ import annotations

from tests.studio.store_samples import add_generation, add_person, new_pick, png
from tests.studio.test_store_rounds import run_round

NAME = "=HYPERLINK(1)"
"""An annotator whom a spreadsheet would run."""


def fill(store):
    ada, bob = store.people.annotator("Ada").id, store.people.annotator(NAME).id
    _, portrait = add_person(store, content=png(100))
    one = add_generation(store, [portrait], content=[png(1), png(2)], prompt='image 1 laughs, "loudly"\n+cmd')
    three = add_generation(store, candidates=3, content=[png(n) for n in (3, 4, 5)], schedule="gate-0.3-0.6")
    pair = store.comparisons.create([c.id for c in one.candidates])
    triple = store.comparisons.create([c.id for c in three.candidates])
    session = store.sessions.create("Evening", guidelines="Look at the faces.")
    store.sessions.add(session.id, [pair.id])
    (assignment,) = store.sessions.claim(session.id, ada)
    store.picks.save(new_pick(pair, ada, lease_id=assignment.lease_id, reasons=["light"], note="-1+1", latency_ms=900))
    store.picks.save(new_pick(pair, bob, "tie"))
    a, b, c = (candidate.id for candidate in triple.candidates)
    store.picks.save(new_pick(triple, ada, "ranking", ranking=[[b], [a, c]]))
    store.picks.undo(store.picks.save(new_pick(triple, bob, "both_bad")).id)
    run_round(store)
    store.preferences.set("seen", True)


def pair_scores(store):
    scores = set()
    for pick in store.picks.counted():
        for pair in pick.pairs:
            left, right = sorted([(pair.left_id, pair.left_score), (pair.right_id, 1 - pair.left_score)])
            scores.add((left, right))
    return scores
