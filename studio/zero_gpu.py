"""Hugging Face ZeroGPU: a Space whose GPU is there only while a marked function runs, in a process of its own.

The package `spaces` exists on such a Space and patches PyTorch, so app.py imports this module before torch. What a
marked function is given and yields is pickled on its way; everything else it sees is a copy of this process.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

spaces = importlib.import_module("spaces") if importlib.util.find_spec("spaces") else None

P = ParamSpec("P")
T = TypeVar("T")


def on_gpu(stream: Callable[P, Iterator[T]], *, seconds: int) -> Callable[P, Iterator[T]]:
    """`stream`, run where the GPU is: marked for ZeroGPU where `spaces` is present, as it is everywhere else.

    Args:
        stream: a generator function; closing what it returns ends it before its next item.
        seconds: the longest it may take; a visitor's quota is charged by it.
    """
    return stream if spaces is None else spaces.GPU(duration=seconds)(stream)
