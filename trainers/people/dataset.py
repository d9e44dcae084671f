"""Data sets of rendered people in WebDataset shards.

    python -m trainers.people.dataset --identities 5000 --groups 10000 --size 256 --out DIR --workers 2 --seed 1

writes `identity-*.tar` (portrait sets: `KEY.portrait1.jpg` ... and `KEY.json`) and `group-*.tar` (`KEY.target.jpg`,
`KEY.reference1.jpg` ... and `KEY.json`, with captions). A finished shard has its final name; after an interruption
the same command makes the missing ones. The bytes depend on the options alone, not on the number of workers.
`--held-out` takes people that no training set contains. Needs the people mesh (see mesh.py).
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from trainers.people.examples import group_example, portrait_set
from trainers.people.mesh import PeopleMesh
from trainers.people.renderer import Renderer
from trainers.people.scene import HELD_OUT_IDENTITIES, derived_seed, identity_seed
from trainers.runs import replaced_when_complete

CONFIG_NAME = "dataset.json"
_FORMATS = {"jpg": {"quality": 95, "subsampling": 0}, "png": {}, "webp": {"quality": 95}}
_KINDS = ("identity", "group")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What decides the bytes of a data set.

    identities: portrait sets, and the people that groups are drawn from; groups: group examples; size,
    portrait_size: heights of group pictures and portraits in pixels; picture_format: jpg, png or webp;
    samples_per_shard: of one tar file.
    """

    identities: int
    groups: int
    size: int = 256
    portrait_size: int = 128
    seed: int = 0
    held_out: bool = False
    picture_format: str = "jpg"
    samples_per_shard: int = 50

    def __post_init__(self) -> None:
        for name in ("identities", "size", "portrait_size", "samples_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1.")
        if self.groups < 0:
            raise ValueError(f"groups is {self.groups}: it must not be negative.")
        if self.identities > HELD_OUT_IDENTITIES:
            raise ValueError(f"identities is {self.identities}: a split has {HELD_OUT_IDENTITIES}.")
        if self.picture_format not in _FORMATS:
            raise ValueError(f"picture_format is {self.picture_format!r}: it is one of {', '.join(_FORMATS)}.")

    @property
    def split(self) -> str:
        return "held-out" if self.held_out else "train"


@dataclass(frozen=True)
class ShardPlan:
    """The samples `first` to `last` (excluded) of a kind, in one tar file."""

    kind: str
    number: int
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number:05d}.tar"


@dataclass(frozen=True)
class Sample:
    """record: the JSON of the sample; pictures: by name ("portrait1", "target", "reference1"), (H, W, 3) uint8."""

    key: str
    record: dict[str, Any]
    pictures: dict[str, np.ndarray]


def plan_shards(config: DatasetConfig) -> list[ShardPlan]:
    """All shards of a data set, portrait sets first."""
    plans = []
    for kind, total in zip(_KINDS, (config.identities, config.groups), strict=True):
        starts = range(0, total, config.samples_per_shard)
        plans += [ShardPlan(kind, n, s, min(s + config.samples_per_shard, total)) for n, s in enumerate(starts)]
    return plans


def make_sample(renderer: Renderer, config: DatasetConfig, kind: str, index: int) -> dict[str, Any]:
    """A sample as WebDataset writes it: key, encoded pictures and JSON."""
    if kind == "identity":
        identity = identity_seed(config.split, index)
        example = portrait_set(renderer, config.seed, identity, config.portrait_size)
        photographs = {f"portrait{k}": p for k, p in enumerate(example.portraits, 1)}
    else:
        example = group_example(
            renderer,
            derived_seed(config.seed, index, int(config.held_out)),
            height=config.size,
            portrait_height=config.portrait_size,
            split=config.split,
            identities=config.identities,
        )
        photographs = {"target": example.target}
        photographs |= {f"reference{k}": p for k, p in enumerate(example.references, 1)}
    sample = {f"{name}.{config.picture_format}": _encode(p.picture, config) for name, p in photographs.items()}
    record = json.dumps(example.to_json(), sort_keys=True, separators=(",", ":"))
    return {"__key__": f"{kind}-{index:08d}", "json": record.encode(), **sample}


def write_shard(
    renderer: Renderer, config: DatasetConfig, plan: ShardPlan, folder: Path, on_sample: Callable[[], object]
) -> None:
    """Make one shard, which is there when it is complete."""
    with (
        replaced_when_complete(folder / plan.name) as file,
        # A fixed time of change: equal samples are equal bytes.
        webdataset.TarWriter(file, encoder=False, mtime=1, user="people", group="people") as tar,
    ):
        for index in range(plan.first, plan.last):
            tar.write(make_sample(renderer, config, plan.kind, index))
            on_sample()


