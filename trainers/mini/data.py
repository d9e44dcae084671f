"""What the three trainers read: rendered portraits and pictures with their captions, in shards.

A shard is `NAME.npz` (uint8 pictures, grouped by size) and `NAME.json` (the examples). Shards called
`held_out-*` show people who appear nowhere else. Shards are written whole or not at all, so trainers may
start while others are rendered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from core.pixels import to_tensor, to_uint8
from trainers.runs import replaced_when_complete

T = TypeVar("T")
Box = tuple[float, float, float, float]
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """References, an instruction, a prompt and the picture they lead to.

    task: "portrait" (one reference, the same face again), "group" or "child".
    people: identity numbers, in the order of the references; references: indices of the shard's portraits.
    picture: index of the picture in its size's stack, size: (height, width).
    boxes: face of each person in the picture, (left, top, right, bottom) in pixels.
    landmarks: the five of each face as in `core.faces.Face`, x and y in pixels.
    scene: the scene words of the instruction; prompt: the full caption.
    attributes: for each person what the caption says, such as {"hair": "long black hair", "glasses": "round
        glasses"}.
    """

    task: str
    people: tuple[int, ...]
    references: tuple[int, ...]
    picture: int
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    landmarks: tuple[Points, ...]
    scene: str
    prompt: str
    attributes: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Shard:
    """portraits (P, side, side, 3), portrait_people (P,), pictures {(H, W): (N, H, W, 3)}, all uint8 RGB."""

    portraits: np.ndarray
    portrait_people: np.ndarray
    portrait_boxes: np.ndarray
    pictures: dict[tuple[int, int], np.ndarray]
    examples: tuple[Example, ...]

    def save(self, path: Path) -> None:
        """Write `path`.npz and `path`.json; the json comes last and makes the shard visible."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {sized("pictures", size): stack for size, stack in self.pictures.items()}
        with replaced_when_complete(path.with_suffix(".npz")) as file:
            np.savez(
                file,
                portraits=self.portraits,
                portrait_people=self.portrait_people,
                portrait_boxes=self.portrait_boxes,
                **arrays,
            )
        with replaced_when_complete(path.with_suffix(".json")) as file:
            file.write(json.dumps([asdict(example) for example in self.examples]).encode())

    @classmethod
    def load(cls, path: Path, *, pictures: bool = True) -> Shard:
        """`pictures`: False leaves the pictures out, which are most of a shard."""
        with np.load(path.with_suffix(".npz")) as arrays:
            stacks = {
                tuple(int(side) for side in name.removeprefix("pictures_").split("x")): arrays[name]
                for name in arrays.files
                if pictures and name.startswith("pictures_")
            }
            portraits = [arrays[name] for name in ("portraits", "portrait_people", "portrait_boxes")]
        rows = json.loads(path.with_suffix(".json").read_text())
        return cls(*portraits, stacks, tuple(_example(row) for row in rows))


def _example(row: dict) -> Example:
    tuples = {key: tuple(row[key]) for key in ("people", "references", "size", "attributes")}
    boxes = tuple(tuple(box) for box in row["boxes"])
    landmarks = tuple(tuple(map(tuple, face)) for face in row["landmarks"])
    return Example(**{**row, **tuples, "boxes": boxes, "landmarks": landmarks})


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(path) as file:
        file.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def shard_paths(folder: Path, split: str) -> list[Path]:
    """Finished shards of "train" or "held_out", in order.

    Raises:
        FileNotFoundError: none is there yet.
    """
    paths = sorted(path.with_suffix("") for path in folder.glob(f"{split}-*.json"))
    if not paths:
        raise FileNotFoundError(
            f"no {split} shard in {folder}; render some with `python -m trainers.mini.render --out {folder}`"
        )
    return paths


def share_of(work: Sequence[T], part: str) -> Sequence[T]:
    """What "2/3", the second of three processes, does of `work`."""
    number, processes = (int(figures) for figures in part.split("/"))
    return work[number - 1 :: processes]


def face_mask(boxes: Sequence[Box], height: int, width: int) -> np.ndarray:
    """(H, W) uint8, 1 inside any of the boxes."""
    mask = np.zeros((height, width), np.uint8)
    for left, top, right, bottom in boxes:
        mask[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = 1
    return mask


def clothes_boxes(faces: Sequence[Box]) -> list[Box]:
    """Where clothes are seen below each face: from the neck down, wider than the face."""
    boxes = []
    for left, top, right, bottom in faces:
        middle, width, height = (left + right) / 2, right - left, bottom - top
        boxes.append((middle - 0.8 * width, bottom + 0.25 * height, middle + 0.8 * width, bottom + 1.5 * height))
    return boxes


def sized(name: str, size: tuple[int, int]) -> str:
    """What the pictures, latents or masks of one (height, width) are stored by, such as "pictures_160x256"."""
    return "{}_{}x{}".format(name, *size)


def draw_by_share(counts: Sequence[int], generator: torch.Generator) -> int:
    """Index of one of the stacks that hold so many pictures each, the likelier the more it holds."""
    return int(torch.multinomial(torch.tensor(counts, dtype=torch.float), 1, generator=generator))


class Pictures:
    """All portraits and pictures of a split with their face masks, by size; what the VAE learns from."""

    def __init__(self, stacks: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]) -> None:
        self._stacks = stacks

    @classmethod
    def load(cls, folder: Path, split: str, *, shards: int | None = None) -> Pictures:
        found: dict[tuple[int, int], tuple[list, list]] = {}
        for path in shard_paths(folder, split)[:shards]:
            shard = Shard.load(path)
            size = shard.portraits.shape[1:3]
            pictures, masks = found.setdefault(size, ([], []))
            pictures.extend(shard.portraits)
            masks.extend(face_mask([box], *size) for box in shard.portrait_boxes)
            for example in shard.examples:
                pictures, masks = found.setdefault(example.size, ([], []))
                pictures.append(shard.pictures[example.size][example.picture])
                masks.append(face_mask(example.boxes, *example.size))
        return cls({size: (np.stack(p), np.stack(m)) for size, (p, m) in sorted(found.items())})

    def __len__(self) -> int:
        return sum(len(pictures) for pictures, _ in self._stacks.values())

    def batch(self, count: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """Pictures (count, 3, H, W) in [0, 1] of one size, drawn by its share, half of them mirrored; faces
        (count, H, W)."""
        stacks = list(self._stacks.values())
        pictures, masks = stacks[draw_by_share([len(pictures) for pictures, _ in stacks], generator)]
        rows = torch.randint(len(pictures), (count,), generator=generator).numpy()
        mirrored = torch.rand(count, generator=generator) < 0.5
        batch, faces = to_tensor(pictures[rows]), torch.from_numpy(masks[rows]).float()
        batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        faces = torch.where(mirrored[:, None, None], faces.flip(-1), faces)
        return batch.to(device), faces.to(device)

    def all(self, *, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Picture (3, H, W) in [0, 1] and faces (H, W) of about `limit` pictures, evenly over the sizes."""
        share = min(1.0, limit / max(1, len(self)))
        for pictures, masks in self._stacks.values():
            for row in np.unique(np.linspace(0, len(pictures) - 1, max(1, round(share * len(pictures)))).astype(int)):
                yield to_tensor(pictures[row][None])[0], torch.from_numpy(masks[row]).float()


def save_grid(path: Path, rows: Sequence[Sequence[Tensor]], *, scale: int = 2) -> None:
    """A sheet of pictures (3, H, W) in [0, 1]; heights may differ between rows, widths within them."""
    strips = []
    for row in rows:
        height = max(picture.shape[1] for picture in row)
        padded = [
            np.pad(to_uint8(p[None])[0], ((0, height - p.shape[1]), (0, 2), (0, 0)), constant_values=255) for p in row
        ]
        strips.append(np.concatenate(padded, axis=1))
    width = max(strip.shape[1] for strip in strips)
    sheet = np.concatenate([np.pad(s, ((0, 2), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips])
    picture = Image.fromarray(sheet)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS).save(path)
