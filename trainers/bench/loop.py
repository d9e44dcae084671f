"""The whole loop without people: portraits, generations, simulated picks, a round, its evaluation, the next generation.

    python -m trainers.bench.loop --bundle mini --portraits assets/portraits --picks 40 --seeds 0 1 2 --out DIR

Picks are made by a stated rule, not by people, and are kept under a simulated annotator. Candidates are ordered by a
score to which noise is added: FaceSim, in the age task less YEAR for each year that the faces look away from the age
that was asked for. `--shuffled` tosses a coin instead; such a round must not be promoted. Compared are two candidates
of one generation, with `--ranked` its four at once, or, with `--other-guidance`, pictures of one seed, one made with
the identity guidance of `--guidance` and one with the other, as in an A/B run of the studio.
Every seed gets a data folder of its own under `--out`, which the studio can open. `report.json` and a picture of the
evaluation (before above after) say what came of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from core.backbones.bundles import Bundle
from core.faces import FacePackError
from core.generate import Candidate, GenerationRequest, generate
from core.images import read_picture
from core.portraits import largest_face
from core.prompts import Task, static_prompt
from studio.store import NewGeneration, NewPick, NewPortrait, Store
from studio.store.models import AnnotatorOrigin, Outcome, PortraitOrigin, Round, new_id
from trainers.evaluation import AFTER, BEFORE, apparent_age, measures_of
from trainers.held_out import PORTRAITS, SCENES, default_schedule, portrait_files
from trainers.round_config import Models
from trainers.stored_adapters import stored_adapter
from trainers.stored_pictures import keep_pictures
from trainers.worker import Worker

CANDIDATES = 4
"""Of one generation, judged two by two; in an A/B run half of them on each side."""
YEAR = 0.02
"""What a year away from the wanted age costs in FaceSim: both then spread alike over the candidates of a generation."""
SHEET_COLUMNS = 10


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What is run for each seed.

    portraits: folder, one picture of each person (as `trainers.held_out.portrait_files` reads it).
    picks: how many simulated decisions. noise: standard deviation added to each FaceSim before they are compared.
    shuffled: decisions by coin toss. config: settings of the round. steps: of denoising; None is the bundle's own.
    guidance: identity guidance, of side A where there are two; None is the bundle's own.
    other_guidance: of side B; None judges candidates of one generation.
    tasks: of the generations, in turn. ranked: the four candidates of a generation are one pick.
    """

    models: Models
    portraits: Path
    picks: int
    noise: float
    shuffled: bool
    people: int
    steps: int | None
    guidance: float | None
    other_guidance: float | None
    tasks: Sequence[Task]
    ranked: bool
    config: Mapping[str, Any]


def run_loop(loop: Loop, seed: int, folder: Path) -> dict[str, Any]:
    """Run the loop once in a new data folder; returns the report of the seed."""
    store = Store.open(folder)
    clock = _Clock()
    bundle = loop.models.load()
    people = _store_people(store, bundle, loop.portraits)
    _make_picks(store, bundle, people, loop, seed)
    del bundle
    clock.lap("generate")

    config = {**loop.config, "training": {**loop.config.get("training", {}), "seed": seed}}
    if loop.guidance is not None:
        config["evaluation"] = {"identity_guidance": loop.guidance, **loop.config.get("evaluation", {})}
    worker = Worker(store, loop.models, picks_per_round=store.picks.count(), config=config)
    if not worker.work_once():
        raise RuntimeError("No round began although the picks are there.")
    row = store.rounds.list()[0]
    clock.lap("round")

    bundle = loop.models.load()
    after = _next_generation(store, bundle, people, loop, seed)
    clock.lap("next")
    _sheet(store, row.id, folder / "before_after.png")
    report = _report(store, row, seed, loop, clock, after)
    store.close()
    return report


def _store_people(store: Store, bundle: Bundle, folder: Path) -> list[str]:
    """Portrait ids of everybody in whose picture a face was found."""
    analyzer = bundle.face_analyzer
    ids = []
    for path in portrait_files(folder):
        face = largest_face(analyzer.analyze(read_picture(path)))
        if face is None:
            logging.warning("No face was found in %s", path.name)
            continue
        sha256 = store.media.add_file(path)
        new = NewPortrait(
            picture_sha256=sha256,
            crop_sha256=sha256,
            box=[float(edge) for edge in face.box],
            landmarks=face.landmarks.tolist(),
            embedding=face.embedding,
            face_pack=analyzer.name,
            source_sha256=sha256,
            origin=PortraitOrigin.EXAMPLE,
        )
        ids.append(store.people.add_portrait(store.people.add_person(path.stem).id, new).id)
    if len(ids) < 2:
        raise SystemExit(f"error: faces were found in {len(ids)} portraits of {folder}; two people are needed.")
    return ids


