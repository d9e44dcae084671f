"""Oracles: ln 2, numbers worked out by hand, Diffusion-DPO's own expression, finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from core.flow import velocity_error
from core.preference import PreferenceLoss, flow_dpo_loss

errors = st.lists(st.floats(0, 4), min_size=4, max_size=4)


def loss_of(chosen, rejected, chosen_reference, rejected_reference, **options) -> PreferenceLoss:
    def tensor(values):
        return torch.as_tensor(values, dtype=torch.float64).reshape(-1)

    arguments = (tensor(x) for x in (chosen, rejected, chosen_reference, rejected_reference))
    return flow_dpo_loss(*arguments, **{"beta": 2.0, **options})


@given(st.floats(0, 9), st.floats(0, 9), st.floats(1e-3, 5000))
def test_the_loss_is_ln_2_when_the_policy_is_the_reference(chosen: float, rejected: float, beta: float):
    result = loss_of(chosen, rejected, chosen, rejected, beta=beta, asymmetry=2.0)
    assert result.loss.item() == pytest.approx(math.log(2))
    assert result.implicit_accuracy == 0.5
    assert result.rejected_only_share is None


def test_numbers_worked_out_by_hand():
    # d_w = 0.5 - 0.7 = -0.2, d_l = 0.9 - 0.6 = 0.3
    result = loss_of(0.5, 0.9, 0.7, 0.6, beta=4.0, asymmetry=1.5, margin=0.25, sft_weight=0.1)
    # logit = -2 * (1.5 * -0.2 - 0.3) - 0.25 = 0.95; ln(1 + e^-0.95) = 0.3269564; plus 0.1 * 0.5
    assert result.logit.item() == pytest.approx(0.95)
    assert result.loss.item() == pytest.approx(0.3269564 + 0.05, abs=1e-6)
    assert result.chosen_delta.item() == pytest.approx(-0.2)
    assert result.rejected_delta.item() == pytest.approx(0.3)


def test_the_standard_case_is_diffusion_dpo():
    """Against the expression of its published training loop, on velocities instead of noise predictions."""
    generator = torch.Generator().manual_seed(0)
    model, reference, x0, noise = (torch.randn(10, 4, 3, 3, generator=generator) for _ in range(4))
    beta = 700.0
    model_losses = ((model - (noise - x0)) ** 2).mean(dim=[1, 2, 3])
    model_w, model_l = model_losses.chunk(2)
    reference_w, reference_l = ((reference - (noise - x0)) ** 2).mean(dim=[1, 2, 3]).chunk(2)
    inside_term = -0.5 * beta * ((model_w - model_l) - (reference_w - reference_l))
    expected = -F.logsigmoid(inside_term).mean()

    ours = flow_dpo_loss(
        *velocity_error(model, x0, noise).chunk(2), *velocity_error(reference, x0, noise).chunk(2), beta=beta
    )
    torch.testing.assert_close(ours.loss, expected)
    assert ours.implicit_accuracy == pytest.approx((inside_term > 0).float().mean().item())


@given(errors, st.floats(0.1, 100))
def test_swapping_the_pair_negates_the_logit(values: list[float], beta: float):
    w, l, w_ref, l_ref = values
    torch.testing.assert_close(
        loss_of(w, l, w_ref, l_ref, beta=beta).logit, -loss_of(l, w, l_ref, w_ref, beta=beta).logit
    )


@pytest.mark.parametrize(
    "options", [{}, {"asymmetry": 2.0}, {"margin": 0.5}, {"sft_weight": 0.3}, {"beta": 8.0, "asymmetry": 1.5}]
)
def test_gradients_of_both_sides_are_those_of_finite_differences(options: dict):
    generator = torch.Generator().manual_seed(1)
    chosen, rejected, chosen_reference, rejected_reference = (
        torch.rand(6, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    chosen.requires_grad_()
    rejected.requires_grad_()

    def loss(w, l):
        return flow_dpo_loss(w, l, chosen_reference, rejected_reference, **{"beta": 2.0, **options}).loss

    assert torch.autograd.gradcheck(loss, (chosen, rejected))


def test_descending_improves_the_chosen_and_worsens_the_rejected_side():
    chosen, rejected = torch.tensor([0.5], requires_grad=True), torch.tensor([0.5], requires_grad=True)
    flow_dpo_loss(chosen, rejected, torch.tensor([0.5]), torch.tensor([0.5]), beta=2.0, asymmetry=3.0).loss.backward()
    # d loss / d logit = -1/2 at logit 0, d logit / d e(w) = -beta/2 * a, d logit / d e(l) = beta/2
    assert chosen.grad.item() == pytest.approx(1.5)
    assert rejected.grad.item() == pytest.approx(-0.5)


def test_beta_goes_with_the_mean_over_dimensions():
    dimensions = 48
    mean_errors = [torch.rand(5, dtype=torch.float64) for _ in range(4)]
    summed_errors = [error * dimensions for error in mean_errors]
    torch.testing.assert_close(
        flow_dpo_loss(*mean_errors, beta=2000.0).loss,
        flow_dpo_loss(*summed_errors, beta=2000.0 / dimensions).loss,
    )


def test_accuracy_counts_a_tie_half_and_the_share_counts_wins_of_the_rejected_side_alone():
    # won by both sides, won by the rejected side alone (twice, once with d_w = 0), tied, lost
    result = loss_of([0.4, 0.6, 0.5, 0.5, 0.7], [0.6, 0.9, 0.8, 0.5, 0.4], [0.5] * 5, [0.5] * 5)
    assert result.implicit_accuracy == pytest.approx((1 + 1 + 1 + 0.5 + 0) / 5)
    assert result.rejected_only_share == pytest.approx(2 / 3)


def test_the_margin_must_be_cleared_and_the_anchor_pulls_on_the_chosen_side():
    assert loss_of(0.5, 0.5, 0.5, 0.5, margin=1.0).loss.item() == pytest.approx(math.log(1 + math.e))
    assert loss_of(0.5, 0.5, 0.5, 0.5, sft_weight=2.0).loss.item() == pytest.approx(math.log(2) + 1.0)


def test_the_loss_of_a_batch_is_the_mean_of_its_pairs():
    values = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together = loss_of(*values, sft_weight=0.1).loss.item()
    assert together == pytest.approx(sum(loss_of(*values[:, i], sft_weight=0.1).loss.item() for i in range(3)) / 3)


def test_extreme_logits_stay_finite():
    chosen = torch.tensor([50.0], requires_grad=True)
    result = flow_dpo_loss(chosen, torch.zeros(1), torch.zeros(1), torch.zeros(1), beta=5000.0)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(125_000)
    assert chosen.grad.item() == pytest.approx(2500)


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 0.0},
        {"beta": -1.0},
        {"beta": math.nan},
        {"asymmetry": 0.9},
        {"margin": -0.1},
        {"margin": math.inf},
        {"sft_weight": -1.0},
    ],
)
def test_bad_numbers_are_refused_by_name(options: dict):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        loss_of(0.5, 0.5, 0.5, 0.5, **options)


def test_bad_errors_are_refused():
    one = torch.ones(1)
    with pytest.raises(ValueError, match="one shape"):
        flow_dpo_loss(one, torch.ones(2), one, one, beta=1.0)
    with pytest.raises(ValueError, match="one shape"):
        flow_dpo_loss(*[torch.ones(2, 3)] * 4, beta=1.0)
    with pytest.raises(ValueError, match="at least one pair"):
        flow_dpo_loss(*[torch.ones(0)] * 4, beta=1.0)
    with pytest.raises(ValueError, match="nearly equal errors"):
        flow_dpo_loss(*[torch.ones(2, dtype=torch.bfloat16)] * 4, beta=1.0)
    with pytest.raises(ValueError, match=r"torch\.no_grad"):
        flow_dpo_loss(one, one, one, one.clone().requires_grad_(), beta=1.0)
