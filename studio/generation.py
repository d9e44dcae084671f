"""Generations as jobs: stored before they run, run one at a time, watched by any number of pages.

A page that is closed or reloaded loses nothing: the job goes on, and `watch` picks it up again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.generate import Candidate, GenerationRequest, generate
from core.images import read_picture
from core.pixels import to_uint8
from core.prompts import PromptRefused
from core.prompts import Task as CoreTask
from core.sampler import Cancelled, StepReport
from core.schedule import IdentitySchedule
from studio.model_host import ModelHost, ModelsNotReady
from studio.store import NewGeneration, Store
from studio.store.engine import StoreError
from studio.store.models import Generation, GenerationState
from studio.zero_gpu import on_gpu
from trainers.stored_pictures import keep_pictures

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_PREVIEWS = 1.0
"""Decoding a preview costs a tenth of a second on a slow machine, so not at every step."""

LONGEST_RUN_ON_ZERO_GPU = 120
"""Seconds; a visitor's quota is charged by it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """How far a generation is.

    waiting: jobs before it in the queue. stage, step, steps: as `core.sampler.StepReport` has them.
    previews: (height, width, 3) uint8, one for each candidate, as the clean estimate stands.
    seconds_left: of the stage, from the steps so far; None before the first one.
    message: a sentence for a person where something went wrong.
    """

    state: GenerationState
    waiting: int = 0
    stage: str = "picture"
    step: int = 0
    steps: int = 0
    previews: tuple[np.ndarray, ...] = ()
    seconds_left: float | None = None
    message: str = ""

    @property
    def ended(self) -> bool:
        return self.state not in (GenerationState.QUEUED, GenerationState.RUNNING)


def run_options(people: int, *, by_template: bool, face_detail: bool) -> dict[str, Any]:
    """`Generation.options` of a run. by_template: its prompt names the people in their order, from left to right."""
    order = {"expected_order": list(range(people))} if by_template else {}
    return {"face_detail": face_detail, **order}


class GenerationJobs:
    """The queue of generations of this process and the thread that works through it."""

    def __init__(self, store: Store, host: ModelHost) -> None:
        self._store = store
        self._host = host
        self._queue: queue.Queue[str] = queue.Queue()
        self._progress: dict[str, Progress] = {}
        self._order: list[str] = []
        self._stops: dict[str, threading.Event] = {}
        self._changed = threading.Condition()
        self._stream = on_gpu(self._sample, seconds=LONGEST_RUN_ON_ZERO_GPU)

    def start(self) -> None:
        """Begin working; generations that an earlier process left behind are marked as failed."""
        self._store.generations.recover_interrupted()
        threading.Thread(target=self._work, name="generation-jobs", daemon=True).start()

    def submit(self, new: NewGeneration) -> str:
        """Store a generation and queue it; returns its id.

        Raises:
            StoreError: a portrait is gone or a setting makes no sense.
        """
        generation_id = self._store.generations.create(new).id
        with self._changed:
            self._stops[generation_id] = threading.Event()
            self._order.append(generation_id)
            self._progress[generation_id] = Progress(state=GenerationState.QUEUED, steps=new.steps)
        self._queue.put(generation_id)
        return generation_id

    def cancel(self, generation_id: str) -> None:
        """Stop a generation before its next step, or take it out of the queue; nothing happens to an ended one."""
        stop = self._stops.get(generation_id)
        if stop is None:
            return
        stop.set()
        if self.progress(generation_id).state is GenerationState.QUEUED:
            self._end(generation_id, GenerationState.CANCELLED, "Cancelled before it began.")

    def progress(self, generation_id: str) -> Progress:
        """How far it is; from the store when another process ran it."""
        with self._changed:
            found = self._progress.get(generation_id)
            if found is not None:
                if found.state is GenerationState.QUEUED and generation_id in self._order:
                    found = replace(found, waiting=self._order.index(generation_id))
                return found
        try:
            row = self._store.generations.get(generation_id)
        except StoreError as error:  # its person was deleted, and all that came of them
            return Progress(state=GenerationState.FAILED, message=str(error))
        return Progress(state=row.state, message=row.message, step=row.steps, steps=row.steps)

    def watch(self, generation_id: str, *, every: float = 0.25) -> Iterator[Progress]:
        """Yield the progress whenever it has changed, at most each `every` seconds, until the generation has ended."""
        last = None
        while True:
            progress = self.progress(generation_id)
            if progress != last or last is None:
                yield progress
                last = progress
            if progress.ended:
                return
            with self._changed:
                self._changed.wait(timeout=1.0)
            time.sleep(every)

    def _work(self) -> None:
        while True:
            generation_id = self._queue.get()
            try:
                self._run(generation_id)
            except Exception:  # one bad job must not end the queue
                logger.exception("Generation %s could not be ended properly", generation_id)

    def _run(self, generation_id: str) -> None:
        if self._stops[generation_id].is_set():
            return
        try:
            self._host.wait(None)
            row = self._store.generations.get(generation_id)
            self._store.generations.start(generation_id)
            self._update(generation_id, Progress(state=GenerationState.RUNNING, steps=row.steps))
            with self._host.turn():
                made = self._follow(generation_id, self._stream(row, self._request(row)))
            self._keep(row, made.candidates, made.note)
            done = Progress(state=GenerationState.DONE, step=row.steps, steps=row.steps, message=made.note)
            self._update(generation_id, done)
        except Cancelled as stopped:
            self._end(generation_id, GenerationState.CANCELLED, str(stopped))
        except (ModelsNotReady, PromptRefused, StoreError, ValueError, FloatingPointError) as error:
            self._end(generation_id, GenerationState.FAILED, str(error))
        except Exception as error:
            logger.exception("Generation %s failed", generation_id)
            self._end(generation_id, GenerationState.FAILED, f"{type(error).__name__}: {error}")

    def _sample(self, row: Generation, request: GenerationRequest) -> Iterator[_Step | _Made | Exception]:
        """Steps as they are made, then the pictures, or what went wrong: raised on ZeroGPU it would lose its words."""
        items: queue.SimpleQueue[_Step | _Made | Exception] = queue.SimpleQueue()
        stop = threading.Event()

        def run() -> None:
            try:
                # Brings peft; the page does not wait for it.
                from studio.adapter_in_use import use_adapter

                note = use_adapter(self._store, self._host.bundle, row)
                made = generate(self._host.bundle, request, on_step=_Previews(items.put), cancel=stop.is_set)
                items.put(_Made(candidates=made, note=note))
            except Exception as error:
                items.put(error)

        thread = threading.Thread(target=run, name="sampling", daemon=True)
        thread.start()
        try:
            while True:
                item = items.get()
                yield item
                if not isinstance(item, _Step):
                    return
        finally:
            stop.set()
            thread.join()

    def _follow(self, generation_id: str, items: Iterator[_Step | _Made | Exception]) -> _Made:
        """Tell how far a run is until it ends; raises what went wrong, and Cancelled when somebody stopped it."""
        began = heard = time.monotonic()
        previews: tuple[np.ndarray, ...] = ()
        with closing(items):
            for item in items:
                if isinstance(item, _Made):
                    return item
                if isinstance(item, Exception):
                    raise item
                if self._stops[generation_id].is_set():
                    of_what = " of the faces" if item.stage == "faces" else ""
                    raise Cancelled(f"Cancelled after step {item.step} of {item.total}{of_what}.")
                now = time.monotonic()
                if item.step == 1:
                    began = now  # the first step also warms caches, so the pace counts from its end
                left = None if item.step == 1 else (now - began) / (item.step - 1) * (item.total - item.step)
                previews = item.previews or previews
                if now - heard >= SECONDS_BETWEEN_PREVIEWS:
                    self._store.generations.heartbeat(generation_id)
                    heard = now
                running = GenerationState.RUNNING
                self._update(
                    generation_id,
                    Progress(
                        state=running,
                        stage=item.stage,
                        step=item.step,
                        steps=item.total,
                        previews=previews,
                        seconds_left=left,
                    ),
                )
        raise RuntimeError("The run ended without pictures.")

    def _request(self, row: Generation) -> GenerationRequest:
        portraits = [reference.portrait for reference in row.references]
        return GenerationRequest(
            prompt=row.prompt.text,
            portraits=tuple(read_picture(self._store.media.path(one.picture_sha256)) for one in portraits),
            face_boxes=tuple(tuple(one.box) for one in portraits),
            task=CoreTask(row.task.value),
            target_ages=tuple(reference.target_age for reference in row.references),
            seeds=tuple(row.seeds),
            schedule=IdentitySchedule.parse(row.schedule),
            strength=row.strength,
            guidance=row.guidance,
            identity_guidance=row.identity_guidance,
            steps=row.steps,
            height=row.height,
            width=row.width,
            expected_order=tuple(row.options["expected_order"]) if "expected_order" in row.options else None,
            face_detail=row.options.get("face_detail", True),
        )

    def _keep(self, row: Generation, candidates: list[Candidate], note: str) -> None:
        analyzer = self._host.analyzer
        new = keep_pictures(self._store, candidates, pack=analyzer.name if analyzer else "")
        timings = {stage: round(seconds, 3) for stage, seconds in candidates[0].seconds.items()}
        self._store.generations.finish(row.id, new, timings=timings, message=note)

    def _update(self, generation_id: str, progress: Progress) -> None:
        with self._changed:
            self._progress[generation_id] = progress
            if progress.state is not GenerationState.QUEUED and generation_id in self._order:
                self._order.remove(generation_id)
            if progress.ended:
                # The store knows the rest; previews of a thousand generations would fill the memory.
                self._progress.pop(generation_id)
                self._stops.pop(generation_id, None)
            self._changed.notify_all()

    def _end(self, generation_id: str, state: GenerationState, message: str) -> None:
        end = self._store.generations.cancel if state is GenerationState.CANCELLED else self._store.generations.fail
        try:
            end(generation_id, message)
        except StoreError as error:  # its person was deleted while it ran
            message = str(error)
        self._update(generation_id, Progress(state=state, message=message))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    """A denoising step, without what only its own process can do. previews: None where none was decoded for it."""

    stage: str
    step: int
    total: int
    previews: tuple[np.ndarray, ...] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Made:
    """What a run ended with."""

    candidates: list[Candidate]
    note: str


class _Previews:
    """The sampler's callback: hands every step on, now and then with a preview."""

    def __init__(self, hand_on: Callable[[_Step], None]) -> None:
        self._hand_on = hand_on
        self._previewed = 0.0

    def __call__(self, report: StepReport) -> None:
        previews = None
        if time.monotonic() - self._previewed >= SECONDS_BETWEEN_PREVIEWS and report.step < report.total:
            previews = tuple(to_uint8(report.preview()))
            self._previewed = time.monotonic()
        self._hand_on(_Step(stage=report.stage, step=report.step, total=report.total, previews=previews))
