"""What the two Qwen-Image families share: pictures to latents and back, noise levels, checks of prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions, calculate_shift
from PIL import Image
from torch import Tensor, nn

from core.pixels import to_tensor

CONTROL_TOKENS = (
    "<|vision_start|>",
    "<|image_pad|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<|im_start|>",
    "<|im_end|>",
)


def check_prompt(prompt: str) -> None:
    """Raise ValueError if a prompt contains control tokens of the VLM: they would shift its slots."""
    for token in CONTROL_TOKENS:
        if token in prompt:
            raise ValueError(f"The prompt contains {token}, which is reserved for the model; remove it.")


def check_picture(picture: np.ndarray, index: int) -> None:
    """Raise ValueError unless a reference is a non-empty uint8 (H, W, 3) array."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(
            f"Reference {index + 1} has the shape {picture.shape} and dtype {picture.dtype}, but must be RGB "
            "uint8 of shape (H, W, 3); core.images.read_picture makes it so."
        )


def fit_area(picture: np.ndarray, side: int) -> tuple[int, int]:
    """(height, width) of area side * side at the picture's aspect ratio, rounded to multiples of 32 px."""
    height, width = picture.shape[:2]
    new_width, new_height = calculate_dimensions(side * side, width / height)[:2]
    if not (new_width and new_height):
        raise ValueError(
            f"A reference of {width} x {height} px is too narrow for references of {side} px; crop it around the face."
        )
    return new_height, new_width


def picture_tensor(picture: Image.Image, device: torch.device) -> Tensor:
    """RGB part of a PIL picture as (1, 3, H, W) float32 in [0, 1]."""
    return to_tensor(np.array(picture)[None, ..., :3], device)


def vae_encode(vae: nn.Module, pictures: Tensor) -> Tensor:
    """Normalised mode (B, z, rows, columns) of the VAE's posterior for its input (B, channels, H, W) in [-1,
    1].
    """
    x0 = vae.encode(pictures.to(vae.dtype).unsqueeze(2)).latent_dist.mode()[:, :, 0]
    mean, std = _statistics(vae, x0)
    return (x0 - mean) / std


def vae_denormalise(vae: nn.Module, latents: Tensor) -> Tensor:
    """The VAE's own latents (B, z, 1, rows, columns) of normalised ones (B, z, rows, columns)."""
    x0 = latents.to(vae.dtype)
    mean, std = _statistics(vae, x0)
    return (x0 * std + mean).unsqueeze(2)


def _statistics(vae: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    view = (1, -1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).to(like).view(view)
    return mean, torch.tensor(vae.config.latents_std).to(like).view(view)


def sigma_grid(
    scheduler: FlowMatchEulerDiscreteScheduler,
    steps: int,
    tokens: int,
    sample_sigmas: Sequence[float] | None = None,
) -> Tensor:
    """The sigmas, (steps + 1,) float32 from 1 to 0, that the stock pipelines take for a target of `tokens`
    tokens.
    """
    config = scheduler.config
    least = 2 if config.shift_terminal else 1
    if steps < least:
        raise ValueError(f"The number of steps is {steps}, but this model's scheduler needs at least {least}.")
    grid = sample_sigmas if sample_sigmas and len(sample_sigmas) == steps else np.linspace(1.0, 1 / steps, steps)
    mu = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    own = FlowMatchEulerDiscreteScheduler.from_config(config)
    own.set_timesteps(sigmas=list(grid), mu=mu)
    return own.sigmas
