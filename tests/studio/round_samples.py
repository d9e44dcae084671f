"""Rounds as a worker leaves them behind, made through the store: waiting, training, promoted, rejected, failed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from studio.store import NewAdapter, NewCandidate, NewGeneration, NewRoundPair, Store
from studio.store.models import Adapter, Generation, Purpose, Round, utc_now
from tests.studio.picture_bytes import png
from tests.studio.store_samples import add_generation, new_pick
from trainers.evaluation import Evaluation
from trainers.promotion import changes, decide

WORKER = "worker"


def add_picks(store: Store, count: int, *, bundle: str = "mini") -> None:
    """Counted picks of a bundle's pictures."""
    annotator = store.people.annotator("Ada")
    for number in range(count):
        generation = add_generation(store, bundle=bundle, content=[png(2 * number), png(2 * number + 1)])
        comparison = store.comparisons.create([candidate.id for candidate in generation.candidates])
        store.picks.save(new_pick(comparison, annotator.id, "left" if number % 2 else "right"))


def some_pairs(store: Store, kept: int = 4, dropped: int = 2) -> list[NewRoundPair]:
    """Pairs of the newest picks."""
    pairs = []
    for number, pick in enumerate(store.picks.latest(limit=kept + dropped)):
        winner = pick.winner_id
        chosen = next(one for one in pick.comparison.candidates if one.id == winner)
        rejected = next(one for one in pick.comparison.candidates if one.id != winner)
        pairs.append(
            NewRoundPair(
                origin="pick",
                chosen_sha256=chosen.media_sha256,
                rejected_sha256=rejected.media_sha256,
                chosen_candidate_id=chosen.id,
                rejected_candidate_id=rejected.id,
                generation_id=chosen.generation_id,
                pick_id=pick.id,
                kept=number < kept,
                drop_reason="" if number < kept else "annotators disagree",
            )
        )
    return pairs


def an_evaluation(change: float = 0.06, cases: int = 12) -> dict:
    """Evaluation as JSON: FaceSim changes by about `change`, the other metrics by chance or not at all."""
    before = {f"case {k}": _measures(k, 0.0) for k in range(cases)}
    after = {f"case {k}": _measures(k, change) for k in range(cases)}
    found = changes(before, after)
    return Evaluation(
        cases=cases,
        pictures=cases,
        steps=20,
        identity_guidance=1.0,
        face_pack="tiny",
        changes=tuple(found),
        picture_distance={"before": 0.0, "after": 0.031},
        verdict=decide(found),
    ).as_json()


def training_round(
    store: Store, *, bundle: str = "mini", steps: int = 60, of: int = 100, pairs: Sequence[NewRoundPair] = ()
) -> Round:
    """A round in the hands of a worker, with what it logged so far."""
    active = store.adapters.active(bundle)
    row = store.rounds.create(bundle, parent_adapter_id=active and active.id)
    store.rounds.claim(WORKER)
    store.rounds.advance(row.id, WORKER, "collecting")
    store.rounds.save_pairs(row.id, WORKER, pairs, snapshot_at=utc_now())
    store.rounds.advance(row.id, WORKER, "training")
    log(store, row.id, range(1, steps + 1))
    path = store.folder / "rounds" / row.id / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"step {step} of {of}\n" for step in range(1, steps + 1)))
    progress = {"step": steps, "steps": of, "seconds_left": 154.0}
    log_path = path.relative_to(store.folder).as_posix()
    store.rounds.heartbeat(row.id, WORKER, progress=progress, log_path=log_path)
    return store.rounds.get(row.id)


def log(store: Store, round_id: str, steps: range) -> None:
    """What training steps say of themselves."""
    store.rounds.log_steps(round_id, WORKER, {step: _logged(step) for step in steps})


