"""Oracles: diffusers' scheduler, autograd for the derivative, and exact recovery under a perfect velocity."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
from hypothesis import given
from hypothesis import strategies as st

from core.flow import (
    add_noise,
    clean_estimate,
    euler_step,
    sample_sigmas,
    shift_sigmas,
    velocity_error,
    velocity_target,
)

unit = st.floats(0, 1, allow_nan=False)


def pair(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(3, 4, 2, 5, generator=generator, dtype=dtype) for _ in range(2))
    return x0, noise


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_noising_is_that_of_diffusers(shift: float):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    x0, noise = pair(dtype=torch.float32)
    indices = torch.tensor([0, 371, 999])
    expected = scheduler.scale_noise(x0, scheduler.timesteps[indices], noise)
    torch.testing.assert_close(add_noise(x0, noise, scheduler.sigmas[indices]), expected)


def test_euler_steps_are_those_of_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler.set_timesteps(7)
    x0, noise = pair(dtype=torch.float32)
    ours = theirs = noise
    for index, timestep in enumerate(scheduler.timesteps):
        v_pred = torch.sin(ours) + x0
        ours = euler_step(ours, v_pred, scheduler.sigmas[index].item(), scheduler.sigmas[index + 1].item())
        theirs = scheduler.step(v_pred, timestep, theirs).prev_sample
        torch.testing.assert_close(ours, theirs)


def test_shift_is_that_of_diffusers():
    sigmas = torch.linspace(1, 0.001, 1000)
    torch.testing.assert_close(shift_sigmas(sigmas, 3.0), FlowMatchEulerDiscreteScheduler(shift=3.0).sigmas)


@given(st.lists(unit, max_size=12), st.integers(0, 99))
def test_a_perfect_velocity_recovers_x0_on_any_grid(inner: list[float], seed: int):
    x0, noise = pair(seed)
    grid = [1.0, *sorted(inner, reverse=True), 0.0]
    x = noise
    for sigma, sigma_next in pairwise(grid):
        x = euler_step(x, velocity_target(x0, noise), sigma, sigma_next)
    torch.testing.assert_close(x, x0)


@given(unit, st.integers(0, 99))
def test_the_true_velocity_points_at_x0_from_every_sigma(sigma: float, seed: int):
    x0, noise = pair(seed)
    x_t = add_noise(x0, noise, sigma)
    torch.testing.assert_close(clean_estimate(x_t, velocity_target(x0, noise), sigma), x0)


def test_the_velocity_is_the_derivative_of_the_noised_latents():
    x0, noise = pair()
    sigma = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    _, derivative = torch.func.jvp(lambda s: add_noise(x0, noise, s), (sigma,), (torch.ones_like(sigma),))
    torch.testing.assert_close(derivative, velocity_target(x0, noise))


def test_a_sigma_for_each_sample_equals_one_sample_at_a_time():
    x0, noise = pair()
    sigma = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    together = add_noise(x0, noise, sigma)
    for i, value in enumerate(sigma.tolist()):
        torch.testing.assert_close(together[i : i + 1], add_noise(x0[i : i + 1], noise[i : i + 1], value))
    assert torch.equal(together[0], x0[0])
    assert torch.equal(together[2], noise[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_latents_are_mixed_in_float32_and_keep_their_dtype(dtype: torch.dtype):
    x0, noise = pair(dtype=dtype)
    expected = (1 - 0.999) * x0.double() + 0.999 * noise.double()
    for sigma in (0.999, torch.full((3,), 0.999)):
        result = add_noise(x0, noise, sigma)
        assert result.dtype == dtype
        torch.testing.assert_close(result, expected.to(dtype))


def test_velocity_error_is_the_mean_square_of_each_sample():
    x0, noise = pair()
    v_pred = velocity_target(x0, noise) + torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    torch.testing.assert_close(velocity_error(v_pred, x0, noise), torch.tensor([0.0, 1.0, 9.0], dtype=torch.float64))
    assert velocity_error(*(x.bfloat16() for x in (v_pred, x0, noise))).dtype == torch.float32


def test_uniform_sigmas_fill_the_unit_interval_evenly():
    sigmas = sample_sigmas(20_000, generator=torch.Generator().manual_seed(0))
    assert sigmas.shape == (20_000,)
    assert sigmas.dtype == torch.float32
    histogram = torch.histc(sigmas, bins=10, min=0, max=1)
    assert (histogram - 2000).abs().max() < 200


def test_logit_normal_sigmas_are_those_of_diffusers():
    ours = sample_sigmas(
        4000, distribution="logit_normal", mean=0.4, std=1.3, generator=torch.Generator().manual_seed(1)
    )
    theirs = compute_density_for_timestep_sampling(
        "logit_normal", 4000, logit_mean=0.4, logit_std=1.3, generator=torch.Generator().manual_seed(2)
    )
    at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    torch.testing.assert_close(ours.quantile(at), theirs.quantile(at), atol=0.03, rtol=0)


def test_sampled_sigmas_are_shifted_and_reproducible():
    def draw(shift: float) -> torch.Tensor:
        return sample_sigmas(50, shift=shift, generator=torch.Generator().manual_seed(3))

    assert torch.equal(draw(2.0), draw(2.0))
    assert torch.equal(draw(2.0), shift_sigmas(draw(1.0), 2.0))


@given(st.floats(1e-3, 1e3), st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20))
def test_shifting_keeps_the_interval_its_ends_and_the_order(shift: float, values: list[float]):
    sigmas = torch.tensor([0.0, *sorted(values), 1.0])
    shifted = shift_sigmas(sigmas, shift)
    assert shifted[0] == 0
    assert shifted[-1] == 1
    assert (shifted.diff() >= -1e-6).all()
    assert ((shifted >= 0) & (shifted <= 1)).all()
    torch.testing.assert_close(shift_sigmas(shifted.double(), 1 / shift).float(), sigmas, atol=1e-4, rtol=1e-3)


def test_an_empty_draw_is_empty():
    assert sample_sigmas(0).shape == (0,)


@pytest.mark.parametrize("sigma", [-0.1, 1.01, float("nan"), 500.0, torch.tensor([0.5, 0.5, 2.0])])
def test_a_sigma_outside_the_unit_interval_is_refused(sigma: float | torch.Tensor):
    x0, noise = pair()
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        add_noise(x0, noise, sigma)


@pytest.mark.parametrize("sigma", [torch.full((2,), 0.5), torch.full((3, 1), 0.5)])
def test_a_sigma_of_another_batch_is_refused(sigma: torch.Tensor):
    x0, noise = pair()
    with pytest.raises(ValueError, match="a batch of 3"):
        add_noise(x0, noise, sigma)


def test_shapes_that_would_broadcast_are_refused():
    x0, noise = pair()
    for call in (
        lambda: add_noise(x0, noise[:1], 0.5),
        lambda: velocity_target(x0, noise[:1]),
        lambda: velocity_error(x0[:1], x0, noise),
        lambda: clean_estimate(x0, noise[:1], 0.5),
        lambda: euler_step(x0, noise[:1], 0.5, 0.4),
    ):
        with pytest.raises(ValueError, match="one shape"):
            call()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"distribution": "logit-normal"}, "no known sigma distribution"),
        ({"distribution": "logit_normal", "std": 0.0}, "std above 0"),
        ({"distribution": "logit_normal", "mean": float("nan")}, "finite numbers"),
        ({"shift": 0.0}, "shift is 0.0"),
        ({"shift": float("inf")}, "shift is inf"),
        ({"count": -1}, "cannot be negative"),
    ],
)
def test_bad_sampling_arguments_are_refused(arguments: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        sample_sigmas(**{"count": 4, **arguments})
