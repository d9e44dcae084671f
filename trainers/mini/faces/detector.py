"""The detector, in SCRFD's form: any picture -> score, box and five landmarks at strides 8, 16 and 32.

SCRFD (arXiv 2105.04714) predicts, for two anchors at each cell, a score, the distances to the four sides of
the box and to the landmarks, in strides. InsightFace recognises the form by its nine outputs and decodes them
without a change.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from trainers.mini.faces.checkpoint import Training, TrainingConfig
from trainers.mini.faces.portraits import PortraitSet
from trainers.mini.faces.recogniser import to_input
from trainers.mini.faces.scenes import Scene, random_scene

STRIDES = (8, 16, 32)
ANCHORS = 2
MEAN, STD = 127.5, 128.0


class Detector(nn.Module):
    """(B, 3, H, W) RGB in [-1, 1], sides multiples of 32 -> scores (logits), boxes and landmarks of all
    cells.

    Rows are ordered as InsightFace decodes them: by stride, then row, column and anchor. The anchors of a
        cell at
    stride s stand for faces of about 2 s and 4 s pixels.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96, 128), neck: int = 64):
        super().__init__()
        stem, low, small, medium, large = widths
        self.stem = nn.Sequential(_conv(3, stem, 2), _conv(stem, low, 2))
        self.small = nn.Sequential(_conv(low, small, 2), _Separable(small), _Separable(small))
        self.medium = nn.Sequential(_conv(small, medium, 2), _Separable(medium), _Separable(medium))
        self.large = nn.Sequential(_conv(medium, large, 2), _Separable(large), _Separable(large))
        self.lateral = nn.ModuleList(nn.Conv2d(width, neck, 1) for width in (small, medium, large))
        self.smooth = nn.ModuleList(_conv(neck, neck, 1) for _ in STRIDES)
        self.bottom_up = nn.ModuleList(_conv(neck, neck, 2) for _ in STRIDES[1:])
        self.head = nn.ModuleList(_conv(neck, neck, 1) for _ in STRIDES)
        self.score = nn.ModuleList(nn.Conv2d(neck, ANCHORS, 1) for _ in STRIDES)
        self.box = nn.ModuleList(nn.Conv2d(neck, 4 * ANCHORS, 1) for _ in STRIDES)
        self.landmarks = nn.ModuleList(nn.Conv2d(neck, 10 * ANCHORS, 1) for _ in STRIDES)
        for layer in self.score:
            nn.init.constant_(layer.bias, -math.log(99))  # one cell in a hundred is a face, to begin with
        for layer in self.box:
            nn.init.constant_(layer.bias, 1.5)

    def forward(self, pictures: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Lists over strides: (B, N, 1) logits, (B, N, 4) and (B, N, 10) in strides."""
        small = self.small(self.stem(pictures))
        medium = self.medium(small)
        maps = [lateral(x) for lateral, x in zip(self.lateral, (small, medium, self.large(medium)), strict=True)]
        for level in (1, 0):
            maps[level] = maps[level] + F.interpolate(maps[level + 1], scale_factor=2, mode="nearest")
        maps = [smooth(x) for smooth, x in zip(self.smooth, maps, strict=True)]
        for level, layer in enumerate(self.bottom_up):
            maps[level + 1] = maps[level + 1] + layer(maps[level])
        features = [head(x) for head, x in zip(self.head, maps, strict=True)]
        return tuple(
            [_rows(layer(x), width) for layer, x in zip(layers, features, strict=True)]
            for layers, width in ((self.score, 1), (self.box, 4), (self.landmarks, 10))
        )


class _Separable(nn.Module):
    """Residual pair of a dense 3x3 convolution in half the channels: cheap, and few weights."""

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.layers = nn.Sequential(
            nn.Conv2d(width, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True), _conv(half, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _conv(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _rows(maps: Tensor, width: int) -> Tensor:
    """(B, anchors * width, H, W) -> (B, H * W * anchors, width)"""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, width)


def anchor_table(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """For all rows of all strides of a picture: (N, 2) anchor centre in pixels, (N,) stride, (N,) face size
    in pixels.
    """
    centres, strides, sizes = [], [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        cells = torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, ANCHORS, 2).reshape(-1, 2) * stride
        centres.append(cells.float())
        strides.append(torch.full((len(cells),), float(stride)))
        sizes.append(torch.tensor([2.0, 4.0]).repeat(len(cells) // ANCHORS) * stride)
    return torch.cat(centres), torch.cat(strides), torch.cat(sizes)


def assign(boxes: Tensor, centres: Tensor, strides: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Which anchors answer for which face.

    An anchor answers for a face when it stands for its size, within a factor of 1.5, and lies near its
    middle; for several faces, the smallest. Anchors somewhat further off count neither for nor against.

    Args:
        boxes: (F, 4). centres (N, 2), strides (N,), sizes (N,): `anchor_table`.

    Returns:
        (N,) index of the face, -1 for none; (N,) bool: neither face nor background.
    """
    none = torch.full((len(centres),), -1, dtype=torch.long)
    if not len(boxes):
        return none, torch.zeros(len(centres), dtype=torch.bool)
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1).sqrt()
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = (centres[:, None] - middle).abs().amax(-1)  # (N, F)
    known = side.clamp(sizes.min(), sizes.max())  # smaller and larger faces go to the last anchors
    octaves = (sizes[:, None] / known).log2().abs()
    radius = torch.maximum(0.75 * strides[:, None], 0.16 * side)
    fits = (octaves < 0.585) & (distance <= radius)
    near = (octaves < 1.3) & (distance <= 1.8 * radius)
    cost = torch.where(fits, side.expand_as(fits), torch.inf)
    least, face = cost.min(1)
    found = torch.isfinite(least)
    return torch.where(found, face, none), near.any(1) & ~found


