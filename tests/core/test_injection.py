"""The weight of references: against plain softmax, and through both families."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from core.injection import PrefixLayout, attention_bias, check_reference_weight, injection_weight


@pytest.mark.parametrize(
    ("identity_weight", "strength", "expected"),
    [(1, 1, 1), (0, 1, 0), (0.25, 1, 0.25), (0, 0, 1), (0, 0.5, 0.5), (0.5, 0.5, 0.75)],
)
def test_injection_weight(identity_weight, strength, expected):
    assert injection_weight(identity_weight, strength) == expected


@pytest.mark.parametrize(("identity_weight", "strength"), [(-0.1, 1), (1.1, 1), (1, 2), (1, math.nan)])
def test_injection_weight_refuses_what_is_no_weight(identity_weight, strength):
    with pytest.raises(ValueError, match="must lie in"):
        injection_weight(identity_weight, strength)


@pytest.mark.parametrize("weight", [-0.1, 1.5, math.nan, torch.ones(3)])
def test_reference_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="reference_weight"):
        check_reference_weight(weight, batch=2)


def attention(layout: PrefixLayout, keys: torch.Tensor, values: torch.Tensor, weight) -> torch.Tensor:
    """Attention of 3 target rows over prefix and target the way a backbone does it; (B, 1, 3, 4)."""
    batch, target_tokens = 2, 3
    query, own_keys, own_values = torch.randn(3, batch, 1, target_tokens, 4, generator=torch.Generator().manual_seed(1))
    attended = layout.attended(weight)
    weights = layout.key_weights(weight, keys)
    bias = None if weights is None else attention_bias(weights, target_tokens)
    return F.scaled_dot_product_attention(
        query,
        torch.cat([keys[attended].expand(batch, 1, -1, -1), own_keys], dim=2),
        torch.cat([values[attended].expand(batch, 1, -1, -1), own_values], dim=2),
        attn_mask=bias,
    )


SHARED = PrefixLayout(shared=2, with_references=3, without_references=0)
TWICE = PrefixLayout(shared=0, with_references=3, without_references=2)


@pytest.fixture
def prefix() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("layout", [SHARED, TWICE])
def test_weights_of_a_batch_equal_weights_one_by_one(layout, prefix):
    rows = attention(layout, *prefix, torch.tensor([1.0, 0.3]))
    torch.testing.assert_close(rows[0], attention(layout, *prefix, 1.0)[0])
    torch.testing.assert_close(rows[1], attention(layout, *prefix, 0.3)[1])
    rows = attention(layout, *prefix, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(rows[0], attention(layout, *prefix, 0.0)[0])


def test_a_weight_is_a_multiplicity(prefix):
    """A key of weight 1/2 that stands in the prefix twice counts as much as one of weight 1."""
    keys, values = prefix
    text = slice(0, 2)
    doubled = PrefixLayout(shared=0, with_references=2, without_references=2)
    once = PrefixLayout(shared=2, with_references=0, without_references=0)
    for weight in (0.2, 0.5, 0.9):
        torch.testing.assert_close(
            attention(doubled, keys[text].repeat(2, 1), values[text].repeat(2, 1), weight),
            attention(once, keys[text], values[text], weight),
        )


def test_the_end_points_read_only_the_keys_that_count(prefix):
    keys, values = prefix
    nan = torch.full_like(keys[:2], math.nan)
    spoiled = lambda x: torch.cat([x[:3], nan])  # noqa: E731
    assert attention(TWICE, spoiled(keys), spoiled(values), 1.0).isfinite().all()
    spoiled = lambda x: torch.cat([x[:2], math.nan * x[2:]])  # noqa: E731
    assert attention(SHARED, spoiled(keys), spoiled(values), 0.0).isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 0.5, torch.ones(2)])
def test_references_that_cannot_be_removed_cannot_be_weighed(weight):
    """Otherwise the prompt would vanish with them, without a word."""
    layout = PrefixLayout(shared=0, with_references=3, without_references=0)
    assert layout.attended(1.0) == slice(0, 3)
    with pytest.raises(ValueError, match="cannot be weighed"):
        layout.attended(weight)


def test_influence_grows_with_the_weight(prefix):
    nothing = attention(SHARED, *prefix, 0.0)
    distances = [(attention(SHARED, *prefix, w) - nothing).norm().item() for w in (0.0, 0.1, 0.4, 0.7, 1.0)]
    assert distances == sorted(distances)
    assert distances[-1] > distances[1] > 0