def make_dataset(config: DatasetConfig, folder: Path, *, workers: int = 1, device: str = "cpu") -> None:
    """Make every shard that `folder` lacks. Raises ValueError when the folder holds a data set of other options."""
    folder.mkdir(parents=True, exist_ok=True)
    _check_config(config, folder)
    for leftover in folder.glob("*.partial"):
        leftover.unlink()
    plans = plan_shards(config)
    missing = [plan for plan in plans if not (folder / plan.name).exists()]
    total = sum(plan.last - plan.first for plan in plans)
    done = total - sum(plan.last - plan.first for plan in missing)
    with tqdm(total=total, initial=done, unit="sample", smoothing=0.05) as bar:
        if workers <= 1:
            renderer = _renderer(device)
            for plan in missing:
                write_shard(renderer, config, plan, folder, on_sample=bar.update)
        else:
            _make_in_processes(config, folder, missing, workers, device, bar)


def read_samples(folder: Path | str, kind: str) -> Iterator[Sample]:
    """The samples of a data set in order. kind: "identity" or "group". Raises FileNotFoundError when there is none."""
    shards = sorted(str(path) for path in Path(folder).glob(f"{kind}-*.tar"))
    if not shards:
        raise FileNotFoundError(
            f"No {kind} shards in {folder}. Make them with `python -m trainers.people.dataset --out {folder}`."
        )
    for row in webdataset.WebDataset(shards, shardshuffle=False):
        pictures = {
            name.rsplit(".", 1)[0]: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            for name, data in sorted(row.items())
            if name.rsplit(".", 1)[-1] in _FORMATS
        }
        yield Sample(row["__key__"], json.loads(row["json"]), pictures)


def _encode(picture: Tensor, config: DatasetConfig) -> bytes:
    file, name = io.BytesIO(), "jpeg" if config.picture_format == "jpg" else config.picture_format
    Image.fromarray(picture.cpu().numpy()).save(file, format=name, **_FORMATS[config.picture_format])
    return file.getvalue()


def _check_config(config: DatasetConfig, folder: Path) -> None:
    path = folder / CONFIG_NAME
    if not path.exists():
        path.write_text(json.dumps(asdict(config), indent=2) + "\n")
        return
    there = json.loads(path.read_text())
    different = [name for name, value in asdict(config).items() if there.get(name) != value]
    if different:
        changes = ", ".join(f"{name} {there.get(name)} there, {getattr(config, name)} asked" for name in different)
        raise ValueError(f"{folder} holds another data set ({changes}): choose another folder or the same options.")


def _renderer(device: str) -> Renderer:
    torch.set_num_threads(1)
    return Renderer(PeopleMesh(device=device))


def _make_in_processes(
    config: DatasetConfig, folder: Path, plans: list[ShardPlan], workers: int, device: str, bar: tqdm
) -> None:
    context = multiprocessing.get_context("spawn")
    running = {}
    for share in (plans[k::workers] for k in range(min(workers, len(plans)))):
        progress, report = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(config, folder, share, device, report), daemon=True)
        process.start()
        report.close()
        running[progress] = process
    while running:
        for progress in connection.wait(list(running)):
            try:
                bar.update(progress.recv())
            except EOFError:
                process = running.pop(progress)
                process.join()
                if process.exitcode:
                    raise RuntimeError(
                        f"A worker stopped with exit code {process.exitcode} (its message is above). "
                        "Finished shards are kept: the same command goes on."
                    ) from None


def _work(config: DatasetConfig, folder: Path, plans: list[ShardPlan], device: str, report: Connection) -> None:
    renderer = _renderer(device)
    for plan in plans:
        # Sending fails when the parent is gone, and so a worker does not outlive it.
        write_shard(renderer, config, plan, folder, on_sample=lambda: report.send(1))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a data set of rendered people, who do not exist.")
    parser.add_argument("--identities", type=int, required=True, help="number of people (portrait sets)")
    parser.add_argument("--groups", type=int, required=True, help="number of group pictures with their references")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards; finished ones are kept")
    parser.add_argument("--size", type=int, default=256, help="height of group pictures in pixels")
    parser.add_argument("--portrait-size", type=int, help="height of portraits in pixels (half of --size)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="people that no training set contains")
    parser.add_argument("--format", choices=list(_FORMATS), default="jpg", dest="picture_format")
    parser.add_argument("--samples-per-shard", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = vars(parser.parse_args())
    folder, workers, device = (options.pop(name) for name in ("out", "workers", "device"))
    options["portrait_size"] = options["portrait_size"] or max(1, options["size"] // 2)
    try:
        make_dataset(DatasetConfig(**options), folder, workers=workers, device=device)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
