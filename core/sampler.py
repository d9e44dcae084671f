"""The denoising loop: one prefix for all candidates, references weighed by the identity schedule at every
step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from core.backbones.protocol import Backbone, Conditioning
from core.flow import add_noise, clean_estimate, euler_step
from core.injection import injection_weight
from core.schedule import IdentitySchedule


class Cancelled(RuntimeError):
    """Somebody asked to stop; nothing was finished."""


@dataclass(frozen=True, eq=False)
class StepReport:
    """State after a denoising step.

    step, total: steps done, of all.
    sigma: noise level reached, 0 after the last step.
    reference_weight: w(sigma) that the step was made with.
    preview: decodes the clean estimate of every candidate, (B, 3, H, W) in [0, 1]; only then does it cost
        anything.
    stage: what the step is of: the picture, or afterwards its faces (core/face_detail.py).
    """

    step: int
    total: int
    sigma: float
    reference_weight: float
    preview: Callable[[], Tensor]
    stage: Literal["picture", "faces"] = "picture"


@dataclass(frozen=True, eq=False)
class Start:
    """Where a loop begins that does not begin at pure noise (SDEdit, arXiv 2108.01073).

    latents: (B, C, rows, columns), clean, one row for each seed.
    sigma: the noise level in (0, 1] that they are brought to; the steps are spread below it as below 1.
    """

    latents: Tensor
    sigma: float


OnStep = Callable[[StepReport], None]
Cancel = Callable[[], bool]


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device | str = "cpu") -> Tensor:
    """Gaussian noise (B, C, rows, columns) float32, each row from its own seed alone.

    Drawn on the CPU, so that a seed means the same picture on every device and in every batch; the same
    numbers that the stock pipelines draw from a CPU generator.
    """
    rows = [torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.cat(rows).to(device)


def identity_guided_velocity(
    backbone: Backbone, prefix: Any, x_t: Tensor, sigma: Tensor, reference_weight: float = 1.0, *, scale: float
) -> tuple[Tensor, Tensor | float]:
    """v(w), (B, C, rows, columns), and what identity guidance adds to it, (scale - 1) * (v(w) - v(0)), 0 where w is
    (core/injection.py)."""
    v_pred = backbone.velocity(prefix, x_t, sigma, reference_weight=reference_weight)
    if scale == 1 or reference_weight == 0:
        return v_pred, 0.0
    v_without = backbone.velocity(prefix, x_t, sigma, reference_weight=0.0)
    return v_pred, (scale - 1) * (v_pred - v_without)


@torch.no_grad()
def sample(
    backbone: Backbone,
    conditioning: Conditioning,
    *,
    seeds: Sequence[int],
    height: int,
    width: int,
    steps: int,
    schedule: IdentitySchedule | None = None,
    strength: float = 1.0,
    identity_guidance: float = 1.0,
    negative: Conditioning | None = None,
    guidance: float = 1.0,
    guidance_above: float = 0.0,
    start: Start | None = None,
    on_step: OnStep | None = None,
    cancel: Cancel | None = None,
) -> Tensor:
    """Clean latents (B, C, rows, columns) float32, one row for each seed.

    Args:
        conditioning: one encoded prompt (batch 1), shared by all candidates.
        height, width: of the picture, in pixels.
        schedule: lambda(sigma); None is `constant`, the stock model.
        strength: how much of the schedule's effect is wanted, in [0, 1]; see core/injection.py.
        identity_guidance: scale of guidance towards the references, core/injection.py; 1 is none, and costs nothing.
        negative: an encoded negative prompt; needed where `guidance` is not 1.
        guidance: scale of classifier-free guidance; 1 is none, and costs nothing.
        guidance_above: the noise level in [0, 1) down to which it acts. Places and colours are decided at the noisy
            end; below it, guidance towards the prompt works against the faces (arXiv 2404.07724).
        start: begin at noised latents instead of pure noise.
        on_step: told after every step; may raise to stop.
        cancel: asked before every step; true ends the loop.

    Raises:
        Cancelled: `cancel` said so.
        ValueError: an argument out of range.
        FloatingPointError: the latents are not finite.
    """
    # 1. Validate.
    if not seeds:
        raise ValueError("No seed was given; there is one picture for each seed.")
    if len(conditioning) != 1:
        raise ValueError(f"Candidates share one prompt, but the conditioning holds {len(conditioning)}.")
    if identity_guidance < 1:
        raise ValueError(f"identity_guidance is {identity_guidance!r}, but must be at least 1 (no guidance).")
    if guidance < 1:
        raise ValueError(f"guidance is {guidance!r}, but must be at least 1 (no guidance).")
    if guidance > 1 and negative is None:
        raise ValueError(f"guidance is {guidance!r}, which needs a negative prompt; an empty one will do.")
    shape = backbone.latent_shape(height, width)
    if start is not None and start.latents.shape != (len(seeds), *shape):
        raise ValueError(
            f"The latents to start from have the shape {tuple(start.latents.shape)}, but {len(seeds)} pictures of "
            f"{width} x {height} px have {(len(seeds), *shape)}."
        )
    schedule = schedule or IdentitySchedule.constant()

    # 2. What does not change from step to step.
    sigmas = backbone.sigmas(steps, height, width) * (1.0 if start is None else start.sigma)
    weights = [injection_weight(schedule.weight(sigma), strength) for sigma in sigmas[:-1].tolist()]
    prefix = backbone.prefill(conditioning)
    negative_prefix = backbone.prefill(negative) if guidance > 1 else None
    x_t = initial_noise(seeds, shape, backbone.device)
    if start is not None:
        x_t = add_noise(start.latents.float(), x_t, start.sigma)

    # 3. Denoise.
    for step, weight in enumerate(weights):
        if cancel is not None and cancel():
            raise Cancelled(f"Cancelled after step {step} of {steps}.")
        sigma, sigma_next = sigmas[step].item(), sigmas[step + 1].item()
        rows_sigma = torch.full((len(seeds),), sigma, device=x_t.device)
        v_pred, towards_references = identity_guided_velocity(
            backbone, prefix, x_t, rows_sigma, weight, scale=identity_guidance
        )
        if negative_prefix is not None and sigma > guidance_above:
            v_negative = backbone.velocity(negative_prefix, x_t, rows_sigma, reference_weight=weight)
            v_pred = backbone.guide(v_pred, v_negative, guidance)
        v_pred = v_pred + towards_references
        if on_step is not None:
            x0 = clean_estimate(x_t, v_pred, sigma)
            on_step(StepReport(step + 1, steps, sigma_next, weight, lambda x0=x0: backbone.decode(x0).clamp(0, 1)))
        x_t = euler_step(x_t, v_pred, sigma, sigma_next)

    # 4. Check: half precision can overflow, and a picture of NaN would be black without a word.
    if not bool(torch.isfinite(x_t).all()):
        raise FloatingPointError(
            "The latents are not finite: the weights are damaged or their precision is too low; load the "
            "bundle in "
            "bfloat16 or float32."
        )
    return x_t
