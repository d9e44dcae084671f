"""One training round from its pairs to the verdict on its adapter.

Whatever happens between two lines of this file, another worker can go on: pairs, steps and evaluation pictures are in
the store, the training's checkpoint and what came of it in the round's folder `rounds/NUMBER` of the data folder.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.adapters import WEIGHTS_FILE, AdapterError, read_adapter, write_adapter
from core.backbones.bundles import Bundle
from core.backbones.cards import BundleError
from core.faces import FaceAnalyzer, FacePackError
from core.images import PictureError
from core.prompts import Task
from core.sampler import Cancelled
from studio.store import LeaseLost, Store, StoreError
from studio.store.models import Adapter, AdapterState, Round, RoundState, utc_now
from trainers.dpo import DpoConfig, DpoResult, StepReport, train
from trainers.evaluation import Evaluation, evaluate
from trainers.held_out import Case, NoCases, held_out_cases, held_out_references
from trainers.lease import Lease, Stop, Stopped
from trainers.pace import Pace
from trainers.pairs import PairConfig, collect_pairs, load_training_pairs
from trainers.promotion import Verdict
from trainers.round_config import Models, RoundConfig
from trainers.runs import RunError, replaced_when_complete
from trainers.stored_adapters import keep_adapter, stored_adapter

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 40
"""A round that ends its worker each time would otherwise be taken up for ever."""
LITTLE_ROOM = 4 << 20
"""Bytes left on a disk that is as good as full: some libraries say only that writing failed."""
LOG_FILE = "log.txt"
OUTCOME_FILE = "outcome.json"
TEMPORARY = ("run", "parent")
"""What a round's folder holds besides the log while the round lives; the trainer's caches show people."""
DATA_DELETED = "A person whose pictures it used was deleted. Start another round with what is left."


def run_round(store: Store, row: Round, lease: Lease, models: Models, config: Mapping[str, Any]) -> None:
    """Bring a claimed round to its end, or give it back where it has to be let go.

    `config`: the worker's own settings; they change those of the bundle, and those of the round change them. What goes
    wrong is said on the round; raised are only StoreErrors that come in the way of saying it.
    """
    folder = store.folder / "rounds" / str(row.number)
    course = _Course(store, row, lease, models, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _log_file(folder / LOG_FILE):
            logger.info("Round %d is %s, taken up for the %d. time", row.number, row.state.value, row.attempts)
            try:
                course.run(RoundConfig.read(models.round_settings(), config, row.config))
            except (Stopped, Cancelled):
                course.let_go()
            except (
                AdapterError, BundleError, FloatingPointError, NoCases, OSError, PictureError, RunError, StoreError,
                ValueError,
            ) as error:  # fmt: skip
                logger.error("%s: %s", type(error).__name__, error)
                course.fail(_sentence(error, folder))
            except Exception as error:
                logger.exception("Round %d failed", row.number)
                course.fail(_sentence(error, folder))
    except LeaseLost as error:
        logger.warning("%s", error)
    except OSError as error:  # not even a log can be written
        course.fail(_sentence(error, folder))


def tidy(store: Store) -> None:
    """Remove what rounds left in their folders that have ended, or that pause while a person was deleted; logs stay."""
    needed = {
        str(row.number) for row in store.rounds.live() if row.data_deleted_at is None or row.lease_owner is not None
    }
    for folder in (store.folder / "rounds").glob("*"):
        if folder.name not in needed:
            for name in TEMPORARY:
                shutil.rmtree(folder / name, ignore_errors=True)
            (folder / OUTCOME_FILE).unlink(missing_ok=True)


class _Course:
    """The way of one round. Every method may be the last one that is run, and the first after a restart."""

    def __init__(self, store: Store, row: Round, lease: Lease, models: Models, folder: Path) -> None:
        self._store, self._round, self._lease, self._models = store, row, lease, models
        self._folder = folder
        self._state = row.state

    def run(self, config: RoundConfig) -> None:
        if self._round.attempts > MOST_ATTEMPTS:
            raise RunError(
                f"It was taken up {MOST_ATTEMPTS} times and never came to its end; its log says how far it came. "
                "Is there enough memory?"
            )
        if self._round.data_deleted_at is not None:
            raise RunError(DATA_DELETED)

        # 1. The models; the lease is kept meanwhile.
        self._lease.report(log_path=(self._folder / LOG_FILE).relative_to(self._store.folder).as_posix())
        logger.info("Reading the models")
        bundle = self._models.load(config.training.precision)
        analyzer = _analyzer(bundle)
        parent = self._parent()
        cases = held_out_cases(self._models.evaluation_portraits, bundle.card, **config.evaluation)
        self._lease.check()

        # 2. The snapshot of the pairs.
        if self._state is RoundState.QUEUED:
            self._advance(RoundState.COLLECTING, "Collecting pairs.")
        if self._state is RoundState.COLLECTING:
            count = self._collect(config.pairs, analyzer)
            self._lease.check()
            self._advance(RoundState.TRAINING, f"Training on {count} pairs.")

        # 3. Training, or what came of it.
        outcome = self._outcome() if self._state is RoundState.EVALUATING else None
        if outcome is None:
            outcome = self._train(config.training, bundle, analyzer, parent)
            self._advance(RoundState.EVALUATING, "Making pictures of held-out people, before and after.")

        # 4. Evaluation and verdict.
        self._end(outcome, self._evaluate(bundle, cases, outcome, parent))

    def let_go(self) -> None:
        """Cancel the round, or give it back."""
        match self._lease.stop:
            case Stop.LOST:
                return
            case Stop.CANCEL:
                self._finish(RoundState.CANCELLED, "Cancelled.")
            case Stop.DATA_DELETED:
                self.fail(DATA_DELETED)
            case Stop.PAUSE:
                self._release("Paused.")
            case _:
                self._release("The worker was stopped; the round goes on from its last checkpoint.")

    def fail(self, reason: str) -> None:
        """End the round with a sentence."""
        self._finish(RoundState.FAILED, reason)

    def _collect(self, config: PairConfig, analyzer: FaceAnalyzer | None) -> int:
        """Write the snapshot down; returns how many pairs are trained on."""
        snapshot_at = utc_now()
        pairs = collect_pairs(
            self._store,
            self._round.bundle,
            analyzer=analyzer,
            config=config,
            until=snapshot_at,
            held_out=held_out_references(self._store, self._models.evaluation_portraits),
            make_room=self._lease.check,
        )
        self._store.rounds.save_pairs(self._round.id, self._lease.owner, pairs, snapshot_at=snapshot_at)
        kept = sum(pair.kept for pair in pairs)
        logger.info("%d pairs, %d of them kept", len(pairs), kept)
        if not kept:
            dropped = self._store.rounds.dropped(self._round.id)
            why = "; ".join(f"{count} dropped: {reason}" for reason, count in dropped.items()) or "nobody picked any"
            raise ValueError(f"No pair can be trained on ({why}). Compare some pictures, then start another round.")
        return kept

    def _train(
        self, config: DpoConfig, bundle: Bundle, analyzer: FaceAnalyzer | None, parent: Adapter | None
    ) -> DpoResult:
        rows = self._store.rounds.pairs(self._round.id, kept=True)
        pairs = load_training_pairs(self._store, rows, bundle, analyzer=analyzer, make_room=self._lease.check)
        parent_folder = None
        if parent is not None:
            parent_folder = write_adapter(*stored_adapter(self._store, parent), self._folder / "parent")

        if self._round.progress.get("step") and not (self._folder / "run" / "checkpoint.pt").exists():
            self._say("There is no checkpoint, so training starts again from its first step.")

        def attempt() -> DpoResult:
            return train(
                replace(config, name=f"Round {self._round.number}"),
                pairs,
                bundle,
                self._folder / "run",
                parent=parent_folder,
                on_step=self._log_step,
                should_stop=self._lease.should_stop,
            )

        try:
            result = attempt()
        except RunError as error:
            self._say(f"Training starts again from its first step: {error}")
            shutil.rmtree(self._folder / "run")
            result = attempt()
        if result.stopped is not None:
            raise Stopped
        logger.info("Trained for %d steps. %s", result.steps, result.stopped_early or "")
        with replaced_when_complete(self._folder / OUTCOME_FILE) as file:
            file.write(
                json.dumps(
                    {
                        "adapter": result.adapter.relative_to(self._folder).as_posix(),
                        "steps": result.steps,
                        "stopped_early": result.stopped_early,
                        "metrics": result.metrics,
                    }
                ).encode()
            )
        return result

    def _outcome(self) -> DpoResult | None:
        """What the training of an earlier attempt came to; None, and back to training, where that is damaged."""
        try:
            kept = json.loads((self._folder / OUTCOME_FILE).read_text())
            adapter = self._folder / kept.pop("adapter")
            read_adapter(adapter)
            return DpoResult(adapter=adapter, stopped=None, **kept)
        except (AdapterError, OSError, TypeError, ValueError, KeyError) as error:
            logger.warning("The trained adapter cannot be used: %s", error)
            self._advance(RoundState.TRAINING, "The trained adapter was damaged; training goes on from its checkpoint.")
            shutil.rmtree(self._folder / "run" / "adapter", ignore_errors=True)
            return None

    def _evaluate(
        self, bundle: Bundle, cases: Sequence[Case], outcome: DpoResult, parent: Adapter | None
    ) -> Evaluation:
        pace = Pace()

        def on_case(done: int, total: int) -> None:
            pace.lap()
            self._lease.report(progress={"step": done, "steps": total, "seconds_left": pace.left(total - done)})

        return evaluate(
            self._store,
            self._round,
            bundle,
            cases,
            before=parent and (parent.id, stored_adapter(self._store, parent)),
            after=(outcome.adapter / WEIGHTS_FILE, read_adapter(outcome.adapter)[0]),
            tasks=[Task(task) for task in self._store.rounds.tasks(self._round.id)] or [Task.GROUP],
            cancel=self._lease.should_stop,
            on_case=on_case,
        )

    def _end(self, outcome: DpoResult, evaluation: Evaluation) -> None:
        verdict = self._final(evaluation.verdict, outcome)
        logger.info("%s: %s", verdict.state.value, verdict.reason)
        self._finish(
            RoundState(verdict.state.value),
            verdict.reason,
            adapter=keep_adapter(self._store, outcome.adapter, evaluation=evaluation.as_json()),
            metrics=outcome.metrics,
        )

    def _final(self, verdict: Verdict, outcome: DpoResult) -> Verdict:
        """The rule's verdict, held back where the training stopped itself or people have moved on meanwhile."""
        if verdict.state is not AdapterState.PROMOTED:
            return verdict
        if outcome.stopped_early is not None:
            reason = f"{verdict.reason} But the training stopped itself: {outcome.stopped_early}"
            return replace(verdict, state=AdapterState.CANDIDATE, reason=reason)
        active = self._store.adapters.active(self._round.bundle)
        if (active and active.id) != self._round.parent_adapter_id:
            reason = f"{verdict.reason} But another adapter was put to use meanwhile, so people decide."
            return replace(verdict, state=AdapterState.CANDIDATE, reason=reason)
        return verdict

    def _parent(self) -> Adapter | None:
        """The adapter the round goes out from, checked; one that is damaged is marked so for everybody."""
        if self._round.parent_adapter_id is None:
            return None
        parent = self._store.adapters.get(self._round.parent_adapter_id)
        try:
            read_adapter(*stored_adapter(self._store, parent))
        except (AdapterError, StoreError) as error:
            self._store.adapters.mark_broken(parent.id, str(error))
            raise AdapterError(f"Its parent adapter cannot be loaded; start another round. {error}") from error
        return parent

    def _log_step(self, report: StepReport) -> None:
        self._store.rounds.log_steps(self._round.id, self._lease.owner, {report.step: report.metrics})
        progress = {"step": report.step, "steps": report.steps, "seconds_left": report.seconds_left}
        self._lease.report(progress=progress)

    def _say(self, message: str) -> None:
        logger.warning("%s", message)
        self._lease.report(message=message)

    def _advance(self, state: RoundState, message: str) -> None:
        logger.info("%s", message)
        self._store.rounds.advance(self._round.id, self._lease.owner, state, message=message)
        self._lease.report(progress={})
        self._state = state

    def _release(self, message: str) -> None:
        logger.info("%s", message)
        self._store.rounds.release(self._round.id, self._lease.owner, message=message)

    def _finish(self, state: RoundState, message: str, **results: Any) -> None:
        self._store.rounds.finish(self._round.id, self._lease.owner, state, message=message, **results)


def _analyzer(bundle: Bundle) -> FaceAnalyzer | None:
    try:
        return bundle.face_analyzer
    except FacePackError as error:
        logger.warning("Faces are not measured: %s", error)
        return None


def _sentence(error: Exception, folder: Path) -> str:
    """What people read on the round."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or shutil.disk_usage(folder.parent if folder.parent.is_dir() else folder.anchor).free < LITTLE_ROOM:
        return f"The disk is full ({error}). Make room, then start another round."
    known = (AdapterError, BundleError, NoCases, PictureError, RunError, StoreError, ValueError, FloatingPointError)
    return str(error) if isinstance(error, known) else f"{type(error).__name__}: {error}"


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Everything that is logged meanwhile goes into the file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, ours = logging.getLogger(), logging.getLogger("trainers")
    level = ours.level
    ours.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(level)
        handler.close()
