"""The identity loss in training: on real faces, with pixels standing in for latents."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from core.face_encoder import FaceEncoder
from core.faces import FaceAnalyzer, default_pack
from core.identity import detect_landmarks
from core.images import read_picture
from trainers.held_out import PORTRAITS, portrait_files
from trainers.mini.identity_term import IdentityTerm
from trainers.runs import step_generator

ANALYZER = FaceAnalyzer(default_pack(), threads=1)


@pytest.fixture(scope="module")
def portraits():
    """(3, 3, 256, 256) in [0, 1]: three people."""
    paths = portrait_files(PORTRAITS)[:3]
    pictures = [np.asarray(Image.fromarray(read_picture(path)).resize((256, 256))) for path in paths]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def term():
    pixels = SimpleNamespace(device=torch.device("cpu"), decode=lambda latents: latents)
    return IdentityTerm(pixels, FaceEncoder.from_onnx(ANALYZER.recogniser_path), estimates=3)


def loss_of(term, estimates, targets, sigma, task="group"):
    landmarks = torch.stack(detect_landmarks(targets, ANALYZER))
    return term(task, estimates, targets, landmarks, torch.full((len(targets),), sigma), step_generator(0, 0))


def test_the_true_picture_costs_nothing_a_damaged_one_more_and_another_person_most(term, portraits):
    noisy = portraits + 0.1 * torch.randn(portraits.shape, generator=step_generator(0, 1))
    same, damaged, others = (
        loss_of(term, estimates, portraits, 0.5).item() for estimates in (portraits, noisy, portraits.roll(1, 0))
    )
    assert same == pytest.approx(0, abs=1e-5)
    assert 0.01 < damaged < others
    assert others > 0.3


def test_the_gradient_reaches_the_faces_and_nothing_else(term, portraits):
    estimates = (portraits.roll(1, 0)).clone().requires_grad_()
    loss_of(term, estimates, portraits, 0.5).backward()
    strength = estimates.grad.abs().sum(1)
    assert bool((strength.flatten(1).max(1).values > 0).all())
    assert bool((strength[:, :20] == 0).all())  # above the heads


def test_it_follows_the_schedule_of_the_task(term, portraits):
    others = portraits.roll(1, 0)
    full, half = (loss_of(term, others, portraits, sigma).item() for sigma in (0.8, 0.2))
    assert half == pytest.approx(full / 2, rel=1e-5)  # annealed below 0.4
    inside, outside = (loss_of(term, others, portraits, sigma, "child").item() for sigma in (0.5, 0.8))
    assert (inside, outside) == (pytest.approx(full, rel=1e-5), 0)


def test_everybody_in_a_group_is_compared(term, portraits):
    side_by_side = torch.cat([portraits[:2], portraits[1:]], dim=3)
    right_is_somebody_else = torch.cat([portraits[:2], portraits[[2, 0]]], dim=3)
    assert loss_of(term, side_by_side, side_by_side, 0.5).item() == pytest.approx(0, abs=1e-5)
    nobody = torch.cat([portraits[1:], portraits[[2, 0]]], dim=3)
    half, whole = (loss_of(term, wrong, side_by_side, 0.5).item() for wrong in (right_is_somebody_else, nobody))
    assert 0.1 < half < 0.75 * whole  # half of the faces are right