def finished_round(
    store: Store,
    state: str = "promoted",
    *,
    name: str,
    bundle: str = "mini",
    change: float = 0.06,
    pairs: Sequence[NewRoundPair] = (),
    cases: int = 3,
    picture: int = 64,
) -> tuple[Round, Adapter]:
    """A round from queue to end, with its evaluation's pictures."""
    row = training_round(store, bundle=bundle, steps=100, pairs=pairs)
    store.rounds.advance(row.id, WORKER, "evaluating")
    for case in range(cases):
        for side, adapter_id in (("A", row.parent_adapter_id), ("B", None)):
            evaluated(store, row, case, side, adapter_id, picture)
    evaluation = an_evaluation(change)
    weights = store.media.add(f"weights of {name}".encode(), ".safetensors")
    adapter = store.rounds.finish(
        row.id,
        WORKER,
        state,
        message=evaluation["reason"],
        adapter=NewAdapter(name=name, media_sha256=weights, evaluation=evaluation),
        metrics=evaluation,
    )
    return store.rounds.get(row.id), adapter


def evaluated(store: Store, row: Round, case: int, side: str, adapter_id: str | None, picture: int) -> Generation:
    """One held-out case as one side's adapter shows it."""
    made = store.generations.create(
        NewGeneration(
            purpose=Purpose.EVALUATION,
            round_id=row.id,
            task="group",
            prompt=f"The person in image 1 stands left of the person in image 2, case {case}.",
            schedule="anneal-hold-0.4",
            strength=1.0,
            steps=20,
            guidance=1.0,
            identity_guidance=1.0,
            width=picture,
            height=picture,
            seeds=[7000 + case],
            bundle=row.bundle,
            adapter_id=adapter_id,
            options={"case": f"group {case}", "portraits": ["person-0.png", "person-1.png"]},
            ab_group=f"{row.number:016x}{case:016x}",
            ab_side=side,
        )
    )
    shown = png(1000 * row.number + 2 * case + (side == "B"), picture)
    candidate = NewCandidate(
        position=0,
        seed=7000 + case,
        media_sha256=store.media.add(shown, ".png"),
        width=picture,
        height=picture,
        face_report=face_report([0.4, 0.42] if side == "A" else [0.46, 0.48], picture),
        face_sim=0.41 if side == "A" else 0.47,
        coverage=1.0,
    )
    store.generations.start(made.id)
    store.generations.finish(made.id, [candidate])
    return store.generations.get(made.id)


def face_report(similarities: Sequence[float], side: int) -> dict:
    """Of a square picture in which everybody was found."""
    rows = [
        {
            "reference": k, "face": k, "similarity": similarity, "covered": True, "duplicated": False,
            "box": [8.0 + 20 * k, 8.0, 24.0 + 20 * k, 28.0],
        }
        for k, similarity in enumerate(similarities)
    ]  # fmt: skip
    return {
        "face_sim": sum(similarities) / len(rows), "coverage": 1.0, "duplicates": 0, "swaps": None,
        "face_count": len(rows), "count_correct": True, "threshold": 0.35, "pack": "tiny", "width": side,
        "height": side, "rows": rows,
    }  # fmt: skip


def _logged(step: int) -> Mapping[str, float]:
    wobble = math.sin(step * 1.7) / 10
    told = 1 - math.exp(-step / 40)
    return {
        "loss": 0.69 - 0.2 * told + wobble / 4,
        "d_w": -2e-4 * told + wobble * 1e-4,
        "d_l": 1e-4 * told - wobble * 1e-4,
        "implicit_accuracy": min(1.0, 0.5 + 0.3 * told + wobble),
        "rejected_only_share": max(0.0, 0.3 - 0.2 * told + wobble),
        "gradient_norm": 0.8 + wobble,
    }


def _measures(case: int, change: float) -> dict[str, float]:
    wobble = math.sin(case * 2.3 + change * 40) / 30
    values = {
        "face_sim": 0.42 + wobble + change,
        "coverage": 0.9 + wobble,
        "duplicates": 0.1 if case % 5 == 0 else 0.0,
        "count_correct": 1.0 if case % 4 else 0.5,
    }
    return values | ({"child_face_sim": 0.3 + wobble, "child_age_error": 4.0 - 10 * wobble} if case % 2 else {})