def _in_any(points: Tensor, boxes: Tensor) -> Tensor:
    """(N, 2) points, (K, 4) boxes -> (N,) bool: in at least one of the boxes."""
    inside = (points[:, None] >= boxes[:, :2]) & (points[:, None] <= boxes[:, 2:])
    return inside.all(2).any(1)


def box_overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of (N, 4) boxes, pairwise by row: (N,)."""
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)


def detection_loss(
    scores: Tensor, boxes: Tensor, landmarks: Tensor, scenes: list[Scene]
) -> tuple[Tensor, Tensor, Tensor]:
    """Quality focal loss on scores (the target is the overlap reached), distance-IoU on boxes, smooth L1 on
    landmarks.

    Args:
        scores (B, N, 1) logits, boxes (B, N, 4) and landmarks (B, N, 10) in strides, all strides joined.

    Returns:
        The three terms, each a scalar, relative to the number of answering anchors.
    """
    height, width = scenes[0].picture.shape[:2]
    centres, strides, sizes = anchor_table(height, width)
    target_box, target_points, answers, ignored = [], [], [], []
    for scene in scenes:
        truth = torch.from_numpy(scene.box)
        face, neither = assign(truth, centres, strides, sizes)
        answers.append(face >= 0)
        ignored.append((neither | _in_any(centres, torch.from_numpy(scene.hidden))) & (face < 0))
        target_box.append(truth[face[face >= 0]])
        target_points.append(torch.from_numpy(scene.landmarks)[face[face >= 0]])
    device = scores.device
    answers, ignored = torch.stack(answers).to(device), torch.stack(ignored).to(device)
    centres, strides = (
        centres.to(device).expand(len(scenes), -1, -1),
        strides.to(device).expand(len(scenes), -1),
    )
    centre, stride = centres[answers], strides[answers][:, None]
    count = max(1, len(centre))

    target = torch.cat(target_box).to(device)
    distance = boxes[answers] * stride
    predicted = torch.cat([centre - distance[:, :2], centre + distance[:, 2:]], 1)
    overlap = box_overlap(predicted, target)
    gap = ((predicted[:, :2] + predicted[:, 2:]) - (target[:, :2] + target[:, 2:])).square().sum(1) / 4
    hull = torch.maximum(predicted[:, 2:], target[:, 2:]) - torch.minimum(predicted[:, :2], target[:, :2])
    box_loss = (1 - overlap + gap / hull.square().sum(1).clamp(min=1e-6)).sum() / count

    points = centre[:, None] + landmarks[answers].reshape(-1, 5, 2) * stride[..., None]
    side = (target[:, 2:] - target[:, :2]).clamp(min=1).prod(1).sqrt()[:, None, None]
    error = (points - torch.cat(target_points).to(device)) / side
    landmark_loss = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.02, reduction="sum") / (10 * count)

    quality = torch.zeros_like(scores[..., 0])
    quality[answers] = overlap.detach().clamp(min=0)
    logits = scores[..., 0]
    focal = (quality - logits.sigmoid()).square() * F.binary_cross_entropy_with_logits(
        logits, quality, reduction="none"
    )
    return focal[~ignored].sum() / count, box_loss, landmark_loss


def train_detector(config: TrainingConfig, *, sizes: tuple[int, ...] = (128, 160, 192)) -> Detector:
    """Train, or go on training, and return the averaged model. `sizes`: sides of the scenes, one drawn for
    each step.
    """
    portraits = PortraitSet.open(config.data, held_out=False)
    torch.manual_seed(config.seed)
    model = Detector().to(config.device, memory_format=torch.channels_last)
    run = Training(config, model)
    cv2.setNumThreads(1)

    progress = tqdm(total=config.steps, initial=run.step, unit="step", desc="detector")
    model.train()
    while run.step < config.steps:
        rng = np.random.default_rng([config.seed, run.step])
        size = int(rng.choice(sizes))
        scenes = [random_scene(rng, portraits, size) for _ in range(config.batch)]
        pictures = to_input([scene.picture for scene in scenes], mean=MEAN, std=STD).to(config.device)
        with config.autocast():
            output = model(pictures)
        scores, boxes, landmarks = (torch.cat(parts, 1).float() for parts in output)
        score_loss, box_loss, landmark_loss = detection_loss(scores, boxes, landmarks, scenes)
        run.advance(score_loss + 2 * box_loss + 10 * landmark_loss)
        progress.set_postfix(
            score=f"{score_loss.item():.3f}",
            box=f"{box_loss.item():.3f}",
            points=f"{landmark_loss.item():.4f}",
        )
        progress.update()
    progress.close()
    model.load_state_dict(run.average)
    return model.eval()
