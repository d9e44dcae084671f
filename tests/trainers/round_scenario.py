"""A studio with tiny models, people, pictures and picks, ready for a training round that takes seconds."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio.store import NewCandidate, NewGeneration, NewPick, NewPortrait, Store
from studio.store.models import PortraitOrigin, new_id
from tests.browser.conftest import face_pack
from tests.studio.picture_bytes import png
from tests.tiny_bundles import write_tiny_bundle
from trainers.round_config import Models

WIDTH, HEIGHT = 96, 64
CONFIG_TOML = """\
[training]
steps = 6
batch = 2
rank = 2
learning_rate = 1e-3
beta = 200.0
warmup = 1
watched_steps = 0
precision = "float32"
checkpoint_minutes = 0
[evaluation]
steps = 2
"""
CONFIG = tomllib.loads(CONFIG_TOML)


@dataclass(frozen=True)
class Place:
    """Folders of a studio and its tiny models."""

    bundle: Path
    pack: Path
    evaluation: Path
    config: Path

    @property
    def models(self) -> Models:
        return Models(bundle=str(self.bundle), face_pack=self.pack, evaluation_portraits=self.evaluation)

    def worker_arguments(self, data: Path, *more: str) -> list[str]:
        """Command line of a worker on a data folder."""
        options = {
            "--data": data, "--bundle": self.bundle, "--face-pack": self.pack, "--config": self.config,
            "--device": "cpu", "--evaluation-portraits": self.evaluation, "--lease-seconds": 2,
            "--picks-per-round": 0, "--nice": 0,
        }  # fmt: skip
        return [*(str(part) for option in options.items() for part in option), *more]


def make_place(folder: Path) -> Place:
    """Bundle, face pack, four people to measure on, and short rounds."""
    evaluation = folder / "evaluation"
    evaluation.mkdir(parents=True)
    for number in range(4):
        (evaluation / f"person-{number}.png").write_bytes(png(100 + number, 96))
    (folder / "rounds.toml").write_text(CONFIG_TOML)
    return Place(write_tiny_bundle(folder / "bundle"), face_pack(folder / "pack"), evaluation, folder / "rounds.toml")


def add_portrait(store: Store, seed: int, *, source_sha256: str | None = None) -> str:
    """A person with one portrait in which the tiny pack finds a face; returns the portrait's id."""
    sha256 = store.media.add(png(seed, 96), ".png")
    new = NewPortrait(
        picture_sha256=sha256,
        crop_sha256=sha256,
        box=(20, 20, 70, 70),
        landmarks=[[30, 40], [60, 40], [45, 50], [35, 60], [55, 60]],
        origin=PortraitOrigin.EXAMPLE,
        source_sha256=source_sha256,
    )
    return store.people.add_portrait(store.people.add_person(f"person {seed}").id, new).id


def add_picks(store: Store, count: int, *, portraits: list[str] | None = None) -> list[str]:
    """Generations of two candidates each, without a model, and a pick of one of them; returns the ids of the picks."""
    annotator = store.people.annotator("Ada")
    portraits = portraits or [add_portrait(store, 1), add_portrait(store, 2)]
    picks = []
    for number in range(count):
        made = store.generations.create(
            NewGeneration(
                task="group", prompt="The person in image 1 and the person in image 2.", schedule="constant",
                strength=1.0, steps=4, guidance=1.0,
                identity_guidance=1.0, width=WIDTH, height=HEIGHT, seeds=[0, 1], bundle="tiny",
                portrait_ids=portraits,
            )
        )  # fmt: skip
        candidates = [
            NewCandidate(
                position=side,
                seed=side,
                media_sha256=store.media.add(png(1000 + 2 * number + side, WIDTH, HEIGHT), ".png"),
                width=WIDTH,
                height=HEIGHT,
            )
            for side in range(2)
        ]
        store.generations.start(made.id)
        ids = [row.id for row in store.generations.finish(made.id, candidates)]
        comparison = store.comparisons.create(ids)
        pick = NewPick(
            request_id=new_id(),
            comparison_id=comparison.id,
            annotator_id=annotator.id,
            outcome="left" if number % 2 else "right",
        )
        picks.append(store.picks.save(pick).id)
    return picks


def at(message: str, act: Callable[[], None]) -> logging.Handler:
    """Do something once, in the worker's thread, when it logs a message that begins so."""

    class Listener(logging.Handler):
        done = False

        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(message) and not self.done:
                self.done = True
                act()

    return Listener(logging.INFO)
