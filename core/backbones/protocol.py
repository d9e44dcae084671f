"""What sampler, trainers and studio need from a model family, and nothing more.

Pictures are RGB in [0, 1], (B, 3, H, W), or uint8 (H, W, 3) where a person's file is meant. Latents are
normalised and spatial, (B, C, rows, columns); how a family packs them into tokens is its own business. sigma
as in core/flow.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a backbone accepts.

    max_references: number of reference pictures.
    multiple_of: sides of the picture, in pixels, are multiples of this.
    """

    max_references: int
    multiple_of: int

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless both sides, in pixels, are positive multiples of `multiple_of`."""
        for name, side in (("height", height), ("width", width)):
            if side < self.multiple_of or side % self.multiple_of:
                nearest = max(1, round(side / self.multiple_of)) * self.multiple_of
                raise ValueError(
                    f"The {name} is {side} px, but this model makes pictures whose sides are multiples of "
                    f"{self.multiple_of} px; {nearest} is the nearest."
                )

    def check_references(self, count: int) -> None:
        """Raise ValueError if there are more references than the model takes."""
        if count > self.max_references:
            raise ValueError(
                f"There are {count} reference pictures, but this model takes at most {self.max_references}."
            )


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Prompt and references, encoded: all that is kept to generate again without VLM and VAE encoder.

    embeddings: (B, S, D), the VLM's hidden states of the prompt with its picture slots.
    picture_slots: (S,) bool, True where the VLM reads a picture; shared by the batch.
    reference_latents: (B, C, rows, columns) for each reference, in the order of the portraits.
    valid: (B, S) bool, False at padding; None where nothing is padded.
    without_references: the same prompt read without pictures; None where the family can do without it.
    """

    embeddings: Tensor
    picture_slots: Tensor
    reference_latents: tuple[Tensor, ...] = ()
    valid: Tensor | None = None
    without_references: Conditioning | None = None

    def __len__(self) -> int:
        return self.embeddings.shape[0]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditioning:
        """Move every tensor; `dtype` applies to embeddings and latents."""
        return replace(
            self,
            embeddings=self.embeddings.to(device, dtype),
            picture_slots=self.picture_slots.to(device),
            reference_latents=tuple(latents.to(device, dtype) for latents in self.reference_latents),
            valid=None if self.valid is None else self.valid.to(device),
            without_references=self.without_references and self.without_references.to(device, dtype),
        )

    @staticmethod
    def stack(conditionings: Sequence[Conditioning], *, pad_before_pictures: bool = False) -> Conditioning:
        """One batch of several prompts; shorter ones are padded, and `valid` says where.

        All need the same number and sizes of references. `pad_before_pictures` is for templates with the text
        first: there the padding goes between text and pictures, so that the picture slots of all rows line
        up.
        """
        layouts = {tuple(latents.shape[1:] for latents in c.reference_latents) for c in conditionings}
        if len(layouts) != 1:
            raise ValueError(
                f"A batch needs the same number and sizes of references in every row, but these differ: {layouts}."
            )
        if len({c.without_references is None for c in conditionings}) != 1:
            raise ValueError("A batch cannot mix conditionings with and without a reference-free reading.")
        longest = max(conditionings, key=lambda c: c.embeddings.shape[1])
        rows = [c.padded(longest.embeddings.shape[1], pad_before_pictures) for c in conditionings]
        if any(not torch.equal(row.picture_slots, rows[0].picture_slots) for row in rows):
            raise ValueError(
                "The picture slots of the rows do not line up; pad_before_pictures must tell the template's order."
            )
        valid = torch.cat([row.valid for row in rows])
        return Conditioning(
            embeddings=torch.cat([row.embeddings for row in rows]),
            picture_slots=rows[0].picture_slots,
            reference_latents=tuple(
                torch.cat(latents) for latents in zip(*(r.reference_latents for r in rows), strict=True)
            ),
            valid=None if bool(valid.all()) else valid,
            without_references=None
            if conditionings[0].without_references is None
            else Conditioning.stack([c.without_references for c in conditionings]),
        )

    def padded(self, length: int, before_pictures: bool) -> Conditioning:
        """With `length` tokens: the missing ones are zeros, not valid, before the first picture or at the end."""
        slots = self.picture_slots
        at = int(slots.nonzero()[0]) if before_pictures and bool(slots.any()) else len(slots)
        missing = length - len(slots)
        valid = self.valid if self.valid is not None else slots.new_ones(len(self), len(slots))

        def pad(x: Tensor, axis: int) -> Tensor:
            gap = x.new_zeros(*x.shape[:axis], missing, *x.shape[axis + 1 :])
            return torch.cat([x.narrow(axis, 0, at), gap, x.narrow(axis, at, x.shape[axis] - at)], dim=axis)

        return replace(self, embeddings=pad(self.embeddings, 1), picture_slots=pad(slots, 0), valid=pad(valid, 1))


