"""The identity schedule lambda(sigma): when during denoising identity is imposed.

    off         0
    constant    1
    anneal      strongest at the noisy end, released linearly towards the clean end; for groups of people
        hold    min(1, sigma / threshold)
        ramp    max(0, (sigma - threshold) / (1 - threshold))
    gate        1 for start <= sigma <= end, else 0; for the same people at another age

The same weight scales the identity loss in training and the references' influence while generating. Source:
IdGlow (arXiv 2603.00607), section 3.3, eq. 4 and 5; `hold` and `ramp` are two readings of eq. 4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

Mode = Literal["off", "constant", "anneal", "gate"]
Form = Literal["hold", "ramp"]

_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e-[0-9]+)?"
_TEXT = re.compile(
    rf"(?P<mode>off|constant)|(?P<anneal>anneal)-(?P<form>\w+)-(?P<threshold>{_NUMBER})"
    rf"|(?P<gate>gate)-(?P<start>{_NUMBER})-(?P<end>{_NUMBER})"
)
_FIELDS_OF_MODE = {"off": (), "constant": (), "anneal": ("threshold", "form"), "gate": ("start", "end")}


@dataclass(frozen=True, eq=False)
class ScheduleCurve:
    """A schedule to plot: `sigmas` rising from 0 to 1 and the `weights` there, two float64 arrays."""

    sigmas: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, kw_only=True)
class IdentitySchedule:
    """lambda(sigma) in [0, 1]. Fields that mean nothing to a mode are None, so equal schedules compare equal.

    threshold: of `anneal`, a sigma; above 0 and at most 1 for `hold`, at least 0 and below 1 for `ramp`.
    form: of `anneal`, ``hold`` or ``ramp``.
    start, end: of `gate`, sigmas in [0, 1] with start <= end; both edges belong to the window.
    """

    mode: Mode
    threshold: float | None = None
    form: Form | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"Schedule mode {self.mode!r} is unknown; choose one of {', '.join(get_args(Mode))}.")
        own_fields = _FIELDS_OF_MODE[self.mode]
        for name in ("threshold", "form", "start", "end"):
            if name not in own_fields and getattr(self, name) is not None:
                raise ValueError(f"A schedule of mode {self.mode} has no {name}; got {getattr(self, name)!r}.")
        for name in own_fields:
            if name != "form":
                object.__setattr__(self, name, _unit_number(name, getattr(self, name)))
        if self.mode == "anneal":
            self._check_anneal()
        if self.mode == "gate" and self.start > self.end:
            raise ValueError(f"The gate starts at {self.start} and ends at {self.end}; start must not be above end.")

    def _check_anneal(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"Annealing form {self.form!r} is unknown; choose one of {', '.join(get_args(Form))}.")
        if self.form == "hold" and self.threshold == 0:
            raise ValueError(
                "The threshold is 0, but `hold` divides by it; choose a threshold above 0, or mode constant."
            )
        if self.form == "ramp" and self.threshold == 1:
            raise ValueError(
                "The threshold is 1, but `ramp` divides by 1 - threshold; choose one below 1, or mode off."
            )

    @classmethod
    def off(cls) -> IdentitySchedule:
        return cls(mode="off")

    @classmethod
    def constant(cls) -> IdentitySchedule:
        return cls(mode="constant")

    @classmethod
    def anneal(cls, threshold: float, form: Form = "hold") -> IdentitySchedule:
        return cls(mode="anneal", threshold=threshold, form=form)

    @classmethod
    def gate(cls, start: float = 0.3, end: float = 0.6) -> IdentitySchedule:
        return cls(mode="gate", start=start, end=end)

    def weight(self, sigma: float | Tensor) -> float | Tensor:
        """lambda(sigma): a float for a float; for a floating-point tensor one of its shape, dtype and device.

        The gate compares in the precision of sigma, and never in more than float32: a scheduler's 0.6 is
        0.60000002 once it is a Python float, and still belongs to a window that ends at 0.6.
        """
        if not isinstance(sigma, Tensor):
            return self.weight(torch.tensor(_unit_number("sigma", sigma), dtype=torch.float64)).item()
        if not sigma.is_floating_point():
            raise ValueError(f"sigma has the dtype {sigma.dtype}, but must be floating point.")
        if not bool(((sigma >= 0) & (sigma <= 1)).all()):
            raise ValueError(f"sigma contains values outside [0, 1]: {sigma.flatten()[:8].tolist()}.")
        if self.mode == "off":
            return torch.zeros_like(sigma)
        if self.mode == "constant":
            return torch.ones_like(sigma)
        if self.mode == "gate":
            compared = sigma.to(torch.float32) if sigma.dtype == torch.float64 else sigma
            start, end = compared.new_tensor([self.start, self.end])
            return ((compared >= start) & (compared <= end)).to(sigma.dtype)
        # float64: a tiny threshold would become 0 in less, and 0 / 0 at the clean end.
        exact = sigma.to(torch.float64)
        if self.form == "hold":
            return (exact / self.threshold).clamp(max=1).to(sigma.dtype)
        return ((exact - self.threshold) / (1 - self.threshold)).clamp(min=0).to(sigma.dtype)

    def curve(self, points: int = 101) -> ScheduleCurve:
        """The schedule on `points` evenly spaced sigmas and on its own edges: even a narrow gate is drawn."""
        if points < 2:
            raise ValueError(f"points is {points}, but a curve needs at least 2.")
        edges = [edge for edge in (self.threshold, self.start, self.end) if edge is not None]
        sigmas = np.union1d(np.linspace(0.0, 1.0, points), edges)
        return ScheduleCurve(sigmas, self.weight(torch.from_numpy(sigmas)).numpy())

    def __str__(self) -> str:
        """``off``, ``constant``, ``anneal-hold-0.4``, ``gate-0.3-0.6``: exact, and safe in file names."""
        if self.mode == "anneal":
            return f"anneal-{self.form}-{self.threshold!r}"
        if self.mode == "gate":
            return f"gate-{self.start!r}-{self.end!r}"
        return self.mode

    @classmethod
    def parse(cls, text: str) -> IdentitySchedule:
        """The schedule whose `str` is `text`."""
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                f"{text!r} is no identity schedule; write off, constant, anneal-hold-0.4, anneal-ramp-0.4 "
                "or gate-0.3-0.6."
            )
        if match["anneal"]:
            return cls.anneal(float(match["threshold"]), match["form"])
        if match["gate"]:
            return cls.gate(float(match["start"]), float(match["end"]))
        return cls(mode=match["mode"])

    def to_json(self) -> dict[str, str | float]:
        """The mode and the fields that belong to it, as values that JSON can hold without loss."""
        return {name: getattr(self, name) for name in ("mode", *_FIELDS_OF_MODE[self.mode])}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> IdentitySchedule:
        """The schedule whose `to_json` is `values`; the fields of its mode must be there and no others."""
        if not isinstance(values, Mapping):
            raise ValueError(f"An identity schedule is a JSON object with a mode, not {values!r}.")
        unknown = set(values) - {"mode", "threshold", "form", "start", "end"}
        if unknown or "mode" not in values:
            raise ValueError(
                f"An identity schedule has a mode and may have threshold, form, start and end; "
                f"got {sorted(map(str, values))}."
            )
        return cls(**values)


def _unit_number(name: str, value: object) -> float:
    """`value` as a float in [0, 1]; True, None, text, NaN and everything outside are refused."""
    number = float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {value!r}, but must be a number in [0, 1].")
    return number + 0.0  # -0.0 is 0.0, and has only one text form
