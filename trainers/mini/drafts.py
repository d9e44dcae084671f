"""Drafts: latents as the transformer hands them to the decoder, of pictures whose truth is known.

True latents are noised to a middle sigma, where the layout is still theirs, and denoised by the finished
transformer. What comes out shows the true picture with the transformer's own faults: tokens that do not fit their
neighbours, details that are lost. A decoder that learns to draw the true picture from them mends what it can.

    python -m trainers.mini.drafts --bundle BUNDLE --pictures DIR --out DIR

Drafts of finished shards are kept; started again, the command goes on behind them.
"""

from __future__ import annotations

import argparse
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.protocol import Conditioning
from core.flow import add_noise, euler_step
from trainers.mini.averaging import fast_precision
from trainers.mini.data import Shard, face_mask, shard_paths, to_tensor
from trainers.runs import step_generator

START_SIGMAS = (0.45, 0.6, 0.75)
"""Where drafts begin. Further down they keep the truth's details, further up they lose its layout."""
STEPS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw training pictures again with the transformer of a bundle.")
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the drafts, a file for each shard")
    parser.add_argument("--examples", type=int, default=4, help="pictures of each shard")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_bundle(arguments.bundle)
    arguments.out.mkdir(parents=True, exist_ok=True)
    shards = [path for split in ("held_out", "train") for path in shard_paths(arguments.pictures, split)]
    for number, path in enumerate(tqdm(shards, desc="drafts", unit="shard")):
        target = arguments.out / f"{path.name}.safetensors"
        if target.exists():
            continue
        partial = target.with_suffix(".partial")
        save_file(drafts_of(bundle, Shard.load(path), arguments.examples, step_generator(0, number)), partial)
        os.replace(partial, target)


@torch.inference_mode()
def drafts_of(bundle: Bundle, shard: Shard, examples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Drafts of some examples of a shard, one from each of START_SIGMAS: latents (N, C, rows, columns) half, and
    example (N,), the index of what they show. All of one size, the most frequent one."""
    backbone, sizes = bundle.backbone, [example.size for example in shard.examples]
    common = max(set(sizes), key=sizes.count)
    of_size = [index for index, size in enumerate(sizes) if size == common]
    drawn = torch.randperm(len(of_size), generator=generator)[:examples]
    chosen = [of_size[place] for place in drawn.tolist()]
    latents = []
    for example in (shard.examples[index] for index in chosen):
        conditioning = backbone.encode_prompt(example.prompt, [shard.portraits[i] for i in example.references])
        picture = to_tensor(shard.pictures[common][example.picture][None])
        x0 = backbone.encode(picture.to(backbone.device))
        latents.append(draw_again(bundle, conditioning, x0, START_SIGMAS, generator).half().cpu())
    return {"latents": torch.cat(latents), "example": torch.tensor(chosen).repeat_interleave(len(START_SIGMAS))}


def draw_again(
    bundle: Bundle, conditioning: Conditioning, x0: Tensor, start: tuple[float, ...], generator: torch.Generator
) -> Tensor:
    """One draft of `x0` (1, C, rows, columns) for each sigma it may start from, with the bundle's identity guidance."""
    backbone, scale = bundle.backbone, bundle.card.identity_guidance
    x0 = x0.expand(len(start), -1, -1, -1)
    sigmas = torch.tensor(start, device=x0.device) * torch.linspace(1, 0, STEPS + 1, device=x0.device)[:, None]
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    x_t = add_noise(x0, noise, sigmas[0])
    prefix = backbone.prefill(conditioning)
    with fast_precision(x0.device):
        for sigma, sigma_next in itertools.pairwise(sigmas):
            v_pred = backbone.velocity(prefix, x_t, sigma)
            if scale > 1:
                v_without = backbone.velocity(prefix, x_t, sigma, reference_weight=0.0)
                v_pred = v_pred + (scale - 1) * (v_pred - v_without)
            x_t = euler_step(x_t, v_pred, sigma, sigma_next)
    return x_t


@dataclass(frozen=True)
class Drafts:
    """latents (N, C, rows, columns) half, and of each the true picture (H, W, 3) uint8 and its faces (H, W)."""

    latents: Tensor
    pictures: np.ndarray
    faces: np.ndarray

    @classmethod
    def load(cls, folder: Path, pictures_folder: Path, split: str) -> Drafts:
        """Every draft of "train" or "held_out" with its truth.

        Raises:
            FileNotFoundError: the folder holds none.
        """
        paths = sorted(folder.glob(f"{split}-*.safetensors"))
        if not paths:
            raise FileNotFoundError(f"no {split} draft in {folder}; make some with `python -m trainers.mini.drafts`")
        latents, pictures, faces = [], [], []
        for path in paths:
            stored, shard = load_file(path), Shard.load(pictures_folder / path.stem)
            latents.append(stored["latents"])
            for example in (shard.examples[index] for index in stored["example"].tolist()):
                pictures.append(shard.pictures[example.size][example.picture])
                faces.append(face_mask(example.boxes, *example.size))
        return cls(torch.cat(latents), np.stack(pictures), np.stack(faces))

    def batch(self, count: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Drafts (count, C, rows, columns), their pictures (count, 3, H, W) in [0, 1] and faces (count, H, W)."""
        rows = torch.randint(len(self.latents), (count,), generator=generator)
        faces = torch.from_numpy(self.faces[rows.numpy()]).float()
        return (
            self.latents[rows].float().to(device),
            to_tensor(self.pictures[rows.numpy()]).to(device),
            faces.to(device),
        )


if __name__ == "__main__":
    main()
