"""The vision-language model of a bundle as writer of prompts: portraits and scene words in, text out as it comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from core.prompts import Task, Writing, refuse_unsafe, writer_instruction


class _HasWriter(Protocol):
    """The two parts of a bundle that write: a Qwen3-VL or Qwen2.5-VL model and its processor."""

    text_encoder: Any
    processor: Any


WRITER = "writer"
"""Name of the LoRA adapter that some bundles bring along for writing, and of its folder."""


@contextmanager
def writer_adapter(text_encoder: Any) -> Iterator[None]:
    """The writer's adapter, where the model has one, is on within and off again afterwards.

    A prompt is encoded by the plain weights, the ones that the transformer has learned to read.
    """
    if WRITER not in getattr(text_encoder, "peft_config", {}):
        yield
        return
    text_encoder.enable_adapters()
    try:
        yield
    finally:
        text_encoder.disable_adapters()


class PromptWriter:
    """Lets the vision-language model of a bundle write the prompt; the same weights encode it afterwards."""

    def __init__(self, bundle: _HasWriter) -> None:
        self._model = bundle.text_encoder
        self._processor = bundle.processor

    def write(
        self,
        portraits: Sequence[np.ndarray],
        task: Task | str,
        scene: str,
        *,
        ages: Sequence[int | None] = (),
        writing: Writing | None = None,
    ) -> Iterator[str]:
        """Yield the prompt piece by piece as it is written; joined, the pieces are the prompt.

        Closing the iterator stops the model at its next token. The result is not checked here: pass it to
        `refuse_unsafe` and `find_ambiguities`.

        Args:
            portraits: (H, W, 3) uint8 RGB, in the order of "image 1", "image 2", ...
            scene: scene words of the person; refused as any prompt is.
            ages: as in `static_prompt`.

        Raises:
            PromptRefused: on the scene words, before anything is written.
        """
        task, writing = Task(task), writing or Writing()
        refuse_unsafe(scene, children=task is Task.CHILD)
        inputs = self._inputs(portraits, writer_instruction(task, len(portraits), scene, ages))
        return self._stream(inputs, writing)

    def _inputs(self, portraits: Sequence[np.ndarray], instruction: str) -> dict[str, torch.Tensor]:
        content = [{"type": "text", "text": instruction}, *({"type": "image"} for _ in portraits)]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        pictures = [Image.fromarray(portrait) for portrait in portraits]
        return dict(self._processor(text=[text], images=pictures, return_tensors="pt").to(self._model.device))

    def _stream(self, inputs: dict[str, torch.Tensor], writing: Writing) -> Iterator[str]:
        streamer = TextIteratorStreamer(
            self._processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=None
        )
        closed = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            # sampling draws from the global generator; fork it so that a seed means the same words every time
            # and nothing else that draws random numbers is disturbed
            devices = [self._model.device] if self._model.device.type == "cuda" else []
            try:
                with torch.random.fork_rng(devices=devices), torch.inference_mode(), writer_adapter(self._model):
                    torch.manual_seed(writing.seed)
                    self._model.generate(
                        **inputs,
                        max_new_tokens=writing.max_tokens,
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([_StopWhen(closed)]),
                        **_sampling(writing),
                    )
            except BaseException as error:
                failure.append(error)
                streamer.end()

        thread = threading.Thread(target=run, name="prompt-writer", daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            closed.set()
            thread.join()
        if failure:
            raise failure[0]


class _StopWhen(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device)


def _sampling(writing: Writing) -> dict[str, Any]:
    if writing.temperature == 0:
        # None silences the checkpoint's own sampling defaults, which generate() would warn about
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": writing.temperature, "top_p": writing.top_p, "top_k": 0}
