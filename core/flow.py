"""Flow matching: the one convention of this project.

    sigma in [0, 1]: 0 is the clean image, 1 is pure noise (the paper's t)
    x_t = (1 - sigma) * x0 + sigma * noise
    v   = noise - x0 = d x_t / d sigma
    x0  = x_t - sigma * v
    Euler: x <- x + (sigma_next - sigma) * v, sigma falling from 1 to 0

It is the convention of diffusers' ``FlowMatchEulerDiscreteScheduler``, whose ``timestep`` is ``1000 *
sigma``; timesteps exist only where that scheduler or a transformer is called. Source: IdGlow (arXiv
2603.00607), section 3.

Every function takes sigma as a float, or as a tensor with one value for each sample of the batch. Arithmetic
happens in float32 at least, because half precision cannot tell neighbouring sigmas apart; the result has the
dtype of the first argument.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

SigmaDistribution = Literal["uniform", "logit_normal"]


def add_noise(x0: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """Noised latents ``x_t = (1 - sigma) * x0 + sigma * noise``.

    Args:
        x0: clean latents, (B, ...).
        noise: standard Gaussian noise, same shape as x0.
        sigma: in [0, 1]; a float or a tensor of shape (B,).
    """
    _check_same_shape(x0=x0, noise=noise)
    sigma = _per_sample(sigma, x0)
    return ((1 - sigma) * x0 + sigma * noise).to(x0.dtype)


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """The velocity to be predicted, ``noise - x0``, (B, ...)."""
    _check_same_shape(x0=x0, noise=noise)
    return noise - x0


def velocity_error(v_pred: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    """Squared velocity error of each sample, (B, ...) -> (B,), float32 at least.

    It is the *mean* over the sample's dimensions: e(x) of the preference loss, whose beta depends on that.
    """
    _check_same_shape(x0=x0, noise=noise, v_pred=v_pred)
    dtype = torch.promote_types(v_pred.dtype, torch.float32)
    return (v_pred.to(dtype) - velocity_target(x0.to(dtype), noise.to(dtype))).square().flatten(1).mean(dim=1)


def clean_estimate(x_t: Tensor, v_pred: Tensor, sigma: float | Tensor) -> Tensor:
    """The clean latents that a predicted velocity points to, ``x_t - sigma * v_pred``, (B, ...)."""
    _check_same_shape(x_t=x_t, v_pred=v_pred)
    return (x_t - _per_sample(sigma, x_t) * v_pred).to(x_t.dtype)


def euler_step(x_t: Tensor, v_pred: Tensor, sigma: float | Tensor, sigma_next: float | Tensor) -> Tensor:
    """One step of the probability-flow ODE, ``x_t + (sigma_next - sigma) * v_pred``, (B, ...)."""
    _check_same_shape(x_t=x_t, v_pred=v_pred)
    step = _per_sample(sigma_next, x_t) - _per_sample(sigma, x_t)
    return (x_t + step * v_pred).to(x_t.dtype)


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Moves sigmas in [0, 1] towards noise: ``shift * sigma / (1 + (shift - 1) * sigma)``.

    0 and 1 stay where they are. shift = 1 changes nothing, shift > 1 spends more steps (or samples) on the
    noisy end.
    Source: Stable Diffusion 3 (arXiv 2403.03206), section 5.3.2.
    """
    if not (math.isfinite(shift) and shift > 0):
        raise ValueError(f"shift is {shift!r}, but must be a finite number above 0; 1 leaves the sigmas as they are.")
    _check_sigma_range(sigmas)
    # The same fraction as above; in this form rounding can never lift a sigma above 1.
    return shift * sigmas / ((1 - sigmas) + shift * sigmas)


def sample_sigmas(
    count: int,
    *,
    distribution: SigmaDistribution = "uniform",
    mean: float = 0.0,
    std: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random training sigmas in [0, 1], shape (count,), float32.

    Args:
        count: how many.
        distribution: ``uniform``, or ``logit_normal``: sigmoid of a Gaussian with `mean` and `std`
            (arXiv 2403.03206, section 3.1), which visits the middle of the trajectory most.
        shift: applied afterwards, see `shift_sigmas`.
        generator: source of randomness; it must live on `device`.
    """
    if count < 0:
        raise ValueError(f"count is {count}, but a number of sigmas cannot be negative.")
    if distribution not in get_args(SigmaDistribution):
        raise ValueError(
            f"distribution is {distribution!r}, which is no known sigma distribution; "
            f"choose one of {', '.join(get_args(SigmaDistribution))}."
        )
    if distribution == "uniform":
        sigmas = torch.rand(count, generator=generator, device=device)
    else:
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise ValueError(
                f"mean is {mean!r} and std is {std!r}, but logit_normal needs finite numbers and std above 0."
            )
        sigmas = torch.sigmoid(mean + std * torch.randn(count, generator=generator, device=device))
    return shift_sigmas(sigmas, shift)


def _per_sample(sigma: float | Tensor, x: Tensor) -> Tensor:
    """Sigma as a tensor that broadcasts over x: (1, 1, ...) from a float, (B, 1, ...) from (B,)."""
    if not isinstance(sigma, Tensor):
        sigma = torch.tensor(sigma, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    _check_sigma_range(sigma)
    if sigma.dim() > 1 or (sigma.dim() == 1 and sigma.shape[0] != x.shape[0]):
        raise ValueError(
            f"sigma has the shape {tuple(sigma.shape)}, but a batch of {x.shape[0]} needs one number "
            f"or the shape ({x.shape[0]},)."
        )
    sigma = sigma.to(device=x.device, dtype=torch.promote_types(sigma.dtype, torch.float32))
    return sigma.reshape(-1, *[1] * (x.dim() - 1))


def _check_sigma_range(sigma: Tensor) -> None:
    if not bool(((sigma >= 0) & (sigma <= 1)).all()):
        low, high = sigma.min().item(), sigma.max().item()
        raise ValueError(f"sigma lies in [{low:g}, {high:g}], but must be in [0, 1]; a timestep is 1000 * sigma.")


def _check_same_shape(**tensors: Tensor) -> None:
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"These tensors must have one shape, so that nothing is broadcast by mistake: {shapes}.")
