"""Weighted-margin preference loss for flow matching.

Sources: IdGlow (arXiv 2603.00607), section 3.4; Diffusion-DPO (arXiv 2311.12908), eq. 14.

For a pair with the same references, prompt, sigma and noise, e is the squared velocity error of one picture
(`core.flow.velocity_error`: the *mean* over its dimensions), e_ref the same under the reference policy:

    d_w = e(w) - e_ref(w)        d_l = e(l) - e_ref(l)
    L   = -log sigmoid(-beta / 2 * (a * d_w - d_l) - m) + lambda_sft * e(w)

a = 1, m = 0, lambda_sft = 0 is Diffusion-DPO with its factor 1/2. beta belongs to the mean: with errors
summed over D dimensions the same loss needs beta / D, and code without the factor 1/2 needs half this beta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class PreferenceLoss:
    """Result for B pairs. Only `loss` carries a gradient.

    loss: scalar, the mean over the pairs.
    logit: (B,), the argument of the sigmoid.
    chosen_delta: (B,), d_w; below 0 the policy is better at the chosen picture than the reference policy is.
    rejected_delta: (B,), d_l; above 0 the policy has moved away from the rejected picture.
    """

    loss: Tensor
    logit: Tensor
    chosen_delta: Tensor
    rejected_delta: Tensor

    @property
    def implicit_accuracy(self) -> float:
        """Share of the pairs with d_w < d_l, in [0, 1]; a tie counts half."""
        wins = (self.chosen_delta < self.rejected_delta).float()
        ties = (self.chosen_delta == self.rejected_delta).float()
        return (wins + ties / 2).mean().item()

    @property
    def rejected_only_share(self) -> float | None:
        """Share of the won pairs (d_w < d_l) whose chosen side did not improve (d_w >= 0), in [0, 1].

        Such a pair is won by getting worse at the rejected picture alone; past one half a round does harm.
        None when no pair is won.
        """
        won = self.chosen_delta < self.rejected_delta
        if not won.any():
            return None
        return (self.chosen_delta[won] >= 0).float().mean().item()


def flow_dpo_loss(
    chosen_error: Tensor,
    rejected_error: Tensor,
    chosen_reference_error: Tensor,
    rejected_reference_error: Tensor,
    *,
    beta: float,
    asymmetry: float = 1.0,
    margin: float = 0.0,
    sft_weight: float = 0.0,
) -> PreferenceLoss:
    """The preference loss of B pairs.

    Args:
        chosen_error, rejected_error: (B,), e(w) and e(l) of the policy, with gradient.
        chosen_reference_error, rejected_reference_error: (B,), the same of the reference policy, no gradient.
        beta: above 0; how much a difference of errors counts. It goes with the mean over dimensions.
        asymmetry: a >= 1, amplifies the chosen side.
        margin: m >= 0, by how much the logit has to clear zero.
        sft_weight: lambda_sft >= 0, the anchor to the chosen pictures.

    Raises:
        ValueError: a shape, dtype or number is not as above, or a reference error still carries a gradient.
    """
    errors = {
        "chosen_error": chosen_error,
        "rejected_error": rejected_error,
        "chosen_reference_error": chosen_reference_error,
        "rejected_reference_error": rejected_reference_error,
    }
    _check_errors(errors)
    for name, value, lowest in (
        ("asymmetry", asymmetry, 1),
        ("margin", margin, 0),
        ("sft_weight", sft_weight, 0),
    ):
        if not (math.isfinite(value) and value >= lowest):
            raise ValueError(f"{name} is {value!r}, but must be a finite number of at least {lowest}.")
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta is {beta!r}, but must be a finite number above 0.")

    chosen_delta = chosen_error - chosen_reference_error
    rejected_delta = rejected_error - rejected_reference_error
    logit = -beta / 2 * (asymmetry * chosen_delta - rejected_delta) - margin
    loss = (-F.logsigmoid(logit) + sft_weight * chosen_error).mean()
    return PreferenceLoss(loss, logit.detach(), chosen_delta.detach(), rejected_delta.detach())


def _check_errors(errors: dict[str, Tensor]) -> None:
    shapes = {name: tuple(error.shape) for name, error in errors.items()}
    if len(set(shapes.values())) > 1 or errors["chosen_error"].dim() != 1 or errors["chosen_error"].numel() == 0:
        raise ValueError(f"The four errors must have one shape (pairs,), with at least one pair; they have {shapes}.")
    for name, error in errors.items():
        if error.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{name} is {error.dtype}, but must be float32 or float64: "
                "the loss takes the difference of nearly equal errors."
            )
        if "reference" in name and error.requires_grad:
            raise ValueError(f"{name} carries a gradient; compute the reference policy's errors under torch.no_grad().")
