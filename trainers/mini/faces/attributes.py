"""Sex and apparent age, in InsightFace's attribute form: 96x96 around the face box -> female, male, age /
100.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from trainers.mini.faces.backgrounds import random_background
from trainers.mini.faces.checkpoint import Training, TrainingConfig
from trainers.mini.faces.portraits import Portrait, PortraitSet
from trainers.mini.faces.recogniser import Residual, downsample, to_input
from trainers.mini.faces.scenes import degrade, occlude, paste

SIZE = 96
# InsightFace cuts a square this much larger than the longer side of the box, and scales by 1/128, not
# 1/127.5.
MARGIN = 1.5
MEAN, STD = 127.5, 128.0


class Attributes(nn.Module):
    """(B, 3, 96, 96) RGB in [-1, 1] -> (B, 3): logits of female and male, and age / 100."""

    def __init__(self, widths: tuple[int, int, int, int] = (24, 32, 64, 96)):
        super().__init__()
        layers: list[nn.Module] = [downsample(3, widths[0])]
        for before, width in itertools.pairwise(widths):
            layers += [downsample(before, width), Residual(width)]
        last = widths[-1]
        layers += [nn.Conv2d(last, last // 3, 1, bias=False), nn.BatchNorm2d(last // 3), nn.ReLU(), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(last // 3 * 6 * 6, 3)
        with torch.no_grad():
            self.output.bias.copy_(torch.tensor([0.0, 0.0, 0.3]))

    def forward(self, crops: Tensor) -> Tensor:
        return self.output(self.layers(crops))


def box_crop(rng: np.random.Generator, portrait: Portrait) -> np.ndarray:
    """(96, 96, 3) uint8: the face as InsightFace cuts it, with a detector's errors, on a random background,
    damaged.
    """
    box = portrait.box + rng.normal(0, 0.03, 4) * (portrait.box[3] - portrait.box[1])
    scale = SIZE / (max(box[2] - box[0], box[3] - box[1]) * MARGIN)
    angle = rng.normal(0, 0.15)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turn, SIZE / 2 - turn @ ((box[:2] + box[2:]) / 2)])
    crop = random_background(rng, SIZE, SIZE)
    paste(crop, portrait.rgba, matrix)
    if rng.random() < 0.15:
        occlude(rng, crop, np.array([20, 18, 76, 84]))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return degrade(rng, np.ascontiguousarray(crop))


def train_attributes(config: TrainingConfig) -> Attributes:
    """Train, or go on training, and return the averaged model."""
    portraits = PortraitSet.open(config.data, held_out=False)
    torch.manual_seed(config.seed)
    model = Attributes().to(config.device, memory_format=torch.channels_last)
    run = Training(config, model)
    cv2.setNumThreads(1)

    progress = tqdm(total=config.steps, initial=run.step, unit="step", desc="sex and age")
    model.train()
    while run.step < config.steps:
        rng = np.random.default_rng([config.seed, run.step])
        chosen = rng.integers(len(portraits), size=config.batch)
        crops = [box_crop(rng, portraits[int(index)]) for index in chosen]
        with config.autocast():
            output = model(to_input(crops, mean=MEAN, std=STD).to(config.device)).float()
        male = torch.from_numpy(~portraits.female[chosen]).long().to(config.device)
        age = torch.from_numpy(portraits.age[chosen]).to(config.device) / 100
        sex_loss = F.cross_entropy(output[:, :2], male, label_smoothing=0.05)
        age_error = (output[:, 2] - age).abs().mean()
        loss = sex_loss + 5 * age_error
        run.advance(loss)
        progress.set_postfix(sex=f"{sex_loss.item():.3f}", years=f"{100 * age_error.item():.1f}")
        progress.update()
    progress.close()
    model.load_state_dict(run.average)
    return model.eval()
