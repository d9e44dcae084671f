"""Drafts: latents as the transformer hands them to the decoder, of pictures whose truth is known.

True latents are noised to a middle sigma, where the layout is still theirs, and denoised by the finished
transformer. What comes out shows the true picture with the transformer's own faults: tokens that do not fit their
neighbours, details that are lost. A decoder that learns to draw the true picture from them mends what it can.

    python -m trainers.mini.drafts --bundle BUNDLE --pictures DIR --out DIR [--part 1/2]

Drafts of finished shards are kept; started again, the command goes on behind them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.protocol import Conditioning
from core.flow import add_noise, euler_step
from core.pixels import to_tensor
from core.sampler import identity_guided_velocity
from trainers.mini.data import Shard, draw_by_share, face_mask, save_tensors, shard_paths, share_of, sized
from trainers.runs import step_generator

START_SIGMAS = (0.75, 0.6, 0.45)
"""Where drafts begin, falling. Further down they keep the truth's details, further up they lose its layout."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw training pictures again with the transformer of a bundle.")
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the drafts, a file for each shard")
    parser.add_argument("--examples", type=int, default=4, help="pictures of each shard")
    parser.add_argument("--part", default="1/1", help="share of this job, such as 1/2")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_bundle(arguments.bundle, precision="auto")
    shards = [path for split in ("held_out", "train") for path in shard_paths(arguments.pictures, split)]
    mine = share_of(list(enumerate(shards)), arguments.part)
    for number, path in tqdm(mine, desc="drafts", unit="shard"):
        target = arguments.out / f"{path.name}.safetensors"
        if target.exists():
            continue
        save_tensors(target, drafts_of(bundle, Shard.load(path), arguments.examples, step_generator(0, number)))


@torch.inference_mode()
def drafts_of(bundle: Bundle, shard: Shard, examples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Drafts of some examples of a shard, one from each of START_SIGMAS.

    Of every size "latents" (N, C, rows, columns) half and "example" (N,), the index of what they show; see `sized`.
    """
    backbone = bundle.backbone
    found: dict[str, list[Tensor]] = defaultdict(list)
    for index in torch.randperm(len(shard.examples), generator=generator)[:examples].tolist():
        example = shard.examples[index]
        conditioning = backbone.encode_prompt(example.prompt, [shard.portraits[i] for i in example.references])
        picture = to_tensor(shard.pictures[example.size][example.picture][None])
        x0, sigmas = backbone.encode(picture.to(backbone.device)), backbone.sigmas(bundle.card.steps, *example.size)
        drawn = draw_again(bundle, conditioning, x0, sigmas, generator)
        found[sized("latents", example.size)].append(drawn.half().cpu())
        found[sized("example", example.size)].append(torch.full((len(drawn),), index))
    return {name: torch.cat(parts) for name, parts in found.items()}


def draw_again(
    bundle: Bundle, conditioning: Conditioning, x0: Tensor, sigmas: Tensor, generator: torch.Generator
) -> Tensor:
    """A draft of `x0` (1, C, rows, columns) for each of START_SIGMAS, with the bundle's identity guidance.

    sigmas: (steps + 1,) falling to 0; a draft begins at the one nearest to its own.
    """
    backbone, scale = bundle.backbone, bundle.card.identity_guidance
    sigmas = sigmas.to(x0.device)
    begins = [int((sigmas[:-1] - sigma).abs().argmin()) for sigma in START_SIGMAS]
    noise = torch.randn((len(begins), *x0.shape[1:]), generator=generator).to(x0.device)
    prefix = backbone.prefill(conditioning)
    x_t = x0[:0]
    for step in range(begins[0], len(sigmas) - 1):
        sigma = sigmas[step]
        begun = noise[[row for row, begin in enumerate(begins) if begin == step]]
        x_t = torch.cat([x_t, add_noise(x0.expand_as(begun), begun, sigma)])
        v_pred, correction = identity_guided_velocity(backbone, prefix, x_t, sigma.expand(len(x_t)), scale=scale)
        x_t = euler_step(x_t, v_pred + correction, sigma, sigmas[step + 1])
    return x_t


class Drafts:
    """Every draft of a split by size: latents (N, C, rows, columns) half, and of each the true picture (H, W, 3) uint8
    and its faces (H, W)."""

    def __init__(self, stacks: dict[tuple[int, int], tuple[Tensor, np.ndarray, np.ndarray]]) -> None:
        self._stacks = stacks

    @classmethod
    def load(cls, folder: Path, pictures_folder: Path, split: str) -> Drafts:
        """Those of "train" or "held_out".

        Raises:
            FileNotFoundError: the folder holds none.
        """
        paths = sorted(folder.glob(f"{split}-*.safetensors"))
        if not paths:
            raise FileNotFoundError(f"no {split} draft in {folder}; make some with `python -m trainers.mini.drafts`")
        found: dict[tuple[int, int], tuple[list, list, list]] = {}
        for path in paths:
            stored, shard = load_file(path), Shard.load(pictures_folder / path.stem)
            for size, pictures in shard.pictures.items():
                if sized("latents", size) not in stored:
                    continue
                latents, truths, faces = found.setdefault(size, ([], [], []))
                latents.append(stored[sized("latents", size)])
                for example in (shard.examples[index] for index in stored[sized("example", size)].tolist()):
                    truths.append(pictures[example.picture])
                    faces.append(face_mask(example.boxes, *size))
        return cls({size: (torch.cat(z), np.stack(p), np.stack(m)) for size, (z, p, m) in sorted(found.items())})

    def __len__(self) -> int:
        return sum(len(latents) for latents, *_ in self._stacks.values())

    def batch(self, count: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Drafts (count, C, rows, columns) of one size, drawn by its share, their pictures (count, 3, H, W) in [0, 1]
        and faces (count, H, W)."""
        stacks = list(self._stacks.values())
        latents, pictures, faces = stacks[draw_by_share([len(latents) for latents, *_ in stacks], generator)]
        rows = torch.randint(len(latents), (count,), generator=generator)
        masks = torch.from_numpy(faces[rows.numpy()]).float()
        return latents[rows].float().to(device), to_tensor(pictures[rows.numpy()]).to(device), masks.to(device)


if __name__ == "__main__":
    main()
