"""What training runs share: a folder that survives a kill, randomness by step, the learning rate.

A run is a folder: `config.json`, `checkpoint.pt` (the last one), `log.jsonl` (a line per step), and what the trainer
adds. Everything random in a step comes from a generator seeded by (seed, step), so weights, optimizer and step number
are all that a resumed run needs to continue exactly where the killed one would have gone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor


class RunError(RuntimeError):
    """A run folder cannot be continued; the message says why and what to do."""


class Run:
    """One training run in a folder; continues from its last checkpoint if there is one."""

    def __init__(self, folder: Path, config: Any, *, checkpoint_minutes: float) -> None:
        self.folder = folder
        self._every = checkpoint_minutes * 60
        self._saved_at = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.partial"):  # of a run that was killed while it wrote
            leftover.unlink()
        _check_config(folder / "config.json", config)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The last checkpoint, or None for a fresh run; log lines after it are dropped, they will be made
        again."""
        state = read_checkpoint(self.folder, device)
        self._truncate_log(step=state["step"] if state else 0)
        return state

    def log(self, step: int, **values: float | str) -> None:
        """Append one line; flushed at once, so that a killed run keeps what it did."""
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, **values}) + "\n")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint whole or not at all."""
        with replaced_when_complete(self.folder / "checkpoint.pt") as file:
            torch.save(dict(state), file)
        self._saved_at = time.monotonic()

    def save_is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._every

    def _truncate_log(self, step: int) -> None:
        path = self.folder / "log.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            with replaced_when_complete(path) as file:
                file.write("".join(line + "\n" for line in kept).encode())


def read_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The last checkpoint of the run in a folder, None where there is none; raises RunError when it is damaged."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it to start the run again"
        ) from error


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):  # cut off by a kill
        return float("inf")


def _check_config(path: Path, config: Any) -> None:
    wanted = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    if path.exists() and (saved := json.loads(path.read_text())) != wanted:
        changed = sorted(key for key in wanted if saved.get(key) != wanted[key])
        raise RunError(
            f"{path.parent} holds a run with other settings ({', '.join(changed) or 'other keys'}); "
            "continue it with its own config.json, or choose another --out folder"
        )
    with replaced_when_complete(path) as file:
        file.write((json.dumps(wanted, indent=2) + "\n").encode())


@contextmanager
def replaced_when_complete(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when it is complete and on the disk, or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of everything random in one step (on the CPU, so that every device draws the same)."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def normal_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise with shape and device of `values`, float32, from a generator on the CPU.

    For another device a generator there is seeded by it: millions of numbers take longer to draw on a CPU than a step.
    """
    if values.device.type == "cpu":
        return torch.randn(values.shape, generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    own = torch.Generator(values.device).manual_seed(seed)
    return torch.randn(values.shape, generator=own, device=values.device)


def learning_rate_factor(step: int, *, steps: int, warmup: int, decay_share: float) -> float:
    """Linear warm-up, constant, linear decay to 2 % over the last `decay_share` of the run."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    left = (steps - step) / max(1.0, decay_share * steps)
    return rise * min(1.0, max(0.02, left))
