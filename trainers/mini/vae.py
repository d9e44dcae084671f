"""The VAE of the mini bundle: a PCA of 16 x 16 px patches to begin with, then a decoder that looks across
tokens.

The encoder stays the PCA: latents are linear, whitened, and final within a minute, so that the transformer
can be trained on them while the decoder still learns. The decoder starts as the PCA's inverse and is trained
on noisy latents, as a transformer will hand them over; its convolutions and its attention see the
neighbouring tokens, which removes the seams a patch-wise decoder shows. Once there is a transformer, the decoder
learns on from `--drafts`, latents with that transformer's own faults.

    python -m trainers.mini.vae --pictures DIR --out DIR [--config FILE] [--start VAE --drafts DIR]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLQwenImage21
from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import (
    QwenImage21AttentionBlock,
    QwenImage21ResidualBlock,
)
from torch import Tensor
from tqdm import tqdm

from core.backbones.qwen_family import vae_denormalise, vae_encode
from trainers.config import load_config
from trainers.mini.averaging import MovingAverage, fast_precision
from trainers.mini.data import Pictures, save_grid
from trainers.mini.drafts import Drafts
from trainers.mini.geometry import PATCH
from trainers.mini.models import LATENT_CHANNELS, VaeSize, build_vae
from trainers.runs import Run, learning_rate_factor, step_generator

STEADY = 60.0
"""Value of the constant channel that keeps the RMS norms near constant, and with them the first model
linear."""


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    size: VaeSize = field(default_factory=VaeSize)
    seed: int = 0
    steps: int = 1500
    batch: int = 8
    learning_rate: float = 5e-4
    warmup: int = 30
    decay_share: float = 0.5
    average_decay: float = 0.995
    gradient_clip: float = 1.0
    face_weight: float = 3.0
    """Extra weight of a pixel inside a face box."""
    edge_weight: float = 1.0
    """Weight of the loss on differences between neighbouring pixels, which is where seams show."""
    seam_weight: float = 0.0
    """Extra weight of those differences across the border of two tokens."""
    latent_noise: float = 0.15
    """Largest standard deviation of noise on normalised latents while training."""
    std_power: float = 0.5
    """Normalised latents keep this power of the PCA's standard deviations, so that what matters more is
    larger."""
    draft_share: float = 0.0
    """Share of the steps that decode drafts (trainers/mini/drafts.py) instead of noisy true latents."""
    checkpoint_minutes: float = 3.0
    picture_every: int = 250


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the VAE of the mini bundle.")
    parser.add_argument("--pictures", type=Path, required=True, help="folder written by trainers.mini.data")
    parser.add_argument("--out", type=Path, required=True, help="run folder; continued if it holds a checkpoint")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "vae.toml")
    parser.add_argument("--start", type=Path, help="VAE to go on from; its encoder, and so all latents, stay the same")
    parser.add_argument("--drafts", type=Path, help="folder written by trainers.mini.drafts, for `draft_share`")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = load_config(arguments.config, VaeConfig)
    if config.draft_share and arguments.drafts is None:
        parser.error("draft_share needs --drafts; make some with `python -m trainers.mini.drafts`")
    device = torch.device(arguments.device)
    train(config, arguments.pictures, arguments.out, device, arguments.start, arguments.drafts)


def train(
    config: VaeConfig,
    pictures_folder: Path,
    out: Path,
    device: torch.device,
    start_vae: Path | None = None,
    drafts_folder: Path | None = None,
) -> Path:
    """Train to `config.steps`; returns the folder of the finished VAE.

    `start_vae` replaces the PCA start; `drafts_folder` is read where `config.draft_share` is above 0.
    """
    run = Run(out, config, checkpoint_minutes=config.checkpoint_minutes)
    pictures = Pictures.load(pictures_folder, "train")
    held_out = Pictures.load(pictures_folder, "held_out")
    drafts = held_out_drafts = None
    if config.draft_share:
        drafts = Drafts.load(drafts_folder, pictures_folder, "train")
        held_out_drafts = Drafts.load(drafts_folder, pictures_folder, "held_out")

    # 1. start from the PCA, or from the last checkpoint
    state = run.load(device)
    torch.manual_seed(config.seed)
    vae = build_vae(config.size)
    if state is None and start_vae is not None:
        vae = AutoencoderKLQwenImage21.from_pretrained(start_vae)
        vae.save_pretrained(out / "pca")
    elif state is None:
        patches = sample_patches(pictures, config.face_weight, step_generator(config.seed, -1))
        _normalise_latents(vae, start_from_pca(vae, patches), config.std_power)
        vae.save_pretrained(out / "pca")
    else:
        vae = AutoencoderKLQwenImage21.from_pretrained(out / "pca")
    vae.to(device).requires_grad_(False)
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)
    average = MovingAverage(vae, config.average_decay)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    start = 0
    if state is not None:
        decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        start = state["step"]

    # 2. train the decoder
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="vae", unit="step")
    for step in bar:
        generator = step_generator(config.seed, step)
        rate = config.learning_rate * learning_rate_factor(
            step, steps=config.steps, warmup=config.warmup, decay_share=config.decay_share
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        drafted = drafts is not None and float(torch.rand(1, generator=generator)) < config.draft_share
        if drafted:
            latents, target, faces = drafts.batch(config.batch, generator, device)
        else:
            target, faces = pictures.batch(config.batch, generator, device)
            x0 = encode(vae, target)
            noise = torch.randn(x0.shape, generator=generator).to(device)
            strength = config.latent_noise * torch.rand(len(x0), 1, 1, 1, generator=generator).to(device)
            latents = x0 + strength * noise
        with fast_precision(device):
            decoded = decode(vae, latents).float()
        loss = reconstruction_loss(decoded, target, faces, config)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(decoder.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(vae, step)
        name = "draft_loss" if drafted else "loss"
        run.log(step + 1, **{name: loss.item()}, gradient_norm=norm.item(), learning_rate=rate)
        bar.set_postfix(loss=f"{loss.item():.4f}")

        # 3. show and keep
        done = step + 1 == config.steps
        if done or (step + 1) % config.picture_every == 0:
            averaged = average.model(vae)
            run.log(step + 1, **evaluate(averaged, held_out, out / f"held_out_{step + 1:06d}.png"))
            if drafts is not None:
                sheet = out / f"drafts_{step + 1:06d}.png"
                run.log(step + 1, **evaluate_drafts(averaged, held_out_drafts, sheet))
        if done or run.save_is_due():
            run.save(
                {
                    "step": step + 1,
                    "decoder": decoder.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.weights,
                }
            )
    folder = out / "vae"
    average.model(vae).save_pretrained(folder)
    return folder


# --- the start: an exact PCA autoencoder inside the class


def sample_patches(pictures: Pictures, face_weight: float, generator: torch.Generator, count: int = 60_000) -> Tensor:
    """(count, 4 * 256) patches in the VAE's channel order, alpha 1, drawn more often where faces are."""
    patches, weights = [], []
    for picture, faces in pictures.all(limit=4 * count // 48):
        unfolded = F.pixel_unshuffle(_with_alpha(picture[None]), PATCH)[0]
        # pixel_unshuffle orders (channel, row, column) within a patch; diffusers' patchify (channel, column,
        # row)
        unfolded = unfolded.unflatten(0, (4, PATCH, PATCH)).transpose(1, 2).flatten(0, 2)
        patches.append(unfolded.flatten(1).T)
        weights.append(1 + face_weight * F.avg_pool2d(faces[None, None], PATCH).flatten())
    drawn = torch.multinomial(torch.cat(weights), count, replacement=True, generator=generator)
    return torch.cat(patches)[drawn]


@torch.no_grad()
def start_from_pca(vae: AutoencoderKLQwenImage21, patches: Tensor) -> Tensor:
    """Make `vae` the PCA autoencoder of `patches` (N, 1024), with whitened latents; returns the (64,) deviations.

    silu(a) - silu(-a) = a: twin channels make the head linear, and a large constant channel keeps the RMS
    norm nearly constant. Residual branches begin at zero; the channels left over begin small and random, free
    to learn.
    """
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    deviation = values.flip(0).clamp_min(0).sqrt()[:LATENT_CHANNELS].clamp_min(1e-3)
    basis = vectors.flip(1).T[:LATENT_CHANNELS]

    for module in vae.modules():
        if isinstance(module, QwenImage21ResidualBlock):
            module.conv2.weight.zero_()
            module.conv2.bias.zero_()
        if isinstance(module, QwenImage21AttentionBlock):
            module.proj.weight.zero_()
            module.proj.bias.zero_()
    identity = torch.eye(LATENT_CHANNELS)
    whiten = basis / deviation[:, None]
    _start_linear(vae.encoder, whiten, -(whiten @ mean), identity, torch.zeros(LATENT_CHANNELS))
    vae.encoder.conv_out.bias[LATENT_CHANNELS:] = -10.0  # log variance: the posterior is its mode
    rgb = 3 * PATCH * PATCH
    _start_linear(vae.decoder, identity, torch.zeros(LATENT_CHANNELS), (basis.T * deviation)[:rgb], mean[:rgb])
    for conv in (vae.quant_conv, vae.post_quant_conv):
        conv.weight.zero_()
        conv.bias.zero_()
        conv.weight[:, :, 0, 0] = torch.eye(conv.weight.shape[0])
    return deviation


def _start_linear(coder, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor, bias_out: Tensor) -> None:
    first, norm, last, n = coder.conv_in, coder.norm_out, coder.conv_out, len(weight_in)
    first.weight.zero_()
    first.bias.zero_()
    first.weight[2 * n + 1 :].normal_(0, 0.5 * first.weight[0].numel() ** -0.5)
    first.weight[:n, :, 1, 1], first.bias[:n] = weight_in, bias_in
    first.weight[n : 2 * n, :, 1, 1], first.bias[n : 2 * n] = -weight_in, -bias_in
    first.bias[2 * n] = STEADY
    gain = norm.scale / STEADY
    norm.gamma.fill_(1.0)
    last.weight.mul_(0.02)
    last.weight[:, : 2 * n] = 0.0
    last.weight[: len(weight_out), :n, 1, 1] = weight_out / gain
    last.weight[: len(weight_out), n : 2 * n, 1, 1] = -weight_out / gain
    last.bias.zero_()
    last.bias[: len(bias_out)] = bias_out


def _normalise_latents(vae: AutoencoderKLQwenImage21, deviation: Tensor, power: float) -> None:
    scale = deviation**power / (deviation ** (2 * power)).mean().sqrt()
    vae.register_to_config(latents_std=(1 / scale).tolist())


# --- pictures (B, 3, H, W) in [0, 1] to normalised latents (B, 64, H / 16, W / 16) and back


def encode(vae: AutoencoderKLQwenImage21, pictures: Tensor) -> Tensor:
    return vae_encode(vae, _with_alpha(pictures))


def decode(vae: AutoencoderKLQwenImage21, x0: Tensor) -> Tensor:
    # the parts of `vae.decode` without its clamp, which would stop gradients at the edge of the range
    patches = vae.decoder(vae.post_quant_conv(vae_denormalise(vae, x0)))[:, :, 0]
    columns_first = patches.unflatten(1, (3, PATCH, PATCH))
    return (F.pixel_shuffle(columns_first.transpose(2, 3).flatten(1, 3), PATCH) + 1) / 2


def _with_alpha(pictures: Tensor) -> Tensor:
    return torch.cat([pictures, torch.ones_like(pictures[:, :1])], dim=1) * 2 - 1


# --- loss and measurement


def reconstruction_loss(decoded: Tensor, target: Tensor, faces: Tensor, config: VaeConfig) -> Tensor:
    """L1 + squared error + L1 of pixel differences, faces weighted. Pictures (B, 3, H, W), faces (B, H, W) in
    [0, 1]."""
    weight = 1 + config.face_weight * faces.unsqueeze(1)
    error = decoded - target
    pixels = (weight * (error.abs() + 2 * error.square())).mean()
    edges = torch.zeros((), device=error.device)
    for dim in (2, 3):
        jumps = error.diff(dim=dim).abs().mean(dim=[d for d in range(4) if d != dim])
        edges = edges + (jumps * (1 + config.seam_weight * _is_border(len(jumps)).to(jumps))).mean()
    return pixels + config.edge_weight * edges


def _is_border(jumps: int) -> Tensor:
    """(jumps,) bool: which steps from one pixel to the next cross from a token to its neighbour."""
    return torch.arange(1, jumps + 1) % PATCH == 0


def seam_ratio(pictures: Tensor, target: Tensor) -> float:
    """Mean jump of the error across token borders over its mean jump inside tokens; 1 means no visible
    grid."""
    jumps = (pictures - target).diff(dim=3).abs().mean(dim=(0, 1, 2))
    border = _is_border(len(jumps))
    return float(jumps[border].mean() / jumps[~border].mean())


def psnr(decoded: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Mean over pictures, in dB for a range of 1; `mask` (B, H, W) restricts it to pixels above one half."""
    error = (decoded.clamp(0, 1) - target).square().mean(1)
    keep = torch.ones_like(error) if mask is None else (mask > 0.5).float()
    per_picture = (error * keep).sum((1, 2)) / keep.sum((1, 2)).clamp_min(1)
    return float(-10 * per_picture[keep.sum((1, 2)) > 0].clamp_min(1e-10).log10().mean())


@torch.inference_mode()
def evaluate(vae: AutoencoderKLQwenImage21, held_out: Pictures, sheet: Path) -> dict[str, float]:
    """PSNR of all, PSNR of faces, and the seam ratio on noisy latents; a sheet of true above decoded
    pictures."""
    device = next(vae.parameters()).device
    target, faces = held_out.batch(24, step_generator(0, 0), device)
    x0 = encode(vae, target)
    decoded = decode(vae, x0)
    noise = torch.randn(x0.shape, generator=step_generator(0, 1)).to(device)
    noisy = decode(vae, x0 + 0.2 * noise)
    save_grid(sheet, [[*target[:6]], [*decoded[:6]], [*noisy[:6]]])
    return {
        "psnr": psnr(decoded, target),
        "face_psnr": psnr(decoded, target, faces),
        "noisy_psnr": psnr(noisy, target),
        "seam_ratio": seam_ratio(decoded, target),
        "noisy_seam_ratio": seam_ratio(noisy, target),
    }


@torch.inference_mode()
def evaluate_drafts(vae: AutoencoderKLQwenImage21, held_out: Drafts, sheet: Path) -> dict[str, float]:
    """The same of drafts."""
    latents, target, faces = held_out.batch(24, step_generator(0, 0), next(vae.parameters()).device)
    decoded = decode(vae, latents)
    save_grid(sheet, [[*target[:6]], [*decoded[:6]]])
    return {
        "draft_psnr": psnr(decoded, target),
        "draft_face_psnr": psnr(decoded, target, faces),
        "draft_seam_ratio": seam_ratio(decoded, target),
    }


if __name__ == "__main__":
    main()
