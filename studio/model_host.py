"""The loaded models of the web process: read in the background, used by one job at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from core.faces import FaceAnalyzer, FacePackError
from core.precision import Precision

if TYPE_CHECKING:
    # Both bring diffusers and transformers, which take seconds: the page does not wait for them.
    from core.backbones.bundles import Bundle
    from core.prompt_writer import PromptWriter

logger = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that what a person does waits for models that are being read; the page is there before they are."""


class Stage(StrEnum):
    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """What the page's header says about the models.

    message: one sentence for a person.
    notes: what works less well than it could, such as a missing face pack.
    """

    stage: Stage
    message: str
    notes: tuple[str, ...] = ()


class ModelsNotReady(RuntimeError):
    """The models are still being read, or could not be; the message says which."""


class ModelHost:
    """Bundle, face pack and adapters of this process.

    Args:
        bundle: name or folder, as `load_bundle` takes it.
        face_pack: name or folder that replaces the bundle's own; None keeps that.
        device: torch device; None takes CUDA where there is one.
        allow_download: whether hub weights may be fetched; the licence was shown before this was said.
        precision: of the transformer on a CPU, see `load_bundle`.
        threads: torch threads on a CPU; None leaves torch's choice.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        face_pack: str | Path | None = None,
        device: str | None = None,
        allow_download: bool = False,
        precision: Precision = "auto",
        threads: int | None = None,
    ) -> None:
        self._source = bundle
        self._face_pack = face_pack
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._allow_download = allow_download
        self._precision = precision
        self._threads = threads
        self._state = ModelState(stage=Stage.WAITING, message="The models are about to be read.")
        self._finished = threading.Event()
        self._turn = threading.Lock()
        self._bundle: Bundle | None = None
        self._analyzer: FaceAnalyzer | None = None

    def start(self) -> None:
        """Begin reading the models; returns at once."""
        self._state = ModelState(stage=Stage.LOADING, message=f"Reading the models of {self._source} ...")
        threading.Thread(target=self._load, name="model-host", daemon=True).start()

    @property
    def state(self) -> ModelState:
        return self._state

    def wait(self, timeout: float | None = PATIENCE) -> Bundle:
        """The bundle once it is loaded; ModelsNotReady if it is not after `timeout` seconds, None for any number."""
        self._finished.wait(timeout)
        return self.bundle

    @property
    def bundle(self) -> Bundle:
        """The loaded bundle; ModelsNotReady before that."""
        self._require_ready()
        return self._bundle

    @property
    def analyzer(self) -> FaceAnalyzer | None:
        """The face pack; None where there is none, and then nothing about faces is measured."""
        self._require_ready()
        return self._analyzer

    def writer(self) -> PromptWriter:
        """The bundle's model that writes prompts, to be used in one's turn."""
        from core.prompt_writer import PromptWriter

        return PromptWriter(self.bundle)

    @contextmanager
    def turn(self) -> Iterator[Bundle]:
        """The models for one job; others wait. Generating, writing and swapping adapters go through here.

        Raises:
            ModelsNotReady: they could not be read, or not within PATIENCE.
        """
        bundle = self.wait()
        with self._turn:
            yield bundle

    def _require_ready(self) -> None:
        if self._state.stage is not Stage.READY:
            raise ModelsNotReady(self._state.message)

    def _load(self) -> None:
        try:
            from core.backbones.bundles import load_bundle

            if self._threads is not None:
                torch.set_num_threads(self._threads)
            bundle = load_bundle(
                self._source,
                device=self._device,
                precision=self._precision,
                allow_download=self._allow_download,
                progress=self._downloading,
            )
            if self._face_pack is not None:
                bundle = replace(bundle, face_pack=self._face_pack)
            notes = self._load_faces(bundle)
            self._bundle = bundle
            message = f"{bundle.card.name} on {self._device}, licence {bundle.card.licence}"
            self._state = ModelState(stage=Stage.READY, message=message, notes=notes)
        except Exception as error:  # whatever went wrong, the page must say it rather than wait for ever
            logger.exception("The models could not be read")
            self._state = ModelState(stage=Stage.FAILED, message=f"The models could not be read: {error}")
        finally:
            self._finished.set()

    def _load_faces(self, bundle: Bundle) -> tuple[str, ...]:
        try:
            analyzer = bundle.face_analyzer
        except FacePackError as error:
            return (f"No faces can be compared: {error}",)
        self._analyzer = analyzer
        return (f"Faces: {analyzer.name}, licence {analyzer.licence}, {analyzer.providers[0]}",)

    def _downloading(self, here: int, total: int) -> None:
        done = f"{here / 1e9:.1f} of {total / 1e9:.1f} GB"
        self._state = replace(self._state, message=f"Fetching {self._source}: {done}")