class Backbone(Protocol):
    """One model family behind the calls that sampling and training consist of:

    encode_prompt -> prefill -> velocity, once per step -> decode. A prefix is opaque, and only good for the
    weights it was computed with: prefill again when the transformer, an adapter or an adapter's scale has
    changed.
    """

    limits: Limits
    pipeline: Any
    """The diffusers pipeline that holds the components."""

    @property
    def transformer(self) -> nn.Module:
        """What adapters and trainers change."""

    @property
    def device(self) -> torch.device: ...

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, rows, columns) of the latents of a picture of a size in pixels; ValueError if not allowed."""

    def encode_prompt(self, prompt: str, references: Sequence[np.ndarray]) -> Conditioning:
        """Encode a prompt and its reference pictures, uint8 (H, W, 3) RGB, as a batch of one; without
        gradient.
        """

    def stack(self, conditionings: Sequence[Conditioning]) -> Conditioning:
        """Several encoded prompts as one batch, see `Conditioning.stack`."""

    def prefill(self, conditioning: Conditioning) -> Any:
        """Compute once what needs neither target nor sigma; differentiable in the transformer's weights."""

    def velocity(self, prefix: Any, x_t: Tensor, sigma: Tensor, *, reference_weight: float | Tensor = 1.0) -> Tensor:
        """v_pred, (B, C, rows, columns) float32, of noisy latents x_t (B, C, rows, columns) at sigma (B,).

        One prefix serves several targets: with a prefix of batch P, rows p * B / P to (p + 1) * B / P - 1
        belong to prompt p. `reference_weight` in [0, 1], a number or one per row (B,), is w of
        core/injection.py: 1 is the stock model, 0 the model without the references. Differentiable in prefix,
        x_t and weights.
        """

    def guide(self, v_pred: Tensor, v_negative: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance as this family does it: scale 1 is v_pred, more leads away from
        v_negative.
        """

    def sigmas(self, steps: int, height: int, width: int) -> Tensor:
        """The falling grid, (steps + 1,) float32 from 1 to 0, on which pictures of this size are sampled."""

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents (B, C, rows, columns) of pictures (B, 3, H, W) in [0, 1]: the mode, normalised;
        differentiable.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) float32 of latents (B, C, rows, columns); differentiable.

        Meant to lie in [0, 1] but not clamped to it: clamping would stop the gradient there.
        """


def repeat_rows(x: Tensor, batch: int) -> Tensor:
    """Rows (P, ...) repeated to (batch, ...), each P-th row batch / P times in a run; a view where P is 1."""
    rows = x.shape[0]
    if rows == batch:
        return x
    if batch % rows:
        raise ValueError(f"{batch} targets cannot share {rows} prefixes; their number must be a multiple of it.")
    if rows == 1:
        return x.expand(batch, *x.shape[1:])
    return x.repeat_interleave(batch // rows, dim=0)
