"""How strongly the picture being made sees its references: the identity schedule applied while generating.

IdGlow (arXiv 2603.00607, section 3.3) weighs the training loss with lambda(sigma). Here the same lambda
weighs the attention of target tokens to reference tokens,

    w(sigma) = 1 - strength * (1 - lambda(sigma)),      softmax(q k / sqrt(d) + log w) v,

so that w = 1 is exactly the stock model and w = 0 exactly removes the references. Only target rows are
weighted, so a prefix computed once stays valid for every w.

Identity guidance goes further than the model went by itself, as classifier-free guidance (arXiv 2207.12598) does for
prompts, here for the references alone (InstructPix2Pix, arXiv 2211.09800, eq. 3, has a scale for each too):

    v = v(w) + (scale - 1) * (v(w) - v(0)),      scale >= 1

It fades with w, so the schedule stays in command: where w is 0, nothing is guided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def injection_weight(identity_weight: float, strength: float) -> float:
    """w = 1 - strength * (1 - identity_weight), all three in [0, 1]; strength 0 switches the schedule off."""
    for name, value in (("identity_weight", identity_weight), ("strength", strength)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} is {value!r}, but must lie in [0, 1].")
    return 1.0 - strength * (1.0 - identity_weight)


def check_reference_weight(weight: float | Tensor, batch: int) -> None:
    """Raise ValueError unless `weight` is a number in [0, 1] or one such number per row, (batch,)."""
    if isinstance(weight, Tensor):
        if weight.shape != (batch,):
            raise ValueError(
                f"reference_weight has the shape {tuple(weight.shape)}, but a batch of {batch} needs ({batch},)."
            )
    elif not (math.isfinite(weight) and 0 <= weight <= 1):
        raise ValueError(f"reference_weight is {weight!r}, but must lie in [0, 1].")


@dataclass(frozen=True, kw_only=True)
class PrefixLayout:
    """Which keys of a prefix know the references; the three runs follow each other in this order.

    shared: computed before any reference was seen; always attended to.
    with_references: the references and everything that has seen them; attended to with weight w.
    without_references: the same text computed without references; attended to with weight 1 - w. A text that
        stands in both runs counts once, whatever w is.
    """

    shared: int
    with_references: int
    without_references: int

    def attended(self, weight: float | Tensor) -> slice:
        """The keys that can have a weight above 0, so that the others need not be read at all."""
        if not self.shared and not self.without_references and (isinstance(weight, Tensor) or weight < 1):
            raise ValueError(
                "This prompt was read with its references only, so they cannot be weighed; encode it with "
                "`encode_prompt`, which adds a reading without them."
            )
        if isinstance(weight, Tensor) or 0 < weight < 1:
            return slice(0, self.shared + self.with_references + self.without_references)
        if weight == 1:
            return slice(0, self.shared + self.with_references)
        if self.shared and self.without_references:
            raise ValueError("a prefix has either shared keys or a run without references, not both")
        return slice(0, self.shared) if self.shared else slice(self.with_references, None)

    def key_weights(self, weight: float | Tensor, like: Tensor) -> Tensor | None:
        """Weights (1 or B, keys) of the attended keys in dtype and device of `like`; None where all are 1."""
        if not isinstance(weight, Tensor):
            if weight in (0, 1) or not self.with_references:
                return None
            weight = torch.tensor([weight])
        column = weight.to(like)[:, None]
        return torch.cat(
            [
                torch.ones_like(column).expand(-1, self.shared),
                column.expand(-1, self.with_references),
                (1 - column).expand(-1, self.without_references),
            ],
            dim=1,
        )


def attention_bias(weights: Tensor, target_tokens: int) -> Tensor:
    """Additive bias (B, 1, 1, keys + target_tokens) for key weights (B, keys): log w, and 0 for the target's
    own.
    """
    bias = torch.cat([weights.log(), weights.new_zeros(len(weights), target_tokens)], dim=1)
    return bias[:, None, None, :]
