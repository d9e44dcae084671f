"""The mini bundle's cut-outs as portraits: people are rendered once, for the bundle and for the face pack.

The bundle's held-out people have held-out identity seeds, so they are held out here as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from trainers.mini.cutouts import Cutouts
from trainers.mini.faces.portraits import Portrait, shard_is_finished, write_shard
from trainers.mini.faces.render import HAIRLINE, PIXEL_MIDDLE, traits_of
from trainers.people.identity import sample_identity


def gather_portraits(cutouts: Path, out: Path) -> None:
    """Write a shard of portraits for each finished shard of `trainers.mini.render`; those already there are kept.

    Raises:
        FileNotFoundError: no finished shard in `cutouts`.
    """
    files = sorted(cutouts.glob("cutouts-*.json"))
    if not files:
        raise FileNotFoundError(
            f"no cut-outs in {cutouts}: make some with `python -m trainers.mini.render --out {cutouts}`"
        )
    for file in tqdm(files, desc="portraits", unit="shard"):
        number = int(file.stem.removeprefix("cutouts-"))
        if not shard_is_finished(out, number):
            write_shard(out, number, portraits_of(Cutouts.load(file)))


def portraits_of(cutouts: Cutouts) -> list[Portrait]:
    """All of one shard, cut to squares of the shorter side around the middle of the width, from the top."""
    height, width = cutouts.rgba.shape[1:3]
    side = min(height, width)
    left = (width - side) // 2
    portraits = []
    for rgba, look in zip(cutouts.rgba, cutouts.looks, strict=True):
        box = np.array(look.box, np.float32)
        box[1] -= HAIRLINE * (box[3] - box[1])
        shift = np.array([left, 0]) + PIXEL_MIDDLE
        portraits.append(
            Portrait(
                rgba=rgba[:side, left : left + side],
                landmarks=(np.array(look.landmarks) - shift).astype(np.float32),
                box=(box - np.tile(shift, 2)).astype(np.float32),
                identity=look.identity,
                age=look.age,
                female=look.female,
                traits=traits_of(sample_identity(look.identity)),
            )
        )
    return portraits
