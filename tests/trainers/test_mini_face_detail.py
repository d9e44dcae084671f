"""The transformer for faces: its pairs, its loss, and a training that goes on where it was stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.protocol import Conditioning
from core.face_detail import START_SIGMA, cut_face, double_reference
from core.pixels import to_tensor, to_uint8
from core.prompts import Task
from tests.trainers.mini_parts import SMALL
from tests.trainers.mini_shards import PICTURE
from trainers.mini import face_detail
from trainers.mini.assemble import assemble
from trainers.mini.data import Shard, shard_paths, sized
from trainers.mini.face_detail import FaceDetailConfig, path_loss, train
from trainers.mini.face_pairs import (
    FacePairs,
    draft_pairs,
    drafts_shown,
    round_trip_pairs,
    round_trips_shown,
)
from trainers.mini.models import build_transformer
from trainers.runs import step_generator

CONFIG = FaceDetailConfig(
    steps=4,
    batch=2,
    levels=2,
    size=SMALL,
    round_trips=3,
    warmup=1,
    evaluate_every=2,
    evaluated=4,
    checkpoint_minutes=0,
    identity_weight=0.5,
    identity_estimates=2,
)


@pytest.fixture(scope="module")
def bundle(parts, tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    build_transformer(SMALL, 64).save_pretrained(folder / "transformer")
    assemble(parts / "vae", parts / "vlm", folder / "transformer", folder / "bundle")
    return load_bundle(folder / "bundle")


@pytest.fixture(scope="module")
def drafts(bundle, parts, tmp_path_factory) -> Path:
    """Faded truths, of every second example."""
    folder = tmp_path_factory.mktemp("drafts")
    for path in (*shard_paths(parts / "shards", "train"), *shard_paths(parts / "shards", "held_out")):
        shown = torch.arange(0, 12, 2)
        true = bundle.backbone.encode(to_tensor(Shard.load(path).pictures[PICTURE][shown.numpy()]))
        stored = {sized("latents", PICTURE): (0.6 * true).half().contiguous(), sized("example", PICTURE): shown}
        save_file(stored, folder / f"{path.name}.safetensors")
    return folder


def test_drafts_and_round_trips_stand_for_the_pictures_they_show(bundle, parts, drafts):
    path = shard_paths(parts / "shards", "train")[0]
    shard = Shard.load(path)
    shown = list(drafts_shown(bundle.backbone, shard, load_file(drafts / f"{path.name}.safetensors")))
    assert [example.picture for _, example in shown] == [0, 2, 4, 6, 8, 10]
    tripped = list(round_trips_shown(bundle.backbone, shard, 3))
    assert [example.picture for _, example in tripped] == [0, 1, 2]
    for picture, example in tripped:
        true = shard.pictures[PICTURE][example.picture]
        assert np.abs(picture.astype(int) - true).mean() < np.abs(true - true.mean((0, 1))).mean() / 2
    with torch.no_grad():
        latents = bundle.backbone.encode(to_tensor(shard.pictures[PICTURE][2:3]))
        faded = to_uint8(bundle.backbone.decode(0.6 * latents))[0]
    assert np.abs(shown[1][0].astype(int) - faded).mean() < 2  # half precision in between


def test_every_face_has_its_truth_and_its_portrait(bundle, parts, drafts, tmp_path):
    shards = parts / "shards"
    drawn = draft_pairs(tmp_path, bundle.backbone, shards, drafts, "train")
    tripped = round_trip_pairs(tmp_path, bundle.backbone, shards, "train", 3)
    assert (len(drawn), len(tripped)) == (12, 6)
    shard = Shard.load(shard_paths(shards, "train")[0])
    for row, (example, person) in enumerate((e, p) for e in shard.examples[::2] for p in (0, 1)):
        portrait = double_reference(shard.portraits[example.references[person]])
        true = cut_face(shard.pictures[PICTURE][example.picture], np.array(example.landmarks[person]))
        expected = [bundle.backbone.encode(to_tensor(p[None]))[0] for p in (portrait, true)]
        assert torch.allclose(drawn.references[drawn.reference_of[row]].float(), expected[0], atol=0.01)
        likeness = torch.cosine_similarity(drawn.true.float().flatten(1), expected[1].flatten()[None])
        assert likeness[row] > 0.8  # landmarks are as inexact as a detector's
    asked = [example.task for example in shard.examples[::2] for _ in (0, 1)]
    assert drawn.child.tolist() == [task == "child" for task in asked]
    assert 0 < drawn.child.sum() < 12
    # from the cache
    assert torch.equal(draft_pairs(tmp_path, None, shards, drafts, "train").drawn, drawn.drawn)
    assert torch.equal(round_trip_pairs(tmp_path, None, shards, "train", 3).drawn, tripped.drawn)
    with pytest.raises(FileNotFoundError, match=r"python -m trainers\.mini\.drafts"):
        draft_pairs(tmp_path, bundle.backbone, shards, tmp_path / "none", "train")


def random_pairs(**changes) -> FacePairs:
    parts = {
        name: torch.randn(6, 4, 12, 12, generator=step_generator(1, n)) for n, name in enumerate(("drawn", "true"))
    }
    whose = torch.arange(6) % 2
    pairs = FacePairs(**parts, references=torch.zeros(2, 4, 12, 12), reference_of=whose, child=whose == 1)
    return replace(pairs, **changes)


def test_the_faces_of_a_task_keep_their_portraits():
    pairs = random_pairs()
    children, adults = pairs.of(Task.CHILD), pairs.of(Task.GROUP)
    assert torch.equal(children.drawn, pairs.drawn[1::2])
    assert torch.equal(adults.true, pairs.true[::2])
    assert children.reference_of.tolist() == [1, 1, 1]
    assert children.references is pairs.references
    joined = FacePairs.join([adults, children])
    assert joined.reference_of.tolist() == [0, 0, 0, 3, 3, 3]
    assert torch.equal(joined.of(Task.CHILD).drawn, children.drawn)


PROMPT = Conditioning(embeddings=torch.zeros(1, 1, 1), picture_slots=torch.ones(1, dtype=torch.bool))


def loss_of(velocity, pairs: FacePairs, **changes) -> tuple[float, list[float]]:
    backbone = SimpleNamespace(device=torch.device("cpu"), prefill=lambda conditioning: conditioning, velocity=velocity)
    config = replace(CONFIG, levels=3, **changes)
    path = path_loss(backbone, PROMPT, pairs, torch.tensor([4, 1]), config, step_generator(0, 0), 1.0)
    return path.loss.item(), path.left.tolist()


def test_the_velocity_that_leads_to_the_truth_has_no_loss():
    pairs = random_pairs()
    true = pairs.true[[4, 1]].repeat_interleave(3, 0)

    def velocity(prefix, x_t, sigma, *, reference_weight):
        assert sigma.max() <= START_SIGMA
        return (x_t - true) / sigma[:, None, None, None]

    loss, left = loss_of(velocity, pairs)
    assert loss < 1e-8
    assert max(left) < 1e-8


def test_where_the_draft_is_the_truth_it_is_flow_matching():
    pairs = random_pairs()
    pairs = replace(pairs, drawn=pairs.true)
    noised = []

    def still(prefix, x_t, sigma, *, reference_weight):
        noised.append((x_t, sigma))
        return torch.zeros_like(x_t)

    loss, _ = loss_of(still, pairs, middle_weight=0.0)
    (x_t, sigma), true = noised[0], pairs.true[[4, 1]].repeat_interleave(3, 0)
    noise = (x_t - (1 - sigma)[:, None, None, None] * true) / sigma[:, None, None, None]
    assert loss == pytest.approx((noise - true).square().mean().item(), rel=1e-4)
    assert noise.std() == pytest.approx(1, abs=0.05)


def test_a_training_that_was_stopped_ends_like_one_that_was_not(bundle, parts, drafts, tmp_path, monkeypatch):
    def run(out: Path) -> Path:
        return train(CONFIG, bundle, pictures=parts / "shards", drafts=drafts, out=out)

    whole = run(tmp_path / "whole")
    evaluate = face_detail.draw_held_out

    def stop(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(face_detail, "draw_held_out", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped")
    monkeypatch.setattr(face_detail, "draw_held_out", evaluate)
    stopped = run(tmp_path / "stopped")
    first, second = (load_file(folder / "diffusion_pytorch_model.safetensors") for folder in (whole, stopped))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)

    lines = [json.loads(line) for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "identity" in line] == [1, 2, 3, 4]
    assert {"gap_group_0", "gap_child_1"} <= {key for line in lines for key in line}
    assert (tmp_path / "stopped" / "held_out_000004.png").exists()

    assemble(parts / "vae", parts / "vlm", bundle.folder.parent / "transformer", tmp_path / "with", face_detail=whole)
    assert bundle.face_detail is None
    loaded = load_bundle(tmp_path / "with")
    assert loaded.face_detail is not None
    assert loaded.revision != bundle.revision