def _make_picks(store: Store, bundle: Bundle, people: Sequence[str], loop: Loop, seed: int) -> None:
    chance = random.Random(seed)
    annotator = store.people.annotator("shuffled" if loop.shuffled else "higher score", AnnotatorOrigin.SIMULATED)
    number = made = 0
    while made < loop.picks:
        members = chance.sample(people, min(loop.people, len(people)))
        seeds = [1_000_000 * (seed + 1) + number * CANDIDATES + k for k in range(CANDIDATES)]
        scene, task = SCENES[number % len(SCENES)], loop.tasks[number % len(loop.tasks)]
        if loop.other_guidance is None:
            rows = _generate(store, bundle, task, members, scene, seeds, loop.steps, loop.guidance)
            shown = [rows] if loop.ranked else [rows[:2], rows[2:]]
        else:
            sides = [
                _generate(store, bundle, task, members, scene, seeds[: CANDIDATES // 2], loop.steps, guidance)
                for guidance in (loop.guidance, loop.other_guidance)
            ]
            shown = list(zip(*sides, strict=True))
        for candidates in shown:
            if made < loop.picks:
                _pick(store, task, candidates, annotator.id, loop, chance)
                made += 1
        number += 1
        print(f"\rseed {seed}: {made} of {loop.picks} picks", end="", flush=True)
    print()


def _generate(
    store: Store,
    bundle: Bundle,
    task: Task,
    members: Sequence[str],
    scene: str,
    seeds: Sequence[int],
    steps: int | None,
    identity_guidance: float | None,
) -> list[Any]:
    """Candidates as the studio makes them, with the adapter that is on the bundle."""
    card = bundle.card
    active = store.adapters.active(card.name)
    portraits = store.people.portraits(members)
    prompt = static_prompt(task, len(members), scene)
    schedule = default_schedule(task, card)
    made = store.generations.create(
        NewGeneration(
            task=task.value,
            prompt=prompt,
            schedule=str(schedule),
            strength=1.0,
            steps=steps or card.steps,
            guidance=card.guidance_of(task),
            identity_guidance=identity_guidance or card.identity_guidance,
            width=card.width,
            height=card.height,
            seeds=seeds,
            bundle=card.name,
            bundle_revision=bundle.revision,
            adapter_id=active and active.id,
            portrait_ids=members,
        )
    )
    store.generations.start(made.id)
    request = GenerationRequest(
        prompt=prompt,
        portraits=tuple(read_picture(store.media.path(one.picture_sha256)) for one in portraits),
        task=task,
        seeds=tuple(seeds),
        schedule=schedule,
        identity_guidance=identity_guidance,
        steps=steps,
        expected_order=tuple(range(len(members))),
    )
    candidates: list[Candidate] = generate(bundle, request)
    analyzer = bundle.face_analyzer
    kept = keep_pictures(store, candidates, pack=analyzer.name, metrics=lambda one: apparent_age(one, analyzer))
    return store.generations.finish(made.id, kept)


def _pick(
    store: Store, task: Task, candidates: Sequence[Any], annotator_id: str, loop: Loop, chance: random.Random
) -> None:
    """The stated rule: the higher score after noise first, or a coin."""
    values = {
        one.id: chance.random() if loop.shuffled else _score(one, task) + chance.gauss(0, loop.noise)
        for one in candidates
    }
    shown = list(values)
    best_first = sorted(shown, key=values.get, reverse=True)
    two = len(shown) == 2
    outcome = (Outcome.LEFT if best_first == shown else Outcome.RIGHT) if two else Outcome.RANKING
    store.picks.save(
        NewPick(
            request_id=new_id(),
            comparison_id=store.comparisons.create(shown).id,
            annotator_id=annotator_id,
            outcome=outcome,
            shown=shown,
            ranking=None if two else [[identifier] for identifier in best_first],
            note="simulated",
        )
    )


def _score(candidate: Any, task: Task) -> float:
    measures = dict(measures_of(candidate, task))
    return measures["face_sim"] - YEAR * measures.get("age_error", 0)


def _next_generation(store: Store, bundle: Bundle, people: Sequence[str], loop: Loop, seed: int) -> dict[str, Any]:
    """One more generation with what the studio uses now."""
    active = store.adapters.active(bundle.card.name)
    if active is not None:
        bundle.adapters.swap(*stored_adapter(store, active))
    members = random.Random(-seed - 1).sample(people, min(loop.people, len(people)))
    rows = _generate(store, bundle, loop.tasks[0], members, SCENES[0], [seed], loop.steps, loop.guidance)
    return {"adapter": "base model" if active is None else active.name, "face_sim": rows[0].face_sim}


def _report(store: Store, row: Round, seed: int, loop: Loop, clock: _Clock, after: Mapping[str, Any]) -> dict[str, Any]:
    adapters = store.adapters.list(bundle=row.bundle)
    steps = store.rounds.steps(row.id)
    return {
        "seed": seed,
        "picks": store.picks.count(),
        "picked_by": "coin toss (simulated)" if loop.shuffled else f"higher score, noise {loop.noise:g} (simulated)",
        "tasks": [task.value for task in loop.tasks],
        "compared": ("rankings of four" if loop.ranked else "one setting")
        if loop.other_guidance is None
        else f"identity guidance {loop.guidance or 'of the bundle'} against {loop.other_guidance:g}",
        "pairs": {
            "kept": len(store.rounds.pairs(row.id, kept=True)),
            "dropped": store.rounds.dropped(row.id),
        },
        "minutes": {name: round(seconds / 60, 2) for name, seconds in clock.seconds.items()},
        "steps": len(steps),
        "state": row.state.value,
        "reason": row.message,
        "training": row.metrics,
        "evaluation": adapters[0].evaluation if adapters else None,
        "next_generation": dict(after),
    }


def _sheet(store: Store, round_id: str, path: Path) -> None:
    """The first picture of every case, before above after, in rows of SHEET_COLUMNS."""
    sides: dict[str, dict[str, Any]] = {}
    for made in store.generations.of_round(round_id):
        sides.setdefault(made.ab_group, {})[made.ab_side] = made.candidates[0].media_sha256
    cases = [side for side in sides.values() if {BEFORE, AFTER} <= side.keys()]
    if not cases:
        return
    pictures = [[Image.open(store.media.path(case[side])) for side in (BEFORE, AFTER)] for case in cases]
    width, height = pictures[0][0].size
    rows = (len(cases) - 1) // SHEET_COLUMNS + 1
    sheet = Image.new("RGB", (min(len(cases), SHEET_COLUMNS) * width, rows * 2 * height))
    for number, pair in enumerate(pictures):
        row, column = divmod(number, SHEET_COLUMNS)
        for side, picture in enumerate(pair):
            sheet.paste(picture, (column * width, (2 * row + side) * height))
    sheet.save(path)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._since
        self._since = now


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """The reports as lines for people."""
    lines = []
    for report in reports:
        minutes = ", ".join(f"{name} {value:g}" for name, value in report["minutes"].items())
        evaluation = report["evaluation"]
        lines += [
            f"seed {report['seed']}: {report['picks']} picks of {' and '.join(report['tasks'])} pictures, "
            f"{report['compared']}, by {report['picked_by']}",
            f"  minutes: {minutes}",
            f"  {report['pairs']['kept']} pairs, {report['steps']} steps; {report['state']}: {report['reason']}",
        ]
        for change in evaluation["changes"] if evaluation else ():
            interval = "" if change["low"] is None else f" ({change['low']:+.3f} to {change['high']:+.3f})"
            lines.append(
                f"  {change['label']:<30}{change['before']:.3f} -> {change['after']:.3f}  "
                f"{change['difference']:+.3f}{interval}, {change['cases']} cases"
            )
        after = report["next_generation"]
        lines.append(f"  next generation: {after['adapter']}, FaceSim {after['face_sim']}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m trainers.bench.loop", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="mini", help="name, or a diffusers folder")
    parser.add_argument("--face-pack", type=Path, help="folder of an InsightFace pack; the bundle's own if absent")
    parser.add_argument("--portraits", type=Path, required=True, help="folder with a picture of each person")
    parser.add_argument("--evaluation-portraits", type=Path, default=PORTRAITS, help="folder of other people")
    parser.add_argument("--picks", type=int, default=40)
    parser.add_argument("--people", type=int, default=2, help="in one picture")
    parser.add_argument("--noise", type=float, default=0.05, help="added to the score before it is compared")
    parser.add_argument("--tasks", nargs="+", type=Task, choices=list(Task), default=[Task.GROUP], help="in turn")
    parser.add_argument("--ranked", action="store_true", help="a pick ranks the four candidates of a generation")
    parser.add_argument("--shuffled", action="store_true", help="decide by coin toss")
    parser.add_argument("--guidance", type=float, help="identity guidance; the bundle's own if absent")
    parser.add_argument("--other-guidance", type=float, help="identity guidance of side B of every comparison")
    parser.add_argument("--steps", type=int, help="of denoising; the bundle's own if absent")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--config", type=Path, help="TOML file as for trainers.worker")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    loop = Loop(
        models=Models(
            bundle=options.bundle,
            face_pack=options.face_pack,
            device=options.device,
            evaluation_portraits=options.evaluation_portraits,
        ),
        portraits=options.portraits,
        picks=options.picks,
        noise=options.noise,
        shuffled=options.shuffled,
        people=options.people,
        steps=options.steps,
        guidance=options.guidance,
        other_guidance=options.other_guidance,
        tasks=options.tasks,
        ranked=options.ranked,
        config=tomllib.loads(options.config.read_text()) if options.config else {},
    )
    reports = []
    for seed in options.seeds:
        folder = options.out / f"seed-{seed}"
        if folder.exists():
            raise SystemExit(f"error: {folder} is there already; choose another --out.")
        try:
            reports.append(run_loop(loop, seed, folder))
        except FacePackError as error:
            raise SystemExit(f"error: without faces nothing can be picked: {error}") from error
        (options.out / "report.json").write_text(json.dumps(reports, indent=2) + "\n")
    print(table(reports))


if __name__ == "__main__":
    main()
