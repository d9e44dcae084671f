"""The recogniser, in ArcFace's form: aligned 112x112 faces -> 128 numbers, near for one person at every age.

Trained as a classifier of people with an additive angular margin (ArcFace, arXiv 1801.07698, eq. 3); the
classifier is thrown away, the layer before it is the embedding. All pictures of a person share one class, as
a child and as an adult.

A classifier of thousands of people with a few pictures each begins to learn late. Rendered people have what no
photograph has: the numbers their faces were made from, the same at every age. The embedding has to tell those as well,
and the classifier begins from them, which teaches from the first step.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from trainers.mini.faces.backgrounds import random_background
from trainers.mini.faces.checkpoint import Training, TrainingConfig
from trainers.mini.faces.portraits import PortraitSet
from trainers.mini.faces.scenes import aligned_crop

EMBEDDING_SIZE = 128
INPUT_SIZE = 112
BACKGROUNDS_IN_A_STEP = 16


class Recogniser(nn.Module):
    """A small residual network of plain 3x3 convolutions and ReLUs: on a CPU they train faster than depthwise ones
    and PReLUs of equal cost.

    (B, 3, 112, 112) RGB in [-1, 1] -> (B, 128), not normalised.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (32, 64, 128, 160),
        blocks: tuple[int, int, int] = (1, 2, 1),
        squeezed: int = 48,
    ):
        super().__init__()
        layers: list[nn.Module] = [downsample(3, widths[0])]
        for before, width, count in zip(widths, widths[1:], blocks, strict=False):
            layers += [downsample(before, width), *(Residual(width) for _ in range(count))]
        # Each place of the 7x7 map has weights of its own, in fewer channels.
        layers += [nn.Conv2d(widths[-1], squeezed, 1, bias=False), nn.BatchNorm2d(squeezed), nn.ReLU(), nn.Flatten()]
        layers += [nn.Linear(squeezed * 7 * 7, EMBEDDING_SIZE), nn.BatchNorm1d(EMBEDDING_SIZE)]
        self.layers = nn.Sequential(*layers)

    def forward(self, crops: Tensor) -> Tensor:
        return self.layers(crops)


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


def downsample(before: int, after: int) -> nn.Sequential:
    """Half the sides, `after` channels."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


class AngularMargin(nn.Module):
    """Logits of an additive angular margin: scale * cos(angle + margin) for the true person, scale *
    cos(angle) else.

    The centre of a person is a linear function of the person's traits, the same for all, plus an offset of its own:
    every picture of anybody moves all centres, so few pictures of each are enough.
    """

    def __init__(self, traits: Tensor, *, scale: float = 24.0):
        """traits: (people, T), NaN where unknown."""
        super().__init__()
        self.register_buffer("traits", traits.nan_to_num(0.0))
        self.of_traits = nn.Linear(traits.shape[1], EMBEDDING_SIZE, bias=False)
        self.offsets = nn.Parameter(torch.randn(len(traits), EMBEDDING_SIZE) * 0.05)
        self.scale = scale

    @property
    def centres(self) -> Tensor:
        """(people, 128), not normalised."""
        return self.of_traits(self.traits) + self.offsets

    def forward(self, embeddings: Tensor, person: Tensor, margin: float) -> Tensor:
        """embeddings (B, 128), person (B,) class indices, margin in radians -> (B, people) logits."""
        cosine = F.normalize(embeddings) @ F.normalize(self.centres).T
        true = cosine.gather(1, person[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        shifted = true * math.cos(margin) - (1 - true.square()).sqrt() * math.sin(margin)
        # Past pi - margin the shifted cosine would rise again; a straight line keeps pushing the right way.
        shifted = torch.where(true > math.cos(math.pi - margin), shifted, true - math.sin(margin) * margin)
        return self.scale * cosine.scatter(1, person[:, None], shifted)


class RecogniserHead(nn.Module):
    """What only training needs: the people, and the traits as a linear function of the embedding."""

    def __init__(self, traits: Tensor):
        """traits: (people, T), NaN where unknown."""
        super().__init__()
        self.people = AngularMargin(traits)
        self.traits = nn.Linear(EMBEDDING_SIZE, traits.shape[1])
        nn.init.zeros_(self.traits.weight)  # begin by knowing nothing, not by guessing


def trait_loss(predicted: Tensor, traits: Tensor) -> Tensor:
    """Mean squared error over the traits that are known (not NaN); 1 is what knowing nothing costs."""
    known = ~traits.isnan()
    return (predicted[known] - traits[known]).square().mean()


def to_input(pictures: list[np.ndarray], *, mean: float = 127.5, std: float = 127.5) -> Tensor:
    """B pictures (S, S, 3) uint8 RGB -> (B, 3, S, S) float32, channels last in memory."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return ((batch.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def train_recogniser(config: TrainingConfig, *, margin: float = 0.3, trait_weight: float = 6.0) -> Recogniser:
    """Train, or go on training, and return the averaged model.

    margin: radians, reached after three fifths of the run. trait_weight: of the trait loss against the classifier's.
    """
    portraits = PortraitSet.open(config.data, held_out=False)
    people, first, person_of = np.unique(portraits.identity, return_index=True, return_inverse=True)
    torch.manual_seed(config.seed)
    model = Recogniser().to(config.device, memory_format=torch.channels_last)
    head = RecogniserHead(torch.from_numpy(portraits.traits[first])).to(config.device)
    run = Training(config, model, head)
    cv2.setNumThreads(1)

    progress = tqdm(total=config.steps, initial=run.step, unit="step", desc=f"recogniser, {len(people)} people")
    model.train()
    while run.step < config.steps:
        # The pictures of a step depend on its number alone: a resumed run sees what it would have seen.
        rng = np.random.default_rng([config.seed, run.step])
        chosen = rng.integers(len(portraits), size=config.batch)
        # A background is dear and says nothing about a person: the crops of a step share a few.
        backgrounds = [random_background(rng, INPUT_SIZE, INPUT_SIZE) for _ in range(BACKGROUNDS_IN_A_STEP)]
        crops = [
            aligned_crop(rng, portraits[int(index)], background=backgrounds[number % BACKGROUNDS_IN_A_STEP])
            for number, index in enumerate(chosen)
        ]
        crops = to_input(crops).to(config.device)
        person = torch.from_numpy(person_of[chosen]).to(config.device)
        traits = torch.from_numpy(portraits.traits[chosen]).to(config.device)
        with config.autocast():
            embeddings = model(crops).float()
        logits = head.people(embeddings, person, margin * min(1.0, run.step / (0.6 * config.steps)))
        person_loss = F.cross_entropy(logits, person)
        unknown = trait_loss(head.traits(embeddings), traits)
        run.advance(person_loss + trait_weight * unknown)
        right = (logits.argmax(1) == person).float().mean()
        progress.set_postfix(people=f"{person_loss.item():.2f}", right=f"{right:.2f}", traits=f"{unknown.item():.3f}")
        progress.update()
    progress.close()
    model.load_state_dict(run.average)
    return model.eval()
